"""The one error of ours: everything that is wrong with what a user gave."""

from __future__ import annotations

from collections.abc import Sequence


class ConfigError(ValueError):
    """All problems found in user input, reported together.

    Attributes:
        problems: One sentence each: where, what was given, what is allowed.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
