"""Sweeps that tune, confirm or report in another way than by default, from the space to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator import RunOptions, Sweep
from orchestrator.landscape.landscape import Landscape
from orchestrator.report import Findings, write_report

pytestmark = pytest.mark.slow


def run(space: dict[str, Any], home: Path) -> tuple[Landscape, Path]:
    """A sweep in this process and its page."""
    landscape = Sweep.from_space(space, home=home).run(RunOptions(local=True, tracking_uri="off"))
    return landscape, write_report(Findings(landscape), home / "report")


def test_a_shared_draw_is_confirmed_beside_the_best_and_draws_are_tuned_on_two_replicates(
    tiny: dict[str, Any], home: Path
) -> None:
    tiny["scientific"]["loss"] = ["ce", "gift"]
    landscape, page = run({**tiny, "confirm": ["best", "shared"], "tune_replicates": 2}, home)
    table = landscape.table
    assert sorted(table[table.stage == "tune"].replicate.unique()) == [-1, 0]
    confirm = table[table.stage == "confirm"]
    shared = confirm[confirm.selected.str.contains("shared")]
    assert shared.draw.nunique() == 1, "one draw for all cells"
    assert shared.groupby("cell").size().to_dict() == dict.fromkeys(table.cell.unique(), 2)
    best = confirm[confirm.selected.str.contains("best")]
    assert best.groupby("cell").size().to_dict() == dict.fromkeys(table.cell.unique(), 2)
    ranges = pd.read_csv(page.parent / "sensitivity.csv")
    assert ranges.source.tolist() == ["confirm"]
    assert ranges.shared_low.notna().all()
    by_hand = shared.groupby("arms").test_accuracy.mean()
    assert ranges.shared[0] == pytest.approx(by_hand.max() - by_hand.min())


def test_the_protocol_of_papers_tunes_nothing_and_reports_its_maximum_apart(tiny: dict[str, Any], home: Path) -> None:
    del tiny["nuisance"]
    space = {**tiny, "protocol": "paper", "replicates": 2, "fixed": {**tiny["fixed"], "lr": 0.01}}
    landscape, page = run(space, home)
    table = landscape.table
    assert (table.stage == "confirm").all()
    assert (table.test_accuracy_max >= table.test_accuracy).all()
    assert (table.test_accuracy_max > table.test_accuracy).any()
    text = page.read_text()
    assert "all losses at the same fixed settings" in text.lower()
    assert "best of all evaluations" in text
    assert "How much does tuning matter?" not in text
