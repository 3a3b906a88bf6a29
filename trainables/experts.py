"""Expert buffers: what trajectory matching keeps of its teachers' training, `replay_buffer_N.pt`.

A list of experts, each a list of epochs (0: untrained), each the list of a convnet's parameters in the order of its layers.
Running statistics are not in it, so such a network has instance norm, layer norm or none.

Source: Cazenavette et al. 2022 (MTT), arXiv:2203.11932; read by the code of Qin et al. 2024, arXiv:2406.10485.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

Buffer = Sequence[Sequence[Sequence[Tensor]]]


def is_buffer(content: Any) -> bool:
    """A list of lists of lists of tensors."""
    for _ in range(3):
        if not isinstance(content, list) or not content:
            return False
        content = content[0]
    return isinstance(content, Tensor)


def expert_weights(buffer: Buffer, path: Path, *, expert: int, epoch: int | None) -> dict[str, Tensor]:
    """An expert after an epoch, by the names that the published convnets have.

    Args:
        buffer: See `is_buffer`.
        path: For messages.
        expert: From 0.
        epoch: 0 is untrained; None: the last.

    Raises:
        ValueError: If there is no such expert or epoch, all epochs are equal, or it is no convnet.
    """
    if not 0 <= expert < len(buffer):
        raise ValueError(f"{path}: teacher.expert: it has experts 0 to {len(buffer) - 1}, got {expert}.")
    epochs = buffer[expert]
    epoch = len(epochs) - 1 if epoch is None else epoch
    if not 0 <= epoch < len(epochs):
        raise ValueError(f"{path}: teacher.epoch: expert {expert} has epochs 0 to {len(epochs) - 1}, got {epoch}.")
    if epoch < len(epochs) - 1 and _are_equal(epochs[0], epochs[-1]):
        raise ValueError(
            f"{path}: teacher.epoch: all epochs of expert {expert} are the same numbers (they were kept without being "
            "copied, as the published code does on a CPU), so only the last can be used."
        )
    return _named(epochs[epoch], path)


def _are_equal(first: Sequence[Tensor], last: Sequence[Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(first, last, strict=True))


def _named(parameters: Sequence[Tensor], path: Path) -> dict[str, Tensor]:
    """Named by shape: a convolution (4 dimensions) and its bias, perhaps a norm's weight and bias, at last the classifier."""
    layers, head = parameters[:-2], parameters[-2:]
    starts = [number for number, parameter in enumerate(layers) if parameter.ndim == 4]
    sizes = {last - first for first, last in pairwise([*starts, len(layers)])}
    if not starts or starts[0] or [p.ndim for p in head] != [2, 1] or sizes not in ({2}, {4}):
        raise ValueError(f"{path}: {len(parameters)} parameters per epoch that are no convnet's; give a checkpoint.")
    kinds = 2 if sizes == {4} else 1  # of layers with parameters: convolution, norm; ReLU and pool have none
    weights = {"classifier.weight": head[0], "classifier.bias": head[1]}
    for block, first in enumerate(starts):
        for kind in range(kinds):
            for part, name in enumerate(("weight", "bias")):
                weights[f"features.{(kinds + 2) * block + kind}.{name}"] = layers[first + 2 * kind + part]
    return weights
