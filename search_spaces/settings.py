"""Every setting of a space: its one spelling, default, bounds and line of documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from search_spaces.types import Network, OneOf, RealName, Strategy
from trainables.names import ACTIVATIONS, LABELS, MIXES, NORMS, OPTIMIZERS, POOLINGS, SCHEDULES
from trainables.sidecar import STATED

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
#: Images per class of a set that is made here, where nothing is said.
DEFAULT_IPC = 10
Finite = Annotated[float, Field(allow_inf_nan=False)]
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
    lr: Positive | Literal["file"] = Field(
        1e-3,
        description="Learning rate where it is not tuned under `nuisance`; file: the one that was learned with the distilled "
        "set and lies beside it (`lr.pt`, `lr_best.pt`) or in it (a key lr or syn_lr).",
    )
    weight_decay: NonNegative = Field(0.0, description="Weight decay; decoupled in adamw, coupled in sgd.")
    momentum: Fraction = Field(0.9, description="Momentum of sgd; adamw has none.")
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="Shares of themselves that the two running means of adam and its like keep per step; none: the "
        "optimizer's own (adamw: 0.9 and 0.999).",
    )
    schedule: Annotated[str, OneOf(SCHEDULES)] = Field(
        "multistep",
        description="Learning rate over time; multistep is x 0.2 at 2/3 and 5/6 of the epochs, step_half x 0.1 at half.",
    )
    schedule_milestones: Annotated[list[Positive], Field(min_length=1, max_length=100)] | None = Field(
        None,
        description="multistep: after how much training the rate falls; below 1 a fraction of the epochs (after the warm-up), "
        "else a number of epochs; none: 2/3 and 5/6.",
    )
    schedule_gamma: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="multistep, step_half: what the rate is multiplied by each time; none: 0.2 of multistep, 0.1 of step_half.",
    )
    temperature: Positive = Field(1.0, description="T of losses on probabilities.")
    refinement: Fraction = Field(0.0, description="w: share of the smoothed hard label in the soft target.")
    smoothing: Fraction = Field(0.1, description="alpha: label smoothing of the refining hard label.")
    scale_t2: bool = Field(False, description="Multiply the soft term by T^2 (Hinton et al. 2015).")
    ce_weight: NonNegative = Field(0.1, description="Weight of cross-entropy in soft_ce_ce and mse_ce.")
    dkd_alpha: NonNegative = Field(1.0, description="Weight of the labelled class in dkd.")
    dkd_beta: NonNegative = Field(8.0, description="Weight of the other classes in dkd.")
    huber_delta: Positive = Field(1.0, description="Difference of logits at which huber turns linear.")
    label_temperature: Positive = Field(
        1.0,
        description="Divides the teacher's logits before any loss sees them: below 1 sharpens labels, above 1 smooths them; "
        "the student's logits stay as they are. `temp` of arXiv:2406.10485's code is its inverse.",
    )
    label_swap: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Swap the k-th largest logit of each label with its smallest (1: the largest); 0 or C: as they are.",
    )
    label_top_k: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Keep the k largest classes of each label alone, the rest have probability 0; a bank then stores no "
        "others. 0 or C: all. For losses on probabilities.",
    )
    augment: Annotated[str, Strategy()] = Field(
        "dsa",
        description="Augmentation of the views: dsa (GIFT's: flip, colour, cutout and one of crop, scale, rotate), a "
        "strategy (one of its operations; with + in place of _, all of them: crop+flip), rrc (random resized crop, flip), none.",
    )
    augment_fill: Literal["mean", "black"] = Field(
        "mean",
        description="Colour of what moves in and of what cutout blanks: the mean colour (0 after normalisation), as "
        "published, or a black pixel.",
    )
    augment_draw: Literal["batch", "image"] | None = Field(
        None,
        description="What one of several operations, and a share and box of `mix`, are drawn for: each batch of a view, as "
        "published, or each image; none is batch, or image where batch_size is tuned.",
    )
    dsa_crop: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.125, description="DSA's crop: largest shift, as a share of the side."
    )
    dsa_cutout: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="DSA's cutout: side of the hole, as a share of the side."
    )
    dsa_scale: Annotated[float, Field(ge=1, le=10)] = Field(
        1.2, description="DSA's scale: largest factor; the smallest is its inverse."
    )
    dsa_rotate: Annotated[float, Field(ge=0, le=180)] = Field(
        15.0, description="DSA's rotation: largest angle, degrees."
    )
    dsa_brightness: NonNegative = Field(
        1.0, description="DSA's brightness: width of the range, around 0, of what is added to normalised pixels."
    )
    dsa_saturation: NonNegative = Field(2.0, description="DSA's saturation: largest factor; the smallest is 0.")
    dsa_contrast: NonNegative = Field(0.5, description="DSA's contrast: smallest factor; the largest is 1 more.")
    dsa_flip: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="DSA's flip: share of the images that are mirrored."
    )
    crop_area_min: Annotated[float, Field(gt=0, le=1)] = Field(0.08, description="rrc: smallest crop, as an area.")
    mix: Annotated[str, OneOf(MIXES)] = Field("none", description="Mix each image of a view with another.")
    mix_alpha: Positive = Field(1.0, description="An image's share is drawn from Beta(mix_alpha, mix_alpha).")
    mix_prob: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Share of images that are mixed.")
    mix_labels: Literal["mixed", "own"] = Field(
        "mixed",
        description="Hard label of a mixed image: mixed by the same share, or the image's own, as code that mixes inputs alone "
        "has it. A teacher's label is always that of the mixed image.",
    )
    views: PositiveInt = Field(100, description="Augmented copies of the distilled set in the label bank.")
    view_draw: Literal["shared", "replicate"] = Field(
        "shared",
        description="Whose views are: one draw for all replicates, whose luck is then in no interval, or a draw, and a label "
        "bank, for each replicate; cells are paired in both.",
    )
    labels: Annotated[str, OneOf(LABELS)] = Field(
        "bank",
        description="Where soft labels come from: the teacher on each view, once (bank) or inside the trial (online); "
        "stored with the distilled set; a small network fitted to the teacher (projector); hard labels only (soft targets "
        "are smoothed hard labels).",
    )
    label_format: Literal["float16", "float32"] = Field(
        "float16",
        description="Number format in which soft labels are kept; float16 rounds logits by at most 1 in 2048.",
    )
    evaluate_every_epochs: PositiveInt = Field(5, description="Validation happens this often and at the end.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Number format of the student's forward pass; auto is bf16 on a GPU, on a CPU what is fastest there "
        "(fp32 with --address, whose workers are not measured).",
    )
    engine: Literal["auto", "eager", "compiled", "grouped"] = Field(
        "auto",
        description="How students are executed: PyTorch's kernels one by one; compiled (on a CPU that needs a C++ "
        "compiler, on a GPU it is CUDA graphs); grouped: trials that share a device advance together (experimental). auto "
        "on a CPU is what is fastest there, measured where a sweep takes longer than minutes, on a GPU eager.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is cuda where there is a GPU, else cpu.")


class Distilled(Settings):
    """The distilled set: made here by a method, or read from a file or folder."""

    method: Literal["random", "rded"] | None = Field(
        None,
        description="random: real images, the baseline of arXiv:2406.10485; rded: their most realistic crops, "
        "arXiv:2312.03526; none means random, unless there is a path.",
    )
    ipc: PositiveInt | None = Field(None, description="Images per class; none means 10, or all that a file has.")
    file_ipc: PositiveInt | None = Field(
        None, description="Images per class in a bare tensor, where `ipc` (or an axis of it) takes fewer; none: `ipc`."
    )
    seed: int = Field(0, description="Which random images and crops.")
    crops: PositiveInt = Field(5, description="rded: crops tried per real image.")
    factor: PositiveInt = Field(1, description="rded: each image is a mosaic of factor x factor crops.")
    pool: PositiveInt = Field(300, description="rded: real images per class, at most, that crops are taken from.")
    path: str | None = Field(
        None, description="A distilled set on disk, see `lossatlas inspect`; `distilled: PATH` is short for it."
    )
    pixel_space: Literal["raw01", "meanstd", "zca"] | None = Field(
        None, description="Of a file's pixels, where it cannot tell: 0 to 1, normalised, or whitened."
    )
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None,
        description="meanstd: what was subtracted per channel, of pixels in [0, 1] (divide constants of bytes by 255).",
    )
    std: list[Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None, description="meanstd: what was divided by per channel, of pixels in [0, 1]."
    )
    class_order: Literal["index", "sorted"] | list[str] | None = Field(
        None, description="Names in label order; index: positions are labels; sorted: sorted folder names."
    )
    label_kind: Literal["prob", "logprob", "logit", "centred", "hard"] | None = Field(
        None,
        description="Of stored soft labels, where the file cannot tell: probabilities, their logarithms, logits, one-hot "
        "less 1 / C; hard takes the largest entry of each row.",
    )
    decode_factor: PositiveInt | None = Field(None, description="IDC: f x f images are packed into each.")
    experiment: int | None = Field(None, description="DC, DSA, DM: which experiment of the file, from 0; none: last.")
    label_store: str | None = Field(None, description="Folder of published labels (FKD) of these images.")
    store_permutations: Literal[1, 2] | None = Field(
        None, description="Permutations that torch's sampler drew per epoch when the store was made; none: tries both."
    )

    @property
    def stated(self) -> dict[str, Any]:
        """What the user says of a file that it cannot tell itself, without the sidecar."""
        return self.model_dump(include=set(STATED), exclude_none=True)


def _as_path(distilled: object) -> object:
    """`distilled: PATH` as a mapping."""
    return {"path": distilled} if isinstance(distilled, str) else distilled


class Data(Settings):
    """Real data and the distilled set."""

    real: Annotated[str, RealName()] = Field(
        description="Real data for teacher, validation and test: a name, or the folder of an image tree."
    )
    root: str | None = Field(None, description="Where torchvision's files of data with a name lie; none: `data`.")
    download: bool = Field(False, description="Let torchvision download data with a name that are not there.")
    image_size: PositiveInt | None = Field(None, description="Side in pixels to which a tree's images are brought.")
    class_order: list[str] | None = Field(
        None, description="A tree's class folders in the order of their labels; none sorts names, numbers as numbers."
    )
    mean: list[Annotated[float, Field(ge=0, le=1)]] | None = Field(
        None, description="Per channel, of pixels in [0, 1]: what students see is normalised with it; none: measured."
    )
    std: list[Positive] | None = Field(None, description="Per channel, to go with `mean`.")
    flips: bool | None = Field(
        None, description="Mirrored images keep their class; none: true, but for digits, mnist and svhn."
    )
    distilled: Annotated[Distilled, BeforeValidator(_as_path)] = Field(
        Distilled(), description="What students are trained on."
    )


class TeacherTraining(Settings):
    """How a teacher is trained on the spot."""

    epochs: PositiveInt = Field(30, description="Passes over the real training split.")
    lr: Positive = Field(5e-3, description="Learning rate of AdamW.")
    batch_size: PositiveInt = Field(16, description="Images per step.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Number format of its forward pass.")


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
    pixel_space: Literal["raw01", "meanstd", "zca"] | None = Field(
        None,
        description="Pixels that a checkpoint was trained on: 0 to 1, normalised (with `mean` and `std`, if they are given), or "
        "whitened; none: of those that are possible the one in which it classifies real training images best.",
    )
    epoch: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Labels come from its checkpoint after this many epochs: of its training here (0: untrained), of an "
        "expert buffer, or in place of {epoch} in a path of weights; none: after the last.",
    )
    expert: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Which expert of an expert buffer (`replay_buffer_N.pt`), from 0; none: the first."
    )
    width: PositiveInt = Field(128, description="Channels per convolution of a convnet that is trained here.")
    norm: Annotated[str, OneOf(NORMS)] | None = Field(
        None,
        description="Normalisation layer; none: batch of one that is trained here, of a checkpoint what its keys say.",
    )
    pooling: Annotated[str, OneOf(POOLINGS)] | None = Field(
        None,
        description="Pooling of a convnet; none: avg of one that is trained here, of a checkpoint the one with which it "
        "classifies real training images best.",
    )
    activation: Annotated[str, OneOf(ACTIVATIONS)] | None = Field(
        None,
        description="Activation of a convnet; none: relu of one that is trained here, of a checkpoint as `pooling`.",
    )
    train: TeacherTraining = Field(TeacherTraining(), description="How it is trained, if there are no weights.")

    @property
    def files(self) -> list[str]:
        """Paths of its weights, the epoch in its place."""
        epoch = "{epoch}" if self.epoch is None else str(self.epoch)
        return [path.replace("{epoch}", epoch) for path in self.weights or ()]

    @property
    def is_numbered(self) -> bool:
        """Its weights are a file per epoch."""
        return any("{epoch}" in path for path in self.weights or ())


def _spelled_out(teacher: object) -> object:
    """`teacher: PATH` and `teacher: [PATH, PATH]` as mappings."""
    if isinstance(teacher, str):
        return {"weights": [teacher]}
    return {"weights": teacher} if isinstance(teacher, list) else teacher


class Projector(Settings):
    """A small network that says the teacher's labels from the images, so that they need not be stored (arXiv:2408.08201)."""

    backbone: Annotated[str, Network()] | None = Field(
        None,
        description="Network whose frozen features it uses: timm/NAME or one of ours; none: the teacher's own trunk, whose "
        "bytes then count as label bytes.",
    )
    weights: str | None = Field(
        None, description="The backbone's weights, a file; none: random ones from a seed, which cost no bytes either."
    )
    width: PositiveInt = Field(64, description="Channels per convolution of a convnet backbone without weights.")
    norm: Annotated[str, OneOf(NORMS)] = Field("instance", description="Its normalisation layer.")
    image_size: PositiveInt | None = Field(
        None,
        description="Side to which images are brought for it; none: as its weights were trained, else as they are.",
    )
    rank: PositiveInt = Field(4, description="Of the update of each of its layers and of the head (LoRA).")
    text: str | None = Field(
        None, description="Embeddings of the classes' names (C, D), a file (.pt, .npy): what the head is at first."
    )
    epochs: Annotated[int, Field(ge=0)] = Field(
        10, description="Passes over all views when it is fitted to the teacher's logits; 0: the head alone, exactly."
    )
    lr: Positive = Field(3e-3, description="Learning rate of AdamW.")


