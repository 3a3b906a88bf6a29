"""What the mirror noted in the sweep's directory: which runs there are, and what they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.journal import read_journal
from orchestrator.tracking.client import is_id


def tracked_runs(path: Path) -> dict[str, str]:
    """MLflow run id per trial id, as far as the mirror has them."""
    parents = [record for record in _notes(path) if record["kind"] == "parent"]
    notes = notes_about(path, parents[-1]["uri"]) if parents else ()
    return {r["trial_id"]: r["run_id"] for r in notes if r["kind"] == "run"}


def notes_about(path: Path, uri: str) -> Iterator[dict[str, Any]]:
    """Notes about one store: those after a parent run in it, up to a parent run in another."""
    about = None
    for record in _notes(path):
        about = record["uri"] if record["kind"] == "parent" else about
        if about == uri:
            yield record


def _notes(path: Path) -> Iterator[dict[str, Any]]:
    """Notes whose ids are ids; others were not written by us."""
    needed = {"parent": ("run_id",), "run": ("run_id", "trial_id"), "done": ("trial_id",)}
    for record in read_journal(path):
        ids = needed.get(record["kind"])
        if ids and all(is_id(record.get(key)) for key in ids) and isinstance(record.get("uri", ""), str):
            yield {"uri": "", **record} if record["kind"] == "parent" else record
