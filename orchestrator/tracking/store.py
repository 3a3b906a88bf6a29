"""MLflow's side of a sweep that runs: one parent run, one child per trial, each sent once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.home import Home
from orchestrator.journal import Journal
from orchestrator.plan import Plan
from orchestrator.run_fields import environment_tags, result_tags, sweep_params, trial_params, trial_tags
from orchestrator.search import FAILED, FINISHED, STOPPED, Assignment, TrialResult
from orchestrator.tracking.address import public_uri, require_own_place
from orchestrator.tracking.client import open_client, trial_runs
from orchestrator.tracking.notes import notes_about
from search_spaces import ConfigError

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag

BATCH_METRICS = 1000
_STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}


@dataclass(slots=True)
class PendingTrial:
    """What is not yet sent of one trial.

    Attributes:
        assignment: The trial.
        started_at: Unix time in seconds, of its first start.
        points: Of its curve.
        result: How it ended; None while it runs.
        again: It died and began once more, so that points come that may have been sent.
    """

    assignment: Assignment
    started_at: float
    points: list[dict[str, Any]] = field(default_factory=list)
    result: TrialResult | None = None
    again: bool = False


class Store:
    """MLflow's side of one sweep."""

    def __init__(self, uri: str, plan: Plan, home: Home) -> None:
        with home.store_lock():
            self._client = open_client(uri)  # makes the tables of a new database
        self._uri = public_uri(uri)
        self._plan = plan
        self._home = home
        self._folder = home.sweep(plan.name)
        self._runs: dict[str, str] = {}
        self._done: set[str] = set()
        self._parent: str | None = None
        self._sent_epochs: dict[str, int] = {}
        for record in notes_about(self._folder.tracked, self._uri):
            self._replay(record)
        self._notes = Journal(self._folder.tracked)
        try:
            self._experiment = self._find_experiment()
            self._open_parent()
            require_own_place(self._client.get_run(str(self._parent)).info.artifact_uri, home, uri)
            for trial_id, run_id in self._find_unnoted().items():
                self._note_run(trial_id, run_id)
        except BaseException:
            self._notes.close()
            raise
        self._begun_earlier = set(self._runs) - self._done

    def is_done(self, trial_id: str) -> bool:
        """Its run has ended."""
        return trial_id in self._done

    def send(self, pending: PendingTrial) -> None:
        """Create the trial's run if it has none, send what is new of it, and end it if the trial has ended."""
        trial_id = pending.assignment.trial_id
        if pending.again and trial_id in self._runs:
            self._begun_earlier.add(trial_id)
            pending.again = False
        tags = _as_tags(result_tags(pending.result)) if trial_id in self._runs else []  # else the creation has them
        is_new = trial_id not in self._runs or trial_id in self._begun_earlier
        params = _as_params(trial_params(self._plan, pending.assignment)) if is_new else []
        metrics = _as_metrics(self._unsent(pending), pending.started_at)
        run_id = self._runs.get(trial_id) or self._create(pending)
        for first in range(0, max(1, len(metrics)), BATCH_METRICS):
            batch = metrics[first : first + BATCH_METRICS]
            if batch or params or tags:
                self._client.log_batch(run_id, metrics=batch, params=params, tags=tags)
                params, tags = [], []
        if pending.result is not None:
            self._end(run_id, pending.result)

    def _unsent(self, pending: PendingTrial) -> list[dict[str, Any]]:
        """Points that no earlier process sent: a trial that begins again goes through the same points again."""
        trial_id = pending.assignment.trial_id
        if trial_id in self._begun_earlier:
            if pending.result is not None:  # all of it, for what an outage swallowed is not among the new points
                pending.points = list(pending.result.curve)
            history = self._client.get_metric_history(self._runs[trial_id], "val_accuracy")
            self._sent_epochs[trial_id] = max((m.step for m in history), default=0)
            self._begun_earlier.remove(trial_id)
        return [p for p in pending.points if p["epoch"] > self._sent_epochs.get(trial_id, 0)]

    def close(self) -> None:
        """Stop noting; another store may be opened for the sweep."""
        self._notes.close()

    def interrupt(self, pending: PendingTrial) -> None:
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
        if found and found.lifecycle_stage == "deleted":
            raise ConfigError(
                f"the experiment {name} was deleted there; bring it back with `mlflow experiments restore -x "
                f"{found.experiment_id}` (MLFLOW_TRACKING_URI={self._uri}), or run the space under another --name."
            )
        if found:
            return str(found.experiment_id)
        # a database has no place for files; left alone, MLflow would put them into the working directory
        is_server = self._uri.startswith(("http", "databricks"))
        location = None if is_server else (self._home.path / "artifacts").as_uri()
        return str(self._client.create_experiment(name, artifact_location=location))

    def _open_parent(self) -> None:
        """Continue the parent run, or create it with what the sweep runs on.

        A sweep that lost its notes is found again by the id in its plan.
        """
        sweep_id = self._folder.read_plan()["facts"].get("sweep_id", "")
        if self._parent is None and sweep_id:
            known = f"tags.`lossatlas.sweep_id` = '{sweep_id}'"
            found = self._client.search_runs([self._experiment], known)
            self._parent = found[0].info.run_id if found else None
        if self._parent and self._reopen(self._parent):
            self._notes.append("parent", run_id=self._parent, uri=self._uri)
            return
        self._runs, self._done = {}, set()
        tags = {"mlflow.runName": self._plan.name, "lossatlas.kind": "sweep", **environment_tags()}
        tags |= {"lossatlas.sweep_id": sweep_id} if sweep_id else {}
        self._parent = self._client.create_run(self._experiment, tags=tags).info.run_id
        self._notes.append("parent", run_id=self._parent, uri=self._uri)
        self._client.log_batch(self._parent, params=_as_params(sweep_params(self._plan)))

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

    def _create(self, pending: PendingTrial) -> str:
        """A run for a trial."""
        assignment = pending.assignment
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
        self._note_run(assignment.trial_id, run.info.run_id)
        return str(run.info.run_id)

    def _note_run(self, trial_id: str, run_id: str) -> None:
        self._runs[trial_id] = run_id
        self._notes.append("run", trial_id=trial_id, run_id=run_id)

    def _end(self, run_id: str, result: TrialResult) -> None:
        self._client.set_terminated(run_id, _STATUS[result.status], end_time=int((result.ended_at or 0) * 1000))
        self._done.add(result.trial_id)
        self._notes.append("done", trial_id=result.trial_id)

    def _find_unnoted(self) -> dict[str, str]:
        """Runs under the parent that the notes lack: the process died right after creating them."""
        found = trial_runs(self._client, self._experiment, str(self._parent))
        return {trial_id: run_id for trial_id, run_id in found.items() if trial_id not in self._runs}


def _as_params(values: Mapping[str, Any]) -> list[Param]:
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in values.items()]


def _as_tags(values: Mapping[str, str]) -> list[RunTag]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in values.items()]


def _as_metrics(points: Sequence[Mapping[str, Any]], started_at: float) -> list[Metric]:
    """One metric per number and epoch; a loss that is no number is left out (the run is tagged as diverged).

    A row costs the store half a millisecond, so the seconds, which only grow, are sent with the last point alone.
    """
    from mlflow.entities import Metric

    # validation last: where it is in the store, all of the point is (see `Store._unsent`)
    rows = [("train_s", p) for p in points[-1:]]
    rows += [(name, p) for p in points for name in ("train_loss", "test_accuracy", "val_accuracy")]
    return [
        Metric(name, p[name], int((started_at + p["train_s"]) * 1000), p["epoch"])
        for name, p in rows
        if p[name] is not None
    ]
