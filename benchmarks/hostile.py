"""Fuzz everything that reads bytes from outside: `python -m benchmarks.hostile --seconds 600 [--target NAME] [--json]`.

Coverage-guided (atheris, of the developers' packages), one process per target. An input ends well or with a ValueError or an
OSError; any other exception, a crash, more than a second's hang (25 s with instrumentation) or 4 GB is a finding.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from orchestrator.processes import command_of, safe_environment

ROOT: Final = Path(__file__).parents[1]
MOST_MB: Final = 4096
HANG_S: Final = 25
Read = Callable[[bytes, Path], None]
SPACE: Final = (ROOT / "search_spaces" / "digits.yaml").read_text()
#: What fuzzing begins with besides an ordinary input.
BOMBS: Final = (
    "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b]}\n",
    "x0: &x0 [1, 1]\nx1: &x1 [*x0, *x0]\nx2: [*x1, *x1]\n",
    "&a [*a]",
    "a: 2026-13-45",
    "fixed: {width: 1_0:60}",
    "scientific: {loss: [ce, {'=1+1': {loss: kl, temperature: [1, 1e400]}}]}",
)


def read_space(content: bytes, folder: Path) -> None:
    """A space file, and the plan that it asks for."""
    from orchestrator.plan import Plan
    from search_spaces import load_space

    (folder / "space.yaml").write_bytes(content)
    plan = Plan("x", load_space(folder / "space.yaml"), "cpu")
    assert len(plan.cells) >= 0


def read_override(content: bytes, folder: Path) -> None:
    """`--set KEY=VALUE`."""
    from search_spaces import load_space

    load_space("digits", [content.decode(errors="replace")])


def read_beside(content: bytes, folder: Path) -> None:
    """A sidecar."""
    from search_spaces.files import check_stated
    from trainables.sidecar import read_sidecar

    (folder / "lossatlas.yaml").write_bytes(content)
    check_stated(read_sidecar(folder), "lossatlas.yaml")


def read_torch(content: bytes, folder: Path) -> None:
    """A distilled set or a checkpoint."""
    from trainables.formats.inspect import inspect_path

    (folder / "x.pt").write_bytes(content)
    inspect_path(folder / "x.pt")


def read_numpy(content: bytes, folder: Path) -> None:
    """A numpy archive."""
    from trainables.formats.inspect import inspect_path

    (folder / "x.npz").write_bytes(content)
    inspect_path(folder / "x.npz")


def read_journal(content: bytes, folder: Path) -> None:
    """A journal whose checksums are right, as whoever writes one on purpose would have them."""
    from orchestrator.records import read_records

    lines = (b"%08x %s\n" % (zlib.crc32(line), line) for line in content.split(b"\n"))
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    read_records(folder / "journal.jsonl")


def read_plan(content: bytes, folder: Path) -> None:
    """A plan.json."""
    from orchestrator.home import Home
    from search_spaces import load_space

    sweep = Home.at(folder).sweep("x")
    sweep.path.mkdir(parents=True, exist_ok=True)
    sweep.plan.write_bytes(content)
    load_space(sweep.read_plan()["space"], check_files=False)


def read_tags(content: bytes, folder: Path) -> None:
    """Configuration and settings of a trial, as a tracker says them."""
    from orchestrator.recipes import recipe
    from orchestrator.run_fields import tracked_cell
    from search_spaces.trials import check_trial

    tags = json.loads(content)
    if isinstance(tags, dict):
        recipe(tracked_cell(tags.get("settings"), check_trial(tags.get("config"), "run")))


TARGETS: Final[Mapping[str, Read]] = {
    "space": read_space,
    "set": read_override,
    "sidecar": read_beside,
    "torch": read_torch,
    "numpy": read_numpy,
    "journal": read_journal,
    "plan": read_plan,
    "tags": read_tags,
}


def seeds(target: str) -> list[bytes]:
    """Inputs that fuzzing begins with: an ordinary one, and such as once did harm."""
    texts = {
        "space": [SPACE, *BOMBS],
        "set": ["fixed.width=8", "scientific.loss=[kl, cosine]", "teacher=null", *(f"fixed={bomb}" for bomb in BOMBS)],
        "sidecar": ["pixel_space: raw01\nmean: [0.5]\nstd: [0.2]\nx.pt: {ipc: 3}\n", *BOMBS],
    }
    if target in texts:
        return [text.encode() for text in texts[target]]
    return _files(target) if target in ("torch", "numpy") else [json.dumps(one).encode() for one in _records(target)]


def _records(target: str) -> list[Any]:
    """A trial's result, a plan and tags, as a sweep writes them."""
    from orchestrator.plan import Plan
    from orchestrator.run_fields import settings_of
    from search_spaces import load_space

    plan = Plan("x", load_space("digits"), "cpu")
    cell, config = plan.cells[0], plan.trial(plan.cells[0], 0, 1, "confirm")
    point = {
        "epoch": 5,
        "train_loss": 1.0,
        "val_accuracy": 0.5,
        "test_accuracy": None,
        "train_s": 1.0,
        "diverged": False,
    }
    place = {"trial_id": config.trial_id, "cell": cell.label, "draw": 0, "config": config.as_dict()}
    result = {"kind": "result", **place, "status": "finished", "curve": [point], "audited": False}
    about = {"n_test": 599, "n_validation": 100, "n_distilled": 100, "classes": 10, "views": 100}
    stored: dict[str, Any] = {"space": dict(plan.space.document), "device": "cpu", "signature": plan.signature()}
    stored |= {"keys": plan.data_keys, "resolved": None, "facts": {"wall_s": 1.0, "data": {config.data: about}}}
    tags = {"config": config.as_dict(), "settings": settings_of(cell)}
    wrong = {**result, "curve": [{**point, "val_accuracy": 7.5}]}
    made: dict[str, list[Any]] = {"journal": [result, wrong], "plan": [stored], "tags": [tags]}
    return made[target]


