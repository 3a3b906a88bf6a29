"""The only MLflow file: a mirror of the journal, kept by a thread of its own. The sweep never waits for it."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchestrator.cells import Cell
from orchestrator.conductor import results_of
from orchestrator.home import Home
from orchestrator.journal import Journal, read_journal
from orchestrator.plan import Plan
from orchestrator.run_fields import TrackedTrial, environment_tags, flat_config, result_tags, trial_tags
from orchestrator.search import FAILED, FINISHED, STOPPED, Assignment, TrialResult
from search_spaces import ConfigError
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

logger = logging.getLogger(__name__)

BATCH_S = 1.0
BATCH_METRICS = 1000
_STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
# A server that is away must not hold the end of a sweep for MLflow's default of minutes.
_HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


@dataclass(slots=True)
class _Pending:
    """What is not yet sent of one trial."""

    assignment: Assignment
    started_at: float = field(default_factory=time.time)
    points: list[dict[str, Any]] = field(default_factory=list)
    result: TrialResult | None = None


def tracked_runs(path: Path) -> dict[str, str]:
    """MLflow run id per trial id, as far as the mirror has them."""
    parents = [record for record in read_journal(path) if record["kind"] == "parent"]
    notes = _notes_about(path, parents[-1]["uri"]) if parents else ()
    return {r["trial_id"]: r["run_id"] for r in notes if r["kind"] == "run"}


def _notes_about(path: Path, uri: str) -> Iterator[dict[str, Any]]:
    """Notes about one store: those after a parent run in it, up to a parent run in another."""
    about = None
    for record in read_journal(path):
        about = record["uri"] if record["kind"] == "parent" else about
        if about == uri:
            yield record


class Mirror:
    """Keeps one parent run per sweep and one child run per trial.

    Events are queued by `hear` and sent about once a second from a thread of its own; a trial that lasts less than
    that is one creation, one batch and one ending. What was sent is noted in `tracked.jsonl`, so a trial id never
    gets two runs. If the tracker fails, the sweep goes on and the next `run` sends what is missing.
    """

    def __init__(self, plan: Plan, home: Home, uri: str, say: Callable[[str], None]) -> None:
        """Nothing is sent before the context is entered; a `uri` of "off" sends nothing at all."""
        self._plan = plan
        self._home = home
        self._uri = uri
        self._say = say
        self._queue: queue.SimpleQueue[tuple[str, Assignment, Any] | None] = queue.SimpleQueue()
        self._pending: dict[str, _Pending] = {}
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._failed: str | None = None
        self.cpu_s = 0.0

    def hear(self, event: str, assignment: Assignment, detail: Any) -> None:
        """Queue an event of the conductor; returns at once."""
        self._queue.put((event, assignment, detail))

    def __enter__(self) -> Self:
        self._earlier = list(read_journal(self._home.sweep(self._plan.name).journal))
        if self._uri != "off":
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left and end all runs."""
        self._interrupted = kind is not None
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._failed:
            self._say(f"MLflow at {self._uri} failed ({self._failed}); run the same command again to send the rest.")

    def _work(self) -> None:
        """Body of the thread."""
        try:
            store = _Store(self._uri, self._plan, self._home)
            self._adopt(store)
            alive = True
            while alive:
                alive = self._collect()
                self._send(store)
            self._close(store)
            self.cpu_s = time.thread_time()
        except Exception as err:
            logger.debug("MLflow mirror stopped", exc_info=True)
            self._failed = f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"

    def _adopt(self, store: _Store) -> None:
        """Queue results of earlier processes that have no finished run."""
        cells = {cell.label: cell for cell in self._plan.cells}
        for record in self._earlier:
            if record["kind"] == "result" and not store.is_done(record["trial_id"]):
                self._pending.update(_pending_of(cells, record))

    def _collect(self) -> bool:
        """Take events for up to a second; False after the last one."""
        deadline = time.monotonic() + BATCH_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if event is None:
                return False
            self._note(*event)
        return True

    def _note(self, event: str, assignment: Assignment, detail: Any) -> None:
        if event == "start":
            self._pending[assignment.trial_id] = _Pending(assignment)
        elif event == "report":
            self._pending.setdefault(assignment.trial_id, _Pending(assignment)).points.extend(detail)
        else:
            self._pending.setdefault(assignment.trial_id, _Pending(assignment)).result = detail

    def _send(self, store: _Store) -> None:
        for trial_id, pending in list(self._pending.items()):
            store.send(pending)
            pending.points = []
            if pending.result is not None:
                del self._pending[trial_id]

    def _close(self, store: _Store) -> None:
        for pending in self._pending.values():
            store.interrupt(pending)
        store.finish_parent(interrupted=self._interrupted)


