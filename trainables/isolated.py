"""Work on files from outside in a process of its own, with limits, so that a crash in a reader is a message. No torch."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

#: Memory for a file's content: this much and a few times its size.
LEAST_MEMORY: Final = 4 * 2**30
TIMES_SIZE: Final = 5
#: Seconds for it: this many, and one for each ten megabytes.
LEAST_SECONDS: Final = 300.0
BYTES_PER_SECOND: Final = 10**7


def look_apart(path: Path, look: Callable[[], Any]) -> Any:
    """What a function finds out about a file or folder, JSON-like, found out in another process.

    Args:
        path: What it looks at; its size sets the limits, and messages name it.
        look: Called in a copy of this process.

    Raises:
        ValueError: As `look` raised it, or if it crashed, needed too much memory, or did not end.
    """
    size = _size_of(path)
    memory, seconds = LEAST_MEMORY + TIMES_SIZE * size, LEAST_SECONDS + size / BYTES_PER_SECOND
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: those of torch and BLAS are not used in the copy
        child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(look, memory, writing)
    os.close(writing)
    try:
        said = _read_all(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        if not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if said is None:
        raise ValueError(f"{path}: not read within {seconds:.0f} s; that is more than a file of {size} bytes needs.")
    return _outcome(path, said, status, memory)


def _answer(look: Callable[[], Any], memory: int, writing: int) -> NoReturn:
    """Body of the other process: it says what it found, or what went wrong, and ends without cleaning up."""
    try:
        faulthandler.disable()  # a crash is told once, by the original
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = _data_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (used + memory, used + memory))
        if "torch" in sys.modules:  # its threads were not copied
            sys.modules["torch"].set_num_threads(1)
        answer = json.dumps({"found": look()})
    except MemoryError:
        answer = json.dumps({"memory": True})
    except (ValueError, OSError) as err:
        answer = json.dumps({"error": str(err)})
    except RuntimeError as err:  # torch's "not enough memory", among others
        answer = json.dumps({"error": f"not readable ({' '.join(str(err).split())[:200]})"})
    except BaseException as err:  # noqa: BLE001 (whatever it is, the copy must not go on as if it were the original)
        answer = json.dumps({"error": f"not readable ({type(err).__name__}: {' '.join(str(err).split())[:200]})"})
    with suppress(BaseException), os.fdopen(writing, "w") as file:
        file.write(answer)
    os._exit(0)


def _data_bytes() -> int:
    """Memory of this process that counts against RLIMIT_DATA; 0 where the system does not tell."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmData:")).split()[1]) * 1024
    return 0


def _read_all(reading: int, deadline: float) -> bytes | None:
    """All that the other process says; None if it does not end in time."""
    said = b""
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reading, 2**16)
        if not part:
            return said
        said += part
    return None


def _outcome(path: Path, said: bytes, status: int, memory: int) -> Any:
    """What the other process found, or its error."""
    answer = json.loads(said) if said else {}
    if "found" in answer:
        return answer["found"]
    if "error" in answer:
        raise ValueError(answer["error"])
    if "memory" in answer:
        raise ValueError(f"{path}: its content needs more than {memory / 2**30:.1f} GiB of memory; refused.")
    end = (
        signal.Signals(os.WTERMSIG(status)).name
        if os.WIFSIGNALED(status)
        else f"status {os.waitstatus_to_exitcode(status)}"
    )
    raise ValueError(f"{path}: reading it crashed ({end}); the file is damaged or made to harm.")


def _size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
