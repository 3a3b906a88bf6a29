"""What running needs beyond reading results, for an environment that was made for reading alone."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

#: Modules of the dependencies in pyproject.toml that the group `read` leaves out.
RUN: Final = ("torch", "torchvision", "timm", "ray", "mlflow", "sklearn", "msgpack")
HINT: Final = (
    "`pip install lossatlas`, without --no-deps, installs what running needs (`make install` does so in a checkout)."
)


def require_running() -> None:
    """Refuse to start what could not be finished.

    Raises:
        ModuleNotFoundError: If a package that running needs is not installed.
    """
    for name in RUN:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}. {HINT}", name=name)


def versions_of(*packages: str) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
