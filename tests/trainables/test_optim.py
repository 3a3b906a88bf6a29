from __future__ import annotations

import pytest
import torch
from timm.optim import get_optimizer_info, list_optimizers
from torch import nn

from trainables.names import MOMENTUM_OPTIMIZERS, OPTIMIZERS, SCHEDULES
from trainables.optim import make_optimizer, make_schedule, rate_share


def test_optimizers_are_all_of_timms_that_run_everywhere() -> None:
    left_out = ("bnb", "fused", "adahessian", "kron")
    timms = {name for name in list_optimizers() if not name.startswith(left_out)}
    assert set(OPTIMIZERS) == timms
    assert set(MOMENTUM_OPTIMIZERS) == {name for name in timms if get_optimizer_info(name).has_momentum}


def stepped(name: str, steps: int = 3) -> list[torch.Tensor]:
    """Parameters of a convolution, a norm and a linear layer after steps along gradients that are always the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3))
    momentum = 0.9 if name in MOMENTUM_OPTIMIZERS else None
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    optimizer = make_optimizer(name, model, lr=1e-2, weight_decay=1e-2, momentum=momentum)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_all_parameters_and_the_same_way_twice(name: str) -> None:
    before = torch.get_rng_state()
    first, second, still = stepped(name), stepped(name), stepped(name, steps=0)
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, still, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_first_epoch_runs_at_the_full_rate(name: str, epochs: int) -> None:
    optimizer = make_optimizer("sgd", nn.Linear(2, 2), lr=0.5, weight_decay=0, momentum=None)
    make_schedule(name, optimizer, epochs=epochs)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("multistep", [1, 1, 0.2, 0.04]),
        ("cosine", [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        ("half_cosine", [1, 0.9619397662556434, (1 + 0.5**0.5) / 2, 0.6913417161825449]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("constant", [1, 1, 1, 1]),
    ],
)
def test_shares_by_hand(name: str, shares: list[float]) -> None:
    """4 epochs: cosine is (1 + cos(pi e / 4)) / 2, half_cosine (1 + cos(pi e / 8)) / 2, multistep cuts at 2 and 3."""
    assert [rate_share(name, epoch, epochs=4) for epoch in range(4)] == pytest.approx(shares)


def test_warm_up_rises_linearly_and_then_the_schedule_begins() -> None:
    """W = 3 of 7 epochs: 1/4, 2/4, 3/4, then linear over the 4 that are left."""
    shares = [rate_share("linear", epoch, epochs=7, warmup_epochs=3) for epoch in range(7)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25])


def test_unknown_names_are_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"unknown optimizer 'adamx'; valid: \['adamw', 'sgd'"):
        make_optimizer("adamx", model, lr=0.5, weight_decay=0, momentum=None)
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        rate_share("cosin", 0, epochs=2)


@pytest.mark.parametrize("epochs", [10, 11, 1000])
def test_step_half_is_the_loop_that_it_names(epochs: int) -> None:
    """for e in range(E + 1): train; if e == E // 2 + 1: rate *= 0.1, of which the first E epochs."""
    rate, rates = 1.0, []
    for epoch in range(epochs):
        rates.append(rate)
        rate *= 0.1 if epoch == epochs // 2 + 1 else 1.0
    assert [rate_share("step_half", epoch, epochs=epochs) for epoch in range(epochs)] == rates
