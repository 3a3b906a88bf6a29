"""The one error of ours: everything that is wrong with what a user gave."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from search_spaces.texts import printable

_BREAKS = re.compile(r"[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
#: Of one problem; longer ones are cut in the middle.
MOST_CHARACTERS = 1000
#: That are told at once.
MOST_PROBLEMS = 200


class ConfigError(ValueError):
    """All problems found in user input, reported together.

    Attributes:
        problems: One sentence each: where, what was given, what is allowed.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        told = [problems] if isinstance(problems, str) else list(problems)
        more = [f"... and {len(told) - MOST_PROBLEMS} more problems."] if len(told) > MOST_PROBLEMS else []
        self.problems = [_shortened(problem) for problem in [*told[:MOST_PROBLEMS], *more]]
        super().__init__("\n".join(self.problems))


def _shortened(problem: str) -> str:
    """One line; a problem whose given value is pages long is cut in its middle."""
    problem = printable(_BREAKS.sub(" ", problem))
    return problem if len(problem) <= MOST_CHARACTERS else f"{problem[:400]} ... {problem[-200:]}"


def unknown(key: object, valid: list[str], what: str = "key") -> str:
    """What is wrong with a name, and what it may be."""
    close = difflib.get_close_matches(str(key), valid, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {key!r}{hint}; valid: {valid}."
