"""Read a distilled set as students are trained on it: what the file holds, completed by what the user states."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.arrays import changed_rows
from trainables.data.decode import side_of
from trainables.formats.found import Found, ImageFiles, asking
from trainables.formats.kinds import as_kind, correction, possible_kinds
from trainables.formats.pixels import looks_whitened
from trainables.formats.positions import hard_labels
from trainables.formats.recognise import recognise_path
from trainables.formats.tensors import experiment_of


@dataclass(frozen=True, slots=True)
class DistilledFile:
    """A distilled set before it is brought to the pixels that students see.

    Attributes:
        images: (N, channels, H, W), uint8, or float in `pixel_space`.
        hard: (N,) labels in the real data's order.
        soft: (N, C) labels that came with the images, or None.
        label_kind: Of `soft`, see `trainables.formats.kinds`; "hard" without.
        pixel_space: "uint8", "raw01", "meanstd" or "zca".
        mean, std: Per channel, where the space is "meanstd".
        format: What it was recognised as.
        native_size: Shorter side of the first file, pixels; None for tensors.
        listed: Which image each file is, in torchvision's ImageFolder order; None for a part of the files, or tensors.
        remarks: What was decided about the file or is doubtful about it, in sentences.
    """

    images: Tensor
    hard: Tensor
    soft: Tensor | None
    label_kind: str
    pixel_space: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    format: str
    listed: Tensor | None
    native_size: int | None
    remarks: tuple[str, ...] = ()


def read_distilled(  # noqa: PLR0913 (what it must fit)
    path: Path,
    given: Mapping[str, Any],
    *,
    classes: Sequence[str],
    size: int,
    scratch: Path | None = None,
    is_ordered: bool = False,
) -> DistilledFile:
    """A distilled set from disk.

    Args:
        path: File or folder.
        given: Keys of STATED that the user gave.
        classes: Names of the real data's classes in the order of their labels.
        size: Side of the real images, pixels; files are decoded to it, tensors must have it.
        scratch: Folder with room for a copy of the images, where they should not be in memory.
        is_ordered: The user gave the real classes an order of their own (`data.class_order`).

    Raises:
        ValueError: If the set is damaged, does not fit the real data, or a key that it asks for is missing.
    """
    chosen = _select(path, given, classes, is_ordered=is_ordered)
    found, hard, soft, keep = chosen.found, chosen.hard, chosen.soft, chosen.keep
    images = found.images
    assert images is not None
    native = side_of(images.root, images.files) if isinstance(images, ImageFiles) else None
    sizes = images.survey(keep.numpy()).remarks(size) if isinstance(images, ImageFiles) else []
    pixels = images.decode(keep.numpy(), size) if isinstance(images, ImageFiles) else _kept(images, keep, scratch)
    hard, soft = hard[keep], None if soft is None else soft[keep]
    factor = given.get("decode_factor", 1)
    if factor > 1:
        if found.format != "idc":
            raise ValueError(f"{path}: decode_factor: only for sets that pack images (idc), this is {found.format}.")
        pixels, hard = unpack(pixels, factor), hard.repeat_interleave(factor**2)
    space = "uint8" if pixels.dtype == torch.uint8 else given.get("pixel_space") or found.pixel_space
    assert space is not None
    kind = "hard" if soft is None else given.get("label_kind") or found.label_kind
    assert kind is not None
    _require_pixels(pixels, space, given, size, path)
    constants = [tuple(map(float, given.get(key, ()))) for key in ("mean", "std")]
    return DistilledFile(
        images=pixels,
        hard=hard,
        soft=None if soft is None else as_kind(soft, kind),
        label_kind=kind,
        pixel_space=space,
        mean=constants[0],
        std=constants[1],
        format=found.format,
        listed=_listed(images, keep),
        native_size=native,
        remarks=(
            *doubts_about(found, given),
            *remarks_on(found, given),
            *sizes,
            *((chosen.remark,) if chosen.remark else ()),
        ),
    )


def _kept(images: Tensor, keep: Tensor, scratch: Path | None) -> Tensor:
    """Some images; as they are, if it is all of them."""
    if len(keep) == len(images):
        return images
    if scratch is None or images.dtype == torch.uint8:
        return images[keep]
    return torch.from_numpy(changed_rows(images.numpy(), keep.numpy(), lambda rows: rows, scratch))


def unpack(images: Tensor, factor: int) -> Tensor:
    """Images that hold factor x factor others, each brought to full size: (N, c, H, W) to (N factor^2, c, H, W).

    A side that the factor does not divide is padded with 0.5 on the right and at the bottom, as the authors do.

    Source: Kim et al. 2022 (IDC), arXiv:2205.14959, multi-formation.
    """
    n, c, size, _ = images.shape
    part = math.ceil(size / factor)
    spare = part * factor - size
    padded = F.pad(images.float(), (0, spare, 0, spare), value=0.5)
    tiles = padded.reshape(n, c, factor, part, factor, part).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, part, part)
    return F.interpolate(tiles, size=(size, size), mode="bilinear", align_corners=False)


def require_fitting(
    path: Path, given: Mapping[str, Any], *, classes: Sequence[str], size: int, is_ordered: bool = False
) -> None:
    """Look whether `read_distilled` would take a set, without decoding images.

    Raises:
        ValueError: As `read_distilled`, of all but image files.
    """
    found = _select(path, given, classes, is_ordered=is_ordered).found
    if isinstance(found.images, Tensor):
        space = "uint8" if found.images.dtype == torch.uint8 else given.get("pixel_space") or found.pixel_space
        assert space is not None
        _require_pixels(found.images, space, given, size, path)


@dataclass(frozen=True, slots=True)
class _Selection:
    """What a path holds: hard labels as the real data count them, soft ones, indices of images that are kept, a remark."""

    found: Found
    hard: Tensor
    soft: Tensor | None
    keep: Tensor
    remark: str


def _select(path: Path, given: Mapping[str, Any], classes: Sequence[str], *, is_ordered: bool) -> _Selection:
    """A set's labels, checked against the real classes, before its images are decoded."""
    found = recognise_path(path)
    if found.kind != "distilled":
        raise ValueError(f"{path}: {found.kind} ({found.format}), not a distilled set.")
    _require_stated(found, given, path, classes)
    if found.format == "dc" and "experiment" in given:
        images_then, hard_then, soft_then = experiment_of(found.file or path, given["experiment"])
        found = replace(found, images=images_then, hard=hard_then, soft=soft_then)
    if found.soft is not None and (count := found.soft.shape[1]) != len(classes):
        raise ValueError(f"{path}: soft labels for {count} classes, the real data have {len(classes)}.")
    if found.hard is None and found.soft is None:
        hard, said = _by_position(found, given, path), ""
    else:
        hard, said = hard_labels(found, given, path)
    if is_ordered:
        _require_meaning_of_numbers(found, given, classes, path)
    hard = _in_real_order(found, given, hard, classes, path)
    if (count := len(hard.unique())) != len(classes) or int(hard.max()) + 1 != count:
        raise ValueError(f"{path}: {count} classes, the real data have {len(classes)}.")
    soft = _soft_labels(found, given, path)
    keep = _first_per_class(hard, given.get("ipc"), path)
    return _Selection(found, hard, soft, keep, said)


