"""What comes from outside (a tracker, a journal, plan.json, a colleague's folder) is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator import RunOptions, Sweep
from orchestrator.cli.application import out
from orchestrator.home import Home
from orchestrator.journal import Journal, read_journal
from orchestrator.plan import Plan
from orchestrator.rerun import rerun_trial
from orchestrator.run_fields import trial_tags
from orchestrator.search import Assignment
from orchestrator.table import as_csv
from orchestrator.tracking.notes import tracked_runs
from search_spaces import ConfigError, load_space, shipped_spaces
from search_spaces.trials import check_trial
from tests.conftest import TINY
from trainables.arrays import load_arrays
from trainables.paths import below

ESCAPES = ("x/../../..", "../evil", "/etc", "..", ".", "", "a\0b", "a\nb", ".hidden", "a/b", "-rf", "a" * 300)


@pytest.mark.parametrize("name", ESCAPES)
def test_a_path_from_outside_stays_below_its_root(name: str, tmp_path: Path) -> None:
    for make in (
        lambda: below(tmp_path, name),
        lambda: load_arrays(f"{name}/", tmp_path),
        lambda: Home.at(tmp_path).sweep(name),
    ):
        with pytest.raises(ValueError, match="name"):
            make()


def test_every_configuration_of_a_plan_passes_the_check_unchanged() -> None:
    shipped = [path for path in shipped_spaces().values() if "real: digits" in path.read_text()]
    assert len(shipped) > 1
    for space in (TINY, *shipped):
        plan = Plan("x", load_space(space), "cpu")
        for cell in plan.cells[:20]:
            config = plan.trial(cell, 0, 1, "confirm")
            again = check_trial(json.loads(json.dumps(config.as_dict())), "x")
            assert (again, again.trial_id) == (config, config.trial_id)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": "x/../../.."}, "data: "),
        ({"lr": -1.0}, "lr: must be greater than 0"),
        ({"lr": float("nan")}, "lr: "),
        ({"epochs": "8"}, "epochs: must be a valid integer"),
        ({"loss": ["ce"]}, "loss: must be 'ce'"),
        ({"knobs": {"temperature": -1.0}}, "knobs.temperature: must be greater than 0"),
        ({"knobs": {"nonsense": 1.0}}, "knobs.nonsense: unknown key"),
        ({"nonsense": 1}, "nonsense: unknown key"),
        ({"student": "os.system"}, "student: must be one of"),
        ({"precision": "auto"}, "precision: must be 'fp32' or 'bf16'"),
    ],
)
def test_a_configuration_from_outside_is_checked_as_a_space_is(change: dict[str, Any], told: str) -> None:
    plan = Plan("x", load_space(TINY), "cpu")
    config = next(plan.trial(cell, 0, 1, "confirm") for cell in plan.cells if "temperature" in cell.knobs)
    with pytest.raises(ConfigError) as refused:
        check_trial(config.as_dict() | change, "run 1")
    assert any(problem.startswith(f"run 1: {told}") for problem in refused.value.problems), refused.value


def tracked(home: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> str:
    """Run id of a trial in a home's store, whose tags were changed by somebody who can write there."""
    from mlflow import MlflowClient

    plan = Plan("x", load_space(TINY), "cpu")
    tags = trial_tags(Assignment(plan.cells[0], 0, plan.trial(plan.cells[0], 0, 1, "confirm")))
    config = json.loads(tags["lossatlas.config"])
    change(config, tags)
    client = MlflowClient(tracking_uri=Home.at(home).store_uri)
    experiment = client.create_experiment(f"lossatlas/{change.__name__}")
    run = client.create_run(experiment, tags=tags | {"lossatlas.config": json.dumps(config)})
    client.log_metric(run.info.run_id, "val_accuracy", 0.5, step=8)
    return str(run.info.run_id)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hostile_data(config: dict[str, Any], tags: dict[str, str]) -> None:
    """Its key is a path out of the cache."""
    config["data"] = "x/../../../victim"


