"""What a file cannot tell, stated beside it in `lossatlas.yaml`. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from trainables.documents import read_yaml

NAME: Final = "lossatlas.yaml"
LARGEST_BYTES: Final = 100_000
#: Keys by which a user states what a file cannot tell, and what may be given; under `data.distilled` or in a sidecar.
STATED: Final = {
    "pixel_space": "raw01 (pixels 0 to 1), meanstd (normalised; give mean and std) or zca (whitened)",
    "mean": "what was subtracted per channel, of pixels in [0, 1]",
    "std": "what was divided by per channel",
    "class_order": "index (positions are labels), sorted (names in sorted order), or the list of names in label order",
    "label_kind": "prob (rows that sum to 1), logprob (their logarithms), logit, centred (one-hot less 1 / C) or hard "
    "(only the largest entry of each row counts)",
    "decode_factor": "f of files that pack f x f images into each (IDC: the factor in the folder's name), else 1",
    "ipc": "images per class",
    "file_ipc": "images per class in a bare tensor, of which `ipc` takes the first",
    "experiment": "which of a file's experiments, from 0; none: the last",
}

#: What may be given as `class_order` where folders have names that are not those of the real classes.
OF_NAMED_FOLDERS: Final = "sorted (names in sorted order), or the list of the folders' names in label order"


def sidecar_of(path: Path) -> Path:
    """In the folder itself, or beside the file."""
    return (path if path.is_dir() else path.parent) / NAME


def read_sidecar(path: Path) -> dict[str, Any]:
    """What is stated about a distilled set; nothing where there is no sidecar.

    Keys at the top are about the whole folder; those under the name of a file are about that file, and come first.

    Raises:
        ValueError: If it is not a YAML mapping.
    """
    content = _content(sidecar_of(path))
    general = {key: value for key, value in content.items() if not isinstance(value, dict)}
    own = {} if path.is_dir() else content.get(path.name, {})
    return general | own


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    if file.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"{file}: larger than {LARGEST_BYTES} bytes; a sidecar holds a few keys.")
    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as err:
        raise ValueError(f"{file}: not readable as YAML: {' '.join(str(err).split())}.") from err
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{file}: must be a mapping of keys, got {type(content).__name__}.")
    return content


def write_sidecar(path: Path, stated: Mapping[str, Any]) -> Path:
    """Add to what is stated, of a file under its name; the sidecar written."""
    file = sidecar_of(path)
    content = _content(file)
    if path.is_dir():
        content |= stated
    else:
        content[path.name] = content.get(path.name, {}) | dict(stated)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(yaml.safe_dump(content, sort_keys=True))
    temporary.replace(file)
    return file
