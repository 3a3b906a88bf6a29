"""The command line: the only package that prints."""

from __future__ import annotations

import errno
import logging
import sys

from rich.markup import escape

# importing a module registers its commands, in the order in which help lists them
from orchestrator.cli import sweeps, results, reference  # noqa: F401  # isort: skip
from orchestrator.cli.app import app, err
from search_spaces import ConfigError

__all__ = ["app", "main"]

#: What a full, broken or forbidden disk says; the user's to mend, like other input.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}


def main() -> None:
    """Entry point of the command `lossatlas`."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except ConfigError as error:
        for problem in error.problems:
            err.print(escape(problem))
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        err.print(
            escape(
                f"{error.filename or 'a file'} cannot be written or read ({error.strerror}). Nothing that ended is lost: make room, then `lossatlas resume NAME`."
            )
        )
        sys.exit(2)
