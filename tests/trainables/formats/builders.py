"""Distilled sets in exactly the layouts that published code writes, and damaged twins of them.

Three classes, four images of 8 pixels each, unless a builder says otherwise. A builder takes a folder and a defect
(None, "dtype", "nan", "missing" or "classes") and returns the path that a user would give.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from PIL import Image

C, IPC, SIZE = 3, 4, 8
N = C * IPC
Builder = Callable[[Path, str | None], Path]


def pixels(defect: str | None = None, n: int = N) -> torch.Tensor:
    """Images in [0, 1] whose brightness tells their class."""
    noise = torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    images = 0.3 * noise + 0.3 * torch.arange(n).mul(C).div(n, rounding_mode="floor").view(-1, 1, 1, 1)
    if defect == "nan":
        images[0, 0, 0, 0] = float("nan")
    return images.to(torch.int64) if defect == "dtype" else images


def hard(defect: str | None = None) -> torch.Tensor:
    """0 0 0 0 1 1 1 1 2 2 2 2; with defect "classes" class 1 is missing."""
    labels = torch.arange(C).repeat_interleave(IPC)
    return torch.where(labels == 1, 0, labels) if defect == "classes" else labels


def logits(defect: str | None = None) -> torch.Tensor:
    made = 5 * torch.eye(C + (defect == "classes"))[hard()] + 0.1 * torch.arange(N).view(-1, 1)
    if defect == "nan":
        made[3] = float("nan")  # 0 / 0 in DATM's initialisation
    return made.to(torch.int64) if defect == "dtype" else made


def normalised(defect: str | None = None) -> torch.Tensor:
    images = pixels(defect)
    return images if defect == "dtype" else (images - 0.4) / 0.2


def gift(folder: Path, defect: str | None) -> Path:
    content: dict[str, Any] = {"dataset": "cifar10", "data": pixels(defect), "label": hard(defect).view(-1, 1)}
    return _save({k: v for k, v in content.items() if (defect, k) != ("missing", "label")}, folder / "data.pt")


def gift_datm(folder: Path, defect: str | None) -> Path:
    content = {"dataset": "cifar10", "data": normalised(), "label": logits(defect)}
    return _save({k: v for k, v in content.items() if (defect, k) != ("missing", "dataset")}, folder / "data.pt")


def dc(folder: Path, defect: str | None) -> Path:
    """Two experiments; the accuracies are numpy numbers, which plain weights-only loading refuses."""
    runs = [[-normalised(), hard()], [normalised(defect), hard(defect)]]
    content = {"data": runs, "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}
    return _save(content if defect != "missing" else {**content, "data": []}, folder / "res_DC_CIFAR10_ConvNet_4ipc.pt")


def idc(folder: Path, defect: str | None) -> Path:
    images = pixels(defect)
    images = images if defect in ("dtype", "nan") else images - 0.02
    return _save([images] if defect == "missing" else [images, hard(defect)], folder / "data.pt")


def mtt(folder: Path, defect: str | None) -> Path:
    return _three(folder, "images_best.pt", normalised(defect), hard(defect), defect)


def ftd_iteration(folder: Path, defect: str | None) -> Path:
    _three(folder, "images_500.pt", -normalised(), hard(), None)
    return _three(folder, "images_5000.pt", normalised(defect), hard(defect), defect)


def tesla(folder: Path, defect: str | None) -> Path:
    labels = logits(defect)
    return _three(folder, "images_best.pt", normalised(), labels if defect == "dtype" else labels.softmax(1), defect)


def datm(folder: Path, defect: str | None) -> Path:
    torch.save(torch.tensor(0.01), folder / "lr_best.pt")
    torch.save(pixels(), folder / "images_zca_5000.pt")
    return _three(folder, "images_best.pt", normalised(), logits(defect), defect)


def dd_ranking(folder: Path, defect: str | None) -> Path:
    torch.save(torch.tensor(0.01), folder / "lr.pt")
    return _three(folder, "images.pt", normalised(), logits(defect), defect)


def bare(folder: Path, defect: str | None) -> Path:
    return _save(normalised(defect), folder / "cifar100.pt")


def frepo(folder: Path, defect: str | None) -> Path:
    return _archive(folder / "step000500.npz", "image", "label", defect)


def kip(folder: Path, defect: str | None) -> Path:
    return _archive(folder / "kip_cifar10_ConvNet3_ssize12.npz", "images", "labels", defect)


def rfad(folder: Path, defect: str | None) -> Path:
    """Channels first, centred labels."""
    return _archive(folder / "best.npz", "images", "labels", defect, first=True)


def rcig(folder: Path, defect: str | None) -> Path:
    """A flax checkpoint: the averaged set beside the optimizer's moments of the same names."""
    images, labels = normalised(defect if defect == "nan" else None).permute(0, 2, 3, 1), logits(defect)
    arrays = {"x_proto": images.numpy().astype("int32" if defect == "dtype" else "float32"), "y_proto": labels.numpy()}
    ours = {k: v for k, v in arrays.items() if (defect, k) != ("missing", "y_proto")}
    moments = {name: np.zeros_like(array) for name, array in arrays.items()}
    content = {"step": np.int32(3), "opt_state": {"0": {"mu": moments}}, "params": moments, "ema_average": ours}
    path = folder / "checkpoint_15000"
    path.write_bytes(msgpack.packb(content, default=_as_flax, strict_types=True))
    return path


