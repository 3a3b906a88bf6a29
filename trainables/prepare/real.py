"""The real data of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from trainables.config import data_key
from trainables.content import RAW_FILES, named_content
from trainables.data.decode import decode_tree, remarks_of_tree
from trainables.data.named import load_named
from trainables.data.real import RealData, load_digits, load_parts, normalise, validation_source
from trainables.data.whitening import whitened
from trainables.formats.recognise import recognise_path
from trainables.names import HANDED, IMAGENETTE, REAL_DATASETS
from trainables.trees import list_tree, passed_over

Say = Callable[[str], None]
#: What is wrong with files that are not those of a recipe.
CHANGED: Final = "not what it was when this was planned; start again, which makes new data of what is there now."


def is_whitened(distilled: Mapping[str, Any]) -> bool:
    """True if a set's pixels are ZCA-whitened: real images then are too."""
    if "path" not in distilled:
        return False
    stated = distilled["stated"].get("pixel_space")
    return (stated or recognise_path(Path(distilled["path"]).expanduser()).pixel_space) == "zca"


def _content_now(data: Mapping[str, Any]) -> str:
    """What identifies the real data that are on disk now."""
    if data["real"] in RAW_FILES:
        return named_content(data["real"], data["root"]) or "nothing"
    root = str(Path(data["root"]).expanduser() / IMAGENETTE) if data["real"] in REAL_DATASETS else data["real"]
    return list_tree(root, tuple(data["class_order"]) if "class_order" in data else None).key


def load_real_data(recipe: Mapping[str, Any], cache: Path, say: Say) -> tuple[RealData, dict[str, Any]]:
    """Real data by name, or from a tree, decoded once; normalised or whitened; what is known about them."""
    data, validation = recipe["data"], recipe["validation"]
    constants = {key: data[key] for key in ("mean", "std") if key in data}
    remarks: list[str] = []
    if data["real"] == "digits":
        if is_whitened(data["distilled"]):
            raise ValueError("data.distilled: whitened pixels (zca) need real images as bytes; the digits are none.")
        about = {"validation_from": "train", "mirrored": False}
        return normalise(load_digits(validation["frac"]), **constants), about
    if data["real"] in REAL_DATASETS:
        arrays, names = load_named(
            data["real"],
            Path(data["root"]).expanduser(),
            download=data["download"],
            image_size=data.get("image_size"),
            cache=cache,
            say=say,
        )
    else:
        tree = list_tree(data["real"], tuple(data["class_order"]) if "class_order" in data else None)
        arrays, names = decode_tree(tree, image_size=data["image_size"], cache=cache, say=say), tree.classes
        remarks = [*remarks_of_tree(tree, image_size=data["image_size"], cache=cache), *passed_over(tree.folders)]
    if (now := _content_now(data)) != data["content"]:
        raise ValueError(
            f"{data.get('root', data['real'])}: {CHANGED} (content {data['content'][:12]}, now {now[:12]})"
        )
    flips = data.get("flips", data["real"] not in HANDED)
    asked, frac = validation["from"], validation["frac"]
    real = load_parts(arrays, names, flips=flips, validation_from=asked, validation_frac=frac)
    about = {"validation_from": validation_source(arrays, asked), "mirrored": flips, "real_remarks": remarks}
    if not is_whitened(data["distilled"]):
        return normalise(real, **constants), about
    if constants:
        raise ValueError("data.mean: with pixel_space zca students see whitened pixels; leave mean and std out.")
    say("whitening (ZCA) fitted on the training split")
    return whitened(real, whitening_entry(recipe, cache)), about


def whitening_entry(recipe: Mapping[str, Any], cache: Path) -> Path:
    """Cache entry of the whitening that is fitted on a recipe's training split."""
    data, version = recipe["data"], recipe["versions"]["real"]
    fitted = {key: data[key] for key in ("real", "name", "content", "image_size") if key in data}
    return cache / f"whitening-{data_key([fitted, recipe['validation'], version])}"
