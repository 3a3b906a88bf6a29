"""What a path is, by its content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from trainables.experts import is_buffer
from trainables.formats.folders import recognise_folder
from trainables.formats.found import Found
from trainables.formats.stores import recognise_store
from trainables.formats.tensors import recognise_archive, recognise_tensors, tensors_in
from trainables.models import recognise, safe_load, weights_of

_KNOWN: Final = (
    "GIFT data.pt, IDC and NCFM pairs, DC/DSA/DM res_*.pt, MTT/FTD/TESLA/DATM images_*.pt, DD-Ranking, bare tensors, "
    "FRePo and KIP .npz, class folders of images, FKD label stores, network checkpoints"
)


def recognise_path(path: Path) -> Found:
    """What a file or folder is.

    Raises:
        ValueError: If it is missing, damaged, refused, or nothing that is known.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder.")
    found = _in_folder(path) if path.is_dir() else _in_file(path)
    if found is None:
        raise ValueError(f"{path}: not recognised; known are {_KNOWN}.")
    return found


def _in_folder(path: Path) -> Found | None:
    if (file := tensors_in(path)) is not None:
        found = _in_file(file)
        return found and replace(found, file=file)
    return recognise_store(path) or recognise_folder(path)


def _in_file(path: Path) -> Found | None:
    if path.suffix == ".npz":
        return recognise_archive(path)
    content = safe_load(path)
    return recognise_tensors(content, path) or _experts(content) or _checkpoint(content, path)


def _experts(content: Any) -> Found | None:
    """A replay buffer: experts, their epochs, their parameters."""
    if not is_buffer(content):
        return None
    levels = content, content[0], content[0][0]
    facts = dict(zip(("experts", "epochs", "parameters"), map(len, levels), strict=True))
    return Found(kind="checkpoint", format="expert-buffer", details=facts)


def _checkpoint(content: Any, path: Path) -> Found | None:
    if not isinstance(content, dict):
        return None
    architecture = recognise(weights_of(content, path))
    if architecture is None:
        asks = "architecture not recognised from its keys; give teacher.model (timm/NAME or torchvision/NAME)."
        return Found(kind="checkpoint", format="unknown", problems=(asks,))
    facts = architecture.as_dict()
    return Found(kind="checkpoint", format=architecture.name, classes=architecture.classes, details=facts)
