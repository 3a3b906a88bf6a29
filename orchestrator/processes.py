"""Python processes of our own: they run this code, and nothing that happens to lie in the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

#: The folder of this code comes first, unless it is where installed packages are; then the module is run.
_RUN: Final = """
import runpy, sys
root, module = sys.argv.pop(1), sys.argv.pop(1)
if root not in sys.path:
    sys.path.insert(0, root)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def command_of(module: str, *arguments: str) -> list[str]:
    """How a module is run in a process of its own, as `python -m` without the current folder on its path.

    Args:
        module: Of ours, or of a package that is installed.
        arguments: Its own.
    """
    root = str(Path(__file__).parents[1])
    return [sys.executable, "-P", "-W", "ignore", "-c", _RUN, root, module, *arguments]


def safe_environment(**changes: str) -> dict[str, str]:
    """The environment for such a process; what it starts in turn ignores the current folder, too."""
    return {**os.environ, "PYTHONSAFEPATH": "1", **changes}
