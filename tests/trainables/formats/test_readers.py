"""Every published layout is read as it was meant, and damaged twins are refused with one clear message."""

from __future__ import annotations

import itertools
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.formats import builders
from tests.trainables.formats.builders import DEFECTS, IPC, SETS, SIZE
from trainables.formats.inspect import inspect_path
from trainables.formats.read import read_distilled, unpack
from trainables.formats.recognise import recognise_path

NAMES = ("ape", "cat", "zebra")


def read(path: Path, given: dict[str, Any], classes: tuple[str, ...] = NAMES, size: int = SIZE) -> Any:
    return read_distilled(path, given, classes=classes, size=size)


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_recognised_and_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    expected, build, given = SETS[name]
    path = build(tmp_path, None)
    facts = inspect_path(path)
    assert (facts["kind"], facts["format"]) == ("distilled", expected)
    classes = 11 if name == "d4m" else 3
    assert set(facts["asks"]) <= set(given), "whatever it asks for, a user can state"
    found = read(path, given, tuple(f"c{i}" for i in range(11)) if classes == 11 else NAMES)
    assert found.images.shape == (classes * IPC, 3, SIZE, SIZE)
    assert found.hard.bincount().tolist() == [IPC] * classes
    assert facts["images"]["shape"] == list(found.images.shape)


@pytest.mark.parametrize("name", SETS)
def test_what_a_file_cannot_tell_is_asked_for_by_key(name: str, tmp_path: Path) -> None:
    _, build, given = SETS[name]
    path = build(tmp_path, None)
    asked = recognise_path(path).asks
    needed = [key for key in given if key not in ("ipc", "label_kind") or key in asked]
    for key in needed:
        left_out = {k: v for k, v in given.items() if k != key}
        if not asked:
            continue
        with pytest.raises(ValueError, match=f"state .*{key}: "):
            read(path, left_out, ("other", "names", "here"))


@pytest.mark.parametrize(("name", "defect"), DEFECTS)
def test_a_damaged_twin_is_refused_with_one_message(name: str, defect: str, tmp_path: Path) -> None:
    _, build, given = SETS[name]
    path = build(tmp_path, defect)
    classes = tuple(f"c{i}" for i in range(11)) if name == "d4m" else NAMES
    with pytest.raises(ValueError, match=DEFECTS[name, defect]) as raised:
        read(path, given, classes)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value), "the message names the file"


@pytest.mark.parametrize("name", SETS)
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    _, build, given = SETS[name]
    path = build(tmp_path, None)
    victim = path if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())[0]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"not a readable|damaged image|not an image") as raised:
        read(path, given, tuple(f"c{i}" for i in range(11)) if name == "d4m" else NAMES)
    assert victim.name in str(raised.value)


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["torch", "pickle", "npz", "batch"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = tmp_path / {"npz": "step1.npz", "batch": "epoch_0/batch_0.tar"}.get(kind, "data.pt")
    path.parent.mkdir(exist_ok=True)
    if kind == "npz":
        np.savez(path, image=np.array([Malicious(target)], dtype=object))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious(target)))
    else:
        torch.save({"dataset": "x", "data": Malicious(target)}, path)
    with pytest.raises(ValueError, match=r"refused|not a readable"):
        inspect_path(tmp_path if kind == "batch" else path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"nf": [], "label": torch.zeros(3)}, "neural-field distilled set"),
        ({"images_train": torch.zeros(1), "labels_train": 0, "images_val": 0, "labels_val": 0}, "real data"),
        ({"images_val": torch.zeros(1), "labels_val": torch.zeros(1)}, "reference test set"),
        (torch.tensor(0.01), "a learned rate|a single number"),
        (torch.zeros(12, 3), "perhaps labels"),
        ("text", "not recognised"),
    ],
)
def test_what_is_no_distilled_set_is_refused_by_name(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message):
        inspect_path(tmp_path / "x.pt")


def test_a_poster_and_an_unwhitened_picture_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.zeros(1, 3, 64, 64), tmp_path / "best_poster.pt")
    with pytest.raises(ValueError, match=r"poster \(PoDD\)"):
        inspect_path(tmp_path / "best_poster.pt")
    builders.datm(tmp_path, None)
    torch.save(builders.hard(), tmp_path / "labels_zca_5000.pt")
    with pytest.raises(ValueError, match=r"un-whitened picture.*train on images_5000\.pt"):
        inspect_path(tmp_path / "images_zca_5000.pt")


