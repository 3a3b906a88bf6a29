"""Read a trial or a whole sweep from a tracker."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.home import Home
from orchestrator.journal import Journal
from orchestrator.run_fields import TrackedTrial, tracked_cell
from orchestrator.tracking.address import agree, check_uri, public_uri, require_agreed_place, without_secrets
from orchestrator.tracking.client import open_client, trial_runs
from search_spaces import ConfigError
from search_spaces.trials import check_trial
from trainables.config import TrialConfig
from trainables.versions import VERSIONS, changed, of_data, of_trial

if TYPE_CHECKING:
    from mlflow.entities import Run


def fetch_trial(uri: str, run_id: str) -> TrackedTrial:
    """A trial from its run.

    Raises:
        ConfigError: If there is no such run, or it is no trial of LossAtlas.
    """
    from mlflow.exceptions import MlflowException

    try:
        client = open_client(uri)
        run = client.get_run(run_id)
        history = client.get_metric_history(run_id, "val_accuracy")
    except MlflowException as err:
        raise ConfigError(
            f"no run {run_id!r} at {public_uri(uri)} ({without_secrets(err)}); run ids are in the last column of "
            "`lossatlas table`."
        ) from err
    if "lossatlas.config" not in run.data.tags:
        raise ConfigError(f"run {run_id!r} is no trial (a sweep's parent run?); take a run id of `lossatlas table`.")
    if not history:
        raise ConfigError(
            f"run {run_id!r} has no metrics to compare with; the trial failed before its first evaluation."
        )
    config, recipe, settings = (_tag(run, name) for name in ("config", "recipe", "settings"))
    checked = check_trial(config, f"run {run_id}: lossatlas.config")
    parts = _changed_parts(recipe, checked)
    if parts or settings is None:
        raise ConfigError(
            f"run {run_id!r} is from a LossAtlas that computes in another way ({', '.join(parts) or 'settings unknown'}); "
            "install that one to reproduce it."
        )
    return TrackedTrial(checked, tracked_cell(settings, checked), dict(run.data.metrics), max(m.step for m in history))


def _changed_parts(recipe: Any, config: TrialConfig) -> list[str]:
    """Parts of the code that have another version than when a trial was trained, in words."""
    stored = recipe.get("versions") if isinstance(recipe, dict) else None
    made_by = {part: v for part, v in stored.items() if isinstance(v, int)} if isinstance(stored, dict) else {}
    teacher, projector = (_mapping(recipe, key) for key in ("teacher", "projector"))
    needed = of_data(teacher, projector) | {part: 0 for part in made_by if part in VERSIONS}
    here = {part: VERSIONS[part] for part in needed} | of_trial(config.loss, config.schedule)
    return changed({**made_by, **config.versions}, here)


def _mapping(recipe: Any, key: str) -> dict[str, Any] | None:
    value = recipe.get(key) if isinstance(recipe, dict) else None
    return value if isinstance(value, dict) else None


def _tag(run: Run, name: str) -> Any:
    """What a tag of ours holds; None where it is missing or no JSON."""
    try:
        return json.loads(run.data.tags.get(f"lossatlas.{name}", ""))
    except (ValueError, RecursionError):
        return None


def fetch_sweep(uri: str, name: str, home: Home) -> None:
    """Bring a sweep's plan, journal and run ids from the tracker into this home, so that it can be read here.

    Raises:
        ConfigError: If the sweep was run in this home, the tracker cannot be asked, or it has no such sweep.
    """
    from mlflow.exceptions import MlflowException

    check_uri(uri)
    agree(uri)
    home.require_writable()
    folder = home.sweep(name)
    if (folder.path / "lock").exists():
        raise ConfigError(f"sweep {name!r} was run in {home.path}; leave --tracking-uri out, or give another --home.")
    try:
        client = open_client(uri)
        experiment = client.get_experiment_by_name(f"lossatlas/{name}")
        known = experiment.experiment_id if experiment else ""
        order = ["attributes.start_time DESC"]
        parents = client.search_runs([known], "tags.`lossatlas.kind` = 'sweep'", order_by=order) if known else []
        if not parents:
            raise ConfigError(f"no sweep {name!r} at {public_uri(uri)}.")
        parent = parents[0].info.run_id
        require_agreed_place(parents[0].info.artifact_uri, uri)
        with tempfile.TemporaryDirectory() as place:
            found = [Path(client.download_artifacts(parent, p.name, place)) for p in (folder.plan, folder.journal)]
            folder.path.mkdir(parents=True, exist_ok=True)
            for path in found:
                shutil.copy(path, folder.path / path.name)
        children = trial_runs(client, known, parent)
    except (MlflowException, OSError) as err:
        raise ConfigError(f"sweep {name!r} cannot be read from {public_uri(uri)}: {without_secrets(err)}") from err
    notes = Journal(folder.tracked)
    notes.append("parent", run_id=parent, uri=public_uri(uri))
    for trial_id, run_id in children.items():
        notes.append("run", trial_id=trial_id, run_id=run_id)
    notes.close()
