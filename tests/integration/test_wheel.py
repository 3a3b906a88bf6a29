"""The wheel works where there is no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator import RunOptions, Sweep
from tests.integration import REAL_PARTS

ROOT = Path(__file__).parents[2]
TINY = [
    "scientific={loss: [ce], optimizer: [adamw]}",
    "nuisance.draws=2",
    "replicates=1",
    "fixed.epochs=2",
    "fixed.width=4",
    "teacher.width=4",
    "teacher.train.epochs=1",
    "early_stopping=null",
]
#: Imported by every Python of the environment, workers included: notes which files of the checkout are read or looked for.
WATCH = """
import os, sys
notes = os.open({notes!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, os.PathLike)):
        path = os.path.abspath(arguments[0])
        if path.startswith({root!r} + os.sep) and not path.startswith({packages!r}):
            os.write(notes, (path + "\\n").encode())
sys.addaudithook(watch)
"""

pytestmark = [
    *REAL_PARTS,
    pytest.mark.skipif(
        not (ROOT / ".git").exists() or shutil.which("make") is None, reason="needs a checkout and make"
    ),
]


def _tracked() -> list[str]:
    """Files under version control, and those that are about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(name for name in listed if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes of a copy of the files under version control."""
    source = tmp_path_factory.mktemp("source")
    for name in _tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = ["make", "dist", f"BIN={Path(sys.executable).parent}", "--assume-old=install-dev"]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return source / "dist"


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, and an empty folder to work in."""

    environment: Path
    folder: Path

    def call(self, program: str, *arguments: str) -> str:
        """Output of a program of the environment."""
        done = self.attempt(program, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempt(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTHON", "LOSSATLAS"))
        }
        environment["OMP_NUM_THREADS"] = (
            "1"  # on a shared machine, threads that wait for a core make minutes of seconds
        )
        command = [str(self.environment / "bin" / program), *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The environment sees this one's packages, but not what its .pth files add, such as the checkout."""
    return _install(archives, tmp_path_factory, sysconfig.get_path("purelib"))


@pytest.fixture(scope="module")
def reader(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The environment sees what reading results needs, and nothing else."""
    packages = tmp_path_factory.mktemp("packages")
    for name in _closure(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["read"]):
        for top in {file.parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(str(distribution(name).locate_file(top)))
    return _install(archives, tmp_path_factory, str(packages))


def _closure(requirements: list[str]) -> set[str]:
    """Names of what is required, and of all that it requires in turn, without extras."""
    names, left = set[str](), [Requirement(text) for text in requirements]
    while left:
        one = left.pop()
        name = canonicalize_name(one.name)
        if name not in names and (not one.marker or one.marker.evaluate({"extra": ""})):
            names.add(name)
            left += [Requirement(text) for text in distribution(name).requires or ()]
    return names


def _install(archives: Path, tmp_path_factory: pytest.TempPathFactory, packages: str) -> Installed:
    """The wheel in an environment that sees a folder of packages."""
    made = Installed(tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("empty"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made.environment)], check=True)
    python = str(made.environment / "bin/python")
    (wheel,) = archives.glob("*.whl")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True)
    own = next(made.environment.glob("lib/*/site-packages"))
    (own / "packages.pth").write_text(f"{packages}\n")
    watch = WATCH.format(notes=str(made.environment / "notes"), root=str(ROOT), packages=str(Path(sys.prefix)))
    (own / "sitecustomize.py").write_text(watch)
    return made


def test_the_source_archive_holds_all_that_is_under_version_control(archives: Path) -> None:
    (path,) = archives.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    assert set(_tracked()) - held == set()


def test_the_wheel_holds_the_packages_and_the_spaces_only(archives: Path, installed: Installed) -> None:
    (wheel,) = archives.glob("*.whl")
    own = next(installed.environment.glob("lib/*/site-packages"))
    tops = {path.name for path in own.iterdir()} - {"packages.pth", "sitecustomize.py", "__pycache__"}
    about = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert tops == {"orchestrator", "search_spaces", "trainables", about}
    assert installed.call("lossatlas", "--version") == f"lossatlas {wheel.name.split('-')[1]}\n"


@pytest.mark.timeout(900)
def test_the_wheel_runs_from_an_empty_folder_and_reads_nothing_of_the_checkout(installed: Installed) -> None:
    """On Ray and in one process; preparing and probing are processes of their own, and workers others."""
    assert "digits " in installed.call("lossatlas", "spaces")
    torch.save(torch.rand(20, 1, 8, 8), installed.folder / "images_best.pt")
    torch.save(torch.arange(20) % 10, installed.folder / "labels_best.pt")
    assert "20" in installed.call("lossatlas", "inspect", "images_best.pt")
    settings = [text for pair in TINY for text in ("--set", pair)]
    installed.call("lossatlas", "run", "digits", "--local", "--name", "here", *settings)
    installed.call("lossatlas", "run", "digits", "--name", "ray", *settings)
    installed.call("lossatlas", "report", "ray")
    tables = [installed.call("lossatlas", "table", name, "--format", "json") for name in ("here", "ray")]
    assert len({len(json.loads(table)) for table in tables}) == 1
    assert "<html" in (installed.folder / "lossatlas-home/sweeps/ray/report/index.html").read_text()[:200]
    assert list(installed.folder.glob("lossatlas-home/cache/probe-*.json"))
    makefile = str(ROOT / "Makefile")
    installed.call("python", "-c", f"open({makefile!r})")  # what the notes would look like
    assert (installed.environment / "notes").read_text().splitlines() == [makefile]


def test_results_are_read_without_the_packages_that_running_needs(
    reader: Installed, tiny: dict[str, Any], home: Path
) -> None:
    """A sweep was run elsewhere; here is neither torch nor Ray nor MLflow."""
    Sweep.from_space(tiny, home=home).run(RunOptions(local=True, tracking_uri="off"))
    commands = ["report tiny", "table tiny", "status tiny", "compare tiny tiny", "replay tiny", "spaces"]
    for command in commands:
        reader.call("lossatlas", *command.split(), *(["--home", str(home)] if "tiny" in command else []))
    (reader.folder / "set.pt").write_bytes(b"anything")
    for command in ("run digits", "inspect set.pt", "losses"):
        refused = reader.attempt("lossatlas", *command.split())
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "without --no-deps" in refused.stderr
        assert "Traceback" not in refused.stderr
