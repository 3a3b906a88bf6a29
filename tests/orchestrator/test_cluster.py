from __future__ import annotations

import pytest

from orchestrator.cluster import gpu_share, resolve_gpus


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
