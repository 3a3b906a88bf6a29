"""Distilled sets."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.seeding import make_generator
from trainables.splits import Split


def choose_random(train: Split, *, ipc: int, classes: int, seed: int) -> Split:
    """`ipc` real training images per class, class by class, without replacement.

    Subsets are nested: the images for a smaller `ipc` at the same seed are among those for a larger one.

    Raises:
        ValueError: If a class has fewer than `ipc` training images.

    Source: the baseline of Qin et al. 2024, arXiv:2406.10485, that soft labels make competitive.
    """
    generator = make_generator("random distilled set", seed)
    chosen = [_choose_class(train.labels, label, ipc, generator) for label in range(classes)]
    index = torch.cat(chosen)
    return Split(train.batch(index), train.labels[index])


def _choose_class(labels: Tensor, label: int, ipc: int, generator: torch.Generator) -> Tensor:
    members = (labels == label).nonzero().flatten()
    if len(members) < ipc:
        raise ValueError(f"`ipc` must be at most {len(members)} (training images of class {label}), got {ipc}.")
    return members[torch.randperm(len(members), generator=generator)[:ipc]]
