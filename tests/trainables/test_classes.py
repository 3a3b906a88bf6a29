"""The test of classes: exchanged ones are found, right ones are left alone, and little evidence proves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.data.classes import find_mix_ups

REPEATS = 40


def draw(
    classes: int, *, accuracy: float, ipc: int, moved: tuple[int, ...] = (), alike: float = 0.0, seed: int
) -> np.ndarray:
    """Counts (C, C) of a set whose classes `moved` are exchanged in a circle.

    A teacher errs towards two neighbours as often as towards all other classes together; `alike` is the correlation of errors within
    a class (Dirichlet).
    """
    rng = np.random.default_rng(seed)
    rates = np.full((classes, classes), (1 - accuracy) / 2 / (classes - 1))
    for label in range(classes):
        rates[label, [label - 1, (label + 1) % classes]] += (1 - accuracy) / 4
        rates[label, label] = 0
        rates[label] *= (1 - accuracy) / rates[label].sum()
        rates[label, label] = accuracy
    shown = np.arange(classes)
    shown[list(moved)] = np.roll(moved, -1)
    counts = []
    for row in rates[shown]:
        chances = rng.dirichlet(row * (1 - alike) / alike + 1e-3) if alike else row
        counts.append(rng.multinomial(ipc, chances))
    return np.stack(counts)


def verdicts(classes: int, **settings: object) -> list[str]:
    """What the test says of 40 sets."""
    real = draw(classes, accuracy=0.85, ipc=100, seed=10_000)
    names = [f"c{k}" for k in range(classes)]
    return [
        find_mix_ups(draw(classes, seed=seed, **settings), real, names, images="distilled")[1]  # type: ignore[arg-type]
        for seed in range(REPEATS)
    ]


@pytest.mark.parametrize("alike", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("accuracy", [0.9, 0.5, 0.25])
@pytest.mark.parametrize(("classes", "ipc"), [(10, 1), (10, 10), (10, 50), (40, 10)])
def test_sets_in_the_right_order_are_not_refused(classes: int, ipc: int, accuracy: float, alike: float) -> None:
    found = verdicts(classes, accuracy=accuracy, ipc=ipc, alike=alike)
    assert found.count("failed") == 0
    assert alike > 0.1 or found.count("doubtful") <= REPEATS // 5


@pytest.mark.parametrize("moved", [(2, 7), (0, 1), (1, 4, 6, 8), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize(("classes", "ipc"), [(10, 10), (10, 50), (40, 10)])
def test_exchanged_classes_are_refused(classes: int, ipc: int, moved: tuple[int, ...]) -> None:
    found = verdicts(classes, accuracy=0.9, ipc=ipc, moved=moved)
    assert found.count("failed") >= 0.9 * REPEATS
    assert found.count("passed") == 0


def test_exchanged_classes_of_hard_images_are_at_least_doubtful() -> None:
    found = verdicts(10, accuracy=0.6, ipc=50, moved=(2, 7))
    assert found.count("failed") + found.count("doubtful") >= 0.8 * REPEATS


def test_one_image_per_class_is_not_enough_to_refuse_but_enough_to_doubt() -> None:
    found = verdicts(10, accuracy=0.95, ipc=1, moved=(2, 7))
    assert found.count("failed") == 0
    assert found.count("doubtful") >= REPEATS // 2


def test_exchanged_classes_are_named() -> None:
    counts = np.diag([10] * 6)
    counts[[1, 4]] = counts[[4, 1]]
    counts[1] = [0, 1, 0, 0, 9, 0]
    ((mix_up,), verdict) = find_mix_ups(counts, None, ["ant", "bee", "cat", "dog", "eel", "fox"], images="distilled")
    assert verdict == "failed"
    assert mix_up.words() == (
        "distilled images labelled bee look like eel to the teacher (9 of 10), labelled eel look like bee to the teacher (10 of 10)."
    )


def test_a_teacher_that_confuses_two_kinds_of_real_images_proves_nothing_about_them() -> None:
    """It takes half of the real cats for dogs and the reverse: 6 of 10 the wrong way round is no evidence."""
    real = np.diag([100] * 6)
    real[:2, :2] = [[50, 50], [50, 50]]
    counts = np.diag([10] * 6)
    counts[:2, :2] = [[4, 6], [6, 4]]
    assert find_mix_ups(counts, real, list("abcdef"), images="distilled")[0] == []


def test_a_teacher_that_knows_little_passes_nothing() -> None:
    counts = np.full((10, 10), 1) + np.diag([1] * 10)
    assert find_mix_ups(counts, None, list("abcdefghij"), images="distilled")[1].startswith(
        "cannot tell single classes"
    )
