"""What is doubtful or was decided about data, said by `plan`, by `run` and in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.plan import Plan
from search_spaces import ConfigError
from search_spaces.files import image_tree, stated_of
from search_spaces.settings import Data
from trainables.isolated import look_apart
from trainables.names import HANDED
from trainables.trees import passed_over


def data_facts(plan: Plan) -> list[dict[str, Any]]:
    """What a plan's data are, before anything is read but their files: mirrored or not, and what `inspect` says of them.

    Raises:
        ConfigError: If a distilled set is damaged, or does not tell all that has to be known.
    """
    datas = {cell.settings.data.model_dump_json(): cell.settings.data for cell in plan.cells}.values()
    return [_facts_of(data) for data in datas]


def _facts_of(data: Data) -> dict[str, Any]:
    tree, default = image_tree(data), data.real not in HANDED
    remarks = passed_over(tree.folders) if tree else []
    if tree and data.flips is None and all(len(name) == 1 for name in tree.classes):
        remarks.append(
            "classes are called by one character each; mirrored characters are others: set data.flips: false."
        )
    return {
        "real": data.real,
        "mirrored": default if data.flips is None else data.flips,
        "mirrored_is_stated": data.flips is not None,
        "remarks": remarks,
        "distilled": _facts_of_file(data) if data.distilled.path else None,
    }


def _facts_of_file(data: Data) -> dict[str, Any]:
    """A distilled set on disk, as `inspect` sees it with what is stated."""
    from trainables.formats.inspect import inspect_path  # loads torch

    assert data.distilled.path is not None
    path, stated = Path(data.distilled.path).expanduser(), stated_of(data.distilled)
    try:
        facts = look_apart(path, lambda: inspect_path(path, given=stated))
    except (ValueError, OSError) as err:
        raise ConfigError(f"data.distilled.path: {err}") from err
    asks = [key for key in facts["asks"] if key != "class_order"]  # names of folders may be those of the real classes
    if asks:
        raise ConfigError(
            f"data.distilled: {path} is recognised as {facts['format']}, which cannot tell everything; state "
            f"{', '.join(asks)} (`lossatlas inspect {path}` says why)."
        )
    shown = {key: facts[key] for key in ("format", "pixel_space", "labels")}
    return {"path": str(path), **shown, "stated": stated, "remarks": [*facts["problems"], *facts["remarks"]]}


def describe_datasets(datas: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The facts in sentences."""
    yield "\nData:"
    for data in datas:
        why = "stated by data.flips" if data["mirrored_is_stated"] else "the default here; data.flips says otherwise"
        yield f"  {data['real']}: mirrored: {'yes' if data['mirrored'] else 'no'} ({why})"
        yield from (f"    {remark}" for remark in data["remarks"])
        if file := data["distilled"]:
            said = ", ".join(f"{key} {value}" for key, value in file["stated"].items())
            stated = f"; stated: {said}" if said else ""
            yield f"  {file['path']}: {file['format']}, pixels {file['pixel_space']}{stated}"
            yield from (f"    {remark}" for remark in file["remarks"])


def remarks_about(about: Mapping[str, Any]) -> list[str]:
    """What is to be known of prepared data, in sentences; nothing of data from before there were remarks."""
    said = [f"Real images: {text}" for text in about.get("real_remarks", ())]
    said += [f"Distilled set: {text}" for text in about.get("remarks", ())]
    if "mirrored" in about:
        said.append(f"Images are {'' if about['mirrored'] else 'not '}mirrored in augmentation (data.flips).")
    return said
