"""Every setting of a space: its one spelling, default, bounds and line of documentation."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from trainables.names import AUGMENTATIONS, NORMS, OPTIMIZERS, REAL_DATASETS, SCHEDULES, STUDENTS
from trainables.trees import Tree, list_tree


@dataclass(frozen=True, slots=True)
class OneOf:
    """A string out of a fixed tuple; `trainables.config` owns the names."""

    values: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.literal_schema(list(self.values))


class Network:
    """A network's name: one of ours, or torchvision/NAME or timm/NAME (checked when it is built)."""

    values = (*STUDENTS, "torchvision/NAME", "timm/NAME")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, name: str) -> str:
        if name in STUDENTS or re.fullmatch(r"(torchvision|timm)/[\w.-]+", name):
            return name
        raise PydanticCustomError("network", "must be one of {valid}", {"valid": ", ".join(self.values)})


class RealName:
    """Real data by name, or a path (with a slash in it)."""

    values = (*REAL_DATASETS, "PATH/TO/TREE")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, name: str) -> str:
        if name in REAL_DATASETS or "/" in name:
            return name
        raise PydanticCustomError("real", "must be one of {valid}", {"valid": ", ".join(self.values)})


NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Strict: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Fixed(Settings):
    """Settings of a student's training. Any of them may become an axis under `scientific`."""

    student: Annotated[str, Network()] = Field("convnet3", description="Network that is trained on the distilled set.")
    width: PositiveInt = Field(128, description="Channels per convolution of a convnet student.")
    norm: Annotated[str, OneOf(NORMS)] = Field(
        "batch", description="Normalisation layer of the student, if it is one of ours."
    )
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="Epochs over which the learning rate rises to its full value; the schedule follows."
    )
    clip_grad_norm: Positive | None = Field(None, description="Longest gradient, over all parameters.")
    ema_decay: Fraction | None = Field(
        None, description="Evaluate a running mean of the weights that keeps this share of itself at each step."
    )
    epochs: PositiveInt = Field(100, description="Passes over the distilled set.")
    batch_size: PositiveInt = Field(50, description="Images per optimizer step.")
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = Field("adamw", description="Optimizer of the student.")
    lr: Positive = Field(1e-3, description="Learning rate where it is not tuned under `nuisance`.")
    weight_decay: NonNegative = Field(0.0, description="Weight decay; decoupled in adamw, coupled in sgd.")
    momentum: Fraction = Field(0.9, description="Momentum of sgd; adamw has none.")
    schedule: Annotated[str, OneOf(SCHEDULES)] = Field(
        "multistep", description="Learning rate over time; multistep is x 0.2 at 2/3 and 5/6 of the epochs."
    )
    temperature: Positive = Field(1.0, description="T of losses on probabilities.")
    refinement: Fraction = Field(0.0, description="w: share of the smoothed hard label in the soft target.")
    smoothing: Fraction = Field(0.1, description="alpha: label smoothing of the refining hard label.")
    scale_t2: bool = Field(False, description="Multiply the soft term by T^2 (Hinton et al. 2015).")
    ce_weight: NonNegative = Field(0.1, description="Weight of cross-entropy in soft_ce_ce and mse_ce.")
    dkd_alpha: NonNegative = Field(1.0, description="Weight of the labelled class in dkd.")
    dkd_beta: NonNegative = Field(8.0, description="Weight of the other classes in dkd.")
    huber_delta: Positive = Field(1.0, description="Difference of logits at which huber turns linear.")
    augment: Annotated[str, OneOf(AUGMENTATIONS)] = Field("dsa", description="Augmentation of the views.")
    views: PositiveInt = Field(100, description="Augmented copies of the distilled set in the label bank.")
    labels: Literal["bank"] = Field("bank", description="Where soft labels come from: teacher logits per view.")
    evaluate_every_epochs: PositiveInt = Field(5, description="Validation happens this often and at the end.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Number format of the student's forward pass; auto is bf16 on a GPU, else fp32."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is cuda where there is a GPU, else cpu.")


class Distilled(Settings):
    """The distilled set."""

    method: Literal["random", "rded"] = Field(
        "random",
        description="random: real images, the baseline of arXiv:2406.10485; rded: their most realistic crops, "
        "arXiv:2312.03526.",
    )
    ipc: PositiveInt = Field(10, description="Images per class.")
    seed: int = Field(0, description="Which random images and crops.")
    crops: PositiveInt = Field(5, description="rded: crops tried per real image.")
    factor: PositiveInt = Field(1, description="rded: each image is a mosaic of factor x factor crops.")
    pool: PositiveInt = Field(300, description="rded: real images per class, at most, that crops are taken from.")


class Data(Settings):
    """Real data and the distilled set."""

    real: Annotated[str, RealName()] = Field(
        description="Real data for teacher, validation and test: a name, or the folder of an image tree."
    )
    image_size: PositiveInt | None = Field(None, description="Side in pixels to which a tree's images are brought.")
    class_order: list[str] | None = Field(
        None, description="A tree's class folders in the order of their labels; none sorts names, numbers as numbers."
    )
    flips: bool | None = Field(None, description="A tree's mirrored images keep their class; none means true.")
    distilled: Distilled = Field(Distilled(), description="What students are trained on.")


class TeacherTraining(Settings):
    """How a teacher is trained on the spot."""

    epochs: PositiveInt = Field(30, description="Passes over the real training split.")
    lr: Positive = Field(5e-3, description="Learning rate of AdamW.")
    batch_size: PositiveInt = Field(16, description="Images per step.")


class Teacher(Settings):
    """The network whose logits are the soft labels."""

    model: Annotated[str, Network()] | None = Field(
        None, description="Network of the teacher; published checkpoints tell theirs by their keys."
    )
    weights: list[str] | None = Field(
        None, description="Checkpoint files; several are an ensemble (mean logits). `teacher: PATH` is short for one."
    )
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None, description="Per channel, of pixels in [0, 1], as the teacher was trained; none: as students see them."
    )
    std: list[Positive] | None = Field(None, description="Per channel, to go with `mean`.")
    width: PositiveInt = Field(128, description="Channels per convolution of a convnet that is trained here.")
    norm: Annotated[str, OneOf(NORMS)] = Field("batch", description="Normalisation layer of one that is trained here.")
    train: TeacherTraining = Field(TeacherTraining(), description="How it is trained, if there are no weights.")


