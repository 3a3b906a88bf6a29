"""The label bank of a recipe: views, and labels from where `labels` says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.augment import COLUMNS, Augmentation
from trainables.data.labels import LabelBank, draw_views
from trainables.data.real import RealData
from trainables.formats.stores import LabelStore, open_store, read_store
from trainables.prepare.distilled import AboutSet
from trainables.splits import Split


def make_bank(
    recipe: Mapping[str, Any], real: RealData, teacher: nn.Module | None, distilled: Split, about: AboutSet
) -> LabelBank:
    """Views and labels from where `labels` says; no labels yet where the teacher is to say them."""
    n, size = len(distilled), real.size
    if "label_store" in recipe:
        return _stored_bank(recipe, real, distilled, about)
    settings = dict(recipe["augment"])
    background = real.background if settings.pop("fill", "mean") == "black" else torch.zeros_like(real.background)
    augmentation = Augmentation(flips=real.flips, **settings)
    draw = {"views": recipe["views"], "seed": recipe["data_seed"], "replicate": recipe.get("replicate")}
    parameters = draw_views(augmentation, n, size, **draw)
    if recipe["labels"] in ("bank", "projector") and teacher is None:
        raise ValueError(f"teacher: missing; labels: {recipe['labels']} are a teacher's logits.")
    if recipe["labels"] == "stored":
        logits = _stored_logits(about)[None]
    elif recipe["labels"] != "hard":
        logits = torch.zeros(1, 0, real.classes)
    else:
        logits = torch.zeros(1, n, real.classes)
    return LabelBank(distilled, parameters, logits, background)


def _stored_logits(about: AboutSet) -> Tensor:
    """Soft labels as logits: stored probabilities enter as log p (floor 1e-8), other kinds as they are."""
    if about.soft is None:
        raise ValueError("fixed.labels: stored, but the distilled set has hard labels only; use bank or hard.")
    return about.soft.clamp_min(1e-8).log() if about.label_kind == "prob" else about.soft


def fitting_store(wanted: Mapping[str, Any], classes: int | None) -> LabelStore:
    """The label store of a recipe.

    Args:
        wanted: Its `path` and the `batch_size` of students.
        classes: C of the real data; None: not known.

    Raises:
        ValueError: If there is none, or it does not fit.
    """
    store = open_store(Path(wanted["path"]).expanduser(), classes)
    if store is None:
        raise ValueError(f"{wanted['path']}: no label store; expected epoch_*/batch_*.tar.")
    if classes is not None and store.classes != classes:
        raise ValueError(f"{store.root}: labels for {store.classes} classes, the real data have {classes}.")
    if store.batch_size != wanted["batch_size"] and len(store.epochs[0]) > 1:
        raise ValueError(
            f"fixed.batch_size: {store.root} was made with batches of {store.batch_size}, got {wanted['batch_size']}."
        )
    return store


def _stored_bank(recipe: Mapping[str, Any], real: RealData, distilled: Split, about: AboutSet) -> LabelBank:
    """A published label store as a bank."""
    wanted = recipe["label_store"]
    store = fitting_store(wanted, real.classes)
    views = min(recipe["views"], len(store.epochs))
    if about.listed is None:
        raise ValueError(f"{store.root}: its labels belong to a folder of images, all of them; leave ipc out.")
    if about.native_size != real.size:
        raise ValueError(
            f"data.image_size: {store.root} labels images of {about.native_size} pixels (its boxes count them), got "
            f"{real.size}."
        )
    listed = about.listed
    found = read_store(store, distilled.labels[listed], real.size, views=views, permutations=wanted.get("permutations"))
    parameters, logits, present = (_back_in_order(part, listed) for part in found)
    partner = COLUMNS.index("partner")
    parameters[..., partner] = listed[parameters[..., partner].long()].float()
    return LabelBank(distilled, parameters, logits, real.background, present=None if present.all() else present)


def _back_in_order(part: Tensor, listed: Tensor) -> Tensor:
    """From the order of the files to the order of the set."""
    ordered = torch.empty_like(part)
    ordered[:, listed] = part
    return ordered
