"""The projector of a recipe, and the labels that it says."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.augment import render
from trainables.data.labels import RENDER_BATCH, LabelBank, label_view
from trainables.data.projector import Projector, Trunk, fit, without_head
from trainables.data.real import RealData
from trainables.data.teacher import Teacher
from trainables.drafts import pack_logits
from trainables.evaluate import predict_logits
from trainables.models import network_from, read_weights, recognise, safe_load
from trainables.networks import ModelShape, make_model
from trainables.prepare.real import Say
from trainables.prepare.teacher import device
from trainables.seeding import make_generator, seeded_globals


def project_labels(
    recipe: Mapping[str, Any], real: RealData, teacher: Teacher, bank: LabelBank, say: Say
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Fit the recipe's projector to a teacher on all views of a bank, and label the views by it.

    Returns:
        The arrays of labels, and `projector`, what would have to be sent to make the same labels, in float16; and what is
        known of both.
    """
    wanted = recipe["projector"]
    where = device()
    projector = _make_projector(wanted, real, teacher).to(where)
    say(f"projector of rank {wanted['rank']}: fitting it to the teacher's logits")

    def pairs(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All views in random order, each labelled by the teacher when its turn comes."""
        generator = make_generator("projector", epoch)
        for view in torch.randperm(bank.views, generator=generator):
            for index in torch.randperm(len(bank.distilled), generator=generator).split(RENDER_BATCH):
                images = render(bank.distilled, bank.parameters[view], index, bank.background)
                yield images.to(where), predict_logits(teacher, images).to(where)

    left = fit(projector, pairs, epochs=wanted["epochs"], lr=wanted["lr"], say=say)
    with_trunk = "backbone" not in wanted
    numbers = projector.round_(torch.float16, with_trunk=with_trunk)
    if not numbers.isfinite().all():
        raise ValueError("projector: its numbers do not fit float16; use a smaller lr or another backbone.")
    logits = torch.stack([label_view(bank.distilled, view, bank.background, projector) for view in bank.parameters])
    packed, rounding = pack_logits(
        logits.numpy(), label_format=recipe["label_format"], top_k=recipe.get("label_top_k", 0)
    )
    about = {"projector_left": left, "trunk_is_sent": with_trunk, "label_rounding": rounding}
    return {**packed, "projector": numbers.cpu().numpy()}, about


def _make_projector(wanted: Mapping[str, Any], real: RealData, teacher: Teacher) -> Projector:
    """Not fitted yet."""
    text = read_text(wanted["text"], real.classes) if "text" in wanted else None
    if "backbone" in wanted:
        trunk = _make_backbone(wanted, real, None if text is None else text.shape[1])
    else:
        if len(teacher.members) > 1:
            raise ValueError("projector.backbone: missing; the teacher is an ensemble, which has no trunk of its own.")
        scale, shift = (teacher.get_buffer(name).flatten().cpu() for name in ("scale", "shift"))
        linear = None if teacher.linear is None else teacher.linear.cpu()
        trunk = Trunk(without_head(copy.deepcopy(teacher.members[0]).cpu()), scale=scale, shift=shift, linear=linear)
    with torch.no_grad():
        features = trunk.eval()(torch.zeros(2, real.test.images.shape[1], real.size, real.size)).shape[1]
    if text is not None and text.shape[1] != features:
        raise ValueError(f"projector.text: rows of {text.shape[1]} numbers, the backbone has {features} features.")
    return Projector(trunk, features, real.classes, rank=wanted["rank"], text=text)


def read_text(wanted: Mapping[str, Any], classes: int) -> Tensor:
    """Embeddings of the classes' names, (C, D), from the `path` of a recipe's `text`.

    Raises:
        ValueError: If the file is not readable or holds something else.
    """
    path = Path(wanted["path"]).expanduser()
    try:
        content = torch.from_numpy(np.load(path)) if path.suffix == ".npy" else safe_load(path)
    except (ValueError, TypeError, OSError, EOFError) as err:
        raise ValueError(f"{path}: projector.text: not readable: {' '.join(str(err).split())[:200]}") from err
    if (
        not isinstance(content, Tensor)
        or content.ndim != 2
        or len(content) != classes
        or not content.is_floating_point()
    ):
        found = f"{content.dtype} {tuple(content.shape)}" if isinstance(content, Tensor) else type(content).__name__
        raise ValueError(f"{path}: projector.text: expected floats (C, D) with C = {classes}, got {found}.")
    if not content.isfinite().all():
        raise ValueError(f"{path}: projector.text: has values that are NaN or infinite.")
    return content.float()


def _make_backbone(wanted: Mapping[str, Any], real: RealData, features: int | None) -> Trunk:
    """A network of timm or of ours without its head: with weights, or with random ones from a seed."""
    channels = real.test.images.shape[1]
    ones = torch.ones(channels)
    side = wanted.get("image_size")
    shape = ModelShape(channels, features or real.classes, side or real.size)
    name = wanted["backbone"]
    if "weights" in wanted and name.startswith("timm/"):
        return _pretrained(
            name.removeprefix("timm/"), Path(wanted["weights"]["path"]).expanduser(), real, features, side
        )
    if "weights" in wanted:
        network = read_backbone(wanted, ModelShape(channels, real.classes, side or real.size))
    else:
        with seeded_globals("projector backbone", 0):
            network = make_model(name, shape, width=wanted["width"], norm=wanted["norm"])
    return Trunk(without_head(network), scale=ones, shift=0 * ones, side=side)


def read_backbone(wanted: Mapping[str, Any], shape: ModelShape) -> nn.Module:
    """The network in a recipe's `weights`, of timm or of ours, with its head.

    Args:
        wanted: The recipe's projector.
        shape: Its images; its classes are what the file says.

    Raises:
        ValueError: If the file is not readable, or of another network.
    """
    name, path = wanted["backbone"], Path(wanted["weights"]["path"]).expanduser()
    if name.startswith("timm/"):
        pretrained: nn.Module = _create_pretrained(name.removeprefix("timm/"), path, shape.channels)
        return pretrained
    weights = read_weights(path)
    found = recognise(weights)
    shape = replace(shape, classes=found.classes if found else shape.classes)
    network = network_from(weights, shape, name=None, source=str(path))
    if found and found.name != name:
        raise ValueError(f"{path}: projector.backbone: {name}, but it is a {found.name}; say that.")
    return network


def _create_pretrained(name: str, path: Path, channels: int) -> Any:
    """A network of timm, whole, so that every weight must be there."""
    import timm

    overlay = {"file": str(path)}
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=channels)
    except (RuntimeError, ValueError, OSError, KeyError) as err:
        raise ValueError(f"{path}: projector.weights: not of timm/{name}: {' '.join(str(err).split())[:300]}") from err


def _pretrained(name: str, path: Path, real: RealData, features: int | None, side: int | None) -> Trunk:
    """A pretrained network of timm, which sees pixels as it was trained.

    Without `features`, or with as many as it has, it gives its features; with as many as its own head has outputs, that head's
    (CLIP's projection into the space of its texts).
    """
    channels = real.test.images.shape[1]
    network = _create_pretrained(name, path, channels)
    config = network.pretrained_cfg
    if features is None or features != config["num_classes"]:
        network.reset_classifier(0)
    mean, std = (torch.tensor(config[key])[:channels] for key in ("mean", "std"))
    scale, shift = real.std / std, (real.mean - mean) / std
    return Trunk(network, scale=scale, shift=shift, side=side or config["input_size"][-1])
