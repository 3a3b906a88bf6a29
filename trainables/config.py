"""What a trial is: names of losses and their knobs, canonical form, TrialConfig. Free of torch, so a typo is cheap."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

KnobValue = float | bool
#: Knobs each loss has. `trainables.losses.LOSSES` holds the functions; a test ties the two together.
_SOFT: Final = ("temperature", "refinement", "smoothing", "scale_t2", "label_temperature", "label_swap", "label_top_k")
_ANGLE: Final = ("refinement", "smoothing", "label_swap")
_LOGIT: Final = ("refinement", "smoothing", "label_temperature", "label_swap")
LOSS_KNOBS: Final[Mapping[str, tuple[str, ...]]] = {
    "ce": (),
    "soft_ce": _SOFT,
    "kl": _SOFT,
    "reverse_kl": _SOFT,
    "js": _SOFT,
    "dkd": (*_SOFT, "dkd_alpha", "dkd_beta"),
    "dist": _SOFT,
    "brier": _SOFT,
    "mse": _LOGIT,
    "huber": (*_LOGIT, "huber_delta"),
    "soft_ce_ce": (*_SOFT, "ce_weight"),
    "mse_ce": (*_LOGIT, "ce_weight"),
    "cosine": _ANGLE,
    "gift": (),
}
#: Losses that compare logits, and those that compare their directions; probabilities have neither.
LOGIT_LOSSES: Final = ("mse", "huber", "mse_ce")
ANGLE_LOSSES: Final = ("cosine", "gift")
KNOBS: Final = (
    "temperature",
    "refinement",
    "smoothing",
    "scale_t2",
    "ce_weight",
    "dkd_alpha",
    "dkd_beta",
    "huber_delta",
    "label_temperature",
    "label_swap",
    "label_top_k",
)
#: Knobs that edit the teacher's logits, by the value that leaves them as they are; see `trainables.edits`.
LABEL_EDITS: Final[Mapping[str, KnobValue]] = {"label_temperature": 1.0, "label_swap": 0, "label_top_k": 0}

#: GIFT's released refinement adds 0.1 h^ to t^, which points along (1 - w) t^ + w h^ with w = 0.1 / 1.1.
GIFT_REFINEMENT: Final = 1 / 11
GIFT_SMOOTHING: Final = 0.1

SIGNIFICANT_DIGITS: Final = 12


def round_float(value: float) -> float:
    """A float rounded to 12 significant digits, the precision at which settings are compared."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def canonical_loss(name: str, knobs: Mapping[str, KnobValue]) -> tuple[str, dict[str, KnobValue], list[str]]:
    """The one spelling of a loss among all that give the same gradients.

    Args:
        name: A key of LOSS_KNOBS.
        knobs: A value for every knob the loss has (of LABEL_EDITS only those that edit); knobs it lacks are dropped.

    Returns:
        Canonical name, its knobs in the order of KNOBS, and one sentence per rewriting that changed the cell.

    Raises:
        ValueError: If the loss is unknown.

    Source: algebra; each identity is tested on gradients.
    """
    if name not in LOSS_KNOBS:
        raise ValueError(f"unknown loss {name!r}; valid: {sorted(LOSS_KNOBS)}.")
    knobs = {**LABEL_EDITS, **knobs}
    owned: dict[str, KnobValue] = {k: knobs[k] for k in KNOBS if k in LOSS_KNOBS[name]}
    why: list[str] = []
    if name == "gift":
        name, owned = "cosine", {"refinement": GIFT_REFINEMENT, "smoothing": GIFT_SMOOTHING}
        why.append("gift is cosine with refinement 1/11 and smoothing 0.1")
    if owned.get("ce_weight") == 0:
        del owned["ce_weight"]
        why.append(f"{name} with ce_weight 0 has no hard-label term")
        name = {"soft_ce_ce": "soft_ce", "mse_ce": "mse"}[name]
    if name == "soft_ce":
        name = "kl"
        why.append("soft_ce and kl differ by a constant, so their gradients are equal")
    if owned.get("refinement") == 0:
        del owned["smoothing"]
        why.append("refinement 0 leaves smoothing without effect")
    for edit, idle in LABEL_EDITS.items():
        if edit in owned and (owned[edit] == idle or owned.get("refinement") == 1):
            if owned[edit] != idle:
                why.append(f"refinement 1 leaves {edit} without effect")
            del owned[edit]
    if owned.get("temperature") == 1:
        del owned["scale_t2"]
        why.append("at temperature 1 the factor T^2 is 1")
    return name, {k: _rounded(v) for k, v in owned.items()}, why


def _rounded(value: KnobValue) -> KnobValue:
    return value if isinstance(value, bool) else round_float(value)


