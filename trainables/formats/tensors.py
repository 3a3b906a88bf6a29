"""Distilled sets in torch files, recognised by content.

Layouts: GIFT `data.pt`, IDC and NCFM, DC/DSA/DM `res_*.pt`, the trajectory family (MTT, FTD, TESLA, DATM),
DD-Ranking, bare tensors of the ECCV 2024 challenge. Each reader gives a Found or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trainables.arrays import ROWS_AT_ONCE
from trainables.formats.found import Found
from trainables.formats.kinds import Rows, kind_of_rows
from trainables.formats.pixels import space_of
from trainables.paths import labels_beside
from trainables.unpickling import safe_load

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
            own = _own_rate(content, path) if isinstance(content, Mapping) else {}
            return replace(found, details={**found.details, **own})
    return None


def _own_rate(content: Mapping[Any, Any], path: Path) -> dict[str, float]:
    """The rate that was learned with the images, where their file has it."""
    key = next((key for key in ("lr", "syn_lr", "learned_lr") if key in content), None)
    return {} if key is None else {"learned_lr": _rate(content[key], f"{path}: {key}")}


def _gift(content: Any, path: Path) -> Found | None:
    """A dictionary of dataset, data, label."""
    keys = {"dataset", "data", "label"}
    if not isinstance(content, Mapping) or len(keys & set(content)) < 2 or "accs_all_exps" in content:
        return None
    for key in sorted(keys - set(content)):
        raise ValueError(f"{path}: looks like GIFT's data.pt, but its key {key!r} is missing.")
    images = images_in(content["data"], path, "data")
    hard, soft = labels_in(content["label"], len(images), path, "label")
    layout = "raw01" if soft is None else None  # DATM's sets are whitened in this layout too
    return set_of("gift", images, hard, soft, layout=layout, details={"dataset": str(content["dataset"])})


def set_of(  # noqa: PLR0913 (what a layout knows)
    name: str,
    images: Tensor,
    hard: Tensor | None,
    soft: Tensor | None,
    *,
    layout: str | None = None,
    unwhitened_beside: bool = False,
    asks: tuple[str, ...] = (),
    ask_kind: bool = False,
    details: Mapping[str, Any] | None = None,
) -> Found:
    """A distilled set with what its pixels and its soft labels say of themselves.

    Args:
        name: Of the layout.
        images: (N, channels, H, W).
        hard: (N,) labels, or None.
        soft: (N, C) labels, or None.
        layout: The space in which the code that writes this layout keeps pixels, if it has one.
        unwhitened_beside: Pictures of the same images with the whitening undone lie beside the file.
        asks: Keys of STATED that this layout always needs.
        ask_kind: Soft labels of this layout are often learned, so that numbers which look like logits need not be any.
        details: Further facts for `inspect`.
    """
    space = space_of(images, layout=layout, unwhitened_beside=unwhitened_beside)
    rows = kind_of_rows(soft) if soft is not None else Rows(None)
    open_kind = soft is not None and (rows.kind is None or (ask_kind and rows.kind == "logit"))
    needed = ("pixel_space",) if space.name is None else ("mean", "std") if space.name == "meanstd" else ()
    return Found(
        kind="distilled",
        format=name,
        images=images,
        hard=hard,
        soft=soft,
        label_kind=None if open_kind else rows.kind,
        pixel_space=space.name,
        asks=(*needed, *asks, *(("label_kind",) if open_kind else ())),
        remarks=(rows.remark,) if rows.remark else (),
        details={**(details or {}), "pixel_space_why": space.why},
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
    return set_of("dc", images, hard, soft, layout="meanstd", details={"experiments": len(experiments)})


def experiment_of(path: Path, number: int) -> Experiment:
    """Images, hard labels and soft labels (one of the two) of one experiment of a DC/DSA/DM file."""
    experiments = safe_load(path)["data"]
    if not -len(experiments) <= number < len(experiments):
        raise ValueError(f"{path}: experiment must be 0 to {len(experiments) - 1}, got {number}.")
    return _experiment(experiments[number], path)


def _experiment(pair: Any, path: Path) -> Experiment:
    images = images_in(pair[0], path, "images")
    return images, *labels_in(pair[1], len(images), path, "labels")


def _pair(content: Any, path: Path) -> Found | None:
    """A list of two tensors: images (perhaps several packed into each) and labels (IDC, NCFM)."""
    is_pair = isinstance(content, list | tuple) and len(content) == 2 and all(isinstance(t, Tensor) for t in content)
    if not is_pair or content[0].ndim != 4:
        return None
    images = images_in(content[0], path, "images")
    hard, _ = labels_in(content[1], len(images), path, "labels")
    if hard is None:
        raise ValueError(f"{path}: labels of IDC and NCFM are class indices, got shape {tuple(content[1].shape)}.")
    return set_of("idc", images, hard, None, layout="raw01", asks=("decode_factor",))


def _images(content: Any, path: Path) -> Found | None:
    """A tensor of images, with its labels in a file beside it, or none."""
    if not isinstance(content, Tensor):
        return None
    if content.ndim != 4:
        what = {0: f"a single number, {content}, perhaps a learned rate,", 2: "a table, perhaps labels,"}.get(
            content.ndim, "a tensor"
        )
        raise ValueError(f"{path}: {what} of shape {tuple(content.shape)}; give the file of the images (N, C, H, W).")
    if path.name.startswith("images_zca"):
        raise ValueError(f"{path}: the un-whitened picture for looking at; train on {path.name.replace('_zca', '')}.")
    images = images_in(content, path, "images")
    beside = labels_beside(path)
    if beside is None:
        if path.stem.startswith("images_"):
            expected = path.name.replace("images", "labels")
            raise ValueError(f"{path}: its labels are missing; expected {expected} beside it.")
        return set_of("bare", images, None, None, asks=("class_order", "ipc"))
    hard, soft = labels_in(safe_load(beside), len(images), beside, "labels")
    whitened = any(path.parent.glob("images_zca_*.pt"))
    return set_of(_pair_name(path, soft), images, hard, soft, unwhitened_beside=whitened, details=_learned_rate(path))


def _pair_name(path: Path, soft: Tensor | None) -> str:
    """Training trajectories and their descendants, DD-Ranking's three tensors, or DataDAM's pair."""
    if path.stem == "images":
        return "dd-ranking"
    if re.fullmatch(r".+_IPC\d+_images", path.stem):
        return "datadam"
    kind = None if soft is None else kind_of_rows(soft).kind
    return "mtt" if soft is None else "tesla" if kind in ("prob", "logprob") else "datm"


def _learned_rate(path: Path) -> dict[str, float]:
    """The rate that was learned with the images: in a file called as theirs, or the only one beside them."""
    rates = sorted(path.parent.glob("*lr*.pt"))
    named = path.with_name(path.name.replace("images", "lr"))
    beside = named if named != path and named.is_file() else rates[0] if len(rates) == 1 else None
    if beside is None:
        return {}
    return {"learned_lr": _rate(safe_load(beside), str(beside))}


def _rate(value: Any, where: str) -> float:
    """One finite number, a tensor of one or not."""
    number = torch.as_tensor(value) if isinstance(value, Tensor | int | float) else torch.empty(0)
    if number.numel() != 1 or not bool(torch.isfinite(number).all()):
        raise ValueError(f"{where}: a learned rate is one finite number.")
    return float(number)


def images_in(value: Any, path: Path, key: str) -> Tensor:
    """What a file holds as its images, checked.

    Raises:
        ValueError: If they are no finite square images of 1 or 3 channels.
    """
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


def labels_in(value: Any, n: int, path: Path, key: str) -> tuple[Tensor | None, Tensor | None]:
    """Hard labels (n,), or soft labels (n, C); class indices may be stored as floats, or one-hot in whole numbers.

    Raises:
        ValueError: If there is not one finite label per image, or a class has none.
    """
    if not isinstance(value, Tensor) or value.ndim not in (1, 2) or len(value) != n:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{path}: {key} must be {n} labels, one per image, got {shape}.")
    if value.ndim == 2 and value.shape[1] > 1:
        if _is_one_hot_in_integers(value):
            return _require_every_class(value.long().argmax(dim=1), path, key), None
        if not value.is_floating_point():
            raise ValueError(f"{path}: soft {key} must be floats, or one-hot in whole numbers, got {value.dtype}.")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: {key} has values that are NaN or infinite.")
        return None, value.detach().float()
    flat = value.flatten()
    if flat.is_floating_point() and not bool((torch.isfinite(flat) & (flat == flat.round())).all()):
        raise ValueError(f"{path}: hard {key} must be whole numbers, got {value.dtype} with fractions.")
    if flat.dtype == torch.bool:
        raise ValueError(f"{path}: hard {key} must be whole numbers, got {value.dtype}.")
    return _require_every_class(flat.long(), path, key), None


def _is_one_hot_in_integers(rows: Tensor) -> bool:
    """One 1 in each row of whole numbers or truth values, 0 elsewhere."""
    if rows.is_floating_point() or rows.is_complex():
        return False
    counts = rows.long()
    return bool(((counts == 0) | (counts == 1)).all() and (counts.sum(dim=1) == 1).all())


def _require_every_class(hard: Tensor, path: Path, key: str) -> Tensor:
    """Labels are 0 .. C - 1, each present."""
    present = hard.unique()
    if int(present[0]) != 0 or int(present[-1]) != len(present) - 1:
        raise ValueError(
            f"{path}: {key} must be 0 to C - 1, each at least once; got {len(present)} different ones from "
            f"{int(present[0])} to {int(present[-1])}."
        )
    return hard


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
    results = sorted(folder.glob("res_*.pt")) or sorted(folder.glob("*_images.pt")) or sorted(folder.glob("*.npz"))
    if len(results) > 1:
        raise ValueError(f"{folder}: several results; give one of {[path.name for path in results]}.")
    arrays = [folder / f"{name}.npy" for name in ("images", "data", "x") if (folder / f"{name}.npy").is_file()]
    pictures = arrays[:1] or sorted(folder.glob("images_zca_*.pt"))[:1]
    return max(iterations or packed, key=key, default=next(iter(results or pictures), None))
