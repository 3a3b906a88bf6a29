"""The journal: an append-only file of checksummed JSON lines, the truth about a sweep."""

from __future__ import annotations

import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Journal:
    """Records in the order of writing; each has left this process before `append` returns.

    Attributes:
        error: Why it could not be written, such as a full disk; the sweep then ends.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending; a line torn by a crash is cut off first."""
        self.path = path
        self._lock = threading.Lock()
        _mend_last_line(path)
        self._file = path.open("ab")
        self.error: OSError | None = None

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Write one record and return it."""
        record = {"kind": kind, **fields}
        with self._lock:
            try:
                self._file.write(_encode(record))
                self._file.flush()
            except OSError as err:
                self.error = err
                raise
        return record

    def close(self) -> None:
        """Force what was written onto the disk; a closed journal may be closed again."""
        if self._file.closed:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as err:  # closing tries once more to write what did not fit, and then gives up
            self.error = self.error or err
            with suppress(OSError):
                self._file.close()


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """All intact records; a torn last line is ignored, a damaged line elsewhere is skipped with a warning."""
    yield from (record for _, record in numbered_records(path))


def numbered_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_journal`, each with the number of its line."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        record = _decode(line)
        if record is not None:
            yield number, record
        elif line.strip() and number < len(lines):
            logger.warning(
                "%s:%d: damaged record skipped; if it was a result, its trial is trained again.", path, number
            )


def _encode(record: dict[str, Any]) -> bytes:
    """JSON with the CRC-32 of the rest in front, so that a changed byte is seen."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.partition(b" ")
    try:
        record = json.loads(body) if int(checksum, 16) == zlib.crc32(body) else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else None


def _mend_last_line(path: Path) -> None:
    """Cut off a line torn by a crash, or end it if only its newline is missing."""
    if not path.exists():
        return
    data = path.read_bytes()
    start = data.rfind(b"\n") + 1
    if start < len(data):
        with path.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            if _decode(data[start:]) is not None:
                file.write(data[start:] + b"\n")