def _as_flax(value: Any) -> msgpack.ExtType:
    array = np.asarray(value)
    packed = msgpack.packb([list(array.shape), array.dtype.name, array.tobytes()], use_bin_type=True)
    return msgpack.ExtType(1 if array.ndim else 3, packed)


def npy(folder: Path, defect: str | None) -> Path:
    images = normalised(defect if defect == "nan" else None).numpy()
    np.save(folder / "x_train.npy", images.astype(np.int64) if defect == "dtype" else images)
    if defect != "missing":
        np.save(folder / "y_train.npy", hard(defect).numpy())
    return folder / "x_train.npy"


def datadam(folder: Path, defect: str | None) -> Path:
    """Class indices as floats."""
    labels = hard(defect).float()
    labels = labels + 0.5 if defect == "missing" else labels
    torch.save(labels, folder / "CIFAR10_IPC4_labels.pt")
    torch.save(normalised(defect), folder / "CIFAR10_IPC4_images.pt")
    return folder / "CIFAR10_IPC4_images.pt"


def rded(folder: Path, defect: str | None) -> Path:
    return _folders(folder / "exp", "syn_data/{c:05d}/class{c:05d}_id{i:05d}.jpg", defect)


def sre2l(folder: Path, defect: str | None) -> Path:
    return _folders(folder / "run", "new{c:03d}/class{c:03d}_id{i:03d}.jpg", defect)


def sre2l_21k(folder: Path, defect: str | None) -> Path:
    return _folders(folder / "run", "new{c:05d}/class{c:05d}_id{i:03d}.jpg", defect)


def gvbsm(folder: Path, defect: str | None) -> Path:
    return _folders(folder / "run", "new{c:03d}/class{c:03d}_id{i:03d}.png", defect)


def d4m(folder: Path, defect: str | None) -> Path:
    """Unpadded numbers: 11 classes, so that text order would put 10 before 2."""
    return _folders(folder / "set", "{c}/{c}-image0{i}.png", defect, classes=11)


def minimax(folder: Path, defect: str | None) -> Path:
    return _folders(folder / "set", "n0210008{c}/{i}.png", defect)


def generated(folder: Path, defect: str | None) -> Path:
    """Any folder names, such as a diffusion model's class names."""
    names = ["zebra", "ape", "cat"]
    return _folders(folder / "set", "{name}/{i}.png", defect, names=names)


def _save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def _three(folder: Path, name: str, images: torch.Tensor, labels: torch.Tensor, defect: str | None) -> Path:
    torch.save(images, folder / name)
    if defect != "missing":
        torch.save(labels, folder / name.replace("images", "labels"))
    return folder / name


def _archive(path: Path, images_key: str, labels_key: str, defect: str | None, *, first: bool = False) -> Path:
    images = normalised(defect if defect == "nan" else None).permute(*((0, 1, 2, 3) if first else (0, 2, 3, 1))).numpy()
    labels = torch.eye(C)[hard()] - 1 / C
    arrays = {images_key: images.astype(np.int64) if defect == "dtype" else images, labels_key: labels.numpy()}
    if defect == "classes":
        arrays[labels_key] = np.zeros((N, C + 1), dtype=np.float32)
    np.savez(path, **{k: v for k, v in arrays.items() if (defect, k) != ("missing", labels_key)})
    return path


def _folders(root: Path, pattern: str, defect: str | None, *, classes: int = C, names: list[str] | None = None) -> Path:
    """An image tree; "missing" leaves one class out, "classes" puts a class in its neighbour's folder."""
    for c in range(classes):
        if defect == "missing" and c == 1:
            continue
        for i in range(IPC):
            path = root / pattern.format(c=c, i=i, name=(names or [""] * classes)[c])
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = np.full((SIZE, SIZE, 3), (20 * c + 10, 255 - 20 * c, 20 * i), dtype=np.uint8)
            Image.fromarray(colour).save(path)
    if defect == "classes":
        first = sorted(root.rglob("class*_id*"))[0]
        first.rename(first.with_name(first.name.replace("class00", "class01", 1)))
    return root


