"""The tidy table as parquet, and what its columns mean."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pandas as pd

COLUMNS: Final[Mapping[str, str]] = {
    "trial_id": "hash of all that the trial's metrics depend on",
    "cell": "combination of scientific factors in canonical form",
    "arms": "names in the space that own the cell, joined by |",
    "stage": "tune: finds the cell's best draw; confirm: that draw on fresh replicates",
    "replicate": "seed: 0, -1, ... in tune; 1 to R in confirm; the same seeds in every cell",
    "draw": "number of the nuisance setting; empty while it is not chosen",
    "loss": "canonical loss",
    "status": "finished, stopped (by early stopping), failed, running, pending, skipped (no usable draw)",
    "stopped_by": "what ended a stopped trial",
    "audited": "early stopping would have ended it, but it went on to measure whether that is safe",
    "diverged": "its loss became NaN or infinite; accuracy is chance",
    "selected": "best: enters cell values; shared: the draw that all cells share; empty otherwise",
    "epochs": "trained epochs",
    "val_accuracy": "on validation images, last evaluation, 0 to 1",
    "test_accuracy": "on test images, once, after the last epoch of confirm, 0 to 1",
    "test_accuracy_max": "best over evaluations, as the literature reports; never enters a value here",
    "train_s": "seconds of training",
    "run_id": "MLflow run",
}
SETTING: Final = "setting of the space; empty where the cell's loss does not have it"


def write_dictionary(table: pd.DataFrame, folder: Path) -> None:
    """Write landscape.parquet and dictionary.html into a folder."""
    typed = table.convert_dtypes()
    mixed = [name for name in typed if typed[name].dtype == object]
    typed.astype(dict.fromkeys(mixed, "string")).to_parquet(folder / "landscape.parquet")
    rows = "".join(
        f"<tr><td><code>{html.escape(str(name))}</code></td><td>{COLUMNS.get(str(name), SETTING)}</td></tr>"
        for name in table
    )
    (folder / "dictionary.html").write_text(
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Columns</title><table>{rows}</table></html>"
    )
