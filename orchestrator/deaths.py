"""Trials that died: which are tried again, and which have failed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from trainables.names import HOST_LOST

#: Why a trial died: its own code raised, memory ran out, or its process or node was lost.
ERROR: Final = "error"
MEMORY: Final = "memory"
LOST: Final = "lost"

MOST_DEATHS: Final = 5
_MEMORY_SIGNS: Final = ("OutOfMemoryError", "MemoryError", "CUDA out of memory", "not enough memory", "bad_alloc")
_LOST_SIGNS: Final = ("ActorDiedError", "ActorUnavailableError", "RayActorError", "WorkerCrashedError", "NodeDiedError")
_LOST_SIGNS_OF_OBJECTS: Final = (
    "ObjectLostError",
    "OwnerDiedError",
    "LocalRayletDiedError",
    "ObjectFetchTimedOutError",
)


class Deaths:
    """Counts how often each trial died since it last ended.

    A trial has failed when its own code raised the same error twice, when it ran out of memory twice, or when it died
    for the fifth time, whatever the causes: a killed process, a lost node or a preemption is not the trial's fault.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        """Take over what earlier processes wrote into the journal; a trial that ended begins again with none."""
        self._causes: dict[str, Counter[str]] = defaultdict(Counter)
        self._errors: dict[str, set[str]] = defaultdict(set)
        for record in records:
            if record["kind"] == "death":
                self.note(record["trial_id"], record["cause"], record["error"])
            elif record["kind"] == "result":
                self.forget(record["trial_id"])

    def note(self, trial_id: str, cause: str, error: str) -> bool:
        """Count a death; True if the trial has failed."""
        causes, line = self._causes[trial_id], last_line(error)
        causes[cause] += 1
        same = cause == ERROR and line in self._errors[trial_id]
        if cause == ERROR:
            self._errors[trial_id].add(line)
        return same or causes[MEMORY] >= 2 or causes.total() >= MOST_DEATHS

    def forget(self, trial_id: str) -> None:
        """The trial has ended."""
        self._causes.pop(trial_id, None)
        self._errors.pop(trial_id, None)

    def share(self, trial_id: str) -> int:
        """How many slots a trial gets: twice as many after it ran out of memory."""
        return 2 if self._causes[trial_id][MEMORY] else 1


def cause_of(error: str) -> str:
    """What a trial died of, from what was said; its own traceback counts before what Ray says."""
    if any(sign in error for sign in _MEMORY_SIGNS):
        return MEMORY
    if HOST_LOST in error:
        return LOST
    if "RayTaskError" not in error and any(sign in error for sign in (*_LOST_SIGNS, *_LOST_SIGNS_OF_OBJECTS)):
        return LOST
    return ERROR


def last_line(error: str) -> str:
    """The line of a traceback that names the error."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1] if lines else ""