def missing_keys(found: Found, given: Mapping[str, Any]) -> list[str]:
    """Keys that a set asks for and nobody stated; normalised pixels need their constants."""
    asked = [*found.asks]
    space = given.get("pixel_space", found.pixel_space)
    if space == "meanstd" and found.pixel_space != "uint8":
        asked += ["mean", "std"]
    elif space is not None:
        asked = [key for key in asked if key not in ("mean", "std")]
    if "file_ipc" in given:
        asked = [key for key in asked if key != "ipc"]
    return [key for key in dict.fromkeys(asked) if given.get(key) is None]


def remarks_on(found: Found, given: Mapping[str, Any]) -> list[str]:
    """What was decided about a set's content and should be known, in sentences; of what a user stated only its effect."""
    if (stated := given.get("label_kind")) in (None, found.label_kind):
        return [*found.remarks]
    said = correction(found.soft, stated) if found.soft is not None else ""
    return [said] if said else []


def doubts_about(found: Found, given: Mapping[str, Any]) -> list[str]:
    """What is doubtful about a set with what a user stated of it, in sentences."""
    space, stated = given.get("pixel_space", found.pixel_space), given.get("label_kind")
    doubts = [*found.problems]
    if stated not in (None, "hard", found.label_kind) and found.label_kind is not None:
        doubts.append(f"label_kind: {stated} is stated; the rows look like {found.label_kind}.")
    if isinstance(found.images, Tensor) and found.images.is_floating_point() and space in ("meanstd", "zca"):
        doubts += _against_smoothness(found.images, space)
    if space == "zca" and found.format in ("frepo", "rfad", "rcig"):
        doubts.append(f"{found.format} whitens by a recipe of its own; real images are whitened by kornia's, eps 0.1.")
    if space in ("raw01", "uint8", "zca") and {"mean", "std"} & given.keys():
        doubts.append(f"mean and std are stated and not used, because the pixels are {space}.")
    return doubts


