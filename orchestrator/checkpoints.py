"""Checkpoints of trials in progress, in the sweep's folder."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

from orchestrator.home import write_bytes
from trainables.paths import below

logger = logging.getLogger(__name__)


class Checkpoints:
    """One file per trial that has begun and not ended."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made before the first checkpoint."""
        self._folder = folder

    def write(self, trial_id: str, checkpoint: bytes) -> None:
        """Keep a checkpoint instead of the one before, whole or not at all."""
        write_bytes(self._path(trial_id), b"%08x\n" % zlib.crc32(checkpoint) + checkpoint)

    def read(self, trial_id: str) -> bytes | None:
        """The last checkpoint of a trial; None if there is none, or it is not what was written."""
        path = self._path(trial_id)
        if not path.exists():
            return None
        checksum, _, checkpoint = path.read_bytes().partition(b"\n")
        if checksum == b"%08x" % zlib.crc32(checkpoint):
            return checkpoint
        logger.warning("%s is damaged; its trial begins anew.", path)
        return None

    def drop(self, trial_id: str) -> None:
        """The trial has ended."""
        self._path(trial_id).unlink(missing_ok=True)

    def _path(self, trial_id: str) -> Path:
        return below(self._folder, f"{trial_id}.checkpoint")
