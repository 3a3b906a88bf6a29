"""Have a cluster's workers label the views of drafts, each worker some of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from orchestrator.prepare import Say
from search_spaces import ConfigError
from trainables.arrays import entry_of, is_intact, only_maker
from trainables.drafts import Part, complete, draft_of, label_views, needed_for_labels, packing_of, split_views


def label_on_ray(keys: Iterable[str], cache: Path, say: Say) -> None:
    """Complete the drafts among some cache entries on the connected Ray cluster.

    A worker is one GPU, or one CPU where the cluster has no GPU. Views and teacher reach the workers through the object
    store, labels come back part by part; a part whose node is lost is labelled elsewhere.

    Args:
        keys: Of prepared data; those without a draft are passed over.
        cache: Folder of entries.
        say: Told what takes long.

    Raises:
        ConfigError: If the teacher's logits do not fit their number format.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = gpus or int(ray.cluster_resources().get("CPU", 1))
    task = ray.remote(label_views).options(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=3)
    for key in keys:
        entry = entry_of(key, cache)
        draft = draft_of(entry)
        with only_maker(entry):
            if not is_intact(draft) or is_intact(entry):
                continue
            parts = split_views(draft, workers=workers)
            say(f"the teacher labels {parts[-1][1]} views on {min(workers, len(parts))} workers of the cluster")
            arguments = ray.put(needed_for_labels(draft)), packing_of(draft)
            try:
                complete(draft, entry, _labelled(task, arguments, parts, most=2 * workers))
            except ValueError as err:  # Ray's errors are of the type that the task raised
                raise ConfigError(str(getattr(err, "cause", err))) from err


def _labelled(
    task: Any, arguments: tuple[Any, dict[str, Any]], parts: Sequence[Part], *, most: int
) -> Iterator[tuple[Part, Any]]:
    """Parts and their labels as they come, a few at a time, so that the object store never holds them all."""
    arrays, packing = arguments
    waiting: deque[Part] = deque(parts)
    running: dict[Any, Part] = {}
    while waiting or running:
        while waiting and len(running) < most:
            part = waiting.popleft()
            running[task.remote(arrays, part, packing)] = part
        done, _ = ray.wait(list(running), num_returns=1)
        yield running.pop(done[0]), ray.get(done[0])
