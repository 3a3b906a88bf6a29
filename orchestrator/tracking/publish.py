"""What a finished sweep adds to its runs: the report, the cells' means, a student as a registered model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.home import Home
from orchestrator.tracking.address import public_uri, require_own_place, without_secrets
from orchestrator.tracking.client import open_client
from orchestrator.tracking.notes import notes_about
from search_spaces import ConfigError

if TYPE_CHECKING:
    import numpy as np


def log_report(uri: str, home: Home, sweep: str, files: Iterable[Path]) -> str | None:
    """Add the report to the sweep's parent run; what went wrong, if anything (it is not worth failing for)."""
    notes = notes_about(home.sweep(sweep).tracked, public_uri(uri))
    parents = [record["run_id"] for record in notes if record["kind"] == "parent"]
    try:
        client = open_client(uri)
        if parents:
            require_own_place(client.get_run(parents[-1]).info.artifact_uri, home, uri)
        for path in files if parents else ():
            client.log_artifact(parents[-1], str(path), "report")
    except Exception as err:  # noqa: BLE001 (whatever a tracker does, the report is on disk)
        return f"the report could not be sent to MLflow at {public_uri(uri)}: {without_secrets(err)}"
    return None


def log_cells(uri: str, cells: Iterable[Mapping[Any, Any]]) -> str | None:
    """Log each cell's mean, interval and n on the run of its first confirm trial; what went wrong, if anything.

    MLflow's browser can then sort and filter cells: `metrics.cell_n > 0` shows one run per cell.

    Args:
        uri: Of the tracker.
        cells: run_id, mean, low, high, n of each cell.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    try:
        client = open_client(uri)
        for cell in cells:
            values = {f"cell_{key}": cell[key] for key in ("mean", "low", "high", "n") if cell[key] == cell[key]}
            client.log_batch(cell["run_id"], metrics=[Metric(key, float(v), now, 0) for key, v in values.items()])
    except Exception as err:  # noqa: BLE001 (whatever a tracker does, the table is on disk)
        return f"the cells' means could not be sent to MLflow at {public_uri(uri)}: {without_secrets(err)}"
    return None


def register_student(  # noqa: PLR0913 (what a registered model is made of)
    uri: str, home: Home, run_id: str, name: str, *, student: Any, pixels: np.ndarray, logits: np.ndarray
) -> str:
    """Make a trial's student a version of a registered model; the version.

    The model is a graph (torch.export), no pickle; its signature is images (-1, channels, H, W) in [0, 1] to logits.

    Args:
        uri: Of the tracker.
        home: Where files may be written, if the tracker asks for a folder.
        run_id: Of the trial; the model is linked to it.
        name: Of the registered model.
        student: A torch module on pixels, in evaluation mode.
        pixels: An example of its input, of more than one image.
        logits: Its output for them.

    Raises:
        ConfigError: If the tracker does not take it, such as for a name that it does not allow.
    """
    client = open_client(uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow's imports and torch.export's archive talk of themselves
        import mlflow.pytorch
        from mlflow.entities import LoggedModelOutput
        from mlflow.exceptions import MlflowException
        from mlflow.models import infer_signature

        mlflow.set_tracking_uri(uri)
        try:
            run = client.get_run(run_id)
            require_own_place(run.info.artifact_uri, home, uri)
            model = client.create_logged_model(
                run.info.experiment_id, name="student", source_run_id=run_id, params=run.data.params
            )
            require_own_place(model.artifact_location, home, uri)
            info = mlflow.pytorch.log_model(
                student,
                model_id=model.model_id,
                registered_model_name=name,
                signature=infer_signature(pixels, logits),
                input_example=pixels,
                serialization_format="pt2",
            )
            client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=0)])
        except MlflowException as err:
            raise ConfigError(f"--register {name}: {without_secrets(err)}") from err
    return str(info.registered_model_version)
