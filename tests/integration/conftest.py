"""What takes seconds to start: a Ray cluster, once per file, and a store with MLflow's tables, once per process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A local Ray cluster on ports of Ray's choice; sweeps that this process runs join it, as in a notebook that has one."""
    from orchestrator.cluster import connected

    with connected(None):
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store as MLflow makes it at its first use."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def home(tmp_path: Path, prepared_cache: Path, empty_store: Path) -> Path:
    """A home directory of this test's own, with the prepared cache and an empty store copied into it."""
    path = tmp_path / "home"
    shutil.copytree(prepared_cache, path / "cache")
    shutil.copy(empty_store, path)
    return path
