"""Distilled sets in torch and numpy files, recognised by content.

Layouts: GIFT `data.pt`, IDC and NCFM, DC/DSA/DM `res_*.pt`, the trajectory family (MTT, FTD, TESLA, DATM),
DD-Ranking, bare tensors of the ECCV 2024 challenge, FRePo and KIP archives. Each reader gives a Found or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trainables.arrays import ROWS_AT_ONCE
from trainables.formats.found import Found, kind_of_rows
from trainables.unpickling import read_arrays, safe_load

Experiment = tuple[Tensor, Tensor | None, Tensor | None]
#: Recognised, and refused by name: what each is, by the keys that it has.
_REFUSED: Final = {
    ("nf", "label"): "a neural-field distilled set (DDiF); it needs its own decoder, export its images instead",
    ("images_train", "labels_train"): "real data (DC's tinyimagenet.pt), not a distilled set",
    ("images_val", "labels_val"): "a reference test set of the DD challenge, not a distilled set",
}


def recognise_tensors(content: Any, path: Path) -> Found | None:
    """The distilled set in what a torch file holds, None if there is none.

    Raises:
        ValueError: If it is damaged, or of a kind that is refused.
    """
    if path.name.endswith("_poster.pt"):
        raise ValueError(f"{path}: a poster (PoDD); it needs its own decoder, export its images instead.")
    if isinstance(content, Mapping):
        for keys, what in _REFUSED.items():
            if set(keys) <= set(content):
                raise ValueError(f"{path}: {what}.")
    for reader in (_gift, _condensed, _pair, _images):
        if (found := reader(content, path)) is not None:
            return found
    return None


def _gift(content: Any, path: Path) -> Found | None:
    """A dictionary of dataset, data, label."""
    keys = {"dataset", "data", "label"}
    if not isinstance(content, Mapping) or len(keys & set(content)) < 2 or "accs_all_exps" in content:
        return None
    for key in sorted(keys - set(content)):
        raise ValueError(f"{path}: looks like GIFT's data.pt, but its key {key!r} is missing.")
    images = _images_in(content["data"], path, "data")
    hard, soft = _labels_in(content["label"], len(images), path, "label")
    sure = soft is None and _in_unit_range(images)
    return Found(
        kind="distilled",
        format="gift",
        images=images,
        hard=hard,
        soft=soft,
        label_kind=None if soft is None else kind_of_rows(soft),
        pixel_space=_space_of(images, "raw01") if sure or images.dtype == torch.uint8 else None,
        asks=() if sure or images.dtype == torch.uint8 else ("pixel_space",),
        details={"dataset": str(content["dataset"])},
    )


def _condensed(content: Any, path: Path) -> Found | None:
    """A dictionary of data (one [images, labels] per experiment) and accuracies (DC, DSA, DM)."""
    if not isinstance(content, Mapping) or "accs_all_exps" not in content:
        return None
    experiments = content.get("data")
    if not isinstance(experiments, list) or not experiments:
        raise ValueError(f"{path}: looks like DC's result, but its key 'data' holds no experiments.")
    for number, pair in enumerate(experiments):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{path}: experiment {number} must be [images, labels].")
    images, hard, soft = _experiment(experiments[-1], path)
    return Found(
        kind="distilled",
        format="dc",
        images=images,
        hard=hard,
        soft=soft,
        label_kind=None if soft is None else kind_of_rows(soft),
        pixel_space="meanstd",
        asks=("mean", "std"),
        details={"experiments": len(experiments)},
    )


def experiment_of(path: Path, number: int) -> Experiment:
    """Images, hard labels and soft labels (one of the two) of one experiment of a DC/DSA/DM file."""
    experiments = safe_load(path)["data"]
    if not -len(experiments) <= number < len(experiments):
        raise ValueError(f"{path}: experiment must be 0 to {len(experiments) - 1}, got {number}.")
    return _experiment(experiments[number], path)


def _experiment(pair: Any, path: Path) -> Experiment:
    images = _images_in(pair[0], path, "images")
    return images, *_labels_in(pair[1], len(images), path, "labels")


def _pair(content: Any, path: Path) -> Found | None:
    """A list of two tensors: images (perhaps several packed into each) and labels (IDC, NCFM)."""
    is_pair = isinstance(content, list | tuple) and len(content) == 2 and all(isinstance(t, Tensor) for t in content)
    if not is_pair or content[0].ndim != 4:
        return None
    images = _images_in(content[0], path, "images")
    hard, _ = _labels_in(content[1], len(images), path, "labels")
    if hard is None:
        raise ValueError(f"{path}: labels of IDC and NCFM are class indices, got shape {tuple(content[1].shape)}.")
    return Found(kind="distilled", format="idc", images=images, hard=hard, pixel_space="raw01", asks=("decode_factor",))


def _images(content: Any, path: Path) -> Found | None:
    """A tensor of images, with its labels in a file beside it, or none."""
    if not isinstance(content, Tensor):
        return None
    if content.ndim != 4:
        what = {0: "a single number, perhaps a learned rate", 2: "a table, perhaps labels"}.get(
            content.ndim, "a tensor"
        )
        raise ValueError(f"{path}: {what} of shape {tuple(content.shape)}; give the file of the images (N, C, H, W).")
    if path.name.startswith("images_zca"):
        raise ValueError(f"{path}: the un-whitened picture for looking at; train on {path.name.replace('_zca', '')}.")
    images = _images_in(content, path, "images")
    beside = path.with_name(path.name.replace("images", "labels"))
    if beside == path or not beside.is_file():
        if path.stem.startswith("images_"):
            raise ValueError(f"{path}: its labels are missing; expected {beside.name} beside it.")
        return Found(kind="distilled", format="bare", images=images, asks=("class_order", "ipc", *_ask_space(images)))
    hard, soft = _labels_in(safe_load(beside), len(images), beside, "labels")
    rate = _learned_rate(path.with_name(path.name.replace("images", "lr")), path)
    return _trajectory(path, images, hard, soft, rate)


def _trajectory(path: Path, images: Tensor, hard: Tensor | None, soft: Tensor | None, rate: float | None) -> Found:
    """Matching training trajectories and its descendants, and DD-Ranking's three tensors."""
    kind = None if soft is None else kind_of_rows(soft)
    name = {None: "mtt", "prob": "tesla", "logit": "datm"}[kind]
    whitened = any(path.parent.glob("images_zca_*.pt"))
    return Found(
        kind="distilled",
        format="dd-ranking" if path.name == "images.pt" else name,
        images=images,
        hard=hard if soft is None else None,
        soft=soft,
        label_kind=kind,
        pixel_space="zca" if whitened else None,
        asks=() if whitened else _ask_space(images),
        problems=() if soft is None else _disagreement(soft),
        details={} if rate is None else {"learned_lr": rate},
    )