#: Name of the format as `inspect` says it, builder, and what a user states of it.
SETS: dict[str, tuple[str, Builder, dict[str, Any]]] = {
    "gift": ("gift", gift, {}),
    "gift_datm": ("gift", gift_datm, {"pixel_space": "meanstd", "mean": [0.4] * 3, "std": [0.2] * 3}),
    "dc": ("dc", dc, {"mean": [0.4] * 3, "std": [0.2] * 3}),
    "idc": ("idc", idc, {"decode_factor": 1}),
    "mtt": ("mtt", mtt, {"pixel_space": "meanstd", "mean": [0.4] * 3, "std": [0.2] * 3}),
    "ftd": ("mtt", ftd_iteration, {"pixel_space": "zca"}),
    "tesla": ("tesla", tesla, {"pixel_space": "zca"}),
    "datm": ("datm", datm, {}),
    "dd_ranking": ("dd-ranking", dd_ranking, {"pixel_space": "zca"}),
    "bare": ("bare", bare, {"pixel_space": "zca", "class_order": "index", "ipc": IPC}),
    "frepo": ("frepo", frepo, {"pixel_space": "zca", "label_kind": "logit"}),
    "kip": ("kip", kip, {"pixel_space": "meanstd", "mean": [0.4] * 3, "std": [0.2] * 3, "label_kind": "hard"}),
    "rfad": ("rfad", rfad, {"pixel_space": "zca", "label_kind": "centred"}),
    "rcig": ("rcig", rcig, {"pixel_space": "zca", "label_kind": "logit"}),
    "npy": ("numpy", npy, {"pixel_space": "zca"}),
    "datadam": ("datadam", datadam, {"pixel_space": "meanstd", "mean": [0.4] * 3, "std": [0.2] * 3}),
    "rded": ("rded", rded, {}),
    "sre2l": ("sre2l", sre2l, {}),
    "sre2l_21k": ("sre2l", sre2l_21k, {}),
    "gvbsm": ("sre2l", gvbsm, {}),
    "d4m": ("numbered", d4m, {}),
    "minimax": ("wnid", minimax, {"class_order": "sorted"}),
    "generated": ("folders", generated, {"class_order": "sorted"}),
}

#: Defects that a layout can have, and a piece of the message that refuses it.
DEFECTS: dict[tuple[str, str], str] = {
    ("gift", "dtype"): "data must be floats or uint8",
    ("gift", "nan"): "data has values that are NaN",
    ("gift", "missing"): "its key 'label' is missing",
    ("gift", "classes"): "label must be 0 to C - 1",
    ("gift_datm", "dtype"): "soft label must be floats",
    ("gift_datm", "nan"): "label has values that are NaN",
    ("gift_datm", "missing"): "its key 'dataset' is missing",
    ("gift_datm", "classes"): "soft labels for 4 classes, the real data have 3",
    ("dc", "dtype"): "images must be floats or uint8",
    ("dc", "nan"): "images has values that are NaN",
    ("dc", "missing"): "its key 'data' holds no experiments",
    ("dc", "classes"): "labels must be 0 to C - 1",
    ("idc", "dtype"): "images must be floats or uint8",
    ("idc", "nan"): "images has values that are NaN",
    ("idc", "missing"): "not recognised",
    ("idc", "classes"): "labels must be 0 to C - 1",
    ("mtt", "dtype"): "images must be floats or uint8",
    ("mtt", "nan"): "images has values that are NaN",
    ("mtt", "missing"): "its labels are missing; expected labels_best.pt",
    ("mtt", "classes"): "labels must be 0 to C - 1",
    ("ftd", "missing"): "its labels are missing; expected labels_5000.pt",
    ("tesla", "dtype"): "soft labels must be floats",
    ("tesla", "nan"): "labels has values that are NaN",
    ("tesla", "classes"): "4 classes, the real data have 3",
    ("datm", "dtype"): "soft labels must be floats",
    ("datm", "nan"): "labels has values that are NaN",
    ("datm", "missing"): "its labels are missing",
    ("datm", "classes"): "4 classes, the real data have 3",
    ("dd_ranking", "dtype"): "soft labels must be floats",
    ("dd_ranking", "nan"): "labels has values that are NaN",
    ("dd_ranking", "missing"): "recognised as bare, which cannot tell everything; state class_order",
    ("dd_ranking", "classes"): "4 classes, the real data have 3",
    ("bare", "dtype"): "images must be floats or uint8",
    ("bare", "nan"): "images has values that are NaN",
    ("frepo", "dtype"): "image must be floats or uint8",
    ("frepo", "nan"): "image has values that are NaN",
    ("frepo", "missing"): "its key 'label' is missing",
    ("frepo", "classes"): "classes, the real data have 3",
    ("kip", "dtype"): "images must be floats or uint8",
    ("kip", "nan"): "images has values that are NaN",
    ("kip", "missing"): "its key 'labels' is missing",
    ("kip", "classes"): "classes, the real data have 3",
    ("rfad", "dtype"): "images must be floats or uint8",
    ("rfad", "nan"): "images has values that are NaN",
    ("rfad", "missing"): "its key 'labels' is missing",
    ("rfad", "classes"): "classes, the real data have 3",
    ("rcig", "dtype"): "x_proto must be floats or uint8",
    ("rcig", "nan"): "x_proto has values that are NaN|y_proto has values that are NaN",
    ("rcig", "missing"): "its key 'y_proto' is missing",
    ("rcig", "classes"): "soft labels for 4 classes, the real data have 3",
    ("npy", "dtype"): "images must be floats or uint8",
    ("npy", "nan"): "images has values that are NaN",
    ("npy", "missing"): "recognised as bare, which cannot tell everything; state class_order",
    ("npy", "classes"): "labels must be 0 to C - 1",
    ("datadam", "dtype"): "images must be floats or uint8",
    ("datadam", "nan"): "images has values that are NaN",
    ("datadam", "missing"): "hard labels must be whole numbers",
    ("datadam", "classes"): "labels must be 0 to C - 1",
    ("rded", "missing"): r"class folders must be 0 to C - 1; missing: \[1\]",
    ("rded", "classes"): "says class 1.*, its folder says 0",
    ("sre2l", "missing"): r"class folders must be 0 to C - 1; missing: \[1\]",
    ("sre2l", "classes"): "says class 1.*, its folder says 0",
    ("sre2l_21k", "classes"): "says class 1.*, its folder says 0",
    ("gvbsm", "classes"): "says class 1.*, its folder says 0",
    ("d4m", "missing"): r"class folders must be 0 to C - 1; missing: \[1\]",
    ("minimax", "missing"): "2 classes, the real data have 3",
    ("generated", "missing"): "2 classes, the real data have 3",
}


