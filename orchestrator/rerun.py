"""Train one tracked trial again, from what MLflow knows of it alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.home import Home
from orchestrator.prepare import Say, prepare_recipes
from orchestrator.recipes import recipe, recipe_key
from orchestrator.run_fields import TrackedTrial
from orchestrator.tracking.fetch import fetch_trial
from orchestrator.tracking.publish import register_student
from search_spaces import ConfigError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was recorded and what came out now.

    Attributes:
        compared: (name of a final metric, recorded value, value now).
        trial_id: Of the trial.
        version: Of the registered model, or None.
    """

    compared: list[tuple[str, float | None, float | None]]
    trial_id: str
    version: str | None = None

    @property
    def equal(self) -> bool:
        """Every recorded metric came out the same, bit for bit."""
        return all(recorded == now for _, recorded, now in self.compared)


def rerun_trial(  # noqa: PLR0913 (options of a command)
    run_id: str,
    *,
    home: str | Path | None,
    tracking_uri: str | None,
    save: Path | None = None,
    register: str | None = None,
    say: Say,
) -> Outcome:
    """Reproduce a trial and compare its last metrics; a trial that was stopped early is trained as far as it was.

    Args:
        run_id: Of the trial's MLflow run.
        home: Home directory, for the cache and the default store.
        tracking_uri: Of a server; the store in the home directory by default.
        save: Where to keep the student's weights.
        register: Name of a registered model that the student becomes a version of. Not if it came out differently:
            a registered model is what its run's metrics say.
        say: Told what takes long.

    Raises:
        ConfigError: If there is no such run, it is no trial, or the tracker does not take the model.
    """
    place = Home.at(home)
    if tracking_uri == "off" or (tracking_uri is None and not place.store.exists()):
        raise ConfigError(
            f"no MLflow store at {tracking_uri or place.store}; give the home or the server of the sweep."
        )
    if save and (save.is_dir() or not save.absolute().parent.is_dir()):
        raise ConfigError(f"--save: give a file in a folder that exists, got {save}.")
    if register is not None and (not register.strip() or set(register) & set("/:")):
        raise ConfigError(f"--register: a model's name is not empty and has no / and no :, got {register!r}.")
    uri = tracking_uri or place.store_uri
    tracked = fetch_trial(uri, run_id)
    config = tracked.config
    made_from = _recipe_of(tracked, run_id)
    place.require_writable()
    prepare_recipes({config.data: made_from}, place.cache, say)
    from trainables.rerun import train_again

    say(f"training trial {config.trial_id}")
    trained = train_again(config, place.cache, epochs=tracked.epochs)
    if save:
        trained.save(save, config)
    names = ("train_loss", "val_accuracy", "test_accuracy")
    compared: list[tuple[str, float | None, float | None]]
    compared = [(name, tracked.metrics[name], trained.metrics[name]) for name in names if name in tracked.metrics]
    outcome = Outcome(compared, config.trial_id)
    if register and outcome.equal:
        student, pixels, logits = trained.on_pixels()
        version = register_student(uri, place, run_id, register, student=student, pixels=pixels, logits=logits)
        return replace(outcome, version=version)
    return outcome


def _recipe_of(tracked: TrackedTrial, run_id: str) -> dict[str, Any]:
    """The recipe of a trial's data, computed here from its settings and the files they name; never the tracker's.

    Raises:
        ConfigError: If it is not the one that the trial was trained on.
    """
    settings = tracked.cell.settings
    downloads = settings.data.download and settings.data.root is None  # where files go is for the user to say
    data = settings.data.model_copy(update={"download": downloads})
    cell = replace(tracked.cell, settings=settings.model_copy(update={"data": data}))
    try:
        made = recipe(cell, tracked.config.replicate)
    except (ValueError, OSError) as err:
        raise ConfigError(f"run {run_id}: the data that it was trained on are not here: {err}") from err
    if (key := recipe_key(made)) != tracked.config.data:
        raise ConfigError(
            f"run {run_id}: its settings and the files that they name here give other data (key {key}) than it was trained "
            f"on ({tracked.config.data}); bring the files of that time back to their places."
        )
    return made