def _disagreement(soft: Tensor) -> tuple[str, ...]:
    """Class-major rows whose largest entry is another class."""
    if len(soft) % soft.shape[1]:
        return (f"{len(soft)} images cannot be the same number of each of {soft.shape[1]} classes.",)
    ordered = torch.arange(soft.shape[1]).repeat_interleave(len(soft) // soft.shape[1])
    share = (soft.argmax(dim=1) != ordered).float().mean().item()
    return (f"the largest stored label is not the class of its position for {share:.0%} of the images.",) * (share > 0)


def _learned_rate(beside: Path, path: Path) -> float | None:
    if beside == path or not beside.is_file():
        return None
    rate = safe_load(beside)
    if not isinstance(rate, Tensor) or rate.numel() != 1 or not bool(torch.isfinite(rate).all()):
        raise ValueError(f"{beside}: a learned rate is one finite number.")
    return float(rate)


def recognise_archive(path: Path) -> Found | None:
    """FRePo's (image, label) and KIP's (images, labels) numpy archives, images (N, H, W, channels)."""
    arrays = read_arrays(path)
    for name, (images_key, labels_key) in {"frepo": ("image", "label"), "kip": ("images", "labels")}.items():
        if images_key in arrays and labels_key not in arrays:
            raise ValueError(f"{path}: its key {labels_key!r} is missing.")
        if images_key in arrays:
            pixels = arrays[images_key]
            if pixels.ndim != 4:
                raise ValueError(f"{path}: images must be (N, H, W, channels), got {pixels.shape}.")
            images = _images_in(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), path, images_key)
            hard, soft = _labels_in(torch.from_numpy(arrays[labels_key]), len(images), path, labels_key)
            asks = (*_ask_space(images), *(("label_kind",) if soft is not None else ()))
            return Found(kind="distilled", format=name, images=images, hard=hard, soft=soft, asks=asks)
    return None


