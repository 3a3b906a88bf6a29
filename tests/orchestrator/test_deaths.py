"""Which trials are tried again after they died, and which have failed."""

from __future__ import annotations

import pytest

from orchestrator.deaths import ERROR, LOST, MEMORY, Deaths, cause_of
from trainables.names import HOST_LOST


def test_the_same_error_twice_is_a_failure_and_another_one_is_not() -> None:
    deaths = Deaths()
    assert not deaths.note("a", ERROR, "Traceback\nValueError: one\n")
    assert not deaths.note("a", ERROR, "Traceback\nKeyError: two\n")
    assert not deaths.note("b", ERROR, "ValueError: one"), "each trial has its own count"
    assert deaths.note("a", ERROR, "another traceback\nValueError: one")


def test_running_out_of_memory_twice_is_a_failure_and_once_doubles_the_share() -> None:
    deaths = Deaths()
    assert deaths.share("a") == 1
    assert not deaths.note("a", MEMORY, "killed")
    assert (deaths.share("a"), deaths.share("b")) == (2, 1)
    assert not deaths.note("a", LOST, "gone")
    assert deaths.note("a", MEMORY, "killed again")


def test_lost_processes_count_only_at_the_fifth() -> None:
    deaths = Deaths()
    assert [deaths.note("a", LOST, "gone") for _ in range(5)] == [False] * 4 + [True]


def test_counts_survive_in_the_journal_and_end_with_the_trial() -> None:
    death = {"kind": "death", "trial_id": "a", "cause": ERROR, "error": "ValueError: one"}
    assert Deaths([death]).note("a", ERROR, "ValueError: one")
    ended = {"kind": "result", "trial_id": "a", "status": "failed"}
    assert not Deaths([death, ended]).note("a", ERROR, "ValueError: one"), "tried again by the next run"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("ray.exceptions.RayTaskError(ValueError): ray::StudentTrainable.train()\nValueError: x", ERROR),
        ("Traceback (most recent call last):\nKeyError: 'x'", ERROR),
        ("ray.exceptions.RayTaskError(OutOfMemoryError): torch.OutOfMemoryError: CUDA out of memory. Tried", MEMORY),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", MEMORY),
        ("RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", MEMORY),
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.", LOST),
        ("ray.exceptions.NodeDiedError: Task failed due to the node dying", LOST),
        ("ray.exceptions.RayTaskError(RuntimeError): RayActorError is only a word in this message", ERROR),
    ],
)
def test_causes_are_told_from_what_was_said(text: str, cause: str) -> None:
    assert cause_of(text) == cause


def test_a_lost_host_is_not_the_trials_fault() -> None:
    said = f"ray.exceptions.RayTaskError(RuntimeError): ...\nRuntimeError: {HOST_LOST}"
    assert cause_of(said) == LOST
