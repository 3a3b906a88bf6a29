"""The application, its consoles, and the options that commands share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from search_spaces import ConfigError
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

SpaceArgument = Annotated[
    str, typer.Argument(help="A shipped space (see `lossatlas spaces`) or a path to a YAML file.")
]
NameArgument = Annotated[str, typer.Argument(help="Name of a sweep in the home directory.")]
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
