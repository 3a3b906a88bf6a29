"""All commands, and what becomes of their errors. Loads the command line's packages, which takes a while."""

from __future__ import annotations

import errno
import logging
import sys

from rich.markup import escape

# importing a module registers its commands, in the order in which help lists them
from orchestrator.cli import sweeps, results, reference  # noqa: F401  # isort: skip
from orchestrator.cli.application import app, err
from orchestrator.extras import HINT, RUN
from search_spaces import ConfigError

__all__ = ["app", "run_command"]

#: What a full, broken or forbidden disk says; the user's to mend, like other input.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}


def run_command() -> None:
    """Run the command that the arguments of this process name, and exit.

    Raises:
        KeyboardInterrupt: If it was interrupted and has not said what that means.
        SystemExit: With the exit status, always else.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except SystemExit as ended:
        if ended.__context__ and isinstance(ended.__context__.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # typer exits without a word
        raise
    except ConfigError as error:
        for problem in error.problems:
            err.print(escape(problem))
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in RUN:
            raise
        err.print(escape(f"{error.name} is not installed, and this command needs it. {HINT}"))
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
