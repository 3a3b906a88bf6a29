"""Train one tracked trial again, from what MLflow knows of it alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.home import Home
from orchestrator.prepare import Say, prepare_recipes
from orchestrator.tracking import fetch_trial
from search_spaces import ConfigError
from trainables.config import TrialConfig


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was recorded and what came out now.

    Attributes:
        compared: (name of a final metric, recorded value, value now).
    """

    compared: list[tuple[str, float | None, float | None]]

    @property
    def equal(self) -> bool:
        """Every recorded metric came out the same, bit for bit."""
        return all(recorded == now for _, recorded, now in self.compared)


def rerun_trial(
    run_id: str, *, home: str | Path | None, tracking_uri: str | None, save: Path | None, say: Say
) -> Outcome:
    """Reproduce a trial and compare its last metrics; a trial that was stopped early is trained as far as it was.

    Args:
        run_id: Of the trial's MLflow run.
        home: Home directory, for the cache and the default store.
        tracking_uri: Of a server; the store in the home directory by default.
        save: Where to keep the student's weights.
        say: Told what takes long.

    Raises:
        ConfigError: If there is no such run, or it is no trial.
    """
    place = Home.at(home)
    if tracking_uri == "off" or (tracking_uri is None and not place.store.exists()):
        raise ConfigError(
            f"no MLflow store at {tracking_uri or place.store}; give the home or the server of the sweep."
        )
    if save and (save.is_dir() or not save.absolute().parent.is_dir()):
        raise ConfigError(f"--save: give a file in a folder that exists, got {save}.")
    tracked = fetch_trial(tracking_uri or place.store_uri, run_id)
    place.require_writable()
    config = TrialConfig(**tracked.config)
    prepare_recipes({config.data: tracked.recipe}, place.cache, say)
    from trainables.rerun import train_again

    say(f"training trial {config.trial_id}")
    last = train_again(config, place.cache, epochs=tracked.epochs, save=save)
    names = ("train_loss", "val_accuracy", "test_accuracy")
    return Outcome([(name, tracked.metrics[name], last[name]) for name in names if name in tracked.metrics])
