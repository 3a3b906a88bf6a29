"""What a path is, by its content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from trainables.data.survey import survey_images
from trainables.experts import is_buffer
from trainables.formats.flax_files import recognise_flax
from trainables.formats.folders import recognise_folder
from trainables.formats.found import Found
from trainables.formats.numpy_files import recognise_archive, recognise_array
from trainables.formats.stores import recognise_store
from trainables.formats.tensors import recognise_tensors, tensors_in
from trainables.models import recognise, safe_load, weights_of
from trainables.trees import EVALUATION_FOLDERS, class_folders, image_names

_KNOWN: Final = (
    "GIFT data.pt, IDC and NCFM pairs, DC/DSA/DM res_*.pt, MTT/FTD/TESLA/DATM images_*.pt, DD-Ranking, bare tensors, "
    "FRePo, KIP and RFAD .npz, RCIG's flax checkpoints, .npy, class folders of images, FKD label stores, network checkpoints"
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
    return recognise_store(path) or recognise_folder(path) or _real_tree(path)


def _real_tree(path: Path) -> Found | None:
    """Real images, as `data.real` takes them: parts with the same class folders, counted but not decoded."""
    parts = [name for name in ("train", *EVALUATION_FOLDERS) if (path / name).is_dir()]
    names = {part: class_folders(path / part) for part in parts}
    if not set(parts) & set(EVALUATION_FOLDERS) or not all(names.values()):
        return None
    counts = {part: sum(len(image_names(path / part / name)) for name in names[part]) for part in parts}
    if not all(counts.values()):
        return None
    part = parts[0]
    first = [(f"{part}/{name}/{file}", 0) for name in names[part] for file in image_names(path / part / name)[:1]]
    sizes = sorted(survey_images(path, first).sizes)
    shown = ", ".join(f"{width} x {height}" for width, height in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
    details = {f"{part}_images": count for part, count in counts.items()} | {"sizes": shown, "use": "data.real"}
    return Found(kind="real", format="image-tree", classes=len(names[part]), details=details)


def _in_file(path: Path) -> Found | None:
    if path.suffix == ".npz":
        return recognise_archive(path)
    if path.suffix == ".npy":
        return recognise_array(path)
    if (found := recognise_flax(path)) is not None:
        return found
    content = safe_load(path)
    return recognise_tensors(content, path) or _experts(content) or _checkpoint(content, path)


def looks_like(weights: Mapping[str, Tensor]) -> str | None:
    """What a network is that is recognised but not loaded, None if its keys say nothing."""
    stages = [re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", key) for key in weights]
    blocks = {(int(m[1]), int(m[2])) for m in stages if m}
    if blocks and max(stage for stage, _ in blocks) == 3:
        shortcut = (
            "with" if any(".shortcut." in key or ".downsample." in key for key in weights) else "without (option A)"
        )
        return f"a ResNet-{2 * len(blocks) + 2} for CIFAR, of 3 stages, {shortcut} weights in its shortcuts"
    convolutions = [value for value in weights.values() if value.ndim == 4]
    linear = [value for value in weights.values() if value.ndim == 2]
    if len(convolutions) == 2 and len(linear) == 3 and convolutions[0].shape[-1] == 5:
        return "a LeNet (2 convolutions of 5 x 5, 3 linear layers)"
    if (
        convolutions
        and linear
        and len(convolutions) <= 8
        and all(value.ndim in (0, 1, 2, 4) for value in weights.values())
    ):
        return f"a small network of {len(convolutions)} convolutions and {len(linear)} linear layers"
    return None


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
    weights = weights_of(content, path)
    architecture = recognise(weights)
    if architecture is None:
        like, shown = (
            looks_like(weights),
            ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(weights.items())[:4]),
        )
        known = (
            f"it looks like {like}, which is not loaded" if like else f"no known network has its keys ({shown}, ...)"
        )
        asks = f"{known}; a network of timm or torchvision is named by teacher.model (timm/NAME or torchvision/NAME)."
        return Found(kind="checkpoint", format="unknown", problems=(asks,), details={"parameters": len(weights)})
    facts = architecture.as_dict()
    if isinstance(said := content.get("acc"), int | float):  # what those who trained it say of it
        facts |= {"acc": said}
    return Found(kind="checkpoint", format=architecture.name, classes=architecture.classes, details=facts)
