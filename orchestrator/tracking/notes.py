"""What the mirror noted in the sweep's directory: which runs there are, and what they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.journal import read_journal


def tracked_runs(path: Path) -> dict[str, str]:
    """MLflow run id per trial id, as far as the mirror has them."""
    parents = [record for record in read_journal(path) if record["kind"] == "parent"]
    notes = notes_about(path, parents[-1]["uri"]) if parents else ()
    return {r["trial_id"]: r["run_id"] for r in notes if r["kind"] == "run"}


def notes_about(path: Path, uri: str) -> Iterator[dict[str, Any]]:
    """Notes about one store: those after a parent run in it, up to a parent run in another."""
    about = None
    for record in read_journal(path):
        about = record["uri"] if record["kind"] == "parent" else about
        if about == uri:
            yield record
