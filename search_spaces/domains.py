"""Domains of nuisance factors, in Ray Tune's own words, and their draws from the unit cube."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from trainables.config import round_float

Value = float | int | str


@dataclass(frozen=True, slots=True)
class Domain:
    """What a nuisance factor may be.

    Attributes:
        kind: choice, uniform, loguniform, randint or quniform.
        arguments: The values of a choice; else (low, high), and q for quniform.
    """

    kind: str
    arguments: tuple[Any, ...]

    def at(self, u: float) -> Value:
        """The value at position u in [0, 1) of the unit interval."""
        value = _TRANSFORMS[self.kind](self.arguments, u)
        return round_float(value) if isinstance(value, float) else value


def _quniform(arguments: Sequence[float], u: float) -> float:
    low, high, q = arguments
    return min(max(round((low + u * (high - low)) / q) * q, low), high)


_TRANSFORMS: Final[Mapping[str, Callable[[Sequence[Any], float], Value]]] = {
    "choice": lambda a, u: a[min(int(u * len(a)), len(a) - 1)],
    "uniform": lambda a, u: a[0] + u * (a[1] - a[0]),
    "loguniform": lambda a, u: math.exp(math.log(a[0]) + u * (math.log(a[1]) - math.log(a[0]))),
    "randint": lambda a, u: int(a[0] + u * (a[1] - a[0])),
    "quniform": _quniform,
}
WORDS: Final = {"uniform": 2, "loguniform": 2, "randint": 2, "quniform": 3}
ALLOWED: Final = "a list, or one of {uniform: [low, high]}, {loguniform: [low, high]}, {randint: [low, high]}, {quniform: [low, high, q]}"


def parse_domain(given: object) -> Domain:
    """A domain from its YAML form.

    Raises:
        ValueError: With what was given and what is allowed.
    """
    if isinstance(given, list):
        if not given:
            raise ValueError(f"an empty list has nothing to choose from; give {ALLOWED}.")
        return Domain("choice", tuple(given))
    if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in WORDS:
        raise ValueError(f"not a domain, got {given!r}; give {ALLOWED}.")
    ((kind, arguments),) = given.items()
    numbers = isinstance(arguments, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in arguments
    )
    if not numbers or len(arguments) != WORDS[kind]:
        raise ValueError(f"{kind} takes {WORDS[kind]} numbers, got {arguments!r}.")
    return Domain(kind, _checked(kind, tuple(arguments)))


def _checked(kind: str, arguments: tuple[float, ...]) -> tuple[float, ...]:
    low, high = arguments[:2]
    if not all(math.isfinite(x) for x in arguments):
        raise ValueError(f"{kind} takes finite numbers, got {list(arguments)}.")
    if not low < high:
        raise ValueError(f"`low < high` must hold for {kind}, got [{low}, {high}].")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"`low > 0` must hold for loguniform, got {low}.")
    if kind == "quniform" and arguments[2] <= 0:
        raise ValueError(f"`q > 0` must hold for quniform, got {arguments[2]}.")
    return arguments