def _images_in(value: Any, path: Path, key: str) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[1] not in (1, 3) or not len(value):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{path}: {key} must be images (N, 1 or 3, H, W), got {shape}.")
    if value.dtype != torch.uint8 and not value.is_floating_point():
        raise ValueError(f"{path}: {key} must be floats or uint8, got {value.dtype}.")
    if value.is_floating_point() and not all(bool(torch.isfinite(part).all()) for part in value.split(ROWS_AT_ONCE)):
        raise ValueError(f"{path}: {key} has values that are NaN or infinite.")
    if value.shape[2] != value.shape[3]:
        raise ValueError(f"{path}: {key} must be square, got {tuple(value.shape)}.")
    return value.detach() if value.dtype == torch.uint8 else value.detach().float()


def _labels_in(value: Any, n: int, path: Path, key: str) -> tuple[Tensor | None, Tensor | None]:
    """Hard labels (n,), or soft labels (n, C)."""
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or len(value) != n:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{path}: {key} must be {n} labels, one per image, got {shape}.")
    if value.ndim == 2 and value.shape[1] > 1:
        if not value.is_floating_point():
            raise ValueError(f"{path}: soft {key} must be floats, got {value.dtype}.")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {key} has values that are NaN or infinite.")
        return None, value.detach().float()
    flat = value.flatten()
    if flat.is_floating_point() or flat.dtype == torch.bool:
        raise ValueError(f"{path}: hard {key} must be integers, got {value.dtype}.")
    return _require_every_class(flat.long(), path, key), None


def _require_every_class(hard: Tensor, path: Path, key: str) -> Tensor:
    """Labels are 0 .. C - 1, each present."""
    present = hard.unique()
    if int(present[0]) != 0 or int(present[-1]) != len(present) - 1:
        raise ValueError(
            f"{path}: {key} must be 0 to C - 1, each at least once; got {len(present)} different ones from "
            f"{int(present[0])} to {int(present[-1])}."
        )
    return hard


def _in_unit_range(images: Tensor) -> bool:
    return images.dtype == torch.uint8 or bool(images.min() >= -0.1 and images.max() <= 1.1)


def _space_of(images: Tensor, otherwise: str) -> str:
    return "uint8" if images.dtype == torch.uint8 else otherwise


def _ask_space(images: Tensor) -> tuple[str, ...]:
    return () if images.dtype == torch.uint8 else ("pixel_space",)


def tensors_in(folder: Path) -> Path | None:
    """The file of the images in a folder of tensors: images_best.pt, images.pt, data.pt, or the latest iteration.

    Raises:
        ValueError: If there are several that could be meant.
    """
    for name in ("images_best.pt", "images.pt", "data.pt"):
        if (folder / name).is_file():
            return folder / name
    key: Callable[[Path], int] = lambda path: int(re.findall(r"\d+", path.stem)[-1])  # noqa: E731
    iterations = [path for path in folder.glob("images_*.pt") if re.fullmatch(r"images_\d+", path.stem)]
    packed = [path for path in folder.glob("data_*.pt") if re.fullmatch(r"data_\d+", path.stem)]
    results = sorted(folder.glob("res_*.pt"))
    if len(results) > 1:
        raise ValueError(f"{folder}: several results; give one of {[path.name for path in results]}.")
    pictures = sorted(folder.glob("images_zca_*.pt"))[:1]
    return max(iterations or packed, key=key, default=next(iter(results or pictures), None))
