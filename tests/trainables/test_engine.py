"""Engines: the compiled one computes what the eager one computes, and compiles an architecture once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from orchestrator.plan import Plan
from search_spaces import load_space
from tests.conftest import TINY
from trainables.arrays import load_arrays
from trainables.config import TrialConfig
from trainables.engine import executable
from trainables.evaluate import accuracy, even_batch
from trainables.losses import compare, make_target
from trainables.networks import ModelShape, make_model
from trainables.splits import Split
from trainables.trial import TrialData, start_trial, train_student

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler (Debian: apt-get install g++)")
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def config() -> TrialConfig:
    plan = Plan("tiny", load_space(TINY), "cpu", resolved={"engine": "compiled"})
    return plan.trial(plan.cells[1], 1, 1, "confirm")


@pytest.fixture(scope="module")
def data(config: TrialConfig, prepared_cache: Path) -> TrialData:
    return TrialData.from_arrays(load_arrays(config.data, prepared_cache), "cpu")


def first_step(config: TrialConfig, data: TrialData) -> tuple[float, Tensor]:
    """Loss and gradient of the first batch, from the same state, batch and label bank for every engine."""
    state = start_trial(config, data)
    order = torch.arange(config.batch_size)
    images = next(data.bank.images(0, order, config.batch_size))
    hard = data.bank.hard(0, order)
    target = make_target(config.loss, data.bank.teacher_logits(0, order), hard, config.knobs)
    loss = compare(config.loss, state.forward(images), target, hard, config.knobs)
    loss.backward()
    return float(loss), torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None])


@pytest.mark.slow
@quiet
@needs_compiler
def test_one_compiled_step_agrees_with_the_eager_one(config: TrialConfig, data: TrialData) -> None:
    for norm in ("instance", "batch"):
        fast, plain = (first_step(replace(config, norm=norm, engine=e), data) for e in ("compiled", "eager"))
        assert fast[0] == pytest.approx(plain[0], rel=1e-5)
        assert float((fast[1] - plain[1]).norm()) <= 1e-4 * float(plain[1].norm())


@pytest.mark.slow
@quiet
@needs_compiler
def test_two_compiled_runs_are_bitwise_equal_and_compile_once(config: TrialConfig, data: TrialData) -> None:
    from torch._dynamo.utils import counters

    first = [(p.train_loss, p.val_accuracy) for p in train_student(config, data)]
    compiled = dict(counters["stats"])
    assert compiled["unique_graphs"] > 0
    second = [(p.train_loss, p.val_accuracy) for p in train_student(replace(config, replicate=2), data)]
    assert dict(counters["stats"]) == compiled, "another student of the same architecture"
    assert second != first
    assert [(p.train_loss, p.val_accuracy) for p in train_student(config, data)] == first


@quiet
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_compiled_students_on_a_gpu_agree_with_eager_ones(config: TrialConfig, prepared_cache: Path) -> None:
    """CUDA graphs replay the same kernels for other batches, other students and the evaluation."""
    data = TrialData.from_arrays(load_arrays(config.data, prepared_cache), "cuda")
    for replicate in (1, 2):
        curves = [
            [(p.train_loss, p.val_accuracy) for p in train_student(replace(c, replicate=replicate), data)]
            for c in (replace(config, device="cuda", engine=engine) for engine in ("compiled", "eager"))
        ]
        for fast, plain in zip(*curves, strict=True):
            assert fast[0] == pytest.approx(plain[0], rel=1e-2)
            assert fast[1] == pytest.approx(plain[1], abs=0.05)


def test_an_engine_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown engine 'fast'; valid: \['eager', 'compiled', 'grouped'\]"):
        executable(torch.nn.Identity(), "fast")


@pytest.mark.parametrize(
    ("n", "most", "size"), [(599, 128, 120), (300, 128, 100), (5, 128, 5), (128, 128, 128), (129, 128, 65)]
)
def test_evaluation_batches_are_even(n: int, most: int, size: int) -> None:
    assert even_batch(n, most) == size


def test_images_that_fill_up_the_last_batch_are_not_counted() -> None:
    """129 images in batches of 65: the last has 64 and a copy of its first one."""
    torch.manual_seed(0)
    model = make_model("convnet2", ModelShape(1, 10, 8), width=4, norm="none")
    images = torch.randn(129, 1, 8, 8)
    right = model(images).argmax(dim=1)
    labels = torch.where(torch.arange(129) < 100, right, (right + 1) % 10)
    assert accuracy(model, Split(images, labels)) == pytest.approx(100 / 129)