def _spelled_out(teacher: object) -> object:
    """`teacher: PATH` and `teacher: [PATH, PATH]` as mappings."""
    if isinstance(teacher, str):
        return {"weights": [teacher]}
    return {"weights": teacher} if isinstance(teacher, list) else teacher


class Validation(Settings):
    """The split that settings are chosen on."""

    source: Literal["train"] = Field("train", alias="from", description="Which split it is taken from.")
    frac: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="Share of that split.")


class EarlyStopping(Settings):
    """Stratified ASHA; acts on `tune` trials only."""

    grace_period_epochs: PositiveInt = Field(25, description="First rung: no trial stops before it.")
    reduction_factor: Annotated[float, Field(gt=1)] = Field(
        3, description="Rungs are this factor apart; about one in this many goes on."
    )
    stratify: Literal["cell"] | list[str] = Field(
        "cell", description="Who competes: trials of one cell, or those alike in these factors; [] is global."
    )
    min_rung_population: PositiveInt = Field(3, description="Nothing stops at a rung before this many reached it.")
    audit_frac: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Share of stop decisions recorded but not executed, to measure whether stopping was safe."
    )


class Resources(Settings):
    """What one trial occupies."""

    cpus: PositiveInt = Field(1, description="CPU cores and threads per trial.")
    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto", description="GPU share per trial; auto packs as many trials as memory and CPUs allow."
    )


class SpaceSettings(Settings):
    """A space file."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="Letters, digits, - and _; the default name of the sweep."
    )
    data: Data = Field(description="Real data and the distilled set.")
    teacher: Annotated[Teacher, BeforeValidator(_spelled_out)] = Field(
        description="The network whose logits are the soft labels."
    )
    scientific: dict[str, Any] = Field(
        description="Axes of the landscape: `loss`, any key of `fixed`, or a dotted key such as data.distilled.ipc."
    )
    nuisance: dict[str, Any] = Field(
        default_factory=dict, description="Tuned for each cell: numeric keys of `fixed` with a domain, and `draws`."
    )
    fixed: Fixed = Field(Fixed(), description="Everything else; printed in the report as a caveat.")
    replicates: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="R: seeds of the confirm stage, the same for every cell."
    )
    tune_replicates: PositiveInt = Field(1, description="Seeds of the tune stage: 0, -1, ...")
    confirm: list[Literal["best", "shared"]] = Field(
        ["best"], min_length=1, description="Draws confirmed: each cell's best; also the best shared one per optimizer."
    )
    protocol: Literal["tuned", "paper"] = Field(
        "tuned", description="paper: fixed lr, no tune stage, test split at each evaluation (test_accuracy_max)."
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of the draws and of the audits.")
    early_stopping: EarlyStopping | None = Field(None, description="Stratified ASHA; absent means every trial ends.")
    validation: Validation = Field(Validation(), description="The split that settings are chosen on.")
    resources: Resources = Field(Resources(), description="What one trial occupies.")


def file_hash(path: str) -> str:
    """SHA-256 of a file, read once as long as it does not change.

    Raises:
        ValueError: If there is no such file.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise ValueError(f"{path}: no such file.")
    return _hash_of(place, place.stat().st_mtime_ns, place.stat().st_size)


@lru_cache
def _hash_of(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_tree(data: Data) -> Tree | None:
    """The tree that holds the real data, listed; None for data with a name of their own.

    Raises:
        ValueError: If the folder is no image tree.
    """
    if data.real in REAL_DATASETS:
        return None
    return list_tree(data.real, tuple(data.class_order) if data.class_order else None)
