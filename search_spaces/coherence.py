"""Settings that are each allowed but do not fit together, or name files that are not there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from search_spaces.errors import unknown
from search_spaces.files import (
    classes_of,
    distilled_hash,
    file_hash,
    image_tree,
    images_per_class,
    real_content,
    stated_of,
    training_images_per_class,
)
from search_spaces.settings import DEFAULT_IPC, Data, Distilled, Fixed, Projector, SpaceSettings, Teacher
from search_spaces.space import Space
from trainables.config import LOGIT_LOSSES
from trainables.names import (
    BETAS_OPTIMIZERS,
    CONVNETS,
    DEFAULT_ROOT,
    IMAGE_SIZES,
    MOMENTUM_OPTIMIZERS,
    NORM_GROUPS,
    RESNET_NORMS,
    STEP_SCHEDULES,
    WITH_RESNET_NORMS,
    fits_images,
)
from trainables.sidecar import STATED

#: What a published label store fixes.
FROZEN: Final = (
    "batch_size",
    "augment",
    "augment_fill",
    "augment_draw",
    "crop_area_min",
    "mix",
    "mix_alpha",
    "mix_prob",
    "mix_labels",
    *(key for key in Fixed.model_fields if key.startswith("dsa_")),
    "views",
    "view_draw",
)
_RDED: Final = ("crops", "factor", "pool")
_OF_FILES: Final = (*(key for key in STATED if key != "ipc"), "label_store", "store_permutations")
Axes = Mapping[str, Sequence[Any]]


def incoherences(space: Space) -> list[str]:
    """Every problem between the settings of a space, of each of its datasets."""
    named = ("dataset", "variant")
    varied = [key for key in space.axes if key in named or key.startswith(("data.", "teacher.", "projector."))]
    levels = [dict(zip(varied, at, strict=True)) for at in itertools.product(*(space.axes[key] for key in varied))]
    problems = [problem for level in levels for problem in _of_dataset(space, space.at(level))]
    return list(dict.fromkeys([*problems, *_of_training(space)]))


def _of_dataset(space: Space, settings: SpaceSettings) -> Iterator[str]:
    """Problems of one dataset, its teacher and what is trained on it."""
    missing = [*_files_missing(settings), *_of_distilled(settings.data.distilled, space.axes)]
    yield from missing
    if not missing:
        yield from _more_images_than_there_are(settings)
        yield from _networks_that_do_not_fit(settings, space.axes)
        yield from _of_labels(space, settings)


def _files_missing(settings: SpaceSettings) -> Iterator[str]:
    """A teacher has a network or weights; images on disk can be listed, and have a size."""
    teacher = settings.teacher
    if teacher is not None and teacher.model is None and not teacher.weights:
        yield "teacher: give a model, which is then trained, or weights (checkpoint files)."
    if teacher is not None and (teacher.mean is None) != (teacher.std is None):
        yield "teacher: mean and std belong together; give both or none."
    if (settings.data.mean is None) != (settings.data.std is None):
        yield "data: mean and std belong together; give both or none."
    if teacher is not None and teacher.mean is not None and teacher.pixel_space in ("raw01", "zca"):
        yield f"teacher.pixel_space: {teacher.pixel_space} has no mean and std; leave them out, or give meanstd."
    yield from _of_checkpoints(teacher) if teacher else ()
    yield from _of_real(settings.data)


def _unreadable(path: str | None, where: str, content_of: Callable[[str], str]) -> Iterator[str]:
    """What is wrong with a file or folder that a setting names, if one is named."""
    try:
        if path is not None:
            content_of(path)
    except (ValueError, OSError) as err:
        yield f"{where}: {err}"


def _of_checkpoints(teacher: Teacher) -> Iterator[str]:
    """Files of weights are there; an epoch that is asked for exists, as far as that can be told without reading them."""
    if teacher.is_numbered and teacher.epoch is None:
        yield "teacher.epoch: missing; a path of weights has {epoch} in it."
        return
    for path in teacher.files:
        yield from _unreadable(path, "teacher.weights", file_hash)
    if not teacher.weights and teacher.expert is not None:
        yield "teacher.expert: is of an expert buffer; give it as teacher.weights."
    if not teacher.weights and teacher.pixel_space is not None:
        yield "teacher.pixel_space: is of a checkpoint; a teacher that is trained here sees pixels as students do."
    if not teacher.weights and teacher.model not in (None, *CONVNETS) and (teacher.pooling or teacher.activation):
        yield f"teacher.pooling, teacher.activation: only convnets have a choice, {teacher.model} has its own."
    if not teacher.weights and (teacher.epoch or 0) > teacher.train.epochs:
        yield f"teacher.epoch: must be at most teacher.train.epochs, {teacher.train.epochs}, got {teacher.epoch}."


def _of_real(data: Data) -> Iterator[str]:
    """Data with a name take no settings of trees."""
    try:
        tree = image_tree(data)
    except (ValueError, OSError) as err:
        yield f"data.real: {err}"
        return
    yield from _of_named(data)
    needs_size = tree is not None or data.real == "imagenette"
    if needs_size and data.image_size is None:
        yield "data.image_size: missing; give the side in pixels to which images are brought."
    refused = [] if needs_size else ["image_size"]
    refused += [] if tree is not None else ["class_order"]
    refused += ["flips"] if data.real == "digits" else []
    for key in refused:
        if getattr(data, key) is not None:
            yield f"data.{key}: not for {data.real}, which has its own."


def _of_named(data: Data) -> Iterator[str]:
    """Files of data with a name are there, or may be downloaded."""
    try:
        is_there = real_content(data) is not None
    except (ValueError, OSError) as err:
        yield f"data.root: {err}"
        return
    if not is_there and not data.download:
        yield (
            f"data.root: {data.root or DEFAULT_ROOT} has no {data.real} that torchvision can read; put its files there, or let "
            "it be downloaded with data.download: true."
        )


def _of_distilled(distilled: Distilled, axes: Axes) -> Iterator[str]:
    """A set is made by a method or read from a path; each has its own keys."""
    fields = type(distilled).model_fields
    given = {name for name, field in fields.items() if getattr(distilled, name) != field.default}
    varied = {key.removeprefix("data.distilled.") for key in axes if key.startswith("data.distilled.")}
    if distilled.path and distilled.method:
        yield "data.distilled: method and path exclude each other; give one."
    if distilled.path:
        for key in sorted((given | varied) & {*_RDED, "seed"}):
            yield f"data.distilled.{key}: for sets that are made here; {distilled.path} is read as it is."
        yield from _of_path(distilled)
        return
    if "path" not in varied:
        for key in sorted(given & set(_OF_FILES)):
            yield f"data.distilled.{key}: describes a file; give data.distilled.path."


def _more_images_than_there_are(settings: SpaceSettings) -> Iterator[str]:
    """Images per class, as far as they can be counted without reading them; the rest is found when data are prepared."""
    distilled = settings.data.distilled
    if distilled.path:
        smallest, ipc = images_per_class(distilled.path), stated_of(distilled).get("ipc")
        if smallest and ipc and ipc > smallest and not distilled.decode_factor:
            yield f"data.distilled.ipc: must be at most {smallest}, the images in the smallest class folder, got {ipc}."
        return
    method, smallest = distilled.method or "random", training_images_per_class(settings.data, settings.validation)
    if not smallest:
        yield f"data.distilled.method: {method} needs real training images; there is no train/ in {settings.data.real}."
        return
    ipc, of = distilled.ipc or DEFAULT_IPC, "training images of the smallest class"
    if method == "rded" and ipc * distilled.factor**2 > min(smallest, distilled.pool):
        most = min(smallest, distilled.pool)
        yield f"data.distilled.ipc: `ipc * factor^2` must be at most {most} ({of}, at most pool), got {ipc * distilled.factor**2}."
    if method == "random" and ipc > smallest:
        yield f"data.distilled.ipc: `ipc` must be at most {smallest} ({of}), got {ipc}."


def _of_path(distilled: Distilled) -> Iterator[str]:
    for key in ("path", "label_store"):
        yield from _unreadable(getattr(distilled, key), f"data.distilled.{key}", distilled_hash)
    try:
        stated_of(distilled)
    except (ValueError, OSError) as err:
        yield f"data.distilled: {err}"


def _of_labels(space: Space, settings: SpaceSettings) -> Iterator[str]:
    """Labels come from somewhere, and losses can use them."""
    sources = space.axes.get("labels", [settings.fixed.labels])
    distilled = settings.data.distilled
    needs_teacher = sorted({"bank", "online", "projector"} & set(sources))
    if settings.teacher is None and needs_teacher:
        yield f"teacher: missing; labels: {' and '.join(needs_teacher)} are a teacher's. Give one, or stored or hard."
    if settings.teacher is None and distilled.method == "rded":
        yield "teacher: missing; rded needs one, which judges crops."
    if "hard" in sources:
        for name in sorted({arm.loss for arm in space.arms} & set(LOGIT_LOSSES)):
            yield f"scientific.loss: {name} compares logits, which labels: hard do not have; leave it out."
    if "projector" in sources:
        yield from _of_projector(settings.projector)
    yield from _of_stored(space, settings, stored="stored" in sources)
    if settings.fixed.lr == "file" and not distilled.path:
        yield "fixed.lr: file, but the distilled set is made here; give data.distilled.path, or a number."


def _of_projector(projector: Projector) -> Iterator[str]:
    """Its files are there, and belong to a backbone."""
    for key in ("weights", "text"):
        yield from _unreadable(getattr(projector, key), f"projector.{key}", file_hash)
    for key in ("weights", "text", "image_size"):
        if getattr(projector, key) is not None and projector.backbone is None:
            yield f"projector.{key}: belongs to a backbone; give projector.backbone."


def _of_stored(space: Space, settings: SpaceSettings, *, stored: bool) -> Iterator[str]:
    """Stored labels come with a set on disk."""
    distilled = settings.data.distilled
    if stored and not distilled.path:
        yield "fixed.labels: stored, but the distilled set is made here; give data.distilled.path."
    mixes = [mix for mix in space.axes.get("mix", [settings.fixed.mix]) if mix != "none"]
    if stored and mixes and not distilled.label_store:
        yield f"fixed.mix: {mixes[0]}, but stored labels belong to unmixed images; use none, or labels: bank."
    if settings.data.real == "digits" and distilled.pixel_space == "zca":
        yield "data.distilled.pixel_space: zca whitens images that are bytes; the digits are none."
    if distilled.label_store and not stored:
        yield "data.distilled.label_store: given, but not used; give labels: stored."
    if distilled.label_store and stored:
        yield from _frozen(space, settings)


def _frozen(space: Space, settings: SpaceSettings) -> Iterator[str]:
    """What a published label store has fixed and a space may not vary."""
    for key in [*space.axes, *(factor.name for factor in space.nuisance)]:
        if key in (*FROZEN, "data.distilled.ipc"):
            yield f"{key}: frozen by data.distilled.label_store, so it cannot vary; drop the store or the factor."
    for key in sorted(settings.fixed.model_fields_set & (set(FROZEN) - {"batch_size", "views"})):
        if getattr(settings.fixed, key) != type(settings.fixed).model_fields[key].default:
            yield f"fixed.{key}: frozen by data.distilled.label_store; leave it out."


def _networks_that_do_not_fit(settings: SpaceSettings, axes: Axes) -> Iterator[str]:
    """Networks halve their images; group norm splits channels, and ResNets and VGG have norms of their own."""
    size = IMAGE_SIZES.get(settings.data.real) or settings.data.image_size or 1
    teacher = settings.teacher
    trained = [teacher.model] if teacher and teacher.model and not teacher.weights else []
    named = {"teacher.model": trained, "student": axes.get("student", [settings.fixed.student])}
    for where, names in named.items():
        for name in names:
            if not fits_images(name, size):
                yield f"{where}: {name} halves images more often than their {size} pixels allow."
    factor = settings.data.distilled.factor
    if size % factor:
        yield f"data.distilled.factor: must divide the images' side of {size} pixels, got {factor}."
    norms = {
        "norm": axes.get("norm", [settings.fixed.norm]),
        "teacher.norm": [teacher.norm or "batch"] if teacher else [],
    }
    wide = {"norm": axes.get("width", [settings.fixed.width]), "teacher.norm": [teacher.width] if teacher else []}
    for (where, kinds), names in zip(norms.items(), reversed(named.values()), strict=True):
        if "group" in kinds and any(width % NORM_GROUPS for width in wide[where]):
            yield f"{where}: group needs a width that {NORM_GROUPS} divides, got {wide[where]}."
        for name in (name for name in names if name in WITH_RESNET_NORMS and not set(kinds) <= set(RESNET_NORMS)):
            yield f"{where}: {name} has {' or '.join(RESNET_NORMS)}, got {kinds}."


def _of_level(space: Space, settings: SpaceSettings) -> Iterator[str]:
    """Problems between axes and arms and what is fixed, or set by a variant."""
    warmup = max(space.axes.get("warmup_epochs", [settings.fixed.warmup_epochs]))
    if warmup >= settings.fixed.epochs:
        yield f"warmup_epochs: must be less than epochs, got {warmup} of {settings.fixed.epochs}."
    yield from _milestones(settings.fixed)
    if settings.fixed.augment_draw == "batch" and "batch_size" in settings.nuisance:
        yield "augment_draw: batch, but batch_size is tuned, and a view's batches have one size; use image."
    classes = classes_of(settings.data)
    for arm in space.arms:
        edited = space.knob_values(arm, settings.fixed)
        if any(edited.get("label_swap", ())) and any(edited.get("label_top_k", ())):
            yield f"scientific.loss: {arm.name} has label_swap and label_top_k, which exclude each other; make two arms."
        for knob in ("label_swap", "label_top_k"):
            most = max(edited.get(knob, (0,)))
            if classes is not None and most > classes:
                yield f"{knob}: must be at most C, the {classes} classes, got {most} for {arm.name}."


def _without_owner(axes: Axes, levels: Sequence[Fixed]) -> Iterator[str]:
    """Settings of an optimizer or a schedule that is not there."""
    optimizers = {*axes.get("optimizer", [fixed.optimizer for fixed in levels])}
    schedules = {*axes.get("schedule", [fixed.schedule for fixed in levels])}
    for key, owners, there in (
        ("betas", BETAS_OPTIMIZERS, optimizers),
        ("schedule_milestones", ("multistep",), schedules),
        ("schedule_gamma", STEP_SCHEDULES, schedules),
    ):
        is_given = key in axes or any(getattr(fixed, key) is not None for fixed in levels)
        if is_given and not there & set(owners):
            yield f"{key}: {' and '.join(sorted(there))} has none; leave it out."


def _milestones(fixed: Fixed) -> Iterator[str]:
    """Numbers of epochs are whole, and come before the end."""
    for milestone in fixed.schedule_milestones or ():
        if milestone >= 1 and (milestone != int(milestone) or milestone >= fixed.epochs):
            yield (
                f"schedule_milestones: a milestone is a fraction below 1 or a whole number of epochs less than {fixed.epochs}, "
                f"got {milestone:g}."
            )


def _of_training(space: Space) -> Iterator[str]:
    """Problems that no dataset has a part in."""
    settings, axes, nuisance = space.settings, space.axes, space.nuisance
    if "best" not in settings.confirm:
        yield "confirm: must contain best, which cell values are made of; give [best, shared]."
    if settings.nuisance and not nuisance:
        yield "nuisance: draws alone tune nothing; add a factor, such as lr."
    optimizers = axes.get("optimizer", [settings.fixed.optimizer])
    if any(factor.name == "momentum" for factor in nuisance) and not set(optimizers) & set(MOMENTUM_OPTIMIZERS):
        yield f"nuisance.momentum: {', '.join(optimizers)} has none, so it cannot be tuned."
    levels = [space.at({"variant": name}) for name in axes.get("variant", ())] or [settings]
    if "file" in axes.get("lr", ()):
        yield "scientific.lr: file is no value of an axis, which has numbers; compare it by variants."
    for level in levels:
        yield from _of_level(space, level)
    yield from _without_owner(axes, [level.fixed for level in levels])
    if settings.protocol == "paper" and nuisance:
        yield "protocol: paper compares at one fixed lr; remove the nuisance section or use tuned."
    strata = settings.early_stopping.stratify if settings.early_stopping else "cell"
    known = ["loss", *axes]
    for factor in [] if strata == "cell" else strata:
        if factor not in known:
            yield f"early_stopping.stratify: {unknown(factor, known, 'factor')}"
