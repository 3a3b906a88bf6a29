"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR

MULTISTEP_GAMMA: Final = 0.2


def make_optimizer(
    name: str, model: nn.Module, *, lr: float, weight_decay: float, momentum: float | None
) -> optim.Optimizer:
    """An optimizer over all parameters of a model.

    Args:
        name: "adamw" (Loshchilov and Hutter 2019, betas 0.9 and 0.999) or "sgd" (with momentum).
        model: The student or teacher.
        lr: Learning rate > 0.
        weight_decay: >= 0; decoupled in adamw, added to the gradient in sgd.
        momentum: For sgd, in [0, 1); ignored by adamw.

    Raises:
        ValueError: If the name is unknown.
    """
    parameters = model.parameters()
    if name == "adamw":
        return optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum or 0.0, fused=True)
    raise ValueError(f"unknown optimizer {name!r}; valid: ['adamw', 'sgd'].")


def _multistep(optimizer: optim.Optimizer, epochs: int) -> LRScheduler:
    """Times 0.2 at 2/3 and 5/6 of the epochs (GIFT's evaluation code)."""
    milestones = [max(1, 2 * epochs // 3), max(1, 5 * epochs // 6)]  # never before the first epoch
    return MultiStepLR(optimizer, milestones=milestones, gamma=MULTISTEP_GAMMA)


def _constant(optimizer: optim.Optimizer, epochs: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda _: 1.0)


_SCHEDULES: Final[Mapping[str, Callable[[optim.Optimizer, int], LRScheduler]]] = {
    "multistep": _multistep,
    "constant": _constant,
}


def make_schedule(name: str, optimizer: optim.Optimizer, *, epochs: int) -> LRScheduler:
    """A schedule stepped once per epoch.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; valid: {list(_SCHEDULES)}.")
    return _SCHEDULES[name](optimizer, epochs)
