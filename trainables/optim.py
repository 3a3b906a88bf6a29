"""Optimizers, learning-rate schedules and weight averages by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from trainables.names import OPTIMIZERS

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3

MULTISTEP_GAMMA: Final = 0.2


def make_optimizer(
    name: str, model: nn.Module, *, lr: float, weight_decay: float, momentum: float | None
) -> optim.Optimizer:
    """An optimizer over all parameters of a model, norms and biases included.

    Args:
        name: "adamw" (Loshchilov and Hutter 2019, betas 0.9 and 0.999), "sgd" (with momentum), or one of timm's.
        model: The student or teacher.
        lr: Learning rate > 0.
        weight_decay: >= 0; decoupled in adamw, added to the gradient in sgd, else as timm has it.
        momentum: In [0, 1), for MOMENTUM_OPTIMIZERS; ignored by others.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; valid: {list(OPTIMIZERS)}.")
    if name == "adamw":
        return optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return optim.SGD(model.parameters(), lr=lr, weight_decay=weight_decay, momentum=momentum or 0.0, fused=True)
    from timm.optim._optim_factory import create_optimizer_v2  # slow to import, and few sweeps need it

    return create_optimizer_v2(
        model, opt=name, lr=lr, weight_decay=weight_decay, momentum=momentum or 0.0, filter_bias_and_bn=False
    )


def _multistep(epoch: int, epochs: int) -> float:
    """Times 0.2 at 2/3 and 5/6 (GIFT's evaluation code), never before the first epoch."""
    milestones = (max(1, 2 * epochs // 3), max(1, 5 * epochs // 6))
    return MULTISTEP_GAMMA ** sum(epoch >= milestone for milestone in milestones)


#: Share of the full rate in an epoch, counted from 0 of `epochs`.
_SCHEDULES: Final[Mapping[str, Callable[[int, int], float]]] = {
    "multistep": _multistep,
    "step_half": lambda epoch, epochs: 0.1 if epoch > epochs // 2 + 1 else 1.0,  # see `rate_share`
    "cosine": lambda epoch, epochs: (1 + math.cos(math.pi * epoch / epochs)) / 2,
    "half_cosine": lambda epoch, epochs: (1 + math.cos(math.pi * epoch / epochs / 2)) / 2,  # RDED: ends at a half
    "linear": lambda epoch, epochs: 1 - epoch / epochs,
    "constant": lambda epoch, epochs: 1.0,
}


def rate_share(name: str, epoch: int, *, epochs: int, warmup_epochs: int = 0) -> float:
    """Share of the full learning rate in an epoch.

    step_half is DC's, MTT's and the DD Challenge's: their loops count epochs from 0 and cut the rate after number E // 2 + 1 has been
    trained, so the first epoch at a tenth is E // 2 + 2 of E. (They also begin a new optimizer there, without its momentum.)

    Args:
        name: A name of SCHEDULES.
        epoch: 0 to epochs - 1.
        epochs: Of the whole training.
        warmup_epochs: W: epoch e < W runs at (e + 1) / (W + 1); the schedule then takes the epochs that are left.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; valid: {list(_SCHEDULES)}.")
    if epoch < warmup_epochs:
        return (epoch + 1) / (warmup_epochs + 1)
    return _SCHEDULES[name](epoch - warmup_epochs, max(1, epochs - warmup_epochs))


def make_schedule(name: str, optimizer: optim.Optimizer, *, epochs: int, warmup_epochs: int = 0) -> LRScheduler:
    """A schedule stepped once per epoch; see `rate_share`."""
    return LambdaLR(optimizer, lambda epoch: rate_share(name, epoch, epochs=epochs, warmup_epochs=warmup_epochs))


def make_average(model: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    """A running mean of a model's weights and buffers, or None without a decay; `update(model)` after each step."""
    if decay is None:
        return None
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(model, decay=decay)
