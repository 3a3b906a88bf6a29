"""What files hold, as a hash: data are identified by their content, wherever they lie and whenever they were written.

What was hashed is remembered until `forget`, so that everything that is decided in one go rests on one look at the disk.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from trainables.config import content_hash
from trainables.paths import labels_beside

#: Files of up to this size together are identified by all bytes in them.
WHOLE_BYTES: Final = 4 * 2**30
#: Of more: the ends of this many of them, this long.
SAMPLED_FILES: Final = 1024
SAMPLED_BYTES: Final = 2**20
#: Files that one worker of the hashing takes at a time.
_CHUNK: Final = 64


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of some files.

    Attributes:
        key: Hash of their names and bytes; of many bytes, of names, sizes, times of change and a sample.
        files: How many there are.
        size_bytes: Of all together.
        is_whole: Every byte was read.
    """

    key: str
    files: int
    size_bytes: int
    is_whole: bool


def forget() -> None:
    """Look at the disk again: called before files are checked and identified."""
    for remembered in (file_hash, folder_content, set_hash, named_content):
        remembered.cache_clear()


@lru_cache(maxsize=4096)
def file_hash(path: str) -> str:
    """SHA-256 of a file.

    Raises:
        ValueError: If there is no such file.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise ValueError(f"{path}: no such file.")
    return _sha256(place).hex()


def content_of(files: Sequence[tuple[str, Path]], *, whole_bytes: int = WHOLE_BYTES) -> Content:
    """What files hold, read by a thread per core.

    Args:
        files: (name that counts, path); their order counts too.
        whole_bytes: Largest size of all together at which every byte is read.

    Raises:
        ValueError: If something is no file: a folder, a pipe, a device.
        OSError: If a file is not readable, or a link leads nowhere.
    """
    stats = [path.stat() for _, path in files]
    if odd := next((path for (_, path), s in zip(files, stats, strict=True) if not stat.S_ISREG(s.st_mode)), None):
        raise ValueError(f"{odd}: no regular file.")
    size = sum(s.st_size for s in stats)
    digest, is_whole = hashlib.sha256(), size <= whole_bytes
    for (name, _), s in zip(files, stats, strict=True):
        digest.update(f"{name}\0{s.st_size}\0{'' if is_whole else s.st_mtime_ns}\n".encode())
    step = 1 if is_whole else max(1, len(files) // SAMPLED_FILES)
    paths = [path for _, path in files[::step]] + ([] if is_whole else [path for _, path in files[-1:]])
    for part in _hashes(paths, SAMPLED_BYTES if not is_whole else None):
        digest.update(part)
    return Content(digest.hexdigest(), len(files), size, is_whole)


def _hashes(paths: Sequence[Path], ends: int | None) -> Iterator[bytes]:
    """SHA-256 of each file, or of its two ends; a chunk of files is one job, for most files are small."""
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and reading let other threads run
        yield from pool.map(lambda chunk: b"".join(_sha256(path, ends) for path in chunk), chunks)


def _sha256(path: Path, ends: int | None = None) -> bytes:
    with path.open("rb") as file:
        if ends is None:
            return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256(file.read(ends))
        file.seek(max(0, path.stat().st_size - ends))
        digest.update(file.read(ends))
        return digest.digest()


def walk(root: Path) -> Iterator[tuple[str, Path]]:
    """(path below root, path) of every file in a folder, sorted by the former; links are followed, hidden files passed over.

    Raises:
        ValueError: If links form a loop.
        OSError: If a folder is not readable.
    """
    yield from sorted(_below(root, "", ()), key=lambda found: found[0].split("/"))


def _below(folder: Path, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, Path]]:
    own = folder.stat()
    if (place := (own.st_dev, own.st_ino)) in above:
        raise ValueError(f"{folder}: links form a loop: it is one of the folders that it lies in.")
    with os.scandir(folder) as listing:
        entries = list(listing)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _below(Path(entry.path), f"{name}{entry.name}/", (*above, place))
        else:
            yield f"{name}{entry.name}", Path(entry.path)


@lru_cache(maxsize=64)
def folder_content(root: str, ignored: tuple[str, ...] = (), whole_bytes: int = WHOLE_BYTES) -> Content:
    """What all files in a folder hold, but for hidden ones and those of `ignored` names.

    Raises:
        ValueError: If links form a loop, or there is no file.
        OSError: If a file is not readable, or a link leads nowhere.
    """
    files = [(name, path) for name, path in walk(Path(root).expanduser()) if path.name not in ignored]
    if not files:
        raise ValueError(f"{root}: holds no files.")
    return content_of(files, whole_bytes=whole_bytes)


@lru_cache(maxsize=256)
def set_hash(path: str, ignored: tuple[str, ...] = ()) -> str:
    """Content of a distilled set or label store: a folder, or a file with what is read beside it.

    Beside a file of images are read a file of labels and one of a learned rate of the same name; pictures of un-whitened images
    say how its pixels are to be understood.

    Raises:
        ValueError: If there is no such file or folder, or a folder is empty.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return folder_content(str(place), ignored).key
    rate = place.with_name(place.name.replace("images", "lr"))
    beside = [labels_beside(place), rate if rate != place and rate.is_file() else None]
    hashes = [file_hash(str(other)) for other in beside if other is not None]
    is_whitened = "images" in place.name and any(place.parent.glob("images_zca_*.pt"))
    return content_hash([file_hash(path), *hashes, is_whitened])


#: Files that torchvision reads of data with a name, below its root.
RAW_FILES: Final = {
    "cifar10": "cifar-10-batches-py/*",
    "cifar100": "cifar-100-python/*",
    "mnist": "MNIST/raw/*-ubyte",
    "fashionmnist": "FashionMNIST/raw/*-ubyte",
    "svhn": "t*_32x32.mat",
}


@lru_cache(maxsize=16)
def named_content(name: str, root: str) -> str | None:
    """Content of the files of data with a name; None where there are none yet. Those of a tree (imagenette): of the tree.

    Args:
        name: A key of RAW_FILES.
        root: Where torchvision's files lie.

    Raises:
        OSError: If a file is not readable.
    """
    folder = Path(root).expanduser()
    files = [path for path in sorted(folder.glob(RAW_FILES[name])) if path.is_file() and not path.name.startswith(".")]
    return content_of([(str(path.relative_to(folder)), path) for path in files]).key if files else None
