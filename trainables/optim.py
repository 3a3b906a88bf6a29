"""Optimizers, learning-rate schedules and weight averages by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from trainables.names import OPTIMIZERS, SCHEDULES, STEP_SCHEDULES

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3


def make_optimizer(  # noqa: PLR0913 (hyperparameters by name)
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float | None,
    betas: Sequence[float] | None = None,
) -> optim.Optimizer:
    """An optimizer over all parameters of a model, norms and biases included.

    Args:
        name: "adamw" (Loshchilov and Hutter 2019), "sgd" (with momentum), or one of timm's.
        model: The student or teacher.
        lr: Learning rate > 0.
        weight_decay: >= 0; decoupled in adamw, added to the gradient in sgd, else as timm has it.
        momentum: In [0, 1), for MOMENTUM_OPTIMIZERS; ignored by others.
        betas: Two in [0, 1), for BETAS_OPTIMIZERS; None: as the optimizer has them (adamw: 0.9 and 0.999).

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; valid: {list(OPTIMIZERS)}.")
    own: dict[str, Any] = {} if betas is None else {"betas": (betas[0], betas[1])}
    if name == "adamw":
        return optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True, **own)
    if name == "sgd":
        return optim.SGD(model.parameters(), lr=lr, weight_decay=weight_decay, momentum=momentum or 0.0, fused=True)
    from timm.optim._optim_factory import create_optimizer_v2  # slow to import, and few sweeps need it

    return create_optimizer_v2(
        model,
        opt=name,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum or 0.0,
        filter_bias_and_bn=False,
        **own,
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """Where STEP_SCHEDULES cut the rate, and how far.

    Attributes:
        milestones: Of multistep: numbers below 1 are fractions of the epochs after the warm-up, others numbers of epochs that
            have been trained, warm-up included; None: 2/3 and 5/6 (GIFT's evaluation code).
        gamma: What the rate is multiplied by at each; None: the schedule's own.
    """

    milestones: Sequence[float] | None = None
    gamma: float | None = None

    def epochs(self, name: str, epochs: int, warmup_epochs: int) -> list[int]:
        """Epochs, counted from the end of the warm-up, from which on the rate is lower; never the first one."""
        if name == "step_half":
            return [epochs // 2 + 2]  # see `rate_share`
        if self.milestones is None:
            return [max(1, 2 * epochs // 3), max(1, 5 * epochs // 6)]
        return [max(1, math.floor(m * epochs + 1e-9) if m < 1 else int(m) - warmup_epochs) for m in self.milestones]


#: Share of the full rate in an epoch, counted from 0 of `epochs`; of schedules without steps.
_SCHEDULES: Final[Mapping[str, Callable[[int, int], float]]] = {
    "cosine": lambda epoch, epochs: (1 + math.cos(math.pi * epoch / epochs)) / 2,
    "half_cosine": lambda epoch, epochs: (1 + math.cos(math.pi * epoch / epochs / 2)) / 2,  # RDED: ends at a half
    "linear": lambda epoch, epochs: 1 - epoch / epochs,
    "constant": lambda epoch, epochs: 1.0,
}


def rate_share(name: str, epoch: int, *, epochs: int, warmup_epochs: int = 0, steps: Steps | None = None) -> float:
    """Share of the full learning rate in an epoch.

    step_half is DC's, MTT's and the DD Challenge's: their loops count epochs from 0 and cut the rate after number E // 2 + 1 has been
    trained, so the first epoch at a tenth is E // 2 + 2 of E. (They also begin a new optimizer there, without its momentum.)

    Args:
        name: A name of SCHEDULES.
        epoch: 0 to epochs - 1.
        epochs: Of the whole training.
        warmup_epochs: W: epoch e < W runs at (e + 1) / (W + 1); the schedule then takes the epochs that are left.
        steps: Of STEP_SCHEDULES, ignored by others; None: each schedule's own.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; valid: {list(SCHEDULES)}.")
    if epoch < warmup_epochs:
        return (epoch + 1) / (warmup_epochs + 1)
    since, left = epoch - warmup_epochs, max(1, epochs - warmup_epochs)
    if name not in STEP_SCHEDULES:
        return _SCHEDULES[name](since, left)
    steps = steps or Steps()
    gamma = STEP_SCHEDULES[name] if steps.gamma is None else steps.gamma
    return gamma ** sum(since >= at for at in steps.epochs(name, left, warmup_epochs))


def make_schedule(
    name: str, optimizer: optim.Optimizer, *, epochs: int, warmup_epochs: int = 0, steps: Steps | None = None
) -> LRScheduler:
    """A schedule stepped once per epoch; see `rate_share`."""
    share = partial(rate_share, name, epochs=epochs, warmup_epochs=warmup_epochs, steps=steps)
    return LambdaLR(optimizer, share)


def make_average(model: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    """A running mean of a model's weights and buffers, or None without a decay; `update(model)` after each step."""
    if decay is None:
        return None
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(model, decay=decay)