def _files(target: str) -> list[bytes]:
    """Small sets and a checkpoint."""
    import numpy as np
    import torch

    from trainables.networks import ModelShape, make_model

    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])
    network = make_model("convnet2", ModelShape(1, 2, 8), width=2, norm="instance").state_dict()
    contents: list[Any] = [{"dataset": "x", "data": images, "label": labels}, images, [images, labels], network]
    contents += [{"data": [[images, labels]], "accs_all_exps": {"a": [np.float64(0.5)]}}]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.npz"
        if target == "numpy":
            np.savez_compressed(path, image=images.permute(0, 2, 3, 1).numpy(), label=labels.numpy())
            return [path.read_bytes()]
        made = []
        for content in contents:
            torch.save(content, path)
            made.append(path.read_bytes())
        return made


def fuzz(target: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["yaml", "orchestrator", "search_spaces", "trainables"]):
        first, *others = seeds(target)
        folder = Path(tempfile.mkdtemp(dir=corpus.parent))
        TARGETS[target](first, folder)  # what is imported when it is needed, is imported here

    def one(content: bytes) -> None:
        with suppress(ValueError, OSError):
            TARGETS[target](content, folder)

    for number, seed in enumerate([first, *others]):
        (corpus / f"seed{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MOST_MB}", f"-timeout={HANG_S}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, "-max_len=20000", f"-artifact_prefix={corpus.parent}/", str(corpus)], one)
    atheris.Fuzz()


def run(target: str, seconds: int) -> dict[str, Any]:
    """Fuzz one target in a process of its own; what came of it."""
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        command = command_of(
            "benchmarks.hostile", "--target", target, "--seconds", str(seconds), "--corpus", str(corpus)
        )
        done = subprocess.run(
            command, cwd=ROOT, env=safe_environment(), capture_output=True, text=True, errors="replace", check=False
        )
        stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        covered = re.findall(r"cov: (\d+)", done.stderr)
        harmful = [path.read_bytes()[:200].hex() for path in Path(place).glob("*-*") if path.is_file()]
    result: dict[str, Any] = {"target": target, "inputs": int(stats.get("number_of_executed_units", 0))}
    result |= {"slowest_s": int(stats.get("slowest_unit_time_sec", 0)), "peak_mb": int(stats.get("peak_rss_mb", 0))}
    result |= {"covered": int(covered[-1]) if covered else 0, "findings": int(done.returncode != 0)}
    if done.returncode:
        result |= {"last": done.stderr[-3000:], "input": harmful}
    return result


def main() -> None:
    """Fuzz all targets, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="Of fuzzing, all targets together.")
    parser.add_argument("--target", choices=TARGETS, help="One target alone.")
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    wanted = parser.parse_args()
    if wanted.corpus:
        fuzz(wanted.target, wanted.seconds, wanted.corpus)
    targets = [wanted.target] if wanted.target else list(TARGETS)
    results = [run(target, max(1, wanted.seconds // len(targets))) for target in targets]
    for result in results:
        print(json.dumps(result) if wanted.json else "  ".join(f"{key} {value}" for key, value in result.items()))
    sys.exit(any(result["findings"] for result in results))


if __name__ == "__main__":
    main()
