"""Where things lie on disk: the home directory and a sweep's folder in it."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.stored import problem_of_plan
from search_spaces import ConfigError
from search_spaces.settings import NAME_PATTERN
from trainables.paths import below, permitted

DEFAULT_HOME = "lossatlas-home"
#: Sweeps that a message lists; of more, those with a similar name.
MOST_NAMES = 10


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite file; `?`, `#` and `%` in its path would begin other parts of an address."""
    return "sqlite:///" + re.sub(r"[%?#]", lambda found: f"%{ord(found[0]):02X}", str(path))


@dataclass(frozen=True, slots=True)
class Home:
    """The directory that holds the tracking store, sweeps and cache.

    Attributes:
        path: Absolute.
    """

    path: Path

    @classmethod
    def at(cls, path: str | Path | None = None) -> Home:
        """A home at a path, else at LOSSATLAS_HOME, else ./lossatlas-home."""
        return cls(Path(path or os.environ.get("LOSSATLAS_HOME") or DEFAULT_HOME).absolute())

    def require_writable(self) -> None:
        """Make the directory.

        Raises:
            ConfigError: If it cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as err:
            raise ConfigError(
                f"home directory {self.path} is not writable ({err.strerror}); give another with --home or LOSSATLAS_HOME."
            ) from err

    @property
    def cache(self) -> Path:
        """Prepared data and measured costs, content-addressed."""
        return self.path / "cache"

    @property
    def store(self) -> Path:
        """The database behind `store_uri`."""
        return self.path / "mlflow.db"

    @property
    def store_uri(self) -> str:
        """The MLflow store that is used where no tracking server is given."""
        return sqlite_uri(self.store)

    @contextmanager
    def store_lock(self) -> Iterator[None]:
        """Wait for other processes that open the store: MLflow makes its tables without a lock of its own."""
        with (self.path / "mlflow.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def sweep(self, name: str) -> SweepFolder:
        """The folder of a sweep, which may not exist yet.

        Raises:
            ConfigError: If that is no name of a sweep.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(f"a sweep's name has letters, digits, - and _, got {name!r:.100}.")
        return SweepFolder(below(self.path / "sweeps", name))

    def sweeps(self) -> list[str]:
        """Names of the sweeps that were started, sorted."""
        names = (path.parent.name for path in self.path.glob("sweeps/*/plan.json"))
        return sorted(name for name in names if re.fullmatch(NAME_PATTERN, name))

    def existing_sweep(self, name: str) -> SweepFolder:
        """The folder of a sweep that was started.

        Raises:
            ConfigError: If there is none of that name.
        """
        if not re.fullmatch(NAME_PATTERN, name) or not self.sweep(name).plan.exists():
            names = self.sweeps()
            shown = names if len(names) <= MOST_NAMES else difflib.get_close_matches(name, names, MOST_NAMES, 0.3)
            there = "there are" if shown == names else f"there are {len(names)}, among them"
            raise ConfigError(f"no sweep {name!r} in {self.path}; {there}: {shown}.")
        return self.sweep(name)


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """Files of one sweep."""

    path: Path

    @property
    def plan(self) -> Path:
        """Space, resolved settings, signature."""
        return self.path / "plan.json"

    @property
    def journal(self) -> Path:
        """Results and decisions; with the plan, the truth."""
        return self.path / "journal.jsonl"

    @property
    def tracked(self) -> Path:
        """Which MLflow run mirrors which trial."""
        return self.path / "tracked.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of trials in progress."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    def read_plan(self) -> dict[str, Any]:
        """The content of plan.json.

        Raises:
            ConfigError: If the file is damaged.
        """
        try:
            plan = json.loads(self.plan.read_text())
            wrong = problem_of_plan(plan)
        except (ValueError, RecursionError) as err:
            plan, wrong = {}, f"{type(err).__name__}: {err}"
        if wrong:
            raise ConfigError(
                f"{self.plan} is damaged ({wrong}); put a copy back (MLflow's parent run has one), or delete it and `lossatlas "
                "run` the same space under the same name: what the journal has is not trained again."
            )
        return dict(plan)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the sweep for writing.

        Raises:
            ConfigError: If another process holds it; the message names it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._require_no_links()
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as err:
                file.seek(0)
                owner = file.read().strip()
                raise ConfigError(
                    f"sweep {self.path.name!r} is being run by {owner}; wait for it or use --name."
                ) from err
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def _require_no_links(self) -> None:
        """Refuse a folder in which a file is a link: what is written to it would land elsewhere.

        Raises:
            ConfigError: With the link.
        """
        for path in (self.path / "lock", self.plan, self.journal, self.tracked, self.checkpoints, self.report):
            if path.is_symlink():
                raise ConfigError(f"{path} is a link to {path.readlink()}; a sweep's files are files. Remove the link.")

    @property
    def is_running(self) -> bool:
        """Another process holds the lock."""
        try:
            with (self.path / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    write_bytes(path, json.dumps(value, indent=1).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what was there before stays until all is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(permitted(0o666))
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise
