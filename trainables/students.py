"""Build networks once without training: `python -m trainables.students < wanted.json` says which cannot be built, and why."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainables.networks import ModelShape, make_model


def unbuildable(wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the networks that cannot be built for their images, after the key of the space that names them.

    Networks are built on the meta device, where weights need no memory; one that fails there is tried with memory, since
    some networks look at numbers while they are built.

    Args:
        wanted: `where` (the key of the space), `name`, `width`, `norm`, `channels`, `classes`, `image_size` of each.
    """
    return [f"{one['where']}: {problem}" for one in wanted if (problem := _problem_of(one)) is not None]


def _problem_of(one: Mapping[str, Any]) -> str | None:
    shape = ModelShape(one["channels"], one["classes"], one["image_size"])
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                make_model(one["name"], shape, width=one["width"], norm=one["norm"])
        except ValueError as err:
            problem = str(err)
        else:
            return None
    return problem + _suggestion(one["name"])


def _suggestion(name: str) -> str:
    """Names that are spelt alike, of the same library."""
    library, _, rest = name.partition("/")
    known = _names_of(library)
    close = difflib.get_close_matches(rest, known, n=3)
    return (
        f"; did you mean {' or '.join(f'{library}/{other}' for other in close)}?" if close and rest not in known else ""
    )


def _names_of(library: str) -> list[str]:
    if library == "timm":
        import timm

        return list(timm.list_models())
    from torchvision import models

    return list(models.list_models(module=models)) if library == "torchvision" else []


def main() -> int:
    """Read what is wanted on standard input; the last line printed are the problems as JSON."""
    print(json.dumps(unbuildable(json.load(sys.stdin))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
