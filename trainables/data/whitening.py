"""ZCA whitening, as the trajectory-matching repositories train and evaluate under it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.arrays import is_intact, map_entry, new_entry
from trainables.data.real import RealData
from trainables.splits import as_tensor

EPSILON: Final = 0.1
CHUNK: Final = 2_000


def whitened(real: RealData, entry: Path) -> RealData:
    """Real data whose images are whitened batch by batch, by a transform fitted on the training split.

    Args:
        real: With uint8 images.
        entry: Cache entry of the transform, (D + 1, D) float32 with D = channels H W; fitted now unless it is there.

    Raises:
        ValueError: If the images are not bytes or there is no training split.
    """
    if real.train.images.dtype != torch.uint8 or not len(real.train):
        raise ValueError("data.distilled.pixel_space: zca needs real images as bytes, with a train split to fit it on.")
    if not is_intact(entry):
        with new_entry(entry) as folder:
            np.save(folder / "whitening.npy", fit_whitening(real.train.images).numpy())
    transform = as_tensor(map_entry(entry)["whitening"])
    train, validation, test = (
        replace(split, whitening=transform) for split in (real.train, real.validation, real.test)
    )
    zeros = torch.zeros(real.train.images.shape[1])
    ones = zeros + 1
    return RealData(train, validation, test, real.names, real.flips, background=zeros, mean=zeros, std=ones)


def fit_whitening(images: Tensor) -> Tensor:
    """The transform (D + 1, D) that whitens bytes as (x / 255, 1) @ W.

    y = (x - mu) U diag(1 / sqrt(S + 0.1)) U^T, with U S U^T the covariance of the flattened images over n - 1

    Args:
        images: (n, channels, H, W), uint8.

    Source: kornia.enhance.ZCAWhitening with eps 0.1, which MTT, TESLA and DATM fit on the training set.
    """
    flat = images.flatten(1)
    n, d = flat.shape
    mean = torch.stack([part.float().sum(dim=0, dtype=torch.float64) for part in flat.split(CHUNK)]).sum(0) / 255 / n
    covariance = torch.zeros(d, d, dtype=torch.float64)
    for part in flat.split(CHUNK):
        centred = part.float() / 255 - mean.float()
        covariance += (centred.T @ centred).double()
    values, vectors = torch.linalg.eigh(covariance / (n - 1))
    transform = (vectors / (values.clamp_min(0) + EPSILON).sqrt()) @ vectors.T
    return torch.cat([transform, -(mean @ transform)[None]]).float()
