"""The mirror: a thread that keeps the tracker up to date with the journal. The sweep never waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from orchestrator.cells import Cell
from orchestrator.conductor import results_of
from orchestrator.home import Home
from orchestrator.journal import read_journal
from orchestrator.plan import Plan
from orchestrator.search import Assignment
from orchestrator.tracking.store import PendingTrial, Store
from trainables.config import TrialConfig

logger = logging.getLogger(__name__)

BATCH_S = 5.0


class Mirror:
    """Keeps one parent run per sweep and one child run per trial.

    Events are queued by `hear` and sent every few seconds from a thread of its own; a trial that lasts less than that
    is one creation, one batch and one ending. What was sent is noted in `tracked.jsonl`, so a trial id never gets two
    runs. If the tracker fails, the sweep goes on and the next `run` sends what is missing.
    """

    def __init__(self, plan: Plan, home: Home, uri: str, say: Callable[[str], None]) -> None:
        """Nothing is sent before the context is entered; a `uri` of "off" sends nothing at all."""
        self._plan = plan
        self._home = home
        self._uri = uri
        self._say = say
        self._queue: queue.SimpleQueue[tuple[str, Assignment, Any]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._pending: dict[str, PendingTrial] = {}
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
            self._ended.set()
            self._thread.join()
        if self._failed:
            self._say(f"MLflow at {self._uri} failed ({self._failed}); run the same command again to send the rest.")

    def _work(self) -> None:
        """Body of the thread."""
        try:
            store = Store(self._uri, self._plan, self._home)
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

    def _adopt(self, store: Store) -> None:
        """Queue results of earlier processes that have no finished run."""
        cells = {cell.label: cell for cell in self._plan.cells}
        starts = {r["trial_id"]: r["started_at"] for r in self._earlier if r["kind"] == "start"}
        for record in self._earlier:
            if record["kind"] == "result" and not store.is_done(record["trial_id"]):
                self._pending.update(_pending_of(cells, record, starts))

    def _collect(self) -> bool:
        """Let events gather, then take them; False after the last ones."""
        more = not self._ended.wait(BATCH_S)
        while not self._queue.empty():
            self._note(*self._queue.get())
        return more

    def _note(self, event: str, assignment: Assignment, detail: Any) -> None:
        if event == "start":
            self._pending[assignment.trial_id] = PendingTrial(assignment, started_at=detail)
            return
        pending = self._pending.setdefault(assignment.trial_id, PendingTrial(assignment, time.time()))  # died at birth
        if event == "report":
            pending.points.extend(detail)
        else:
            pending.result = detail

    def _send(self, store: Store) -> None:
        for trial_id, pending in list(self._pending.items()):
            store.send(pending)
            pending.points = []
            if pending.result is not None:
                del self._pending[trial_id]

    def _close(self, store: Store) -> None:
        for pending in self._pending.values():
            store.interrupt(pending)
        store.finish_parent(interrupted=self._interrupted)


def _pending_of(
    cells: Mapping[str, Cell], record: Mapping[str, Any], starts: Mapping[str, float]
) -> dict[str, PendingTrial]:
    """What an earlier process's result would have queued; nothing if the plan no longer has its cell."""
    trial_id = record["trial_id"]
    if record["cell"] not in cells:
        return {}
    assignment = Assignment(cells[record["cell"]], record["draw"], TrialConfig(**record["config"]))
    result = results_of([record])[trial_id]
    return {trial_id: PendingTrial(assignment, starts.get(trial_id, record["ended_at"]), list(result.curve), result)}