@dataclass(frozen=True, kw_only=True)  # no slots, for trial_id is remembered
class TrialConfig:
    """Everything that a trial's metrics depend on; nothing else may influence them.

    Attributes:
        stage: "tune" or "confirm".
        replicate: Seed of initial weights, batch order and order of views.
        loss: Canonical loss name.
        knobs: Canonical loss knobs, exactly those that have an effect.
        optimizer: A name of OPTIMIZERS.
        lr: Learning rate > 0, per optimizer step.
        weight_decay: Decoupled (adamw) or coupled (sgd) weight decay >= 0.
        momentum: SGD momentum in [0, 1); None for optimizers without.
        betas: Shares that the two running means of BETAS_OPTIMIZERS keep per step; None: the optimizer's own.
        schedule: A name of SCHEDULES.
        schedule_milestones, schedule_gamma: Of STEP_SCHEDULES, see `trainables.optim.Steps`; None: the schedule's own.
        warmup_epochs: Epochs over which the rate rises linearly to its full value.
        clip_grad_norm: Longest gradient, over all parameters; None does not clip.
        ema_decay: What is evaluated is a running mean of the weights that keeps this much of itself per step.
        student: A name of STUDENTS, torchvision/NAME or timm/NAME.
        width: Channels per convolution; None but for convnets.
        norm: A name of NORMS; None for networks of torchvision and timm.
        epochs: Passes over the distilled set.
        batch_size: Images per optimizer step.
        evaluate_every_epochs: Validation happens at multiples of this and after the last epoch.
        test_every_evaluation: Also evaluate the test split each time (`protocol: paper`).
        precision: "fp32" or "bf16", resolved by the plan.
        engine: A name of ENGINES, resolved by the plan.
        threads: CPU threads of this training; another number changes float sums in the last digits.
        device: "cpu" or "cuda", resolved by the plan.
        labels: A name of LABELS; "hard" is also refinement 1, "online" has the teacher inside the trial.
        data: Key of the prepared data (distilled set, teacher, label bank, splits): a hash of its recipe.
        versions: Of the parts of the code that the trial rests on; see `trainables.versions`.
    """

    stage: str
    replicate: int
    loss: str
    knobs: Mapping[str, KnobValue] = field(default_factory=dict)
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float | None = None
    betas: Sequence[float] | None = None
    schedule: str
    schedule_milestones: Sequence[float] | None = None
    schedule_gamma: float | None = None
    warmup_epochs: int = 0
    clip_grad_norm: float | None = None
    ema_decay: float | None = None
    student: str
    width: int | None
    norm: str | None
    epochs: int
    batch_size: int
    evaluate_every_epochs: int
    test_every_evaluation: bool = False
    precision: str
    engine: str = "eager"
    threads: int
    device: str
    labels: str = "bank"
    data: str
    versions: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as a plain dictionary, ready for JSON and for Ray."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "knobs": dict(self.knobs),
            "versions": dict(self.versions),
        }

    @cached_property
    def trial_id(self) -> str:
        """First 16 hex digits of the SHA-256 of the configuration's canonical JSON.

        What is None is left out, and so are the engine "eager" and versions that are not known: trials from before there were
        others keep their ids.
        """
        return content_hash(self.identity())

    def identity(self) -> dict[str, Any]:
        """The settings that the id is made of."""
        known = {key: value for key, value in self.as_dict().items() if value is not None}
        return {
            key: value for key, value in known.items() if (key, value) not in (("engine", "eager"), ("versions", {}))
        }


def cost_class(config: TrialConfig) -> str:
    """Trials alike in this cost alike: it ignores loss, rates, optimizer and replicate, and knows torch's version."""
    ignored = (
        "stage",
        "replicate",
        "loss",
        "knobs",
        "optimizer",
        "lr",
        "weight_decay",
        "momentum",
        "betas",
        "schedule",
        "schedule_milestones",
        "schedule_gamma",
        "warmup_epochs",
        "versions",
    )
    wanted = {key: value for key, value in config.as_dict().items() if key not in ignored}
    return content_hash(wanted | {"torch": version("torch")})


def content_hash(value: object) -> str:
    """16 hex digits that identify any JSON-like value; floats count to 12 digits, key order does not."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def data_key(recipe: object) -> str:
    """Hash of a recipe of data; where the content of a path is known, the path itself does not count."""
    return content_hash(_without_paths(recipe))


def _without_paths(value: object) -> object:
    if isinstance(value, Mapping):
        hidden = {"real", "path", "root", "download"} if "content" in value else set()
        return {k: _without_paths(v) for k, v in value.items() if k not in hidden}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _canonical(value: object) -> object:
    """Numbers and containers in one spelling: 1 and 1.0 are equal, tuples are lists."""
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, float):
        value = round_float(value)
        return int(value) if value.is_integer() else value
    return value
