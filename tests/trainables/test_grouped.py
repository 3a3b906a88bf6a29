"""Students that advance together: each does what it would have done alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import torch

from orchestrator.plan import Plan
from search_spaces import load_space
from tests.conftest import TINY
from trainables.arrays import load_arrays
from trainables.config import TrialConfig
from trainables.grouped import Group, Member, forward_together, train_together
from trainables.metrics import EpochMetrics
from trainables.networks import ModelShape, make_model
from trainables.trial import TrialData, start_trial, train_student


@pytest.fixture(scope="module")
def configs() -> list[TrialConfig]:
    """Different losses, replicates, rates, optimizers, lengths; one with other batches, one with another network.

    Not batch norm: the gradient of a bias before it is rounding noise, which Adam turns into steps of the full rate, and the running
    mean lags behind them, so that two trainings that differ in the last digit differ by some images.
    """
    plan = Plan("tiny", load_space(TINY, ["fixed.engine=grouped", "fixed.norm=instance"]), "cpu")
    first, second, third, fourth = (plan.trial(cell, 0, 1, "confirm") for cell in plan.cells)
    return [
        first,
        replace(second, replicate=2, lr=0.02),
        replace(third, optimizer="sgd", momentum=0.9, epochs=4),
        replace(fourth, batch_size=15, clip_grad_norm=0.5),
        replace(first, width=8, ema_decay=0.9, evaluate_every_epochs=1),
    ]


@pytest.fixture(scope="module")
def data(configs: list[TrialConfig], prepared_cache: Path) -> TrialData:
    return TrialData.from_arrays(load_arrays(configs[0].data, prepared_cache), "cpu")


def assert_close(together: list[EpochMetrics], alone: list[EpochMetrics]) -> None:
    assert [p.epoch for p in together] == [p.epoch for p in alone]
    for a, b in zip(together, alone, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=2e-3, abs=1e-4)
        assert a.val_accuracy == pytest.approx(b.val_accuracy, abs=0.02)
        assert (a.test_accuracy is None) == (b.test_accuracy is None)


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
def test_networks_together_give_the_logits_and_buffers_of_each_alone(norm: str) -> None:
    def networks() -> list[torch.nn.Module]:
        torch.manual_seed(0)
        return [make_model("convnet2", ModelShape(1, 10, 8), width=4, norm=norm) for _ in range(3)]

    images = [torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    alone, together = networks(), networks()
    expected = torch.stack([network(batch) for network, batch in zip(alone, images, strict=True)])
    found = forward_together(together, images)
    torch.testing.assert_close(found, expected)
    for loss in (expected, found):
        (loss**2).sum().backward()
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        for a, b in zip(one.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(a, b)


def test_trials_together_are_the_trials_alone(configs: list[TrialConfig], data: TrialData) -> None:
    members = [Member(config, data, start_trial(config, data)) for config in configs]
    curves: dict[int, list[EpochMetrics]] = {k: [] for k in range(len(members))}
    while running := [k for k, m in enumerate(members) if m.state.epoch < m.config.epochs]:
        for k, point in zip(running, train_together([members[k] for k in running]), strict=True):
            assert not isinstance(point, Exception)
            curves[k] += [point] if point else []
    for k, config in enumerate(configs):
        assert_close(curves[k], list(train_student(config, data)))


def test_a_student_that_diverges_leaves_the_others_alone(configs: list[TrialConfig], data: TrialData) -> None:
    wild = replace(configs[2], lr=1e20)
    members = [Member(config, data, start_trial(config, data)) for config in (configs[0], wild)]
    curve = []
    for _ in range(configs[0].epochs):
        point, other = train_together(members) if len(members) == 2 else (*train_together(members), None)
        curve += [point] if isinstance(point, EpochMetrics) else []
        if isinstance(other, EpochMetrics) and other.diverged:
            members.pop()
    assert len(members) == 1
    assert_close(curve, list(train_student(configs[0], data)))


def test_threads_that_wait_for_points_get_those_of_their_own_trial(configs: list[TrialConfig], data: TrialData) -> None:
    group, curves = Group(), {}

    def follow(config: TrialConfig) -> None:
        points: Iterator[EpochMetrics] = group.train(config, data, start_trial(config, data))
        curves[config.trial_id] = list(points)

    threads = [Thread(target=follow, args=(config,)) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for config in configs:
        assert_close(curves[config.trial_id], list(train_student(config, data)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trials_together_on_a_gpu_are_the_trials_alone(configs: list[TrialConfig], prepared_cache: Path) -> None:
    data = TrialData.from_arrays(load_arrays(configs[0].data, prepared_cache), "cuda")
    chosen = [replace(config, device="cuda", epochs=2) for config in configs[:3]]
    members = [Member(config, data, start_trial(config, data)) for config in chosen]
    assert train_together(members) == [None] * 3
    for point, config in zip(train_together(members), chosen, strict=True):
        assert isinstance(point, EpochMetrics)
        assert_close([point], list(train_student(config, data)))


def test_what_goes_wrong_reaches_its_own_trial_and_no_other(configs: list[TrialConfig], data: TrialData) -> None:
    """A bank without labels for the last images, and a network that the others do not have."""
    broken = replace(data, bank=replace(data.bank, logits=data.bank.logits[:, :3]))
    wrong = Member(configs[4], broken, start_trial(configs[4], data))
    right = Member(configs[0], data, start_trial(configs[0], data))
    for _ in range(2):
        answers = train_together([wrong, right])
        assert isinstance(answers[0], Exception)
    assert_close([a for a in answers[1:] if isinstance(a, EpochMetrics)], list(train_student(configs[0], data))[:1])
    with pytest.raises(type(answers[0])):
        list(Group().train(configs[4], broken, start_trial(configs[4], data)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_trial_whose_trainable_died_begins_anew_in_the_same_host(
    configs: list[TrialConfig], prepared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.adapter import GroupHost

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = configs[0]
    host = GroupHost({config.data: load_arrays(config.data, prepared_cache)}, "")
    orders = {"rung_epochs": [4], "checkpoint_every_epochs": None, "checkpoint": None}
    first, again, rest = (host.step(config.as_dict(), orders, attempt) for attempt in "abb")
    assert [p["epoch"] for p in first["points"]] == [p["epoch"] for p in again["points"]] == [2, 4]
    assert [p["train_loss"] for p in first["points"]] == [p["train_loss"] for p in again["points"]]
    assert ([p["epoch"] for p in rest["points"]], rest["done"]) == ([6, 8], True)
    host.forget(config.trial_id, "a")
