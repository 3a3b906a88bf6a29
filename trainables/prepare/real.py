"""The real data of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainables.config import data_key
from trainables.data.decode import decode_tree
from trainables.data.named import HANDED, load_named
from trainables.data.real import RealData, load_digits, load_parts, normalise, validation_source
from trainables.data.whitening import whitened
from trainables.formats.recognise import recognise_path
from trainables.names import REAL_DATASETS
from trainables.trees import list_tree

Say = Callable[[str], None]


def is_whitened(distilled: Mapping[str, Any]) -> bool:
    """True if a set's pixels are ZCA-whitened: real images then are too."""
    if "path" not in distilled:
        return False
    stated = distilled["stated"].get("pixel_space")
    return (stated or recognise_path(Path(distilled["path"]).expanduser()).pixel_space) == "zca"


def load_real_data(recipe: Mapping[str, Any], cache: Path, say: Say) -> tuple[RealData, dict[str, Any]]:
    """Real data by name, or from a tree, decoded once; normalised or whitened; what is known about them."""
    data, validation = recipe["data"], recipe["validation"]
    constants = {key: data[key] for key in ("mean", "std") if key in data}
    if data["real"] == "digits":
        if is_whitened(data["distilled"]):
            raise ValueError("data.distilled: whitened pixels (zca) need real images as bytes; the digits are none.")
        return normalise(load_digits(validation["frac"]), **constants), {"validation_from": "train"}
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
    flips = data.get("flips", data["real"] not in HANDED)
    asked, frac = validation["from"], validation["frac"]
    real = load_parts(arrays, names, flips=flips, validation_from=asked, validation_frac=frac)
    about = {"validation_from": validation_source(arrays, asked)}
    if not is_whitened(data["distilled"]):
        return normalise(real, **constants), about
    if constants:
        raise ValueError("data.mean: with pixel_space zca students see whitened pixels; leave mean and std out.")
    fitted = {key: data[key] for key in ("real", "content", "image_size") if key in data}
    say("whitening (ZCA) fitted on the training split")
    return whitened(real, cache / f"whitening-{data_key([fitted, validation])}"), about
