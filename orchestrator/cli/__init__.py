"""The command line: the only package that prints.

Its modules are loaded inside `main`, so that Ctrl-C is answered in one line while they are.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.cli.commands import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the command `lossatlas`."""
    try:
        from orchestrator.cli.commands import run_command

        run_command()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def __getattr__(name: str) -> Any:
    """`from orchestrator.cli import app`: the typer application with all commands."""
    if name == "app":
        from orchestrator.cli import commands

        return commands.app
    raise AttributeError(f"module 'orchestrator.cli' has no attribute {name!r}")
