"""Small files that would crash, fill the memory or never end: each is one message that names it."""

from __future__ import annotations

import io
import os
import pickle
import signal
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.home import write_bytes
from orchestrator.inspect import inspect_file
from search_spaces import ConfigError, load_space
from tests.conftest import TINY
from trainables.arrays import new_entry, only_maker
from trainables.documents import read_yaml
from trainables.isolated import look_apart
from trainables.sidecar import read_sidecar
from trainables.unpickling import read_arrays, safe_load


def torch_file(path: Path, content: bytes) -> Path:
    """A file of torch.save whose pickle is replaced."""
    torch.save({"x": torch.zeros(1)}, path)
    made = path.with_name(f"hostile-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, content if entry.filename.endswith("data.pkl") else old.read(entry))
    return made


def dtype_pickle(*state: Any, name: str = "i8") -> bytes:
    """numpy.dtype(name, False, True) with a state that the file chooses."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, protocol=2)
    pickler.dump(state)
    built = out.getvalue()[2:-1]
    make = b"cnumpy\ndtype\n(X" + len(name).to_bytes(4, "little") + name.encode() + b"\x89\x88tR"
    return b"\x80\x02" + make + built + b"b."


HOSTILE_STATES: tuple[tuple[Any, ...], ...] = (
    (3, "<", None, ("f0",), {"f0": 1}, 2**31 - 1, 2**31 - 1, 63),
    (4, "|", None, None, None, 10**9, 8, 63, {"x": 1}),
    (3, "<", ("i8", (2**40,)), None, None, -1, -1, 0),
    (3, "nonsense", None, None, None, -1, -1, 0),
    (3,),
    (),
)


@pytest.mark.parametrize("state", HOSTILE_STATES)
def test_a_dtype_with_a_state_of_its_own_is_refused(state: tuple[Any, ...], tmp_path: Path) -> None:
    path = torch_file(tmp_path / "x.pt", dtype_pickle(*state))
    with pytest.raises(ValueError, match=r"hostile-x.pt: .*numpy.dtype"):
        safe_load(path)


@pytest.mark.parametrize("name", ["O", "V8", "S1000000000", "M8", "i8,i8", "U9"])
def test_only_dtypes_of_numbers_are_taken(name: str, tmp_path: Path) -> None:
    path = torch_file(tmp_path / "x.pt", dtype_pickle(3, "<", None, None, None, -1, -1, 0, name=name))
    with pytest.raises(ValueError, match=r"numpy.dtype"):
        safe_load(path)


@pytest.mark.parametrize("value", [np.float64(0.1), np.float32(2.5), np.int64(-3), np.uint8(7), np.bool_(True)])
def test_numpys_scalars_are_read_as_numbers(value: Any, tmp_path: Path) -> None:
    torch.save({"acc": value, "big": np.dtype(">i4").type(5)}, tmp_path / "x.pt")
    found = safe_load(tmp_path / "x.pt")
    assert found["acc"] == value
    assert isinstance(found["acc"], bool | int | float)


def zip_bomb(path: Path) -> None:
    """5 GB of zeros in 5 MB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (5 * 2**30 // 3072, 32, 32, 3)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w", force_zip64=True) as file,
    ):
        file.write(header.getvalue())
        for _ in range(5 * 2**4):
            file.write(bytes(2**26))


def lying_header(path: Path) -> None:
    """A shape of which the file has nothing."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 3, 32, 32)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", header.getvalue())
        archive.writestr("label.npy", header.getvalue())


def damaged_header(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", b"\x93NUMPY\x01\x00\x20\x00" + b"(" * 32)


@pytest.mark.parametrize("build", [lying_header, damaged_header])
def test_an_archive_that_says_more_than_it_has_is_refused(build: Callable[[Path], None], tmp_path: Path) -> None:
    build(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"x.npz: "):
        read_arrays(tmp_path / "x.npz")


def test_an_archive_that_unpacks_to_gigabytes_is_refused_by_its_directory(tmp_path: Path) -> None:
    zip_bomb(tmp_path / "x.npz")
    started = time.monotonic()
    with pytest.raises(ValueError, match="bytes that unpack to 5"):
        read_arrays(tmp_path / "x.npz")
    assert time.monotonic() - started < 1


def expanded(path: Path) -> None:
    torch.save(
        {"dataset": "x", "data": torch.zeros(1, 3, 32, 32).expand(10**9, 3, 32, 32), "label": torch.zeros(1)}, path
    )


def sparse(path: Path) -> None:
    content = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**12,), check_invariants=True)
    torch.save(content, path)


def deep(path: Path) -> None:
    content: list[Any] = []
    for _ in range(200):
        content = [content]
    torch.save(content, path)


@pytest.mark.parametrize("build", [expanded, sparse, deep])
def test_tensors_that_are_more_than_their_bytes_are_refused(build: Callable[[Path], None], tmp_path: Path) -> None:
    build(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt: "):
        safe_load(tmp_path / "x.pt")


def test_a_container_in_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"x": torch.zeros(1)}
    content["self"] = content
    torch.save(content, tmp_path / "x.pt")
    assert safe_load(tmp_path / "x.pt")["x"] == 0


def png_bomb(path: Path) -> None:
    """Whose header says 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    size = (30_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + b"\x08\x02\x00\x00\x00")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""))