def write_store(
    root: Path,
    labels: torch.Tensor,
    *,
    epochs: int = 2,
    batch_size: int = 5,
    extra: str = "",
    mix: str = "cutmix",
    permutations: int = 2,
    change: Callable[[list[Any]], Any] = lambda batch: batch,
) -> Path:
    """An FKD store as SRe2L's relabelling writes it, for images with these labels.

    Args:
        root: Folder.
        labels: (N,) classes in ImageFolder's order.
        epochs: Stored epochs.
        batch_size: The last batch is smaller.
        extra: "" (6 entries), "index" (G-VBSM), "weight" (WMDD), "patch" (EDC), "topk" (LPQLD).
        mix: "cutmix", "mixup" or "none".
        permutations: Drawn by the sampler per epoch.
        change: Of the first batch, before it is written.
    """
    n, sampler = len(labels), torch.Generator().manual_seed(42)
    rng = torch.Generator().manual_seed(7)
    for epoch in range(epochs):
        order = torch.randperm(n, generator=sampler)
        for _ in range(permutations - 1):
            torch.randperm(n, generator=sampler)
        for number, index in enumerate(order.split(batch_size)):
            batch = _batch(labels, index, rng, mix)
            batch += {"index": [index], "weight": [torch.ones(len(index), dtype=torch.float64)]}.get(extra, [])
            batch += [index, torch.zeros(len(index), 2, 2, dtype=torch.int64)] if extra == "patch" else []
            batch += [torch.zeros(len(index), 2, dtype=torch.int16)] if extra == "topk" else []
            path = root / f"epoch_{epoch}" / f"batch_{number}.tar"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(change(batch) if (epoch, number) == (0, 0) else batch, path)
    return root


def _batch(labels: torch.Tensor, index: torch.Tensor, rng: torch.Generator, mix: str) -> list[Any]:
    """Coordinates of a crop, flips, partners, share, box, and logits of the mixed image (mostly itself)."""
    count = len(index)
    crop = torch.tensor([[0.0, 0.25, 0.5, 0.75]]).repeat(count, 1)
    flip = torch.rand(count, generator=rng) < 0.5
    partner = torch.randperm(count, generator=rng) if mix != "none" else None
    one_hot = 8.0 * torch.eye(C)[labels[index]]
    said = one_hot if partner is None else 0.75 * one_hot + 0.25 * one_hot[partner]
    share = {"cutmix": 0.9, "mixup": 0.75, "none": None}[mix]
    box = [np.int64(v) for v in (0, 2, 4, 6)] if mix == "cutmix" else None
    return [crop, flip, partner, share, box, said.half()]


def write_order(root: Path, orders: dict[str, list[int]]) -> None:
    """LPLD's list of image indices by epoch."""
    (root / "sampler_indices_epoch.json").write_text(json.dumps(orders))