def hostile_recipe(config: dict[str, Any], tags: dict[str, str]) -> None:
    """Its settings make other data than its key says, which would be stored under the key of genuine ones."""
    settings = json.loads(tags["lossatlas.settings"])
    settings["data"]["distilled"]["seed"] = 77
    tags["lossatlas.settings"] = json.dumps(settings)


def hostile_settings(config: dict[str, Any], tags: dict[str, str]) -> None:
    tags["lossatlas.settings"] = json.dumps({"name": "x", "data": {"real": "os.system"}, "nonsense": 1})


def no_json(config: dict[str, Any], tags: dict[str, str]) -> None:
    tags["lossatlas.recipe"] = "[" * 100_000


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_rerun_takes_no_key_and_no_recipe_from_a_tracker(home: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious.txt").write_text("precious")
    before = files_below(victim) | files_below(home / "cache")
    for change in (hostile_data, hostile_recipe, hostile_settings, no_json):
        run_id = tracked(home, change)
        with pytest.raises(ConfigError, match=run_id if change is not hostile_settings else "lossatlas.settings"):
            rerun_trial(run_id, home=home, tracking_uri=None, say=lambda text: None)
        assert files_below(victim) | files_below(home / "cache") == before


@pytest.fixture
def swept(home: Path, tiny: dict[str, Any]) -> Sweep:
    """A sweep that ended."""
    sweep = Sweep.from_space({**tiny, "replicates": 1, "scientific": {"loss": ["ce"]}}, home=home)
    sweep.run(RunOptions(local=True, tracking_uri="off"))
    return sweep


def with_last_result(path: Path, **changes: Any) -> int:
    """Append the last result once more with other fields, by somebody who can compute a checksum; its line."""
    last = [record for record in read_journal(path) if record["kind"] == "result"][-1]
    journal = Journal(path)
    journal.append(**{**last, **changes})
    journal.close()
    return len(path.read_bytes().splitlines())


def point(**changes: Any) -> dict[str, Any]:
    numbers = {"epoch": 8, "train_loss": 1.0, "val_accuracy": 0.5, "test_accuracy": 0.5, "train_s": 1.0}
    return {**numbers, "diverged": False, **changes}


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "accuracy": {"curve": [point(val_accuracy=7.5)]},
    "negative-epoch": {"curve": [point(epoch=-3)]},
    "too-many-epochs": {"curve": [point(epoch=9)]},
    "epochs-that-fall": {"curve": [point(epoch=4), point(epoch=2)]},
    "no-number": {"curve": [point(test_accuracy="high")]},
    "negative-seconds": {"curve": [point(train_s=-1.0)]},
    "another-id": {"trial_id": "0" * 16},
    "an-id-that-is-a-path": {"trial_id": "../../../../x"},
    "status": {"status": "won"},
    "no-config": {"config": {}},
}


@pytest.mark.slow
def test_impossible_records_are_refused_and_their_line_is_named(swept: Sweep) -> None:
    genuine = swept.folder.journal.read_bytes()
    for name, changes in IMPOSSIBLE.items():
        swept.folder.journal.write_bytes(genuine)
        line = with_last_result(swept.folder.journal, **changes)
        sweep = Sweep.stored("tiny", swept.home.path)
        for use in (sweep.landscape, lambda sweep=sweep: sweep.run(RunOptions(local=True, tracking_uri="off"))):
            with pytest.raises(ConfigError) as refused:
                use()
            assert f"journal.jsonl:{line}: " in str(refused.value), name
            assert len(refused.value.problems) == 1


