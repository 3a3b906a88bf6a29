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
from orchestrator.plan import Plan
from orchestrator.records import read_records
from orchestrator.search import Assignment
from orchestrator.tracking.address import public_uri, without_secrets
from orchestrator.tracking.store import PendingTrial, Store
from search_spaces import ConfigError
from trainables.config import TrialConfig

logger = logging.getLogger(__name__)

BATCH_S = 5.0
#: Longest pause before a tracker that failed is tried again.
MOST_PAUSE_S = 60.0
#: How long, and how often, a tracker is waited for when the sweep has ended.
LAST_WAIT_S = 15.0
LAST_PAUSE_S = 3.0


class Mirror:
    """Keeps one parent run per sweep and one child run per trial.

    Events are queued by `hear` and sent every few seconds from a thread of its own; a trial that lasts less than that
    is one creation, one batch and one ending. What was sent is noted in `tracked.jsonl`, so a trial id never gets two
    runs. While the tracker is away or answers with errors, events are kept and the tracker is tried again, less and less
    often; each time, what it has is looked up as after a crash, so that nothing is sent twice. What it has not taken when
    the sweep ends is sent by `lossatlas sync` or the next `run`.
    """

    def __init__(
        self, plan: Plan, home: Home, uri: str, say: Callable[[str], None], *, interrupted: bool = False
    ) -> None:
        """Nothing is sent before the context is entered; a `uri` of "off" sends nothing at all.

        Args:
            plan: Of the sweep.
            home: Where it lies.
            uri: Of the tracker.
            say: Told when the tracker goes away and comes back.
            interrupted: The sweep is not complete when the context is left, even if nothing is raised.
        """
        self._plan = plan
        self._home = home
        self._uri = uri
        self._say = say
        self._queue: queue.SimpleQueue[tuple[str, Assignment, Any]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._pending: dict[str, PendingTrial] = {}
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._store: Store | None = None
        self._failed: str | None = None
        self._failures = 0
        self._refused = False
        self._interrupted = interrupted
        self._earlier: list[dict[str, Any]] | None = None
        self.cpu_s = 0.0

    def hear(self, event: str, assignment: Assignment, detail: Any) -> None:
        """Queue an event of the conductor; returns at once."""
        self._queue.put((event, assignment, detail))

    @property
    def backlog(self) -> int:
        """Trials that the tracker does not know all of yet."""
        return len(self._pending)

    def __enter__(self) -> Self:
        self._earlier = read_records(self._home.sweep(self._plan.name).journal)
        if self._uri != "off":
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left and end all runs."""
        self._interrupted |= kind is not None
        if self._thread.is_alive():
            self._ended.set()
            self._thread.join()
        if self._failed:
            then = " once that is mended" if self._refused else ""
            self._say(
                f"MLflow at {public_uri(self._uri)} failed ({self._failed}); the sweep itself is complete on disk. "
                f"`lossatlas sync {self._plan.name} --home {self._home.path}` sends the rest{then}."
            )

    @property
    def complete(self) -> bool:
        """The tracker has everything."""
        return self._uri != "off" and self._failed is None

    def _work(self) -> None:
        """Body of the thread."""
        self._attempt(lambda store: None)  # loads MLflow, which takes seconds, while Ray starts
        alive = True
        while alive:
            alive = self._collect()
            self._attempt(self._send)
        deadline = time.monotonic() + LAST_WAIT_S  # one that is being restarted is waited for, one that is gone is not
        while not self._attempt(self._close) and not self._refused and time.monotonic() < deadline:
            time.sleep(LAST_PAUSE_S)
        self.cpu_s = time.thread_time()

    def _attempt(self, work: Callable[[Store], None]) -> bool:
        """Do something with the tracker; False if it failed, and then what it has is looked up next time."""
        try:
            self._store = self._store or Store(self._uri, self._plan, self._home)
            self._adopt(self._store)
            work(self._store)
        except Exception as err:  # whatever a tracker does, the sweep goes on
            self._refused = isinstance(err, ConfigError)  # by us, so that waiting does not help
            logger.debug("MLflow mirror failed", exc_info=True)
            said = without_secrets(err)
            if self._failed is None:
                again = "nothing is sent" if self._refused else "trying again"
                self._say(f"MLflow at {public_uri(self._uri)} does not take what it is sent ({said}); {again}.")
            self._failed = said if self._refused else f"{type(err).__name__}: {said}"
            if self._store is not None:
                self._store.close()
            self._store, self._failures = None, self._failures + 1
            return False
        if self._failed is not None:
            self._say(f"MLflow at {public_uri(self._uri)} is back.")
        self._failed, self._failures = None, 0
        return True

    def _adopt(self, store: Store) -> None:
        """Queue results of earlier processes that have no finished run; once."""
        earlier, self._earlier = self._earlier, None
        if earlier is None:
            return
        cells = {cell.label: cell for cell in self._plan.cells}
        starts = {r["trial_id"]: r["started_at"] for r in earlier if r["kind"] == "start"}
        for record in earlier:
            if record["kind"] == "result" and record["cell"] in cells and not store.is_done(record["trial_id"]):
                self._pending.setdefault(record["trial_id"], _pending_of(cells[record["cell"]], record, starts))

    def _collect(self) -> bool:
        """Let events gather, then take them; False after the last ones."""
        more = not self._ended.wait(min(BATCH_S * 2**self._failures, MOST_PAUSE_S))
        while not self._queue.empty():
            self._note(*self._queue.get())
        return more

    def _note(self, event: str, assignment: Assignment, detail: Any) -> None:
        if event == "start":
            self._pending.setdefault(assignment.trial_id, PendingTrial(assignment, started_at=detail))
            return
        pending = self._pending.setdefault(assignment.trial_id, PendingTrial(assignment, time.time()))  # died at birth
        if event == "report":
            pending.points.extend(detail)
        elif event == "death":
            pending.points, pending.again = [], True
        else:
            pending.result = detail

    def _send(self, store: Store) -> None:
        for trial_id, pending in list(self._pending.items()):
            store.send(pending)
            pending.points = []
            if pending.result is not None:
                del self._pending[trial_id]

    def _close(self, store: Store) -> None:
        self._send(store)
        for pending in self._pending.values():
            store.interrupt(pending)
        store.finish_parent(interrupted=self._interrupted)


def _pending_of(cell: Cell, record: Mapping[str, Any], starts: Mapping[str, float]) -> PendingTrial:
    """What an earlier process's result would have queued."""
    trial_id = record["trial_id"]
    assignment = Assignment(cell, record["draw"], TrialConfig(**record["config"]))
    result = results_of([record])[trial_id]
    return PendingTrial(assignment, starts.get(trial_id, record["ended_at"]), list(result.curve), result)
