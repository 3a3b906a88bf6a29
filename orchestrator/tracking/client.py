"""How MLflow is reached: a client, the runs of a sweep, its user interface."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.processes import command_of, safe_environment
from orchestrator.tracking.address import check_uri, require_readable, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Seconds that MLflow's servers have to end before they are killed.
GRACE_S = 5.0
# A server that is away must not hold the end of a sweep for MLflow's default of minutes.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def open_client(uri: str) -> MlflowClient:
    """A client that gives up on a server that is away, and does not chatter."""
    require_readable(uri)
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # says each retry; ours says what came of them
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    _drop_stray_folder(uri)
    return client


def _drop_stray_folder(uri: str) -> None:
    """MLflow makes the folder of a SQLite file from its address as it is written: `a%3Fb` beside `a?b`."""
    path = sqlite_path(uri)
    written = Path(uri.removeprefix("sqlite:///")).parent
    if path is not None and written != path.parent:
        with suppress(OSError):
            written.rmdir()  # an empty one only


def ask_tracker(uri: str) -> float:
    """Seconds that a tracker needs to answer a small question; raises whatever MLflow raises."""
    check_uri(uri)
    client = open_client(uri)
    started = time.monotonic()
    client.search_experiments(max_results=1)
    return time.monotonic() - started


def is_id(text: object) -> bool:
    """It can be the id of a trial or of a run; whoever writes to a tracker or a folder can write anything."""
    return isinstance(text, str) and re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}", text) is not None


def trial_runs(client: MlflowClient, experiment: str, parent: str) -> dict[str, str]:
    """Run id per trial id of all runs under a parent."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", page_token=token)
        runs = ((run.data.tags.get("lossatlas.trial_id", ""), run.info.run_id) for run in page)
        found |= {trial_id: run_id for trial_id, run_id in runs if is_id(trial_id) and is_id(run_id)}
        token = page.token
        if not token:
            return found


def serve_ui(uri: str, port: int) -> int:
    """Serve MLflow's UI on a store until Ctrl-C or SIGTERM; its exit status, 0 if it was ended that way.

    MLflow starts further server processes, so its whole process group is ended.
    """
    command = command_of("mlflow", "ui", "--backend-store-uri", uri, "--port", str(port))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with subprocess.Popen(command, env=safe_environment(), start_new_session=True) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end_group(server)


def _end_group(leader: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and all others of it; those that do not obey in time are killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
        with suppress(subprocess.TimeoutExpired):
            leader.wait(GRACE_S)
