"""LPQLD's quantised label stores: the k largest logits of each image, in batches that are no epochs.

Layout: `batch_K.tar`, a torch file [coords, flip, mix_index, mix_lam, mix_bbox, logits (B, k), classes (B, k)] in small
number types, and `sampler_indices_batch.json`, {"K": [image, ...]}. Batches that have no image in common become a view.

Source: Xiao and He, LPQLD's released code; "MR": the softmax is over the k logits alone, other classes have probability 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

ORDER: Final = "sampler_indices_batch.json"


def views_of(root: Path) -> tuple[tuple[tuple[Path, ...], ...], dict[str, list[int]]]:
    """The batches of a store, those without a common image together, and the images of each such view in their order.

    Raises:
        ValueError: If the list of images is missing or damaged, or lacks a batch.
    """
    listed = read_order(root / ORDER)
    files = sorted(root.glob("batch_*.tar"), key=lambda path: int(re.findall(r"\d+", path.stem)[-1]))
    views: list[list[Path]] = []
    orders: list[list[int]] = []
    for file in files:
        key = re.findall(r"\d+", file.stem)[-1]
        if key not in listed:
            raise ValueError(f"{root / ORDER}: batch {key} is missing.")
        if not orders or set(orders[-1]) & set(listed[key]):
            views.append([])
            orders.append([])
        views[-1].append(file)
        orders[-1] += listed[key]
    return tuple(map(tuple, views)), {str(number): order for number, order in enumerate(orders)}


def read_order(path: Path) -> dict[str, list[int]]:
    """A list of image indices by epoch or batch.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as err:
        raise ValueError(f"{path}: no such file; it says which image each label belongs to.") from err
    except ValueError as err:
        raise ValueError(f"{path}: not readable as JSON ({err}).") from err
    orders = content.values() if isinstance(content, Mapping) else [None]
    if not all(isinstance(order, list) and all(isinstance(i, int) and i >= 0 for i in order) for order in orders):
        raise ValueError(f"{path}: must be a list of image indices by epoch or batch.")
    return dict(content)


def as_full_batch(batch: Sequence[Any], file: Path) -> list[Any]:
    """A quantised batch with the types of an unquantised one; its logits stay (B, k).

    Raises:
        ValueError: If it is not one.
    """
    if len(batch) != 7:
        raise ValueError(
            f"{file}: LPQLD's labels under random augmentation, which is not stored in full; not supported."
        )
    coords, flip, partners, share, box, logits, classes = batch
    if not _is_table(logits) or not _is_table(classes) or logits.shape != classes.shape or classes.is_floating_point():
        raise ValueError(f"{file}: entries 5 and 6 must be the largest logits and their classes, (B, k) each.")
    partners = partners.long() if isinstance(partners, Tensor) else partners
    share = float(share) if isinstance(share, Tensor) and share.numel() == 1 else share
    box = None if box is None else [int(number) for number in box]
    return [coords, flip, partners, share, box, logits, classes.long()]


def spread_over_classes(largest: Tensor, index: Tensor, classes: int, file: Path) -> Tensor:
    """Logits (B, C) from the k largest: others have probability 0; shares, if that is what was stored, become logarithms.

    Raises:
        ValueError: If there is a class beyond C.
    """
    if int(index.min()) < 0 or int(index.max()) >= classes:
        raise ValueError(f"{file}: class {int(index.max())} of labels, there are {classes} classes.")
    rows = largest.float()
    sums = rows.sum(dim=1)
    if bool((rows >= 0).all() and (sums <= 1.02).all()):  # MS: after the softmax
        rows = rows.clamp_min(1e-8).log()
    full = torch.full((len(rows), classes), -math.inf)
    return full.scatter(1, index, rows.log_softmax(dim=1))


def _is_table(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2