class Validation(Settings):
    """The split that settings are chosen on."""

    source: Literal["auto", "train", "evaluation"] = Field(
        "auto", alias="from", description="Which split it is taken from; auto is train, where there is one."
    )
    frac: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="Share of that split.")


class EarlyStopping(Settings):
    """Stratified ASHA; acts on `tune` trials only."""

    grace_period_epochs: PositiveInt = Field(25, description="First rung: no trial stops before it.")
    reduction_factor: Annotated[float, Field(gt=1)] = Field(
        3, description="Rungs are this factor apart; about one in this many goes on."
    )
    stratify: Literal["cell"] | list[str] = Field(
        "cell",
        description="Who competes, per tune replicate: trials of one cell, or those alike in these factors; [] is global.",
    )
    min_rung_population: PositiveInt = Field(3, description="Nothing stops at a rung before this many reached it.")
    audit_frac: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Share of stop decisions recorded but not executed, to measure whether stopping was safe."
    )


class Resources(Settings):
    """What one trial occupies."""

    cpus: Literal["auto"] | PositiveInt = Field(
        "auto",
        description="CPU cores and threads per trial; auto is 1, or more where a sweep takes longer than minutes and several "
        "one-thread trials side by side were measured to be slower on this CPU.",
    )
    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        "auto", description="GPU share per trial; auto packs as many trials as memory and CPUs allow."
    )


