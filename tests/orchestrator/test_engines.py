"""What `auto` means for number format and engine, from costs that are in the cache already."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator import RunOptions, Sweep
from orchestrator.engines import choose_engine
from orchestrator.home import write_json
from orchestrator.plan import Plan
from orchestrator.prepare import cost_classes
from search_spaces import ConfigError, load_space
from tests.conftest import TINY


def plan_of(*changes: str) -> Plan:
    return Plan("tiny", load_space(copy.deepcopy(TINY), changes), "cpu")


def about(plan: Plan, pixels: float) -> dict[str, dict[str, Any]]:
    return {key: {"distilled_pixels": pixels} for key in plan.data_keys.values()}


def keep_costs(
    plan: Plan, cache: Path, seconds: dict[tuple[str, str], float], together: tuple[float, float] = (1.0, 1.0)
) -> None:
    """Costs by number format and engine, as probes would keep them, of one trial and of two cores' worth of trials at once.

    `together`: seconds of a trial beside another one, and of one with two threads; two side by side are twice as many.
    """
    for precision, engine in seconds:
        for threads in (1, 2):
            other = {"precision": precision, "engine": engine, "threads": threads}
            for name in cost_classes(replace(plan, resolved=other)):
                write_json(cache / f"probe-{name}-x{2 // threads}.json", {"trial_s": together[threads - 1]})
    for (precision, engine), trial_s in seconds.items():
        resolved = replace(plan, resolved={"precision": precision, "engine": engine})
        for name in cost_classes(resolved):
            write_json(cache / f"probe-{name}.json", {"trial_s": trial_s, "peak_host_bytes": 1.0})


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)


SLOW = {("fp32", "eager"): 1000.0, ("fp32", "compiled"): 700.0, ("bf16", "compiled"): 300.0, ("bf16", "eager"): 2000.0}


@pytest.mark.parametrize(
    ("changes", "costs", "chosen"),
    [
        ((), {}, {"precision": "bf16", "engine": "compiled"}),
        ((), {("bf16", "compiled"): 800.0}, {"precision": "fp32", "engine": "compiled"}),
        ((), {("bf16", "compiled"): 950.0, ("fp32", "compiled"): 950.0}, {"precision": "fp32", "engine": "eager"}),
        (("fixed.precision=fp32", "fixed.engine=eager", "resources.cpus=1"), {}, {}),
    ],
)
def test_the_fastest_is_chosen_if_it_is_worth_it(
    changes: tuple[str, ...], costs: dict[tuple[str, str], float], chosen: dict[str, str], tmp_path: Path
) -> None:
    plan = plan_of(*changes)
    keep_costs(plan, tmp_path, SLOW | costs)
    told: list[str] = []
    found = choose_engine(plan, about(plan, 1e9), tmp_path, told.append)
    assert found == (chosen | {"threads": 1} if chosen else {})
    assert bool(told) == bool(chosen)


@pytest.mark.parametrize(("beside", "two_threads", "threads"), [(10.0, 6.0, 1), (10.0, 4.6, 1), (10.0, 4.4, 2)])
def test_threads_are_those_that_give_the_most_trials_per_hour(
    beside: float, two_threads: float, threads: int, tmp_path: Path
) -> None:
    """Two trials of one thread in 10 s are one per 5 s; a trial of two threads must take less than 4.5 s."""
    plan = plan_of("fixed.precision=fp32", "fixed.engine=eager")
    keep_costs(plan, tmp_path, SLOW, (beside, two_threads))
    told: list[str] = []
    found = choose_engine(plan, about(plan, 1e9), tmp_path, told.append)
    assert found == {"threads": threads}
    config = replace(plan, resolved=found).trial(plan.cells[0], 0, 1, "confirm")
    assert config.threads == replace(plan, resolved=found).cpus == threads
    assert f"720 with 1, {3600 / two_threads:.0f} with 2; taking {threads}" in told[-1]


def test_a_setting_that_is_given_stays(tmp_path: Path) -> None:
    plan = plan_of("fixed.precision=fp32")
    keep_costs(plan, tmp_path, {kind: seconds for kind, seconds in SLOW.items() if kind[0] == "fp32"})
    chosen = choose_engine(plan, about(plan, 1e9), tmp_path, lambda text: None)
    config = replace(plan, resolved=chosen).trial(plan.cells[0], 0, 1, "confirm")
    assert (config.precision, config.engine) == ("fp32", "compiled")


def test_short_sweeps_are_not_measured(tmp_path: Path) -> None:
    plan = plan_of()
    assert choose_engine(plan, about(plan, 2560), tmp_path, print) == {}, "nothing is probed"
    keep_costs(plan, tmp_path, {("fp32", "eager"): 0.1})
    assert choose_engine(plan, about(plan, 1e9), tmp_path, print) == {}, "one probe is enough to know"


@pytest.fixture
def measured(home: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Sweep, pd.DataFrame]:
    """A sweep that found bf16, eager the fastest, and its table."""
    monkeypatch.setattr("orchestrator.engines.WORTH_PIXELS", 0.0)
    sweep = Sweep.from_space(tiny, home=home)
    keep_costs(sweep.plan, home / "cache", SLOW | {("bf16", "eager"): 1.0})
    return sweep, sweep.run(RunOptions(local=True, tracking_uri="off")).table


@pytest.mark.slow
def test_what_was_chosen_stays_with_the_sweep(
    measured: tuple[Sweep, pd.DataFrame], home: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, table = measured
    assert sweep.folder.read_plan()["resolved"] == {"precision": "bf16", "engine": "eager", "threads": 1}
    monkeypatch.setattr("orchestrator.engines.WORTH_PIXELS", 1e99)
    again = Sweep.from_space(tiny, home=home)
    assert again.run(RunOptions(local=True, tracking_uri="off")).table.trial_id.tolist() == table.trial_id.tolist()
    assert Sweep.stored("tiny", home).landscape().table.trial_id.tolist() == table.trial_id.tolist()
    plain = Sweep.from_space(tiny, home=home, name="plain").run(RunOptions(local=True, tracking_uri="off")).table
    assert not set(plain.trial_id) & set(table.trial_id)


@pytest.mark.slow
def test_compiled_students_without_a_compiler_are_refused_before_anything_starts(
    home: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    tiny["fixed"]["engine"] = "compiled"
    with pytest.raises(
        ConfigError, match=r"fixed\.engine: compiled, but there is no C\+\+ compiler .*; use auto or eager"
    ):
        Sweep.from_space(tiny, home=home).run(RunOptions(local=True, tracking_uri="off"))
    assert not (home / "sweeps" / "tiny" / "plan.json").exists()


@pytest.mark.slow
def test_a_sweep_that_lost_its_plan_goes_on_as_what_it_was(
    measured: tuple[Sweep, pd.DataFrame], home: Path, tiny: dict[str, Any]
) -> None:
    sweep, before = measured
    sweep.folder.plan.unlink()
    keep_costs(sweep.plan, home / "cache", SLOW | {("fp32", "compiled"): 1.0})
    after = Sweep.from_space(tiny, home=home).run(RunOptions(local=True, tracking_uri="off")).table
    assert after.trial_id.tolist() == before.trial_id.tolist()
    assert (after.train_s == before.train_s).all(), "nothing was trained again"


@pytest.mark.slow
def test_a_plan_from_before_there_were_engines_is_read(home: Path, tiny: dict[str, Any]) -> None:
    """The engine "eager" is no part of an id, and of a signature."""
    sweep = Sweep.from_space(tiny, home=home)
    before = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    plan = sweep.folder.read_plan()
    del plan["resolved"]
    write_json(sweep.folder.plan, plan)
    lines = sweep.folder.journal.read_text()
    assert '"engine"' in lines
    assert Sweep.stored("tiny", home).landscape().table.status.tolist() == before.status.tolist()
    config = sweep.plan.trial(sweep.plan.cells[0], 0, 1, "confirm")
    assert "engine" not in config.identity()
    assert replace(config, engine="compiled").identity()["engine"] == "compiled"
