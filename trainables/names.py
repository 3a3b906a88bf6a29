"""What may be chosen by name in a space. Free of torch, so that a typo is cheap; tests tie the names to the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: timm's optimizers that take a momentum. Left out of timm's list: those that need CUDA to be built (bnb*, fused*),
#: second derivatives (adahessian) or random numbers of their own (kron*).
_TIMM_WITH_MOMENTUM: Final = tuple(
    """
    adafactorbv adafactorbvc adamuon cadafactorbv cadafactorbvc crmsproptf csgdc csgdp csgdw larc lars madgrad madgradw
    momentum muon nadamuon nesterov nesterovw nlarc nlars nmuon rmsprop rmsproptf rmsproptfc rmsproptfw sgdc sgdp sgdw
    """.split()  # noqa: SIM905
)
_TIMM_WITHOUT_MOMENTUM: Final = tuple(
    """
    adabelief adadelta adafactor adagrad adam adamax adamc adamp adamwlegacy adan adanw adopt adoptc adoptw cadafactor
    cadamc cadamp cadamw cadan cadanw cadopt cadoptc cadoptw clamb clambw claprop clion clionc cmars cnadamc cnadamw
    lamb lambc lambcd lambcw lambw laprop lapropc lion lionc mars nadam nadamc nadamlegacy nadamw novograd novogradc
    novogradw radabelief radam radamlegacy radamw
    """.split()  # noqa: SIM905
)
OPTIMIZERS: Final = ("adamw", "sgd", *sorted(_TIMM_WITH_MOMENTUM + _TIMM_WITHOUT_MOMENTUM))
MOMENTUM_OPTIMIZERS: Final = ("sgd", *_TIMM_WITH_MOMENTUM)
#: Optimizers with two running means, whose shares kept per step are `betas`; adafactor uses one of them, adan has three.
BETAS_OPTIMIZERS: Final = tuple(
    """
    adamw adabelief adam adamax adamc adamp adamuon adamwlegacy adopt adoptc adoptw cadamc cadamp cadamw cadopt cadoptc
    cadoptw clamb clambw claprop clion clionc cmars cnadamc cnadamw lamb lambc lambcd lambcw lambw laprop lapropc lion
    lionc mars muon nadam nadamc nadamlegacy nadamuon nadamw nmuon novograd novogradc novogradw radabelief radam
    radamlegacy radamw
    """.split()  # noqa: SIM905
)
#: Schedules that multiply the rate by `schedule_gamma` at some epochs, and that number where none is given.
STEP_SCHEDULES: Final[Mapping[str, float]] = {"multistep": 0.2, "step_half": 0.1}
SCHEDULES: Final = ("multistep", "step_half", "cosine", "half_cosine", "linear", "constant")
#: Depth of the convnets.
CONVNETS: Final[Mapping[str, int]] = {f"convnet{depth}": depth for depth in range(2, 7)}
#: Networks without shortcuts, by the smallest side of the images that they take, pixels; see `trainables.plain`.
PLAIN: Final[Mapping[str, int]] = {"mlp": 1, "lenet": 16, "alexnet": 8, "vgg11": 32}
#: Sides of images that the first convolution of a plain network pads, and to what, as published.
PADDED_SIDE: Final[Mapping[int, int]] = {28: 32}
#: Torchvision's ResNets with a small stem (3x3 convolution of stride 1, no max pool), by blocks per stage, and those of 6n + 2 layers for CIFAR, by n.
SMALL_STEMS: Final[Mapping[str, tuple[int, ...]]] = {
    "resnet18_modified": (2, 2, 2, 2),
    "resnet34_modified": (3, 4, 6, 3),
    "resnet50_modified": (3, 4, 6, 3),
}
CIFAR_RESNETS: Final[Mapping[str, int]] = {"resnet20": 3}
#: Networks by name; besides them any torchvision/NAME and timm/NAME.
STUDENTS: Final = (*CONVNETS, *SMALL_STEMS, *CIFAR_RESNETS, *PLAIN)
#: Real datasets and the size of their test split; all but the digits are torchvision's.
REAL_DATASETS: Final[Mapping[str, int]] = {
    "digits": 599,
    "cifar10": 10_000,
    "cifar100": 10_000,
    "mnist": 10_000,
    "fashionmnist": 10_000,
    "svhn": 26_032,
    "imagenette": 3_925,
}
#: Training images of each: all, and those of the smallest class; of the digits before validation is split off.
TRAINING_IMAGES: Final[Mapping[str, tuple[int, int]]] = {
    "digits": (1_198, 116),
    "cifar10": (50_000, 5_000),
    "cifar100": (50_000, 500),
    "mnist": (60_000, 5_421),
    "fashionmnist": (60_000, 6_000),
    "svhn": (73_257, 4_659),
    "imagenette": (9_469, 858),
}
#: Where their files lie if `data.root` does not say; the folder of imagenette's there.
DEFAULT_ROOT: Final = "data"
IMAGENETTE: Final = "imagenette2"
#: Real data that are not mirrored unless that is asked for: mirrored images are other characters.
HANDED: Final = ("digits", "mnist", "svhn")
#: C of each.
CLASSES: Final[Mapping[str, int]] = {name: 100 if name == "cifar100" else 10 for name in REAL_DATASETS}
#: Side of their images, pixels; imagenette's differ, so `data.image_size` says to what they are brought.
IMAGE_SIZES: Final[Mapping[str, int]] = {
    "digits": 8,
    "cifar10": 32,
    "cifar100": 32,
    "mnist": 28,
    "fashionmnist": 28,
    "svhn": 32,
}
AUGMENTATIONS: Final = ("dsa", "rrc", "none")
#: What a DSA strategy such as color_crop_cutout_flip_scale_rotate is made of.
DSA_OPERATIONS: Final = ("color", "crop", "cutout", "flip", "scale", "rotate")
MIXES: Final = ("none", "cutmix", "mixup")
#: What a trial says whose host (engine "grouped") died; not its own fault.
HOST_LOST: Final = "the process that trains the trials of this device was lost"
#: How a network is executed; see `trainables.engine`.
ENGINES: Final = ("eager", "compiled", "grouped")
LABELS: Final = ("bank", "online", "stored", "hard", "projector")
NORMS: Final = ("batch", "group", "instance", "layer", "none")
#: Of ResNets and VGG.
RESNET_NORMS: Final = ("batch", "instance")
#: Networks that have one of these, and those that have none.
WITH_RESNET_NORMS: Final = (*SMALL_STEMS, *CIFAR_RESNETS, "vgg11")
WITHOUT_NORM: Final = ("mlp", "lenet", "alexnet")


def smallest_side(student: str) -> int:
    """Fewest pixels that the images of one of our networks may have on a side, but for those that are padded."""
    return PLAIN.get(student, 2 ** CONVNETS.get(student, 0))


def fits_images(student: str, image_size: int) -> bool:
    """True if one of our networks can take images of this side."""
    size = PADDED_SIDE.get(image_size, image_size) if student in PLAIN else image_size
    return size >= smallest_side(student)


#: Pooling and activation of a convnet; the first of each is the default of the published code.
POOLINGS: Final = ("avg", "max")
ACTIVATIONS: Final = ("relu", "leaky_relu", "sigmoid", "silu")
#: Groups of norm `group`.
NORM_GROUPS: Final = 4
