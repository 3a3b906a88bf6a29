"""Tests that start real Ray and real servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: What those leave to the garbage collector (sockets, log files, SQLAlchemy's pool), and deprecations of their own.
REAL_PARTS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def wait_for(condition: Callable[[], object], alive: Callable[[], object] = lambda: True) -> None:
    """Look again and again until a condition holds; what it depends on must be alive, and pytest's limit ends the wait."""
    while not condition():
        assert alive(), "what was waited for cannot happen any more"
        time.sleep(0.05)


def mlflow_runs(home: Path, name: str) -> list[Any]:
    """Every run of a sweep in the home's own store."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"lossatlas/{name}")
    return list(client.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []
