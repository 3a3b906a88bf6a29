"""A small chaos: the driver and a worker killed, a node lost, the tracker away. `make chaos` is the full version."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos import BAD, SPACE, measure
from tests.integration import REAL_PARTS

pytestmark = [*REAL_PARTS, pytest.mark.timeout(3600)]
SEED = 1


def test_nothing_is_lost_doubled_or_left_running(tmp_path: Path) -> None:
    """Three Ray nodes and a real MLflow server; the seed decides the order of disasters, and which processes they hit."""
    print(f"seed {SEED}")
    scientific = {"loss": ["ce", "kl"], "temperature": [1, 4]}
    small = {**SPACE, "scientific": scientific, "fixed": {**SPACE["fixed"], "epochs": 30}, "replicates": 10}
    disasters = {"driver_kill": 1, "worker_kill": 1, "node_loss": 1, "outage": 1}
    result = measure(disasters, small, seed=SEED, folder=tmp_path, most_pause_s=0.3)
    assert {name: result[name] for name in disasters} == disasters
    assert {name: result[name] for name in BAD} == dict.fromkeys(BAD, 0)
    assert result["parents"] == 1
