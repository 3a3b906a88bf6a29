"""The benchmark that compares with released code: what it does again, and what it calls equivalent."""

from __future__ import annotations

from argparse import Namespace

import pytest

from benchmarks.fidelity import compare, missing, summary

WANTED = Namespace(n=3, losses=["kl", "ce"], who=["reference", "ours"], epochs=100, width=128)
EVEN = [0.49, 0.495, 0.5, 0.505, 0.51] * 2


def run(loss: str, who: str, seed: int, accuracy: float = 0.5, epochs: int = 100) -> dict[str, object]:
    return {"loss": loss, "who": who, "seed": seed, "epochs": epochs, "width": 128, "accuracy": accuracy}


def test_finished_runs_are_not_done_again_and_seeds_come_one_after_the_other() -> None:
    """Runs of other epochs are others."""
    left = list(missing(WANTED, [run("kl", "reference", 1), run("kl", "ours", 1, epochs=5)]))
    assert left[:4] == [("kl", "ours", 1), ("ce", "reference", 1), ("ce", "ours", 1), ("kl", "reference", 2)]
    assert len(left) == 11


def test_the_same_accuracies_are_equivalent_a_point_more_is_not() -> None:
    """n = 10, standard deviation 0.75: the interval of the difference is +- 0.70, so 0.1 is not resolved either way."""
    same = compare(EVEN, EVEN)
    assert same["difference"] == pytest.approx(0)
    assert same["high"] == pytest.approx(-same["low"])
    assert compare(EVEN, [value + 0.01 for value in EVEN])["p_tost"] > 0.5
    assert compare(EVEN, [value + 1e-4 for value in EVEN])["p_tost"] < 0.06


def test_a_loss_without_two_runs_of_each_is_not_called_equivalent() -> None:
    found = summary(WANTED, [run("kl", "reference", 1), run("kl", "ours", 1)])
    assert found["losses"] == {"kl": {}, "ce": {}}
    assert not found["all_equivalent"]