def _pending_of(cells: Mapping[str, Cell], record: Mapping[str, Any]) -> dict[str, _Pending]:
    """What an earlier process's result would have queued; nothing if the plan no longer has its cell."""
    trial_id = record["trial_id"]
    if record["cell"] not in cells:
        return {}
    assignment = Assignment(cells[record["cell"]], record["draw"], TrialConfig(**record["config"]))
    result = results_of([record])[trial_id]
    return {trial_id: _Pending(assignment, record["ended_at"], list(result.curve), result)}


class _Store:
    """MLflow's side of one sweep."""

    def __init__(self, uri: str, plan: Plan, home: Home) -> None:
        self._client = _client(uri)
        self._uri = uri
        self._plan = plan
        self._home = home
        self._folder = home.sweep(plan.name)
        self._runs: dict[str, str] = {}
        self._done: set[str] = set()
        self._parent: str | None = None
        for record in _notes_about(self._folder.tracked, uri):
            self._replay(record)
        self._notes = Journal(self._folder.tracked)
        self._experiment = self._find_experiment()
        self._open_parent()
        self._found = self._find_unnoted()

    def is_done(self, trial_id: str) -> bool:
        """Its run has ended."""
        return trial_id in self._done

    def send(self, pending: _Pending) -> None:
        """Create the trial's run if it has none, send what is new of it, and end it if the trial has ended."""
        run_id = self._runs.get(pending.assignment.trial_id)
        metrics, params, tags = _as_metrics(pending.points), [], []
        if run_id is None:
            run_id = self._create(pending)
            params = _as_params(flat_config(pending.assignment.config.as_dict()))
        elif pending.result is not None:
            tags = _as_tags(result_tags(pending.result))
        for first in range(0, max(1, len(metrics)), BATCH_METRICS):
            batch = metrics[first : first + BATCH_METRICS]
            if batch or params or tags:
                self._client.log_batch(run_id, metrics=batch, params=params, tags=tags)
                params, tags = [], []
        if pending.result is not None:
            self._end(run_id, pending.result)

    def interrupt(self, pending: _Pending) -> None:
        """The sweep ends before the trial did; its run is continued when the trial is."""
        if run_id := self._runs.get(pending.assignment.trial_id):
            self._client.set_terminated(run_id, "KILLED")

    def finish_parent(self, *, interrupted: bool) -> None:
        """Upload what a team with only the server needs, and end the parent run."""
        assert self._parent
        for path in (self._folder.plan, self._folder.journal):
            if path.exists():
                self._client.log_artifact(self._parent, str(path))
        self._client.log_dict(self._parent, dict(self._plan.space.document), "space.yaml")
        self._client.set_terminated(self._parent, "KILLED" if interrupted else "FINISHED")
        self._notes.close()

    def _replay(self, record: Mapping[str, Any]) -> None:
        """Take over a note of an earlier process."""
        if record["kind"] == "parent":
            if record["run_id"] != self._parent:
                self._runs, self._done = {}, set()
            self._parent = record["run_id"]
        elif record["kind"] == "run":
            self._runs[record["trial_id"]] = record["run_id"]
        elif record["kind"] == "done":
            self._done.add(record["trial_id"])

    def _find_experiment(self) -> str:
        name = f"lossatlas/{self._plan.name}"
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        location = (self._home.path / "artifacts").as_uri() if self._uri == self._home.store_uri else None
        return str(self._client.create_experiment(name, artifact_location=location))

    def _open_parent(self) -> None:
        """Continue the parent run, or create it with what the sweep runs on."""
        if self._parent and self._reopen(self._parent):
            self._notes.append("parent", run_id=self._parent, uri=self._uri)
            return
        self._runs, self._done = {}, set()
        tags = {"mlflow.runName": self._plan.name, "lossatlas.kind": "sweep", **environment_tags()}
        self._parent = self._client.create_run(self._experiment, tags=tags).info.run_id
        self._notes.append("parent", run_id=self._parent, uri=self._uri)
        counts = {f"trials_{stage}": str(count) for stage, count in self._plan.trial_counts.items()}
        self._client.log_batch(self._parent, params=_as_params({**counts, "cells": len(self._plan.cells)}))

    def _reopen(self, run_id: str) -> bool:
        """Set a run running again; False if the store has lost it."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as err:
            if err.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _create(self, pending: _Pending) -> str:
        """A run for a trial, found again if a crash came between its creation and our note of it."""
        assignment = pending.assignment
        run_id = self._found.get(assignment.trial_id)
        if run_id is None:
            run = self._client.create_run(
                self._experiment,
                start_time=int(pending.started_at * 1000),
                tags={
                    "mlflow.parentRunId": str(self._parent),
                    **trial_tags(assignment),
                    **result_tags(pending.result),
                },
                run_name=f"{assignment.cell.label} draw {assignment.draw} replicate {assignment.config.replicate}",
            )
            run_id = run.info.run_id
        self._runs[assignment.trial_id] = run_id
        self._notes.append("run", trial_id=assignment.trial_id, run_id=run_id)
        return str(run_id)

    def _end(self, run_id: str, result: TrialResult) -> None:
        self._client.set_terminated(run_id, _STATUS[result.status], end_time=int((result.ended_at or 0) * 1000))
        self._done.add(result.trial_id)
        self._notes.append("done", trial_id=result.trial_id)

    def _find_unnoted(self) -> dict[str, str]:
        """Runs under the parent that the notes lack: the process died right after creating them."""
        found: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`mlflow.parentRunId` = '{self._parent}'", page_token=token
            )
            found |= {run.data.tags["lossatlas.trial_id"]: run.info.run_id for run in page}
            token = page.token
            if not token:
                return {trial_id: run_id for trial_id, run_id in found.items() if trial_id not in self._runs}


def fetch_trial(uri: str, run_id: str) -> TrackedTrial:
    """A trial from its run.

    Raises:
        ConfigError: If there is no such run, or it is no trial of LossAtlas.
    """
    from mlflow.exceptions import MlflowException

    try:
        client = _client(uri)
        run = client.get_run(run_id)
        history = client.get_metric_history(run_id, "val_accuracy")
    except MlflowException as err:
        raise ConfigError(f"no run {run_id!r} at {uri}; run ids are in the last column of `lossatlas table`.") from err
    if "lossatlas.config" not in run.data.tags:
        raise ConfigError(f"run {run_id!r} is no trial (a sweep's parent run?); take a run id of `lossatlas table`.")
    config, recipe = (json.loads(run.data.tags[f"lossatlas.{name}"]) for name in ("config", "recipe"))
    if not history:
        raise ConfigError(
            f"run {run_id!r} has no metrics to compare with; the trial failed before its first evaluation."
        )
    return TrackedTrial(config, recipe, dict(run.data.metrics), max(m.step for m in history))


def log_report(uri: str, tracked: Path, files: Iterable[Path]) -> str | None:
    """Add the report to the sweep's parent run; what went wrong, if anything (it is not worth failing for)."""
    parents = [r["run_id"] for r in read_journal(tracked) if r["kind"] == "parent" and r["uri"] == uri]
    try:
        for path in files if parents else ():
            _client(uri).log_artifact(parents[-1], str(path), "report")
    except Exception as err:  # noqa: BLE001 (whatever a tracker does, the report is on disk)
        return f"the report could not be sent to MLflow at {uri}: {err}"
    return None


def serve_ui(uri: str, port: int) -> int:
    """Serve MLflow's UI on a store until Ctrl-C; its exit status."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


def _client(uri: str) -> MlflowClient:
    """A client that gives up on a server that is away, and does not chatter."""
    os.environ.update({key: os.environ.get(key, value) for key, value in _HTTP.items()})
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _as_params(values: Mapping[str, Any]) -> list[Param]:
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in values.items()]


def _as_tags(values: Mapping[str, str]) -> list[RunTag]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in values.items()]


def _as_metrics(points: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """One metric per number and epoch; a loss that is no number is left out (the run is tagged as diverged).

    A row costs the store half a millisecond, so the seconds, which only grow, are sent with the last point alone.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    rows = [(name, p) for p in points for name in ("train_loss", "val_accuracy", "test_accuracy")]
    rows += [("train_s", p) for p in points[-1:]]
    return [Metric(name, p[name], now, p["epoch"]) for name, p in rows if p[name] is not None]
