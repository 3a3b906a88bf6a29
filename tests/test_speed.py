"""Regressions of speed, as ratios within one process: seconds differ from machine to machine, and from minute to minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import reference
from benchmarks.engine import Workload, make_data
from benchmarks.scale import measure_conductor
from trainables.arrays import load_arrays
from trainables.trial import TrialData, train_student

EPOCHS = 2


def fastest(work: Callable[[], object], other: Callable[[], object], rounds: int) -> float:
    """Least seconds of one over least seconds of the other, which take turns."""
    taken: dict[Callable[[], object], list[float]] = {work: [], other: []}
    for _ in range(rounds):
        for kind, times in taken.items():
            started = time.thread_time()
            kind()
            times.append(time.thread_time() - started)
    return min(taken[work]) / min(taken[other])


@pytest.mark.slow
def test_a_student_costs_less_than_with_the_teacher_in_its_loop(tmp_path: Path) -> None:
    """The same epochs on one thread; without data loaders, whose processes this clock does not see. Here: 0.44."""
    torch.set_num_threads(1)
    work = Workload(width=32, epochs=EPOCHS)
    teacher = work.network(work.teacher).eval()
    make_data(work, teacher, tmp_path)
    config = work.config("fp32", "eager")
    data = TrialData.from_arrays(load_arrays("engine", tmp_path), "cpu")
    images, labels = data.bank.distilled.images, data.bank.distilled.labels
    batches = list(zip(images.split(config.batch_size), labels.split(config.batch_size), strict=True))

    def ours() -> None:
        next(train_student(config, data))

    def published() -> None:
        student = work.network(work.student)
        reference.train(student, teacher, batches, epochs=EPOCHS)
        reference.evaluate(student, [(data.validation.images, data.validation.labels)])

    ours()
    assert fastest(ours, published, rounds=3) < 0.9


@pytest.mark.slow
def test_a_trial_costs_the_driver_the_same_however_many_there_are(tmp_path: Path) -> None:
    few, many = (measure_conductor(trials, tmp_path / str(trials)) for trials in (200, 2000))
    assert many["trials"] > 9 * few["trials"]
    for figure in ("trial_ms", "report_ms", "bytes_per_trial"):
        assert many[figure] < 2 * few[figure], figure