def _against_smoothness(images: Tensor, space: str) -> list[str]:
    """What speaks against the space that was stated or that the layout has."""
    is_white, why = looks_whitened(images)
    if space == "zca" and is_white is False:
        return [f"pixel_space is zca, but {why}; look at what made the file."]
    if space == "meanstd" and is_white:
        return [f"pixel_space is meanstd, but {why}; look at what made the file."]
    return []


def _require_stated(found: Found, given: Mapping[str, Any], path: Path, classes: Sequence[str]) -> None:
    missing = missing_keys(found, given)
    if "class_order" in missing and _named_as_real(found, classes):
        missing.remove("class_order")
    if missing:
        raise ValueError(asking(found, missing, path))
    if found.format == "kip" and given.get("pixel_space") == "zca":
        raise ValueError(f"{path}: KIP whitens by a recipe of its own, which is not supported; use another set.")


def _named_as_real(found: Found, classes: Sequence[str]) -> bool:
    """The class folders have names of real classes."""
    files = found.images
    return isinstance(files, ImageFiles) and not files.numbered and None not in _real_labels(files.names, classes)


def _real_labels(names: Sequence[str], classes: Sequence[str]) -> list[int | None]:
    """Label of the real class that each folder is named after; None where there is none.

    Case, spaces, dashes and underscores do not count, and numbers count as numbers, unless real names would then be the same.
    """
    plain = [_plain(name) for name in classes]
    if len(set(plain)) < len(plain):
        return [list(classes).index(name) if name in classes else None for name in names]
    return [plain.index(_plain(name)) if _plain(name) in plain else None for name in names]


def _plain(name: str) -> str:
    """A class's name without what people write differently."""
    return str(int(name)) if name.isascii() and name.isdigit() else re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def _by_position(found: Found, given: Mapping[str, Any], path: Path) -> Tensor:
    """Labels of a bare tensor: class after class."""
    assert isinstance(found.images, Tensor)
    n, ipc = len(found.images), int(given.get("file_ipc") or given["ipc"])
    if n % ipc:
        raise ValueError(f"{path}: ipc (file_ipc, where that is given): must divide the {n} images, got {ipc}.")
    return torch.arange(n) // ipc


def _in_real_order(found: Found, given: Mapping[str, Any], hard: Tensor, classes: Sequence[str], path: Path) -> Tensor:
    """Labels as the real data count them."""
    order = given.get("class_order")
    if isinstance(found.images, ImageFiles) and not found.images.numbered:
        return _order_of_folders(found.images.names, order, classes, path)[hard]
    if (count := int(hard.max()) + 1) > len(classes):
        raise ValueError(f"{path}: {count} classes, the real data have {len(classes)}.")
    if isinstance(found.images, ImageFiles) and order is None:
        return _order_of_numbers(classes)[hard]
    if order in (None, "index"):
        return hard
    order = sorted(classes) if order == "sorted" else order
    if sorted(order) != sorted(classes):
        odd = sorted(set(order) ^ set(classes))
        raise ValueError(f"{path}: class_order must hold the names of the real classes; it differs in {odd[:5]}.")
    return torch.tensor([list(classes).index(name) for name in order])[hard]


def _order_of_numbers(classes: Sequence[str]) -> Tensor:
    """Label of each number that a class folder is called: of the real class of that name, else the number itself."""
    labels = _real_labels([str(number) for number in range(len(classes))], classes)
    return torch.arange(len(classes)) if None in labels else torch.tensor(labels)


def _require_meaning_of_numbers(found: Found, given: Mapping[str, Any], classes: Sequence[str], path: Path) -> None:
    """Where real classes with other names have an order that the user gave, a folder's number could count in that or in theirs."""
    files = found.images
    if not isinstance(files, ImageFiles) or not files.numbered or "class_order" in given:
        return
    numbers = [str(number) for number in range(len(classes))]
    if None in _real_labels(numbers, classes) and list(classes) != sorted(classes):
        raise ValueError(
            f"{path}: class folders are numbers, and data.class_order gives the real classes an order of its own; state "
            "class_order: index (number k is the k-th class of data.class_order), sorted (the k-th of the sorted names), or "
            "the list of the real classes' names in the order of the numbers."
        )