@pytest.mark.slow
def test_a_record_that_is_no_mapping_is_damaged_and_not_a_crash(swept: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    import zlib

    rows = len(swept.landscape().table)
    with swept.folder.journal.open("ab") as file:
        for body in (b"[1]", b'"x"', b"{}", b'{"kind": 3}', b"[" * 10_000, b"{"):
            file.write(b"%08x %s\n" % (zlib.crc32(body), body))
    assert len(Sweep.stored("tiny", swept.home.path).landscape().table) == rows
    assert caplog.text.count("damaged record skipped") == 6


def changed(plan: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A plan.json with one value replaced."""
    document = json.loads(json.dumps(plan))
    *parents, last = path.split("/")
    inner = document
    for key in parents:
        inner = inner[next(iter(inner)) if key == "*" else key]
    inner[last] = value
    return document


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("device", "tpu"),
        ("keys", {"cell": "../../x"}),
        ("signature/replicates", -1),
        ("signature/cells", []),
        ("resolved", {"engine": "rm -rf"}),
        ("facts/wall_s", -5.0),
        ("facts/sweep_id", "' or 1=1"),
        ("facts/dashboard", "evil\u001b[2J"),
        ("facts/data/*/n_test", 0),
        ("facts/data/*/teacher_test_accuracy", 7.5),
        ("space", {"name": "../x"}),
    ],
)
def test_an_impossible_plan_is_one_message(path: str, value: Any, swept: Sweep) -> None:
    genuine = json.loads(swept.folder.plan.read_text())
    swept.folder.plan.write_text(json.dumps(changed(genuine, path, value)))
    with pytest.raises(ConfigError) as refused:
        Sweep.stored("tiny", swept.home.path, reading=True)
    assert "\u001b" not in str(refused.value)
    assert path.split("/")[-1] in str(refused.value) or path == "space"


@pytest.mark.slow
def test_a_sweeps_folder_with_links_is_not_written_to(swept: Sweep, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (swept.folder.path / "lock").unlink()
    (swept.folder.path / "lock").symlink_to(victim)
    with pytest.raises(ConfigError, match="is a link to"):
        Sweep.stored("tiny", swept.home.path).run(RunOptions(local=True, tracking_uri="off"))
    assert victim.read_text() == "precious"


def test_notes_whose_ids_are_no_ids_are_left_out(tmp_path: Path) -> None:
    notes = Journal(tmp_path / "tracked.jsonl")
    notes.append("parent", run_id="abc", uri="sqlite:///x")
    notes.append("run", trial_id="1", run_id="=cmd|' /C calc'!A0")
    notes.append("run", trial_id="2", run_id="good")
    notes.append("run", run_id="good")
    notes.append("parent")
    notes.close()
    assert tracked_runs(tmp_path / "tracked.jsonl") == {"2": "good"}


NAMES = ("=1+1", "+1", "-x", "@x", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u200bb", " a", "", "x" * 101, "\ta")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_more_than_names_are_refused(name: str) -> None:
    """Of arms, datasets and variants; what a message shows of them moves no cursor."""
    spaces = {
        "scientific.loss[0]": {**TINY, "scientific": {"loss": [{name: {"loss": "ce"}}]}},
        "data": {**TINY, "data": {name: TINY["data"], "b": TINY["data"]}},
        "variants": {**TINY, "variants": {name: {"width": 8}, "b": {"width": 4}}},
    }
    for where, space in spaces.items():
        with pytest.raises(ConfigError) as refused:
            load_space(space)
        assert any(problem.startswith(f"space: {where}") for problem in refused.value.problems), refused.value.problems
        assert not set(str(refused.value)) & set("\x1b\u202e\u200b\t")


def test_names_in_other_scripts_are_names() -> None:
    for name in ("größe 2", "損失", "क्‍ष", "a,b;c", "kl (T=4)"):
        assert load_space({**TINY, "scientific": {"loss": [{name: {"loss": "ce"}}]}}).arms[0].name == name


def test_a_table_has_no_cell_that_a_spreadsheet_would_run() -> None:
    frame = pd.DataFrame({"a": ["=1+1", "@x", "-2", "fine", None], "b": [-1, -2, 3, 4, 5], "c": ["a\x1bb\u202e"] * 5})
    assert as_csv(frame).splitlines()[1:3] == ["'=1+1,-1,a\\x1bb\\u202e", "'@x,-2,a\\x1bb\\u202e"]
    assert as_csv(frame).splitlines()[-1] == ",5,a\\x1bb\\u202e"


def test_nothing_printed_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    out.print("a\x1b[2J\u202eb")
    assert capsys.readouterr().out == "a\\x1b[2J\\u202eb\n"
