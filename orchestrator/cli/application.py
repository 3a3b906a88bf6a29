"""The application, its consoles, and the options that commands share."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from orchestrator.home import Home
from search_spaces import ConfigError, shipped_spaces
from search_spaces.texts import printable

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _PlainConsole(Console):
    """A console whose texts move no cursor and change no direction, whoever wrote them."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's, of texts without invisible characters."""
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


out = _PlainConsole(highlight=False, soft_wrap=True)
err = _PlainConsole(stderr=True, highlight=False, soft_wrap=True)


def complete_space(incomplete: str) -> list[str]:
    """Shipped spaces and YAML files that begin like this, for the shell."""
    files = (
        [*Path().glob(f"{incomplete}*.yaml"), *Path().glob(f"{incomplete}*.yml")] if _can_be_globbed(incomplete) else []
    )
    names = [*shipped_spaces(), *map(str, files)]
    return sorted(name for name in names if name.startswith(incomplete))


def complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Sweeps in the home directory that begin like this, for the shell."""
    plans = Home.at(ctx.params.get("home")).path.glob("sweeps/*/plan.json")
    return sorted(plan.parent.name for plan in plans if plan.parent.name.startswith(incomplete))


def _can_be_globbed(incomplete: str) -> bool:
    return not incomplete.startswith(("/", "~")) and not set(incomplete) & set("*?[")


SpaceArgument = Annotated[
    str,
    typer.Argument(
        help="An experiment file: a shipped space (see `lossatlas spaces`) or a path to a YAML file.",
        autocompletion=complete_space,
    ),
]
NameArgument = Annotated[
    str, typer.Argument(help="Name of a sweep in the home directory.", autocompletion=complete_name)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON to standard output, and nothing else there (docs/json.md).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the space: a dotted key, a YAML value; null removes."),
]
HomeOption = Annotated[
    str | None, typer.Option("--home", help="Home directory [default: $LOSSATLAS_HOME or ./lossatlas-home].")
]
UriOption = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow server, or off [default: SQLite in the home directory].")
]
SameUriOption = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow server [default: the one that it was tracked to].")
]
AddressOption = Annotated[str | None, typer.Option("--address", help="Ray cluster to use [default: start one here].")]


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"lossatlas {version('lossatlas')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Map how sensitive a student trained on a distilled image dataset is to its loss."""


def print_json(value: Any) -> None:
    """A value as JSON on standard output; NaN is null."""
    sys.stdout.write(json.dumps(without_nan(value), indent=1) + "\n")


def without_nan(value: Any) -> Any:
    """The same with None for every NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A path that cannot be written is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--out: {path} cannot be written ({error.strerror or error}).") from error


def say(text: str) -> None:
    """A line about what goes on, with the time, to standard error."""
    err.print(escape(f"{time.strftime('%H:%M:%S')} {text}"))