def test_numbers_that_are_not_padded_count_as_numbers(tmp_path: Path) -> None:
    """Text order would make folder 10 class 2."""
    found = read(builders.d4m(tmp_path, None), {}, tuple(f"c{i}" for i in range(11)))
    for image, label in zip(found.images, found.hard, strict=True):
        assert int(image[0, 0, 0]) == 20 * int(label) + 10
    assert found.listed is not None
    assert found.hard[found.listed][4:12].tolist() == [1] * 4 + [10] * 4, "ImageFolder's order is another"


def test_named_folders_are_matched_by_name_with_the_real_classes(tmp_path: Path) -> None:
    """Written in the order zebra, ape, cat; the real data count ape, cat, zebra."""
    path = builders.generated(tmp_path, None)
    by_name = read(path, {})
    assert {(int(i[0, 0, 0]), int(y)) for i, y in zip(by_name.images, by_name.hard, strict=True)} == {
        (10, 2),
        (30, 0),
        (50, 1),
    }
    with pytest.raises(ValueError, match="class_order contradicts the real data"):
        read(path, {"class_order": ["zebra", "ape", "cat"]})
    stated = read(path, {"class_order": ["zebra", "ape", "cat"]}, ("x", "y", "z"))
    assert {(int(i[0, 0, 0]), int(y)) for i, y in zip(stated.images, stated.hard, strict=True)} == {
        (10, 0),
        (30, 1),
        (50, 2),
    }


def test_a_bare_tensor_in_another_class_order_is_put_in_order(tmp_path: Path) -> None:
    path = builders.bare(tmp_path, None)
    given = SETS["bare"][2] | {"class_order": ["zebra", "ape", "cat"]}
    assert read(path, given).hard.tolist() == [2] * 4 + [0] * 4 + [1] * 4
    with pytest.raises(ValueError, match="class_order must hold the names of the real classes"):
        read(path, given | {"class_order": ["lion", "ape", "cat"]})


def test_probabilities_and_logits_are_told_apart_by_their_rows(tmp_path: Path) -> None:
    kinds = {}
    for name in ("tesla", "datm"):
        (tmp_path / name).mkdir()
        kinds[name] = read(SETS[name][1](tmp_path / name, None), {"pixel_space": "zca"}).label_kind
    assert kinds == {"tesla": "prob", "datm": "logit"}


def test_a_learned_rate_and_the_proof_of_whitening_are_found_beside_the_images(tmp_path: Path) -> None:
    facts = inspect_path(builders.datm(tmp_path, None))
    assert facts["details"]["learned_lr"] == pytest.approx(0.01)
    assert facts["pixel_space"] == "zca"
    assert facts["asks"] == []
    assert inspect_path(tmp_path)["format"] == "datm", "the folder is as good as the file"


def test_the_latest_iteration_of_a_folder_is_taken(tmp_path: Path) -> None:
    builders.ftd_iteration(tmp_path, None)
    latest = recognise_path(tmp_path)
    assert torch.equal(latest.images, builders.normalised())  # type: ignore[arg-type]


def test_every_experiment_of_a_dc_file_can_be_chosen(tmp_path: Path) -> None:
    given = SETS["dc"][2]
    path = builders.dc(tmp_path, None)
    last, first = read(path, given), read(path, given | {"experiment": 0})
    assert torch.equal(last.images, -first.images)
    with pytest.raises(ValueError, match="experiment must be 0 to 1, got 2"):
        read(path, given | {"experiment": 2})


def test_packed_images_are_unpacked_in_reading_order() -> None:
    """A 4 x 4 image of four constant tiles becomes four constant images."""
    tiles = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    unpacked = unpack(tiles.expand(1, 3, 4, 4), 2)
    assert unpacked.shape == (4, 3, 4, 4)
    assert [float(image.mean()) for image in unpacked] == [1, 2, 3, 4]