def test_an_image_of_a_billion_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    png_bomb(tmp_path / "1" / "1.png")
    with pytest.raises(ConfigError, match=r"1.png"):
        inspect_file(tmp_path, full=True, stated=[])


YAML_BOMBS = {
    "merge": "a: &a {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [*a, *a]}}\n" for i in range(3)),
    "merges": "x0: &x0 {a: 1}\n"
    + "".join(f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 9)}]}}\n" for i in range(1, 14)),
    "aliases": "x0: &x0 [1, 1]\n" + "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    "itself": "&a [*a]",
    "keys": "{" + ", ".join(f"k{i}: 1" for i in range(90_000)) + "}",
    "deep": "[" * 5000 + "]" * 5000,
    "date": "a: 2026-13-45",
    "time": "a: 2026-01-01 99:99:99",
    "number": "a: " + "9" * 5000,
    "hexadecimal": "a: 0x" + "f" * 5000,
    "base-60": "a: 1" + ":59" * 5000,
    "binary-key": "? 0b" + "1" * 20_000 + "\n: 1",
    "65-bits": f"a: {2**64}",
    "float": "a: !!float x",
    "int": "a: !!int ''",
    "null-key": "? [1, 2]\n: 3",
    "object": "!!python/object/apply:os.system ['true']",
    "twice": "a: 1\na: 2",
}


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_yaml_that_grows_or_cannot_be_made_is_one_message_everywhere(name: str, tmp_path: Path) -> None:
    """In a space, a sidecar, --set and inspect --set: one loader."""
    text, started = YAML_BOMBS[name], time.monotonic()
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_yaml(text)
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"space.yaml"):
        load_space(tmp_path / "space.yaml")
    (tmp_path / "lossatlas.yaml").write_text(text[:99_000])
    with pytest.raises(ValueError, match=r"lossatlas.yaml"):
        read_sidecar(tmp_path)
    with pytest.raises(ConfigError, match=r"--set fixed.width="):
        load_space(TINY, [f"fixed.width={text}"])
    assert time.monotonic() - started < 60


def test_aliases_in_moderation_are_taken() -> None:
    assert read_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


def test_a_crash_in_a_reader_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"x")
    for harm, told in {
        lambda: os.kill(os.getpid(), signal.SIGSEGV): "reading it crashed",
        lambda: bytearray(64 * 2**30): "needs more than 4.0 GiB",
        lambda: os._exit(7): "reading it crashed",
        lambda: {"a": 1 / 0}: "ZeroDivisionError",
        lambda: {"a": 16**5000}: "limit",
        lambda: {"a": object()}: "not readable",
    }.items():
        with pytest.raises(ValueError, match=told):
            look_apart(path, harm)
    assert look_apart(path, lambda: {"a": [1]}) == {"a": [1]}


def test_a_reader_without_an_end_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.isolated.LEAST_SECONDS", 0.2)
    (tmp_path / "x.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="not read within"):
        look_apart(tmp_path / "x.pt", lambda: time.sleep(100))


@pytest.mark.parametrize(("umask", "folder_mode", "file_mode"), [(0o027, 0o750, 0o640), (0o077, 0o700, 0o600)])
def test_entries_are_for_whom_the_umask_says(umask: int, folder_mode: int, file_mode: int, tmp_path: Path) -> None:
    """Two users of a group share a cache."""
    before = os.umask(umask)
    try:
        with only_maker(tmp_path / "data-x"), new_entry(tmp_path / "data-x") as folder:
            np.save(folder / "x.npy", np.zeros(1))
        write_bytes(tmp_path / "plan.json", b"{}")
    finally:
        os.umask(before)
    assert (tmp_path / "data-x").stat().st_mode & 0o777 == folder_mode
    for file in (tmp_path / "data-x" / "x.npy", tmp_path / "plan.json"):
        assert file.stat().st_mode & 0o777 == file_mode
