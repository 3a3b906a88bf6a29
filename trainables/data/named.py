"""Real data with a name: torchvision's files, read once into the arrays that trees are decoded into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainables.arrays import is_intact, map_entry, new_entry
from trainables.config import content_hash
from trainables.content import named_content
from trainables.data.decode import decode_tree
from trainables.names import IMAGENETTE
from trainables.trees import list_tree
from trainables.versions import VERSIONS

Parts = tuple[dict[str, np.ndarray], tuple[str, ...]]


def load_named(  # noqa: PLR0913
    name: str, root: Path, *, download: bool, image_size: int | None, cache: Path, say: Callable[[str], None]
) -> Parts:
    """Images and labels of both parts of a dataset of torchvision, and the names of its classes.

    Args:
        name: A name of REAL_DATASETS but "digits".
        root: Where torchvision's files lie.
        download: Let torchvision fetch them if they are not there.
        image_size: Side that imagenette's images are brought to.
        cache: Folder of entries.
        say: Told what takes long.

    Raises:
        ValueError: If the files are not there, or damaged.
    """
    if name == "imagenette":
        open_named(name, root, "train", download=download)
        tree = list_tree(str(root / IMAGENETTE))
        return decode_tree(tree, image_size=image_size or 224, cache=cache, say=say), tree.classes
    parts = {part: open_named(name, root, part, download=download) for part in ("train", "evaluation")}
    names = getattr(parts["train"], "classes", None) or range(10)
    entry = cache / f"real-{content_hash([name, named_content(name, str(root)), VERSIONS['real']])}"
    if not is_intact(entry):
        say(f"reading {name} from {root}")
        with new_entry(entry) as folder:
            for part, dataset in parts.items():
                images, labels = _arrays(dataset)
                np.save(folder / f"{part}_images.npy", images)
                np.save(folder / f"{part}_labels.npy", labels)
    return map_entry(entry), tuple(map(str, names))


def open_named(name: str, root: Path, part: str, *, download: bool) -> Any:
    """Torchvision's dataset of a part ("train" or "evaluation"), fetched if that is asked for and it is not there.

    Raises:
        ValueError: If the files are not there, or damaged.
    """
    from torchvision import datasets

    is_train = part == "train"
    split = {"split": "train" if is_train else "test"}
    makers: Mapping[str, tuple[Any, dict[str, Any]]] = {
        "cifar10": (datasets.CIFAR10, {"train": is_train}),
        "cifar100": (datasets.CIFAR100, {"train": is_train}),
        "mnist": (datasets.MNIST, {"train": is_train}),
        "fashionmnist": (datasets.FashionMNIST, {"train": is_train}),
        "svhn": (datasets.SVHN, split),
        "imagenette": (datasets.Imagenette, {"split": "train" if is_train else "val"}),
    }
    maker, arguments = makers[name]
    there = name == "imagenette" and (root / IMAGENETTE).is_dir()  # torchvision refuses to download over it
    try:
        return maker(str(root), **arguments, download=download and not there)
    except (RuntimeError, OSError) as err:
        raise ValueError(
            f"data.root: {root} has no {name} that torchvision can read ({' '.join(str(err).split())[:120]}); put its "
            "files there, or let it be downloaded with data.download: true."
        ) from err


def _arrays(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, channels, H, W) and int64 (n,)."""
    images = np.asarray(dataset.data)
    labels = np.asarray(dataset.labels if hasattr(dataset, "labels") else dataset.targets, dtype=np.int64)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, dtype=np.uint8), labels
