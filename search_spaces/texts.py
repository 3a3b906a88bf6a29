"""Texts from outside: what a name may be, and how any text is shown or written so that it is only a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

#: What a spreadsheet takes for a formula when it begins a cell.
FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")
MOST_CHARACTERS_OF_A_NAME: Final = 100
#: Letters of scripts that need them: joiners of Indic scripts, Arabic and emoji.
_JOINERS: Final = ("\u200c", "\u200d")


def is_invisible(character: str) -> bool:
    """It is not shown, or changes how others are: control characters, line separators, marks of direction."""
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and character not in _JOINERS


def printable(text: str) -> str:
    """A text for a terminal: what is invisible is written as an escape, but for new lines and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not is_invisible(c) else ascii(c)[1:-1] for c in text)


def problem_of_name(name: str) -> str | None:
    """Why a text is no name of an arm, a dataset or a variant; None if it may be one."""
    if not name.strip() or name != name.strip():
        return f"a name is not empty and has no spaces at its ends, got {name!r}."
    if len(name) > MOST_CHARACTERS_OF_A_NAME:
        return f"a name has at most {MOST_CHARACTERS_OF_A_NAME} characters, got {len(name)}: {name[:20]!r}..."
    if any(map(is_invisible, name)):
        return f"a name has no control characters and no marks of direction, got {name!a}."
    if name.startswith(FORMULA_SIGNS):
        return f"a name does not begin with {name[0]}, which spreadsheets take for a formula, got {name!r}."
    return None


def as_cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would run gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    shown = printable(value).replace("\n", " ").replace("\t", " ")
    return f"'{shown}" if value.startswith(FORMULA_SIGNS) else shown


def invisible_in(value: Any, path: str = "") -> Iterator[str]:
    """One sentence per text in a document, key or value, that has invisible characters."""
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        where = f"{path}[{key}]" if isinstance(value, list) else f"{path}.{key}".lstrip(".")
        for text in (key, item):
            if isinstance(text, str) and any(map(is_invisible, text)):
                yield f"{printable(where)}: no control characters and no marks of direction are allowed, got {text!a}."
        yield from invisible_in(item, where)
