from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.plan import Plan
from search_spaces import load_space
from tests.conftest import TINY
from trainables.arrays import load_arrays
from trainables.config import TrialConfig
from trainables.metrics import EpochMetrics
from trainables.names import SCHEDULES, STUDENTS
from trainables.networks import ModelShape, make_model
from trainables.trial import TrialData, start_trial, train_student


@pytest.fixture(scope="module")
def config() -> TrialConfig:
    plan = Plan("tiny", load_space(TINY), "cpu")
    return plan.trial(plan.cells[1], 1, 1, "confirm")


@pytest.fixture(scope="module")
def data(config: TrialConfig, prepared_cache: Path) -> TrialData:
    return TrialData.from_arrays(load_arrays(config.data, prepared_cache), "cpu")


def numbers(points: list[EpochMetrics]) -> list[tuple[object, ...]]:
    """Everything but the seconds."""
    return [(p.epoch, p.train_loss, p.val_accuracy, p.test_accuracy, p.diverged) for p in points]


def test_two_runs_are_bitwise_equal(config: TrialConfig, data: TrialData) -> None:
    assert numbers(list(train_student(config, data))) == numbers(list(train_student(config, data)))


@pytest.mark.slow
def test_another_process_gives_the_same_bits(config: TrialConfig, data: TrialData, prepared_cache: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; from trainables.config import TrialConfig\n"
        "from trainables.arrays import load_arrays; from trainables.trial import TrialData, train_student\n"
        "config = TrialConfig(**json.loads(sys.argv[1]))\n"
        "data = TrialData.from_arrays(load_arrays(config.data, Path(sys.argv[2])), 'cpu')\n"
        "print([(p.epoch, p.train_loss, p.val_accuracy, p.test_accuracy, p.diverged) for p in train_student(config, data)])\n"
    )
    import json

    command = [sys.executable, "-c", code, json.dumps(config.as_dict()), str(prepared_cache)]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert there == repr(numbers(list(train_student(config, data))))


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9, "warmup_epochs": 3, "schedule": "cosine"}])
def test_resumed_trial_equals_uninterrupted_trial(
    changes: dict[str, Any], config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    config = replace(config, **changes)
    whole = numbers(list(train_student(config, data)))
    state = start_trial(config, data)
    first = next(train_student(config, data, state))
    torch.save(state.state_dict(), tmp_path / "state.pt")
    resumed = start_trial(replace(config, replicate=7), data)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert numbers([first, *train_student(config, data, resumed)]) == whole


def test_metrics_up_to_an_epoch_do_not_depend_on_where_training_stops(config: TrialConfig, data: TrialData) -> None:
    points = train_student(config, data)
    assert numbers([next(points), next(points)]) == numbers(list(train_student(config, data))[:2])


def test_loss_falls_and_accuracy_beats_chance(config: TrialConfig, data: TrialData) -> None:
    points = list(train_student(replace(config, epochs=40, lr=0.01), data))
    assert points[-1].train_loss < points[0].train_loss
    assert points[-1].val_accuracy > 0.25


def test_validation_every_k_epochs_and_test_once_at_the_end_of_confirm(config: TrialConfig, data: TrialData) -> None:
    config = replace(config, epochs=7, evaluate_every_epochs=3)
    points = list(train_student(config, data))
    assert [p.epoch for p in points] == [3, 6, 7]
    assert [p.test_accuracy is None for p in points] == [True, True, False]
    tune = list(train_student(replace(config, stage="tune"), data))
    assert all(p.test_accuracy is None for p in tune)
    assert [p.val_accuracy for p in tune] == [p.val_accuracy for p in points]
    paper = list(train_student(replace(config, test_every_evaluation=True), data))
    assert all(p.test_accuracy is not None for p in paper)


def test_divergence_is_a_result_at_chance_level(config: TrialConfig, data: TrialData) -> None:
    config = replace(config, loss="mse", knobs={"refinement": 0.0}, optimizer="sgd", momentum=0.9, lr=1e20)
    last = list(train_student(config, data))[-1]
    assert last.diverged
    assert not math.isfinite(last.train_loss)
    assert (last.val_accuracy, last.test_accuracy) == (0.1, 0.1)
    assert last.epoch < config.epochs
    assert last.as_dict()["train_loss"] is None


def test_common_random_numbers_do_not_depend_on_loss_or_rate(config: TrialConfig, data: TrialData) -> None:
    a = start_trial(config, data)
    b = start_trial(replace(config, loss="ce", knobs={}, lr=0.02, optimizer="sgd", momentum=0.9), data)
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))
    for generator in ("batch_order", "view_order"):
        assert torch.equal(getattr(a, generator).get_state(), getattr(b, generator).get_state())
    other = start_trial(replace(config, replicate=2), data)
    assert not torch.equal(next(a.model.parameters()), next(other.model.parameters()))