class SpaceSettings(Settings):
    """A space file."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="Letters, digits, - and _; the default name of the sweep."
    )
    data: Data = Field(description="Real data and the distilled set.")
    teacher: Annotated[Teacher, BeforeValidator(_spelled_out)] | None = Field(
        None, description="The network whose logits are the soft labels; none with stored or hard labels."
    )
    projector: Projector = Field(Projector(), description="With labels: projector, what says them.")
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Named combinations of settings, `{NAME: {KEY: VALUE}}` with the keys of axes; the axis `variant` "
        "takes each in turn (all names, unless `scientific.variant` lists some).",
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
    data_seeds: PositiveInt = Field(
        1, description="Draws of the distilled set and its views: a factor `data_seed` 0, 1, ... if more than one."
    )
    data_seed: Annotated[int, Field(ge=0)] = Field(0, description="The draw of the distilled set and its views.")
    early_stopping: EarlyStopping | None = Field(None, description="Stratified ASHA; absent means every trial ends.")
    checkpoint_every_epochs: PositiveInt | None = Field(
        None, description="Trials in progress are kept this often, so that what dies goes on from there; none: never."
    )
    validation: Validation = Field(Validation(), description="The split that settings are chosen on.")
    resources: Resources = Field(Resources(), description="What one trial occupies.")
