"""How MLflow is reached: a client, the runs of a sweep, its user interface."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: What MLflow can write to: servers, and databases.
TRACKERS = ("http://", "https://", "databricks", "sqlite:", "postgresql", "mysql", "mssql")
# A server that is away must not hold the end of a sweep for MLflow's default of minutes.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def without_secrets(error: object) -> str:
    """The first line of what a tracker says, without users and passwords in addresses."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r"//[^/@\s]+@", "//", text)[:300]


def check_uri(uri: str) -> None:
    """Refuse what MLflow cannot read from, and a database file that is not there: MLflow would make one.

    Raises:
        ConfigError: With what is allowed.
    """
    if not uri.startswith(TRACKERS):
        raise ConfigError(f"--tracking-uri: must begin with one of {', '.join(TRACKERS)}, got {uri!r}.")
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise ConfigError(f"--tracking-uri: there is no file {path}.")


def public_uri(uri: str) -> str:
    """A tracker's address without what is secret in it: user and password, query."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "sqlite":
        return uri
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def open_client(uri: str) -> MlflowClient:
    """A client that gives up on a server that is away, and does not chatter."""
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # says each retry; ours says what came of them
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def ask_tracker(uri: str) -> float:
    """Seconds that a tracker needs to answer a small question; raises whatever MLflow raises."""
    check_uri(uri)
    client = open_client(uri)
    started = time.monotonic()
    client.search_experiments(max_results=1)
    return time.monotonic() - started


def trial_runs(client: MlflowClient, experiment: str, parent: str) -> dict[str, str]:
    """Run id per trial id of all runs under a parent."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", page_token=token)
        found |= {run.data.tags["lossatlas.trial_id"]: run.info.run_id for run in page}
        token = page.token
        if not token:
            return found


def serve_ui(uri: str, port: int) -> int:
    """Serve MLflow's UI on a store until Ctrl-C; its exit status."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0
