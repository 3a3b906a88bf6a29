"""A crowded machine: somebody's Ray head on the default ports, and processes that never rest.

python -m tests.crowded [OPTIONS OF PYTEST]     the tests that suffered from that, or those named
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.surroundings import own_ray_folder
from tests.integration import wait_for

#: Start clusters, send signals, kill what they started; in the order of how long they take.
SENSITIVE = ("test_neighbours", "test_interruptions", "test_address", "test_chaos", "test_sweep")
BUSY = 4


@contextmanager
def somebodys_ray() -> Iterator[str]:
    """A head as people start it, its address noted where ours is; gives what is noted. One that is there already will do."""
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--num-cpus=1", "--block"]
    with own_ray_folder() as folder:
        note = folder / "ray" / "ray_current_cluster"
        with (folder / "head.log").open("wb") as log:
            head = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: note.exists() or head.poll() is not None)
            yield note.read_text() if note.exists() else ""
        finally:
            if head.poll() is None:
                head.terminate()
            head.wait()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that take all the time that they get."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Run pytest beside all of that; its status."""
    tests = sys.argv[1:] or [str(Path(__file__).parent / "integration" / f"{name}.py") for name in SENSITIVE]
    with somebodys_ray() as address, busy(BUSY):
        print(
            f"beside a Ray head at {address or 'the default port that was there'} and {BUSY} busy processes", flush=True
        )
        sys.exit(subprocess.run([sys.executable, "-m", "pytest", *tests], check=False).returncode)


if __name__ == "__main__":
    main()
