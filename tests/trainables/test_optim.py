from __future__ import annotations

import pytest
import torch
from timm.optim import get_optimizer_info, list_optimizers
from torch import nn

from trainables.names import BETAS_OPTIMIZERS, MOMENTUM_OPTIMIZERS, OPTIMIZERS, SCHEDULES
from trainables.optim import Steps, make_optimizer, make_schedule, rate_share


def test_optimizers_are_all_of_timms_that_run_everywhere() -> None:
    left_out = ("bnb", "fused", "adahessian", "kron")
    timms = {name for name in list_optimizers() if not name.startswith(left_out)}
    assert set(OPTIMIZERS) == timms
    assert set(MOMENTUM_OPTIMIZERS) == {name for name in timms if get_optimizer_info(name).has_momentum}
    two = {name for name in timms if get_optimizer_info(name).has_betas and get_optimizer_info(name).num_betas == 2}
    assert set(BETAS_OPTIMIZERS) == two - {"adafactor", "cadafactor"}


def stepped(name: str, steps: int = 3, betas: list[float] | None = None) -> list[torch.Tensor]:
    """Parameters of a convolution, a norm and a linear layer after steps along gradients that are always the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3))
    momentum = 0.9 if name in MOMENTUM_OPTIMIZERS else None
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    optimizer = make_optimizer(name, model, lr=1e-2, weight_decay=1e-2, momentum=momentum, betas=betas)
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


@pytest.mark.parametrize("name", BETAS_OPTIMIZERS)
def test_both_betas_have_an_effect(name: str) -> None:
    """Over twelve steps: radam begins to use the second mean at the sixth."""
    numbers = [
        torch.cat([p.flatten() for p in stepped(name, 12, betas)]) for betas in ([0.5, 0.6], [0.6, 0.6], [0.5, 0.7])
    ]
    assert not torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[2])


def test_adamw_without_betas_has_those_of_its_paper() -> None:
    assert all(map(torch.equal, stepped("adamw"), stepped("adamw", betas=[0.9, 0.999])))


@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_milestones_cut_the_rate_where_they_say(warmup_epochs: int) -> None:
    """12 epochs, W of them warm-up: of 0.5 and 9 the first is half of the 12 - W that are left, the second the tenth of all."""
    steps = Steps([0.5, 9], 0.3)
    first = warmup_epochs + (12 - warmup_epochs) // 2
    shares = [rate_share("multistep", e, epochs=12, warmup_epochs=warmup_epochs, steps=steps) for e in range(12)]
    expected = [0.3 ** ((e >= first) + (e >= 9)) for e in range(12)]
    assert shares[warmup_epochs:] == pytest.approx(expected[warmup_epochs:])


@pytest.mark.parametrize("epochs", [12, 100, 300, 999])
def test_milestones_of_the_default_are_the_default(epochs: int) -> None:
    for e in range(epochs):
        given = rate_share("multistep", e, epochs=epochs, steps=Steps([2 / 3, 5 / 6], 0.2))
        assert given == rate_share("multistep", e, epochs=epochs)


def test_a_quarter_of_the_epochs_each_is_torchs_step_schedule() -> None:
    """StepLR(E / 4, 0.3), whose evaluation arXiv:2406.10485 has."""
    optimizer = make_optimizer("sgd", nn.Linear(2, 2), lr=1.0, weight_decay=0, momentum=None)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.3)
    for epoch in range(20):
        steps = Steps([0.25, 0.5, 0.75], 0.3)
        assert rate_share("multistep", epoch, epochs=20, steps=steps) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_step_half_takes_another_factor() -> None:
    shares = {rate_share("step_half", e, epochs=10, steps=Steps(gamma=0.5)) for e in range(10)}
    assert shares == {1.0, 0.5}


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