def test_a_side_that_the_factor_does_not_divide_is_padded_as_idc_does() -> None:
    """Factor 3 of 4 pixels: tiles of 2, the last row and column of tiles half grey."""
    unpacked = unpack(torch.ones(1, 3, 4, 4), 3)
    assert unpacked.shape == (9, 3, 4, 4)
    assert float(unpacked[0].mean()) == 1
    assert float(unpacked[8].mean()) == 0.5


def test_packed_sets_have_factor_squared_as_many_images(tmp_path: Path) -> None:
    found = read(builders.idc(tmp_path, None), {"decode_factor": 2})
    assert found.hard.bincount().tolist() == [16] * 3


def test_a_smaller_set_is_the_first_images_of_each_class(tmp_path: Path) -> None:
    path = builders.sre2l(tmp_path, None)
    two, four = read(path, {"ipc": 2}), read(path, {})
    assert two.hard.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(two.images[2:4], four.images[4:6])
    with pytest.raises(ValueError, match="ipc: class 0 has 4 images, got 5"):
        read(path, {"ipc": 5})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gift", {"pixel_space": "meanstd", "mean": [0.5] * 3, "std": [0.5] * 3}, "which is raw01"),
        ("mtt", {"pixel_space": "raw01"}, "pixel_space: raw01, but pixels are"),
        ("mtt", {"mean": [0.4], "std": [0.2]}, r"mean: one number per channel \(3\)"),
        ("rded", {"pixel_space": "raw01"}, "its pixels are bytes"),
        ("kip", {"pixel_space": "zca"}, "KIP whitens by a recipe of its own"),
        ("datm", {"label_kind": "prob"}, "rows are negative or do not sum to 1"),
        ("tesla", {"label_kind": "logit"}, "every row is a distribution"),
        ("rded", {"decode_factor": 2}, "decode_factor: only for sets that pack images"),
        ("datm", {"pixel_space": "meanstd"}, "state mean: "),
    ],
)
def test_stated_facts_that_the_pixels_contradict_are_refused(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    _, build, given = SETS[name]
    with pytest.raises(ValueError, match=message):
        read(build(tmp_path, None), given | change)


def test_another_size_or_number_of_classes_than_the_real_data_is_refused(tmp_path: Path) -> None:
    path = builders.gift(tmp_path, None)
    with pytest.raises(ValueError, match="images of 8 pixels, the real data have 32"):
        read(path, {}, size=32)
    with pytest.raises(ValueError, match="3 classes, the real data have 4"):
        read(path, {}, (*NAMES, "dog"))


def test_a_large_folder_is_held_as_bytes(tmp_path: Path) -> None:
    found = read(builders.rded(tmp_path, None), {}, size=SIZE)
    assert found.images.dtype == torch.uint8
    assert found.pixel_space == "uint8"


def test_inspect_samples_200_images_unless_told_otherwise(tmp_path: Path) -> None:
    folder = builders.rded(tmp_path, None) / "syn_data" / "00000"
    first = sorted(folder.iterdir())[0]
    for number in range(300):
        shutil.copy(first, folder / f"class00000_id{number + 100:05d}.jpg")
    sampled, full = inspect_path(tmp_path / "exp"), inspect_path(tmp_path / "exp", full=True)
    assert sampled["images"]["sampled"]
    assert not full["images"]["sampled"]
    assert sampled["images"]["shape"][0] == 312
    assert inspect_path(tmp_path / "exp")["images"] == sampled["images"], "the sample is seeded"
    assert "sets are balanced" in sampled["problems"][0]
    assert sampled["ipc"] is None


def test_hard_labels_of_soft_sets_are_their_argmax_if_so_stated(tmp_path: Path) -> None:
    """Row 0 says class 2 although its position is class 0."""
    path = builders.datm(tmp_path, None)
    labels = builders.logits()
    labels[0] = torch.tensor([0.0, 0.0, 9.0])
    torch.save(labels, tmp_path / "labels_best.pt")
    assert read(path, {}).hard[0] == 0
    assert read(path, {"label_kind": "hard"}).hard[0] == 2


def test_sorted_tensors_are_in_the_order_of_the_sorted_names(tmp_path: Path) -> None:
    """The real data count zebra, ape, cat; positions 0, 1, 2 are ape, cat, zebra."""
    given = SETS["bare"][2] | {"class_order": "sorted"}
    found = read(builders.bare(tmp_path, None), given, ("zebra", "ape", "cat"))
    assert found.hard.tolist() == [1] * 4 + [2] * 4 + [0] * 4


def test_stray_files_and_folders_do_not_matter(tmp_path: Path) -> None:
    path = builders.sre2l(tmp_path, None)
    (path / "new000" / "._class000_id000.jpg").write_bytes(b"apple")
    (path / "logs").mkdir()
    (path / "README.md").write_text("hello")
    (path / ".cache").mkdir()
    assert inspect_path(path)["classes"] == 3


def test_several_results_in_a_folder_are_asked_about_and_one_is_taken(tmp_path: Path) -> None:
    builders.dc(tmp_path, None)
    given = SETS["dc"][2] | {"experiment": 0}
    assert read(tmp_path, given).format == "dc"
    shutil.copy(tmp_path / "res_DC_CIFAR10_ConvNet_4ipc.pt", tmp_path / "res_DC_CIFAR100_ConvNet_4ipc.pt")
    with pytest.raises(ValueError, match="several results; give one of"):
        inspect_path(tmp_path)


def test_soft_labels_follow_the_experiment_and_are_never_reordered(tmp_path: Path) -> None:
    """The first of two experiments has other soft labels than the last, which is read without a choice."""
    given = SETS["dc"][2]
    runs = [[builders.normalised(), builders.logits() + shift] for shift in (1.0, 2.0)]
    torch.save({"data": runs, "accs_all_exps": {}}, tmp_path / "res.pt")
    assert torch.equal(read(tmp_path / "res.pt", given | {"experiment": 0}).soft, builders.logits() + 1)
    assert torch.equal(read(tmp_path / "res.pt", given).soft, builders.logits() + 2)
    with pytest.raises(ValueError, match="class_order cannot reorder soft labels"):
        read(tmp_path / "res.pt", given | {"class_order": "sorted"}, ("zebra", "ape", "cat"))


@pytest.mark.parametrize("name", ["bare", "rded", "gift"])
def test_fewer_images_per_class_are_the_first_of_more(name: str, tmp_path: Path) -> None:
    """So that sets are nested along an axis of images per class; a bare tensor has to say how many it has."""
    _, build, given = SETS[name]
    path = build(tmp_path, None)
    stated = {"file_ipc": IPC} if name == "bare" else {}
    sets = [read(path, given | stated | {"ipc": ipc}) for ipc in (1, 2, IPC)]
    for small, large in itertools.pairwise(sets):
        assert small.hard.bincount().tolist() == [len(small.hard) // 3] * 3
        rows = {(int(y), x.numpy().tobytes()) for x, y in zip(large.images, large.hard, strict=True)}
        assert all((int(y), x.numpy().tobytes()) in rows for x, y in zip(small.images, small.hard, strict=True))
    again = read_distilled(path, given | stated | {"ipc": 2}, classes=NAMES, size=SIZE, scratch=tmp_path / "scratch")
    assert torch.equal(again.images, sets[1].images)
    assert not [*(tmp_path / "scratch").glob("*")], "nothing is left behind"


def test_a_bare_tensor_without_its_own_number_is_as_large_as_ipc_says(tmp_path: Path) -> None:
    _, build, given = SETS["bare"]
    path = build(tmp_path, None)
    with pytest.raises(ValueError, match="6 classes, the real data have 3"):
        read(path, given | {"ipc": 2})
    with pytest.raises(ValueError, match=r"ipc \(file_ipc, where that is given\): must divide the 12 images, got 5"):
        read(path, given | {"file_ipc": 5})


def test_numbered_folders_are_the_real_classes_of_those_names(tmp_path: Path) -> None:
    """Real folders 0 to 10, whose labels data.class_order turned round; folder 3 is class 3, which has label 7."""
    names = tuple(str(10 - k) for k in range(11))
    found = read(builders.d4m(tmp_path, None), {}, names)
    for image, label in zip(found.images, found.hard, strict=True):
        assert int(image[0, 0, 0]) == 20 * (10 - int(label)) + 10


def test_numbered_folders_need_a_statement_where_the_real_classes_have_an_order_of_their_own(tmp_path: Path) -> None:
    path, names = builders.d4m(tmp_path, None), ("zebra", *(f"c{k}" for k in range(10)))
    fit: dict[str, Any] = {"classes": names, "size": SIZE, "is_ordered": True}
    with pytest.raises(
        ValueError, match=r"class folders are numbers, and data\.class_order gives the real classes an order"
    ):
        read_distilled(path, {}, **fit)
    by_place = read_distilled(path, {"class_order": "index"}, **fit)
    in_order = read_distilled(path, {"class_order": "sorted"}, **fit)
    pixels = {int(y): int(i[0, 0, 0]) for i, y in zip(in_order.images, in_order.hard, strict=True)}
    assert pixels[0] == 20 * 10 + 10, "zebra is the last of the sorted names, and the first class"
    assert {int(y): int(i[0, 0, 0]) for i, y in zip(by_place.images, by_place.hard, strict=True)}[0] == 10


def test_numbered_folders_without_0_are_names(tmp_path: Path) -> None:
    """Classes 1 to 10 here and in the real data; `sorted` would not say whether 10 comes before 2."""
    path = builders.d4m(tmp_path, None)
    shutil.rmtree(path / "0")
    real = tuple(str(k) for k in range(10, 0, -1))
    found = read(path, {}, real)
    assert [20 * int(real[y]) + 10 for y in found.hard] == [int(image[0, 0, 0]) for image in found.images]
    others = tuple(f"c{k}" for k in range(10))
    with pytest.raises(
        ValueError, match=r"state class_order: sorted \(names in sorted order\), or the list of the folders'"
    ):
        read(path, {}, others)
    with pytest.raises(ValueError, match="as text 10 comes before 2"):
        read(path, {"class_order": "sorted"}, others)


def test_names_that_differ_in_case_and_dashes_are_the_same_classes(tmp_path: Path) -> None:
    found = read(builders.generated(tmp_path, None), {}, ("Ape", "CAT", "zebra"))
    assert {(int(i[0, 0, 0]), int(y)) for i, y in zip(found.images, found.hard, strict=True)} == {
        (10, 2),
        (30, 0),
        (50, 1),
    }


def test_a_stated_order_cannot_make_a_folder_another_real_class_than_its_name(tmp_path: Path) -> None:
    """`lynx` is no folder, so an order has to be stated; but cat is a real class, and not the first."""
    path = builders.generated(tmp_path, None)
    with pytest.raises(ValueError, match="class_order makes the folder cat the class lynx, but cat is the real class"):
        read(path, {"class_order": ["cat", "zebra", "ape"]}, ("lynx", "cat", "dog"))
    read(path, {"class_order": ["zebra", "cat", "ape"]}, ("lynx", "cat", "dog"))


def resnet20() -> torch.nn.Module:
    """A CIFAR ResNet of three stages of three blocks, shortcuts without weights."""
    model = torch.nn.Module()
    model.conv1 = torch.nn.Conv2d(3, 16, 3)
    for stage in (1, 2, 3):
        blocks = [torch.nn.Module() for _ in range(3)]
        for block in blocks:
            block.conv1, block.conv2 = torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 3)
        setattr(model, f"layer{stage}", torch.nn.Sequential(*blocks))
    model.linear = torch.nn.Linear(4, 10)
    return model


def lenet() -> torch.nn.Module:
    convolutions = [torch.nn.Conv2d(1, 6, 5), torch.nn.Conv2d(6, 16, 5)]
    return torch.nn.Sequential(*convolutions, *(torch.nn.Linear(a, b) for a, b in ((256, 120), (120, 84), (84, 10))))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (resnet20, r"ResNet-20 for CIFAR, of 3 stages, without \(option A\) weights"),
        (lenet, "a LeNet"),
        (
            lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 10)),
            "small network of 1 convolutions",
        ),
        (lambda: torch.nn.Linear(3, 4), r"no known network has its keys \(weight \(4, 3\), bias"),
    ],
)
def test_a_checkpoint_that_is_not_loaded_is_described(network: Any, said: str, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "net.pth")
    facts = inspect_path(tmp_path / "net.pth")
    assert facts["kind"] == "checkpoint"
    assert re.search(said, facts["problems"][0])
