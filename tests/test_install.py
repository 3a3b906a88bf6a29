"""`make install` installs what is locked, whatever has been released since.

The recipe of the Makefile runs on a project of two packages, with a folder of wheels in place of an index.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
PROJECT = """
[build-system]
requires = []
build-backend = "builder"
backend-path = ["."]
[project]
name = "tiny"
version = "1.0"
"""
BUILDER = """
import shutil

def build_editable(folder, config_settings=None, metadata_directory=None):
    shutil.copy("tiny-1.0-py3-none-any.whl", folder)
    return "tiny-1.0-py3-none-any.whl"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make"),
]


def make_wheel(folder: Path, name: str, version: str, requires: Sequence[str] = (), extra: str = "") -> Path:
    """A wheel of one module, which holds its version."""
    folder.mkdir(parents=True, exist_ok=True)
    about, path = f"{name}-{version}.dist-info", folder / f"{name}-{version}-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}"] * bool(extra) + [f"Requires-Dist: {one}" for one in requires]
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": "\n".join(lines) + "\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def pin(wheel: Path) -> str:
    """A wheel's line in a lock."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@dataclass(frozen=True)
class Checkout:
    """A project with this Makefile, and the folder that stands for the index."""

    path: Path
    index: Path

    def make(self, target: str, installer: str = "pip") -> subprocess.CompletedProcess[str]:
        """Run a target with what `installer` needs to know of the index."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV", "MAKE"))}
        environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "PIP_CONFIG_FILE": os.devnull}
        environment |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(self.index), "UV_NO_CONFIG": "1"}
        environment |= {"UV_CACHE_DIR": str(self.path / ".uv")}
        uv = (UV or "") if installer == "uv" else ""
        command = ["make", target, f"UV={uv}", f"PYTHON={sys.executable}"]
        return subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, check=False)

    def lock(self, *wheels: Path, name: str = "requirements.lock") -> None:
        """Write a lock that pins these wheels."""
        (self.path / name).write_text("".join(map(pin, wheels)))

    def version(self, module: str) -> str:
        """Of a module as the environment imports it; empty if it has none."""
        command = [str(self.path / ".venv/bin/python"), "-c", f"import {module}; print({module}.VERSION)"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Locked are plugin 1.0, which requires covers[toml] as pytest-cov requires coverage[toml], and covers 1.0."""
    made = Checkout(tmp_path / "checkout", tmp_path / "index")
    made.path.mkdir()
    shutil.copy(ROOT / "Makefile", made.path)
    (made.path / "pyproject.toml").write_text(PROJECT)
    (made.path / "builder.py").write_text(BUILDER)
    make_wheel(made.path, "tiny", "1.0", ["plugin>=1"])
    plugin = make_wheel(made.index, "plugin", "1.0", ["covers[toml]>=1"])
    made.lock(plugin, make_wheel(made.index, "covers", "1.0", extra="toml"))
    made.lock(make_wheel(made.index, "tool", "1.0"), name="requirements-dev.lock")
    return made


@pytest.mark.parametrize("installer", ["pip", pytest.param("uv", marks=pytest.mark.skipif(not UV, reason="no uv"))])
def test_what_is_locked_is_installed_although_newer_versions_are_out(checkout: Checkout, installer: str) -> None:
    """With a resolver, pip 23.2.1 takes covers[toml] for unpinned as soon as covers 2.0 is out, and stops."""
    make_wheel(checkout.index, "plugin", "2.0", ["covers[toml]>=2"])
    make_wheel(checkout.index, "covers", "2.0", extra="toml")
    make_wheel(checkout.index, "tool", "2.0")
    done = checkout.make("install", installer)
    assert (done.returncode, checkout.version("tool")) == (0, ""), done.stderr
    done = checkout.make("install-dev", installer)
    assert done.returncode == 0, done.stderr
    assert [checkout.version(name) for name in ("plugin", "covers", "tool", "tiny")] == ["1.0"] * 4


def test_a_lock_that_lacks_a_requirement_is_refused(checkout: Checkout) -> None:
    checkout.lock(checkout.index / "plugin-1.0-py3-none-any.whl")
    done = checkout.make("install")
    assert done.returncode == 2
    assert "plugin 1.0 requires covers, which is not installed." in done.stdout


def test_an_interrupted_installation_is_done_again_from_the_start(checkout: Checkout) -> None:
    """One of the developers' part too; what lies about in the environment since is gone."""
    wheel = checkout.index / "tool-1.0-py3-none-any.whl"
    hidden = wheel.rename(wheel.with_suffix(".hidden"))
    assert checkout.make("install-dev").returncode == 2
    (left,) = checkout.path.glob(".venv/lib/*/site-packages/covers.py")
    left.unlink()
    hidden.rename(wheel)
    assert checkout.make("install-dev").returncode == 0
    assert (checkout.version("covers"), checkout.version("tool")) == ("1.0", "1.0")


def test_a_changed_lock_is_installed_and_an_unchanged_one_is_not_touched(checkout: Checkout) -> None:
    assert checkout.make("install-dev").returncode == 0
    assert "Nothing to be done" in checkout.make("install-dev").stdout
    plugin = checkout.index / "plugin-1.0-py3-none-any.whl"
    checkout.lock(plugin, make_wheel(checkout.index, "covers", "2.0", extra="toml"))
    done = checkout.make("install-dev")
    assert (done.returncode, checkout.version("covers")) == (0, "2.0"), done.stderr
