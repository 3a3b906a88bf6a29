"""Recipes: what the data of a trial are made from, identified by content."""

from __future__ import annotations

from typing import Any

from orchestrator.cells import Cell, can_blank, draws_per_batch, draws_per_replicate
from search_spaces.files import distilled_hash, file_hash, image_tree, real_content, stated_of
from search_spaces.settings import DEFAULT_IPC, Data, Distilled, Fixed, Projector, SpaceSettings, Teacher
from trainables.config import content_hash, data_key
from trainables.names import DEFAULT_ROOT
from trainables.versions import of_data

#: Stands for the content of data that are still to be downloaded; a sweep fetches them before it makes a recipe that it uses.
TO_DOWNLOAD = "to be downloaded"


def recipe(cell: Cell, replicate: int = 1) -> dict[str, Any]:
    """What the data of a cell's trials are made from; equal recipes give equal data.

    Args:
        cell: Of the trials.
        replicate: Of the trials; matters where each has views of its own.
    """
    settings = cell.settings
    teacher = _teacher_recipe(settings.teacher)
    projector = _projector_recipe(settings.projector) if settings.fixed.labels == "projector" else None
    made = {
        "versions": of_data(teacher, projector),
        "data": _data_recipe(settings.data, settings.data_seed),
        "validation": settings.validation.model_dump(by_alias=True),
        "teacher": teacher,
        "views": settings.fixed.views,
        "labels": settings.fixed.labels,
    }
    if projector is not None:
        made["projector"] = projector
    if settings.fixed.labels in ("bank", "stored", "projector"):
        made["label_format"] = settings.fixed.label_format
        made |= {key: int(value) for key, value in cell.knobs.items() if key == "label_top_k"}
    distilled = settings.data.distilled
    if distilled.label_store and settings.fixed.labels == "stored":
        content = distilled_hash(distilled.label_store)
        store = {"path": distilled.label_store, "content": content, "permutations": distilled.store_permutations}
        return made | {"label_store": store | {"batch_size": settings.fixed.batch_size}}
    if draws_per_replicate(settings.fixed):
        made["replicate"] = replicate
    return made | {"augment": _augmentation_recipe(settings), "data_seed": settings.data_seed}


def recipe_key(made: dict[str, Any]) -> str:
    """What a recipe's data are identified by."""
    replicate = made.get("replicate", 1)
    return key_of_replicate(data_key(made if replicate == 1 else {**made, "replicate": 1}), replicate)


def key_of_replicate(first: str, replicate: int) -> str:
    """The key of a replicate's own data, made of replicate 1's, which is all that is kept with a plan."""
    return first if replicate == 1 else content_hash({"as": first, "replicate": replicate})


def _data_recipe(data: Data, data_seed: int) -> dict[str, Any]:
    """Real data by name or content, and the distilled set."""
    made = data.model_dump(include={"real", "image_size", "class_order", "flips", "mean", "std"}, exclude_none=True)
    if image_tree(data) is not None:
        made["content"] = real_content(data)
    elif data.real != "digits":
        made |= {"name": data.real, "content": real_content(data) or TO_DOWNLOAD}
        made |= {"root": data.root or DEFAULT_ROOT, "download": data.download}
    return made | {"distilled": _distilled_recipe(data.distilled, data_seed)}


def _distilled_recipe(distilled: Distilled, data_seed: int) -> dict[str, Any]:
    """A method with its settings, or a file by content with what is stated about it."""
    if distilled.path:
        return {"path": distilled.path, "content": distilled_hash(distilled.path), "stated": stated_of(distilled)}
    made = {"method": distilled.method or "random", "ipc": distilled.ipc or DEFAULT_IPC}
    made["seed"] = distilled.seed + data_seed
    if distilled.method == "rded":
        made |= {"crops": distilled.crops, "factor": distilled.factor, "pool": distilled.pool}
    return made


def _augmentation_recipe(settings: SpaceSettings) -> dict[str, Any]:
    """Settings that have an effect."""
    fixed = settings.fixed
    made: dict[str, Any] = {"kind": fixed.augment, "mix": fixed.mix}
    if fixed.augment == "rrc":
        made["crop_area_min"] = fixed.crop_area_min
    if fixed.augment_fill == "black" and can_blank(fixed.augment):
        made["fill"] = "black"
    if draws_per_batch(fixed):
        made["batch_size"] = fixed.batch_size
    if fixed.mix_labels == "own" and fixed.mix != "none":
        made["own_labels"] = True
    if strengths := _strengths(fixed):
        made["strengths"] = strengths
    return made | ({"mix_alpha": fixed.mix_alpha, "mix_prob": fixed.mix_prob} if fixed.mix != "none" else {})


def _strengths(fixed: Fixed) -> dict[str, float]:
    """Strengths of DSA's operations that are not its own."""
    if fixed.augment in ("rrc", "none"):
        return {}
    given = {key: getattr(fixed, key) for key in Fixed.model_fields if key.startswith("dsa_")}
    return {key[4:]: value for key, value in given.items() if value != Fixed.model_fields[key].default}


def _projector_recipe(projector: Projector) -> dict[str, Any]:
    """Settings that have an effect, and files by content."""
    made = projector.model_dump(exclude_none=True)
    for key in {"weights", "text"} & made.keys():
        made[key] = {"path": made[key], "content": file_hash(made[key])}
    is_ours = made.get("backbone", "timm/").partition("/")[0] not in ("timm", "torchvision")
    unused = ("width", "norm") if "weights" in made or not is_ours else ()
    return {key: value for key, value in made.items() if key not in unused}


def _teacher_recipe(teacher: Teacher | None) -> dict[str, Any] | None:
    """What a teacher is made from: how it is trained, or files by content."""
    if teacher is None:
        return None
    if not teacher.weights:
        return {"norm": "batch", **teacher.model_dump(exclude_none=True)}
    files = [{"path": path, "content": file_hash(path)} for path in teacher.files]
    keys = {"model", "mean", "std", "pixel_space", "norm", "pooling", "activation", "expert", "epoch"}
    made = teacher.model_dump(include=keys, exclude_none=True)
    if teacher.is_numbered:
        made["file_of_epoch"] = made.pop("epoch")
    return {**made, "weights": files}
