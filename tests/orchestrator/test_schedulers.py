from __future__ import annotations

import math
import random

from orchestrator.schedulers import AUDIT, CONTINUE, STOP, Decision, StratifiedAsha
from search_spaces.settings import EarlyStopping


def asha(**changed: float) -> StratifiedAsha:
    return StratifiedAsha(EarlyStopping(**{"audit_frac": 0.0, **changed}))  # type: ignore[arg-type]


def judge(scheduler: StratifiedAsha, trial: str, value: float, *, stratum: str = "a", rung: int = 25) -> Decision:
    return scheduler.judge(trial, stratum=stratum, rung_epochs=rung, value=value)


def test_nothing_stops_before_the_minimum_population() -> None:
    scheduler = asha(min_rung_population=3)
    assert [judge(scheduler, str(v), v).action for v in (0.9, 0.1)] == [CONTINUE, CONTINUE]
    assert judge(scheduler, "x", 0.2) == Decision("x", "a", 25, 0.2, 0.9, 3, STOP)


def test_about_one_in_three_goes_on_by_hand() -> None:
    """Values in order of arrival, factor 3. At n = 3 the cutoff is the 3rd smallest, at n = 4 the 3rd, at 7 the 5th."""
    scheduler = asha()
    actions = [judge(scheduler, str(n), v).action for n, v in enumerate((0.5, 0.6, 0.7, 0.65, 0.4, 0.8, 0.66))]
    assert actions == [CONTINUE, CONTINUE, CONTINUE, CONTINUE, STOP, CONTINUE, CONTINUE]


def test_ties_continue() -> None:
    scheduler = asha()
    assert {judge(scheduler, str(n), 0.5).action for n in range(20)} == {CONTINUE}


def test_nan_is_the_worst_value_and_always_stops() -> None:
    scheduler = asha()
    assert judge(scheduler, "first", math.nan).action == STOP
    judge(scheduler, "b", math.nan)
    decision = judge(scheduler, "c", 0.1)
    assert (decision.action, decision.cutoff) == (CONTINUE, 0.1)


def test_all_nan_but_one_gives_a_finite_decision() -> None:
    scheduler = asha(reduction_factor=1.5)
    for name in "abcde":
        judge(scheduler, name, math.nan)
    assert judge(scheduler, "f", 0.2).action == CONTINUE


def test_strata_do_not_compete() -> None:
    scheduler = asha()
    for n in range(10):
        judge(scheduler, f"good{n}", 0.9, stratum="good")
    assert [judge(scheduler, f"bad{n}", 0.1, stratum="bad").action for n in range(10)] == [CONTINUE] * 10


def test_rungs_do_not_compete() -> None:
    scheduler = asha()
    for n in range(10):
        judge(scheduler, str(n), 0.9, rung=75)
    assert judge(scheduler, "x", 0.1, rung=25).action == CONTINUE


def test_audits_are_recorded_and_not_executed_in_the_given_share() -> None:
    scheduler = asha(audit_frac=0.25)
    judge(scheduler, "a", 0.9)
    judge(scheduler, "b", 0.9)
    actions = [judge(scheduler, f"trial{n}", 0.1 - n * 1e-6).action for n in range(4000)]
    assert set(actions) == {STOP, AUDIT}
    assert abs(actions.count(AUDIT) / 4000 - 0.25) < 0.03


def test_audited_trials_do_not_count_later_and_never_stop() -> None:
    scheduler = asha(audit_frac=1.0)
    judge(scheduler, "a", 0.9)
    judge(scheduler, "b", 0.8)
    assert judge(scheduler, "c", 0.1).action == AUDIT
    later = judge(scheduler, "c", 0.99, rung=75)
    assert (later.action, later.population) == (CONTINUE, 0)
    assert judge(scheduler, "a", 0.9, rung=75).population == 1


def test_replayed_scheduler_decides_as_the_first() -> None:
    draws = random.Random(0)
    arrivals = [(f"t{n}", draws.choice("ab"), draws.choice((25, 75)), draws.random()) for n in range(2000)]
    whole, first = asha(audit_frac=0.2), asha(audit_frac=0.2)
    expected = [whole.judge(t, stratum=s, rung_epochs=r, value=v) for t, s, r, v in arrivals]
    decisions = [first.judge(t, stratum=s, rung_epochs=r, value=v) for t, s, r, v in arrivals[:1000]]
    second = asha(audit_frac=0.2)
    second.replay({name: getattr(d, name) for name in Decision.__dataclass_fields__} for d in decisions)
    rest = [second.judge(t, stratum=s, rung_epochs=r, value=v) for t, s, r, v in arrivals[1000:]]
    assert decisions + rest == expected
