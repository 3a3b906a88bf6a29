"""The label bank: views of the distilled set and what is known of them, made once, read by all trials."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.augment import COLUMNS, Augmentation, mix_labels, mixes, render
from trainables.evaluate import predict_logits
from trainables.seeding import make_generator
from trainables.splits import Split

#: Views smaller than this are kept as pixels; larger ones are made from their parameters in each epoch.
RENDER_BELOW_BYTES: Final = 256 * 2**20
RENDER_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class LabelBank:
    """Views and their labels.

    Where a view has batches of its own (`batch` of its rows), an epoch takes these in a random order, so that the images of
    a step share the operation that was drawn for them; else an epoch takes all images in a random order.

    Attributes:
        distilled: N images and hard labels, ready or as bytes.
        parameters: (V, N, len(COLUMNS)), a row per view and image; see `trainables.augment`.
        logits: (V, N, C), or (1, N, C) where labels do not depend on the view, or (V, 0, C) where the teacher says
            them inside the trial.
        background: (channels,) value of a blank pixel; zeros are the mean colour.
        pixels: (V, N, channels, H, W): the views, ready, where they are small enough to keep.
        present: (V, N): which images a view has; None: all.
        kept: (V, N, k): the classes that `logits` (V, N, k) are of; None: all C.
        n_classes: C, where only some classes have logits.
    """

    distilled: Split
    parameters: Tensor
    logits: Tensor
    background: Tensor
    pixels: Tensor | None = None
    present: Tensor | None = None
    kept: Tensor | None = None
    n_classes: int | None = None

    @property
    def views(self) -> int:
        """V."""
        return len(self.parameters)

    @property
    def classes(self) -> int:
        """C."""
        return self.n_classes or self.logits.shape[-1]

    def order(self, view: int, generator: torch.Generator) -> Tensor:
        """A random order of a view's images, on the device of the bank; batches of the view stay together."""
        order = torch.randperm(len(self.distilled), generator=generator).to(self.parameters.device)
        batch = self.parameters[view][:, COLUMNS.index("batch")].long()
        if batch[0] >= 0:
            order = _by_batch(order, batch)
        return order if self.present is None else order[self.present[view][order]]

    def images(self, view: int, order: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Batches of a view in an order of its images, ready for a network, channels last."""
        if self.pixels is not None:
            ordered = self.pixels[view][order].contiguous(memory_format=torch.channels_last)
            yield from ordered.split(batch_size)
            return
        for index in order.split(batch_size):
            batch = render(self.distilled, self.parameters[view], index, self.background)
            yield batch.contiguous(memory_format=torch.channels_last)

    def teacher_logits(self, view: int, order: Tensor) -> Tensor:
        """(n, C) of a view, float32, in an order of its images; -inf for a class that was left out."""
        place = view % len(self.logits)
        logits = self.logits[place][order].float()
        if self.kept is None:
            return logits
        left_out = logits.new_full((len(logits), self.classes), -math.inf)
        return left_out.scatter(1, self.kept[place][order].long(), logits)

    def hard(self, view: int, order: Tensor) -> Tensor:
        """Labels of a view in an order of its images: (n,), or (n, C) where images are mixed."""
        rows, labels = self.parameters[view], self.distilled.labels
        if not mixes(rows):
            return labels[order]
        return mix_labels(F.one_hot(labels, self.classes).float(), rows)[order]


def _by_batch(order: Tensor, batch: Tensor) -> Tensor:
    """An order in which each batch follows in one piece, in the order of their first images; a smaller last one comes last."""
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    sizes = batch.bincount()
    first = torch.full_like(sizes, len(order)).scatter_reduce_(0, batch, place, "amin")
    if sizes[-1] < sizes[0]:
        first[-1] = len(order)
    return order[torch.argsort(first[batch[order]], stable=True)]


def draw_views(  # noqa: PLR0913 (what it is drawn for, by name)
    augmentation: Augmentation, n: int, size: int, *, views: int, seed: int, replicate: int | None = None
) -> Tensor:
    """Parameters of the views of a set; view v is the same however many there are.

    Args:
        augmentation: What is drawn.
        n: Images.
        size: Their side, pixels.
        views: V.
        seed: Of the draw.
        replicate: Whose views they are; None: all replicates'.

    Returns:
        (V, n, len(COLUMNS)).
    """
    stream = f"view {seed}" if replicate is None else f"view {seed} of replicate {replicate}"
    return torch.stack([augmentation.draw(n, size, make_generator(stream, v)) for v in range(views)])


def label_view(distilled: Split, view: Tensor, background: Tensor, teacher: nn.Module) -> Tensor:
    """A teacher's logits (N, C), float32, of all images of a view.

    Args:
        distilled: N images.
        view: (N, len(COLUMNS)).
        background: (channels,) value of a blank pixel.
        teacher: Network, on any device.
    """
    parts = torch.arange(len(distilled)).split(RENDER_BATCH)
    return torch.cat([predict_logits(teacher, render(distilled, view, part, background)) for part in parts])


def with_pixels(bank: LabelBank, *, below_bytes: int = RENDER_BELOW_BYTES) -> LabelBank:
    """The bank with its views kept as pixels, if they are small enough."""
    if 4 * bank.views * bank.distilled.images.numel() > below_bytes:
        return bank
    everything = torch.arange(len(bank.distilled))
    pixels = torch.stack([render(bank.distilled, view, everything, bank.background) for view in bank.parameters])
    return replace(bank, pixels=pixels)
