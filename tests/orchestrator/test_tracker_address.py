"""Addresses of trackers: secrets are not shown, and credentials go to no server that only a folder names."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator import RunOptions, Sweep
from orchestrator.cli import main
from orchestrator.home import Home, write_json
from orchestrator.journal import Journal
from orchestrator.tracking.address import (
    agree,
    check_uri,
    hidden,
    public_uri,
    require_agreed,
    require_agreed_place,
    require_own_place,
    sqlite_path,
    without_secrets,
)
from orchestrator.tracking.client import open_client
from orchestrator.tracking.fetch import fetch_sweep
from orchestrator.tracking.publish import log_report
from search_spaces import ConfigError

SECRET = "s3cr3t"
ADDRESSES = {
    f"http://ann:{SECRET}@host:5000/ml": "http://host:5000/ml",
    f"https://ann:x/{SECRET}@host": "https://...",
    f"https://ann:x@{SECRET}@host": "https://host",
    f"http://{SECRET}@host:5000": "http://host:5000",
    f"postgresql://ann:x/{SECRET}@db:5432/ml?sslmode=require": "postgresql://db:5432/ml",
    f"postgresql://db/ml?user=ann&password={SECRET}": "postgresql://db/ml",
    f"mysql+pymysql://ann:{SECRET}@[::1]:3306/ml": "mysql+pymysql://[::1]:3306/ml",
    f"postgres://ann:{SECRET}@db/ml": "postgres://db/ml",
    f"http://ann:{SECRET}@host:port": "http://...",
    f"http://host/#{SECRET}": "http://host/",
}


@pytest.mark.parametrize(("uri", "shown"), ADDRESSES.items())
def test_a_shown_address_has_no_user_no_password_and_no_query(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown
    assert public_uri(public_uri(uri)) == shown
    assert SECRET not in hidden(f"cannot connect to '{uri}' now") or "#" in uri
    if not uri.startswith(("http", "postgresql", "mysql")):
        with pytest.raises(ConfigError) as refused:
            check_uri(uri)
        assert SECRET not in str(refused.value)


def test_errors_of_a_tracker_are_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok3n")
    told = without_secrets(f"HTTP 401 with password={SECRET}; api_key: {SECRET}, Bearer tok3n\nsecond line")
    assert told == "HTTP 401 with password=***; api_key: ***, Bearer ***"


@pytest.mark.parametrize("name", ["plain", "a?b", "a#b", "50%25", "ä b", "c=d&e"])
def test_a_home_of_any_name_has_its_store_in_it(name: str, tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    home = Home.at(tmp_path / name)
    assert make_url(home.store_uri).database == str(home.store)
    assert sqlite_path(home.store_uri) == home.store


def test_a_stored_address_counts_once_the_user_has_given_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.at(tmp_path)
    uri = "https://tracker.example:5000/ml"
    for own in ("off", home.store_uri):
        require_agreed(own, home, "x")
    with pytest.raises(
        ConfigError, match=r"names the tracker https://tracker.example:5000/ml, which .* --tracking-uri"
    ):
        require_agreed(uri, home, "x")
    agree(f"https://ann:{SECRET}@tracker.example:5000")
    require_agreed(uri, home, "x")
    for other in ("https://tracker.example:5001", "https://tracker.example.evil:5000", "http://tracker.example:5000"):
        with pytest.raises(ConfigError):
            require_agreed(other, home, "x")
    remembered = [path for path in tmp_path.rglob("*.json") if SECRET in path.read_text()]
    assert not remembered
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody-else"))
    with pytest.raises(ConfigError):
        require_agreed(uri, home, "x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    require_agreed(uri, home, "x")


#: What one parser takes for a user's name, another takes for the server.
TWO_FACED = (
    "http://127.0.0.1:6666/x@127.0.0.1:5555",
    "http://127.0.0.1:6666?@127.0.0.1:5555",
    "http://127.0.0.1:6666#@127.0.0.1:5555",
    "http://127.0.0.1:6666\\@127.0.0.1:5555",
    "http://127.0.0.1:6666/\\@127.0.0.1:5555",
    "http://127.0.0.1:5555\n@127.0.0.1:6666",
    "http://127.0.0.1:5555 @127.0.0.1:6666",
    "http://127.0.0.1:5555\t/",
    "http://127.0.0.1:5555\u2100@127.0.0.1:6666",
    f"http://bob:p/a?s%s#{SECRET}@127.0.0.1:5555",
)


@pytest.mark.parametrize("uri", TWO_FACED)
def test_an_address_of_two_servers_is_refused_and_not_remembered(uri: str, tmp_path: Path) -> None:
    agree("http://127.0.0.1:5555")
    for use in (agree, check_uri, open_client, lambda uri: require_agreed(uri, Home.at(tmp_path), "x")):
        with pytest.raises(ConfigError, match="readable in one way") as refused:
            use(uri)
        assert SECRET not in str(refused.value)
    assert not [path for path in tmp_path.rglob("trackers.json") if SECRET in path.read_text()]


def test_a_stored_database_names_its_host_where_it_is_looked_for(tmp_path: Path) -> None:
    agree("postgresql://db/ml")
    require_agreed("postgresql://db/ml", Home.at(tmp_path), "x")
    with pytest.raises(ConfigError, match="refused"):
        require_agreed("postgresql://db/ml?host=elsewhere", Home.at(tmp_path), "x")


def test_a_damaged_list_of_agreed_trackers_is_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "lossatlas").mkdir()
    (tmp_path / "lossatlas" / "trackers.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not given here before"):
        require_agreed("http://host:5000", Home.at(tmp_path), "x")
    agree("http://host:5000")
    require_agreed("http://host:5000", Home.at(tmp_path), "x")


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server that notes what it is sent, and its address."""
    heard: list[str] = []

    class Noting(BaseHTTPRequestHandler):
        def answer(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.send_response(404)
            self.end_headers()

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Noting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_colleagues_folder_does_not_send_credentials_anywhere(
    home: Path,
    tiny: dict[str, Any],
    listener: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Her sweep was mirrored to a server; whoever copies the home is asked before anything goes there."""
    uri, heard = listener
    monkeypatch.setattr("orchestrator.mirror.LAST_WAIT_S", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    sweep = Sweep.from_space({**tiny, "scientific": {"loss": ["ce"]}, "replicates": 1}, home=home)
    sweep.run(RunOptions(local=True, tracking_uri="off"))
    plan = json.loads(sweep.folder.plan.read_text())
    plan["facts"]["tracking_uri"] = uri
    write_json(sweep.folder.plan, plan)
    copied = tmp_path / "copied"
    shutil.copytree(home, copied)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    for command in (["sync", "tiny"], ["resume", "tiny", "--local"], ["report", "tiny"], ["ui", "tiny"]):
        monkeypatch.setattr(sys, "argv", ["lossatlas", *command, "--home", str(copied)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == (None if command[0] == "report" else 2) or ended.value.code == 0
        assert command[0] == "report" or f"names the tracker {uri}, which you have not given here before" in told
    assert heard == []
    monkeypatch.setattr(sys, "argv", ["lossatlas", "sync", "tiny", "--home", str(copied), "--tracking-uri", uri])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1, "the server takes nothing"
    assert heard[0] == "Basic " + base64.b64encode(f"bob:{SECRET}".encode()).decode(), (
        "but it was given, so it is asked"
    )


@pytest.mark.parametrize(
    "place", ["file:///etc/cron.d", "/etc/cron.d", "file://HOME/../x", "file://elsewhere/x", "./here"]
)
def test_a_tracker_does_not_choose_where_files_are_written(place: str, tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    require_own_place((home.path / "artifacts" / "1").as_uri(), home, home.store_uri)
    with pytest.raises(ConfigError, match="outside of the home"):
        require_own_place(place.replace("HOME", str(home.path)), home, home.store_uri)


@pytest.mark.parametrize("tracker", ["http://agreed:5000", "STORE", "postgresql://agreed/ml"])
@pytest.mark.parametrize(
    "place",
    [
        "http://elsewhere:5000/a",
        "HTTP://elsewhere:5000/a",
        "http://elsewhere/x@agreed:5000",
        "http://agreed:5000\\@elsewhere/",
        "mlflow-artifacts://elsewhere:5000/1",
        "http://[",
        "\x0chttp://agreed:5000/",
    ],
)
def test_a_tracker_does_not_choose_the_server_of_files(tracker: str, place: str, tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    tracker = tracker.replace("STORE", home.store_uri)
    with pytest.raises(ConfigError, match="refused"):
        require_own_place(place, home, tracker)
    with pytest.raises(ConfigError, match="refused"):
        require_agreed_place(place, tracker)


def test_files_go_to_the_tracker_that_was_given_and_to_what_it_names_for_them(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    for place in ("mlflow-artifacts:/1/abc", "mlflow-artifacts://given:5000/1", "http://given:5000/a", "s3://bucket/1"):
        require_own_place(place, home, "http://ann:x@given:5000/ml")
        with pytest.raises(ConfigError, match="a server that you have not given"):
            require_own_place(place, home, home.store_uri)
    require_own_place("s3://bucket/1", home, "postgresql://given/ml")
    agree("https://files")
    require_own_place("https://files/1", home, "http://given:5000")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_copied_store_sends_no_credentials_to_a_server_of_files(
    home: Path, listener: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its experiment lies at a server that only the database names."""
    uri, heard = listener
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    at = Home.at(home)
    at.require_writable()
    client = open_client(at.store_uri)
    experiment = client.create_experiment("lossatlas/x", artifact_location=f"{uri}/files")
    run = client.create_run(experiment, tags={"lossatlas.kind": "sweep"})
    at.sweep("x").path.mkdir(parents=True)
    notes = Journal(at.sweep("x").tracked)
    notes.append("parent", run_id=run.info.run_id, uri=at.store_uri)
    notes.close()
    (tmp_path / "report.html").write_text("report")
    told = log_report(at.store_uri, at, "x", [tmp_path / "report.html"])
    assert "a server that you have not given" in str(told)
    with pytest.raises(ConfigError, match="a server that you have not given"):
        fetch_sweep(at.store_uri, "x", Home.at(tmp_path / "other"))
    assert heard == []
