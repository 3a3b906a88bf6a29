"""The label bank: how fast it is built, what memory that takes, what a trial pays for its labels, and who shares a copy.

    python -m benchmarks.label_bank [--json] [--images 10000] [--classes 1000] [--views 100] [--readers 4]

- `build_*`: a bank of views x images x classes in float16, labelled by a small teacher in a process of its own: seconds, labels
  per second, the most anonymous memory (`RssAnon`, what is not backed by a file) above what the process had before.
- `read_*`: Ray actors that each read all of it, from the object store: proportional memory (PSS) of each actor's mapping and their
  sum over the bank's bytes (1 is one copy for all), and anonymous memory above what each had before.
- `label_share`: seconds that a trial of convnet3, width 128, on 100 CIFAR-size images spends on labels, over all of its seconds.
- `float16_*`: largest and mean absolute rounding error of a teacher's logits, beside the bound 2^-11 |t|.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import ray

from benchmarks.environment import environment, options, show
from trainables.arrays import map_entry, new_entry

SIDE = 8
CACHE_KEY = "large"


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) * 1024


def mapping_bytes(array: np.ndarray) -> int:
    """Proportional memory (PSS) of the mappings that an array lies in, in this process."""
    first = array.__array_interface__["data"][0]
    last, total, inside = first + array.nbytes, 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            low, high = (int(end, 16) for end in head.split("-"))
            inside = low < last and high > first
        elif inside and head == "Pss:":
            total += int(line.split()[1]) * 1024
    return total


class Peak:
    """The most anonymous memory while a block runs, above what there was before."""

    def __enter__(self) -> Peak:
        self._before, self._most, self._over = anonymous_bytes(), 0, Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self._most = max(self._most, anonymous_bytes())

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.bytes = max(0, self._most - self._before)


def build(cache: str, images: int, classes: int, views: int) -> dict[str, float]:
    """Make a draft and have it labelled in this process."""
    import torch

    from trainables.augment import Augmentation
    from trainables.data.labels import draw_views
    from trainables.data.teacher import make_teacher
    from trainables.drafts import complete, draft_of, label_views, split_views
    from trainables.networks import ModelShape

    generator = torch.Generator().manual_seed(0)
    teacher = make_teacher("convnet2", ModelShape(3, classes, SIDE), width=8, norm="batch")
    entry = Path(cache) / f"data-{CACHE_KEY}"
    arrays = {
        "distilled_images": torch.randn(images, 3, SIDE, SIDE, generator=generator).numpy(),
        "distilled_labels": np.arange(images) % classes,
        "bank_background": np.zeros(3, dtype=np.float32),
        "bank_parameters": draw_views(Augmentation("dsa", flips=True), images, SIDE, views=views, seed=0).numpy(),
        "teacher": teacher.to_bytes(),
    }
    with new_entry(draft_of(entry)) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        about = {"classes": classes, "label_format": "float16", "bank_bytes": arrays["bank_parameters"].nbytes}
        (folder / "about.json").write_text(json.dumps(about))
    del arrays
    draft = draft_of(entry)
    there = map_entry(draft)
    label_views(there, (0, 1), {"label_format": "float16"})  # torch allocates much at first use
    started = time.monotonic()
    with Peak() as peak:
        complete(
            draft, entry, ((part, label_views(there, part, {"label_format": "float16"})) for part in split_views(draft))
        )
    seconds = time.monotonic() - started
    size = map_entry(entry)["bank_logits"].nbytes
    return {
        "build_s": seconds,
        "build_images_per_s": views * images / seconds,
        "build_peak_mib": peak.bytes / 2**20,
        "bank_mib": size / 2**20,
    }


class Reader:
    """What an actor that trains does with the bank: every view in an order of its own."""

    def read(self, arrays: dict[str, np.ndarray], seed: int) -> float:
        """Read it all; anonymous memory above what there was, MiB."""
        import torch

        from trainables.data.labels import LabelBank
        from trainables.splits import as_split, as_tensor

        self._logits = arrays["bank_logits"]
        tensors = {name: as_tensor(array) for name, array in arrays.items()}
        distilled = as_split("distilled", tensors)
        parameters, logits, background = (tensors[f"bank_{name}"] for name in ("parameters", "logits", "background"))
        bank, generator = LabelBank(distilled, parameters, logits, background), torch.Generator().manual_seed(seed)
        bank.teacher_logits(0, bank.order(0, generator))
        with Peak() as peak:
            for view in range(bank.views):
                bank.teacher_logits(view, bank.order(view, generator))
        return peak.bytes / 2**20

    def mapped(self) -> float:
        """PSS of the bank here, MiB."""
        return mapping_bytes(self._logits) / 2**20


def read(cache: Path, readers: int) -> dict[str, Any]:
    """Several actors read at once, and are then asked while all still hold it."""
    ray.init(address="local", num_cpus=readers, log_to_driver=False, include_dashboard=False)
    arrays = map_entry(cache / f"data-{CACHE_KEY}")
    shared = ray.put(arrays)
    actors = [ray.remote(Reader).options(num_cpus=0).remote() for _ in range(readers)]
    peaks = ray.get([actor.read.remote(shared, seed) for seed, actor in enumerate(actors)])
    mapped = ray.get([actor.mapped.remote() for actor in actors])
    ray.shutdown()
    return {
        "read_pss_mib": mapped,
        "read_copies": sum(mapped) / (arrays["bank_logits"].nbytes / 2**20),
        "read_peak_mib": max(peaks),
    }


def label_share(folder: str) -> dict[str, float]:
    """Seconds for labels over seconds of training, of 20 epochs on one thread; and the teacher's rounding errors."""
    import torch

    from benchmarks.engine import Workload, make_data
    from trainables.arrays import load_arrays
    from trainables.drafts import pack_logits
    from trainables.losses import make_target
    from trainables.trial import TrialData, train_student

    torch.set_num_threads(1)
    work = Workload()
    make_data(work, work.network(work.teacher).eval(), Path(folder))
    config = work.config("fp32", "eager")
    data = TrialData.from_arrays(load_arrays("engine", Path(folder)), "cpu")
    started = time.monotonic()
    list(train_student(config, data))
    trial_s = time.monotonic() - started
    generator = torch.Generator().manual_seed(0)
    started = time.monotonic()
    for view in range(20):
        order = data.bank.order(view, generator)
        hard = data.bank.hard(view, order)
        make_target(config.loss, data.bank.teacher_logits(view, order), hard, config.knobs)
    labels_s = time.monotonic() - started
    logits = 20 * torch.randn(100_000, generator=generator).numpy()
    packed, largest = pack_logits(logits, label_format="float16")
    rounded = packed["bank_logits"]
    error = np.abs(rounded.astype(np.float64) - logits)
    return {
        "label_share": labels_s / trial_s,
        "float16_largest_error": largest,
        "float16_mean_error": float(error.mean()),
        "float16_largest_error_over_bound": float((error / (2.0**-11 * np.abs(logits))).max()),
    }


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    for name, value in (("images", 10_000), ("classes", 1000), ("views", 100), ("readers", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            built = pool.submit(build, folder, arguments.images, arguments.classes, arguments.views).result()
            share = pool.submit(label_share, folder).result()
        result = built | read(Path(folder), arguments.readers) | share
    show(result | {"environment": environment()}, as_json=arguments.json)


if __name__ == "__main__":
    main()
