from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestrator.cluster import gpu_share, resolve_gpus, start_patiently
from search_spaces import ConfigError


@pytest.mark.parametrize(
    ("peak_gib", "cpus", "share"),
    [
        (1.0, 64, 1 / 33),  # 40 / 1.2 = 33.3 trials by memory
        (1.0, 8, 1 / 8),  # CPUs are the limit
        (30.0, 8, 1.0),  # one trial fills it
        (100.0, 8, 1.0),  # never less than one
    ],
)
def test_as_many_trials_share_a_gpu_as_memory_and_cpus_allow(peak_gib: float, cpus: float, share: float) -> None:
    got = gpu_share(device_bytes=40 * 2**30, peak_bytes=peak_gib * 2**30, device_cpus=cpus, trial_cpus=1)
    assert got == pytest.approx(share)


def test_an_explicit_share_wins_and_a_cpu_needs_none() -> None:
    assert resolve_gpus("auto", "cpu", {}, 1) == 0
    assert resolve_gpus(0.25, "cuda", {}, 1) == 0.25
    assert resolve_gpus(0.25, "cpu", {}, 1) == 0


def starting(*outcomes: Exception | str) -> tuple[Callable[[], str], list[str]]:
    """A start with these outcomes in turn, and what is called."""
    left, called = list(outcomes), []

    def start() -> str:
        called.append("start")
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return start, called


SLOW = Exception(
    "The current node timed out during startup. This could happen because some of the raylet failed to startup."
)


def test_a_node_that_is_not_up_in_time_is_tried_once_more_and_then_a_message() -> None:
    start, called = starting(SLOW, "up")
    assert start_patiently(start, lambda: called.append("stop")) == "up"
    assert called == ["start", "stop", "start"]
    start, called = starting(SLOW, SLOW)
    with pytest.raises(ConfigError, match=r"not up within 30 s, twice.*--local"):
        start_patiently(start, lambda: called.append("stop"))
    assert called == ["start", "stop", "start", "stop"]


def test_other_faults_of_a_start_are_raised_at_once() -> None:
    start, called = starting(ValueError("another fault"))
    with pytest.raises(ValueError, match="another fault"):
        start_patiently(start, lambda: None)
    assert called == ["start"]


def test_what_ray_says_of_a_node_that_is_not_up_is_known() -> None:
    """The words are in the source of the Ray that is installed."""
    spec = find_spec("ray")
    assert spec
    assert spec.origin
    source = (Path(spec.origin).parent / "_private" / "node.py").read_text()
    assert "timed out during startup" in source