def _order_of_folders(names: Sequence[str], order: Any, classes: Sequence[str], path: Path) -> Tensor:
    """Label of each class folder: the real class of its name, else its place in the order that was stated."""
    labels = _real_labels(names, classes)
    if None not in labels:
        if isinstance(order, list) and order != [names[labels.index(k)] for k in range(len(classes)) if k in labels]:
            raise ValueError(
                f"{path}: class_order contradicts the real data, whose classes have these names in another order; leave "
                "it out, or set data.class_order."
            )
        return torch.tensor(labels)
    if order == "index":
        raise ValueError(f"{path}: class_order: index is for numbers; folders have names, give sorted or a list.")
    if order == "sorted" and all(name.isdecimal() for name in names) and sorted(names) != sorted(names, key=int):
        raise ValueError(
            f"{path}: class_order: sorted, but as text 10 comes before 2; give the list of the folders' names."
        )
    order = sorted(names) if order == "sorted" else order
    if sorted(order) != sorted(names):
        odd = sorted(set(order) ^ set(names))
        raise ValueError(f"{path}: class_order must name every class folder once; it differs in {odd[:5]}.")
    _require_names_in_place(names, order, classes, path)
    return torch.tensor([order.index(name) for name in names])


def _require_names_in_place(names: Sequence[str], order: Sequence[str], classes: Sequence[str], path: Path) -> None:
    """A folder that is named after a real class is that class, wherever the stated order puts it."""
    for name, label in zip(names, _real_labels(names, classes), strict=True):
        place = order.index(name)
        if label is not None and label != place and place < len(classes):
            raise ValueError(
                f"{path}: class_order makes the folder {name} the class {classes[place]}, but {classes[label]} is the real "
                f"class of that name; give the folders in the order of the real classes, {', '.join(classes[:4])}, ..."
            )


def _soft_labels(found: Found, given: Mapping[str, Any], path: Path) -> Tensor | None:
    if found.soft is None or given.get("label_kind") == "hard":
        return None
    stated = given.get("label_kind")
    if stated is not None and (why := (kinds := possible_kinds(found.soft))[stated]):
        others = " or ".join(kind for kind, refused in kinds.items() if not refused)
        raise ValueError(f"{path}: label_kind: {stated}, but {why}; give {others}.")
    if given.get("class_order", "index") != "index":
        raise ValueError(f"{path}: class_order cannot reorder soft labels; give index.")
    return found.soft


def _first_per_class(hard: Tensor, ipc: int | None, path: Path) -> Tensor:
    """Indices of the first images of each class, in file order; all without a limit."""
    if ipc is None:
        return torch.arange(len(hard))
    keep = []
    for label in hard.unique():
        members = (hard == label).nonzero().flatten()
        if len(members) < ipc:
            raise ValueError(f"{path}: ipc: class {int(label)} has {len(members)} images, got {ipc}.")
        keep.append(members[:ipc])
    return torch.cat(keep).sort().values


def _require_pixels(pixels: Tensor, space: str, given: Mapping[str, Any], size: int, path: Path) -> None:
    """The space that was stated is possible, and the images have the real images' size."""
    if pixels.shape[-1] != size:
        raise ValueError(f"{path}: images of {pixels.shape[-1]} pixels, the real data have {size}.")
    if pixels.dtype == torch.uint8:
        if "pixel_space" in given:
            raise ValueError(f"{path}: pixel_space: its pixels are bytes, got {given['pixel_space']}.")
        return
    low, high = float(pixels.min()), float(pixels.max())
    inside = low >= -0.1 and high <= 1.1
    if space == "raw01" and not inside:
        raise ValueError(f"{path}: pixel_space: raw01, but pixels are {low:.3g} to {high:.3g}; give meanstd or zca.")
    if space in ("meanstd", "zca") and low >= 0 and inside:
        raise ValueError(f"{path}: pixel_space: {space}, but pixels are {low:.3g} to {high:.3g}, which is raw01.")
    for key in ("mean", "std") if space == "meanstd" else ():
        if len(given[key]) != pixels.shape[1]:
            raise ValueError(f"{path}: {key}: one number per channel ({pixels.shape[1]}), got {given[key]}.")


def _listed(images: Tensor | ImageFiles, keep: Tensor) -> Tensor | None:
    """ImageFolder sorts folders as text, which unpadded numbers are not."""
    if isinstance(images, Tensor) or len(keep) < len(images.files):
        return None
    return torch.tensor(sorted(range(len(images.files)), key=lambda i: images.files[i][0].split("/")))