def test_global_random_state_is_left_alone(config: TrialConfig, data: TrialData) -> None:
    before = torch.get_rng_state()
    list(train_student(config, data))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_trains(schedule: str, config: TrialConfig, data: TrialData) -> None:
    config = replace(config, schedule=schedule, epochs=2)
    assert math.isfinite(list(train_student(config, data))[-1].train_loss)


def test_a_running_mean_that_keeps_nothing_is_the_student_itself(config: TrialConfig, data: TrialData) -> None:
    plain = numbers(list(train_student(config, data)))
    assert numbers(list(train_student(replace(config, ema_decay=0.0), data))) == plain
    averaged = numbers(list(train_student(replace(config, ema_decay=0.99), data)))
    assert [p[1] for p in averaged] == [p[1] for p in plain], "the loss is the student's own"
    assert [p[2] for p in averaged] != [p[2] for p in plain], "the accuracy is the mean's"


def test_gradients_are_clipped_to_a_length(config: TrialConfig, data: TrialData) -> None:
    """With plain SGD and one step, weights move by lr times the clipped length."""
    config = replace(config, optimizer="sgd", momentum=0.0, epochs=1, lr=0.5, batch_size=1000, clip_grad_norm=1e-2)
    state = start_trial(config, data)
    before = [p.detach().clone() for p in state.model.parameters()]
    list(train_student(config, data, state))
    pairs = zip(before, state.model.parameters(), strict=True)
    moved = sum(((a - b.detach()) ** 2).sum() for a, b in pairs) ** 0.5
    assert float(moved) == pytest.approx(0.5 * 1e-2, rel=1e-3)
    loose = numbers(list(train_student(replace(config, clip_grad_norm=1e9), data)))
    assert loose == numbers(list(train_student(replace(config, clip_grad_norm=None), data)))


def test_multistep_schedule_cuts_the_rate_at_two_thirds_and_five_sixths(config: TrialConfig, data: TrialData) -> None:
    """12 epochs: x 0.2 from epoch 8 on, x 0.04 from epoch 10 on."""
    config = replace(config, epochs=12, evaluate_every_epochs=1, lr=0.01)
    state = start_trial(config, data)
    rates = [state.optimizer.param_groups[0]["lr"] for _ in train_student(config, data, state)]
    assert rates == pytest.approx([0.01] * 7 + [0.002] * 2 + [0.0004] * 3)


def test_bf16_stays_close_to_fp32(config: TrialConfig, data: TrialData) -> None:
    config = replace(config, epochs=1)
    exact = list(train_student(config, data))[-1].train_loss
    rough = list(train_student(replace(config, precision="bf16"), data))[-1].train_loss
    assert rough == pytest.approx(exact, rel=0.05)
    assert rough != exact


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_gives_logits(name: str) -> None:
    model = make_model(name, ModelShape(3, 5, 64), width=4, norm="batch")
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_unknown_names_and_small_images_raise() -> None:
    shape = ModelShape(1, 10, 8)
    for name, norm, match in (
        ("convnet9", "batch", "unknown model"),
        ("convnet2", "bath", "unknown norm"),
        ("convnet4", "none", "halves"),
    ):
        with pytest.raises(ValueError, match=match):
            make_model(name, shape, width=4, norm=norm)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_trials_share_one_device(config: TrialConfig, prepared_cache: Path) -> None:
    config = replace(config, device="cuda")
    data = TrialData.from_arrays(load_arrays(config.data, prepared_cache), "cuda")
    pairs = list(zip(train_student(config, data), train_student(replace(config, replicate=2), data), strict=True))
    assert all(math.isfinite(p.train_loss) for pair in pairs for p in pair)
    cpu = list(train_student(replace(config, device="cpu"), TrialData.from_arrays(data.to_arrays(), "cpu")))
    assert pairs[0][0].train_loss == pytest.approx(cpu[0].train_loss, rel=0.05)
