from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from search_spaces import ConfigError, load_space, shipped_spaces
from search_spaces.domains import parse_domain


def problems(space: Any, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_space(space, overrides)
    return caught.value.problems


def test_shipped_spaces_load() -> None:
    assert "digits" in shipped_spaces()
    for name in shipped_spaces():
        assert load_space(name).settings.name == name


def test_fractions_and_exponents_are_numbers(tiny: dict[str, Any]) -> None:
    space = load_space(tiny, ["scientific.refinement=[0, 1/11]", "fixed.weight_decay=5e-4", "fixed.epochs=1e2"])
    assert space.settings.fixed.epochs == 100
    assert space.axes["refinement"] == (0, pytest.approx(1 / 11))
    assert space.settings.fixed.weight_decay == 5e-4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nuisance.lr={uniform: [0.1, .inf]}", "uniform takes finite numbers, got [0.1, inf]"),
        ("nuisance.lr={loguniform: [.nan, 1]}", "loguniform takes finite numbers, got [nan, 1]"),
        ("nuisance.lr={uniform: [-2, -1]}", "nuisance.lr: must be greater than 0, got -2"),
        ("scientific.temperature={}", "an axis is a list of at least one value, got {}"),
    ],
)
def test_a_range_that_is_wrong_is_one_message(override: str, message: str, tiny: dict[str, Any]) -> None:
    (problem,) = problems(tiny, override)
    assert message in problem


def test_more_images_per_class_than_a_tree_or_a_folder_has_are_refused(tiny: dict[str, Any], tree: Path) -> None:
    """12 training images per class, a quarter of which is held out."""
    tiny["data"] = {"real": str(tree), "image_size": 8, "distilled": {"ipc": 9}}
    assert load_space(tiny).settings.data.distilled.ipc == 9
    assert (
        "must be at most 9 (training images of the smallest class), got 10"
        in problems(tiny, "data.distilled.ipc=10")[0]
    )
    assert load_space(tiny, ["data.distilled.ipc=12", "validation.from=evaluation"])
    mosaic = "data.distilled={method: rded, factor: 2, ipc: 3}"
    assert "`ipc * factor^2` must be at most 9" in problems(tiny, mosaic)[0]
    folder = f"data.distilled={{path: {tree / 'train'}, ipc: 13}}"
    assert "must be at most 12, the images in the smallest class folder, got 13" in problems(tiny, folder)[0]


def test_a_set_made_of_real_images_needs_some_to_train_on(tiny: dict[str, Any], tree: Path) -> None:
    shutil.rmtree(tree / "train")
    tiny["data"] = {"real": str(tree), "image_size": 8, "distilled": {"ipc": 1}}
    assert "random needs real training images; there is no train/" in problems(tiny)[0]


def test_the_digits_smallest_class_is_as_the_settings_say() -> None:
    from sklearn.datasets import load_digits as scikit_learns

    from search_spaces.files import training_images_per_class
    from trainables.data.real import load_digits
    from trainables.names import TRAINING_IMAGES

    assert TRAINING_IMAGES["digits"][0] == len(scikit_learns().target) - len(load_digits(0.5).test)
    for frac in (0.25, 0.5, 0.1):
        settings = load_space("digits", [f"validation.frac={frac}"]).settings
        counts = load_digits(frac).train.labels.bincount()
        assert 0 <= training_images_per_class(settings.data, settings.validation) - int(counts.min()) <= 1


def test_null_removes_a_key(tiny: dict[str, Any]) -> None:
    assert load_space(tiny, ["fixed.width=null"]).settings.fixed.width == 128


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fixed.widht=3", "fixed.widht: unknown key 'widht' (did you mean 'width'?)"),
        ("colour=3", "colour: unknown key 'colour'; valid: ['name', 'data'"),
        ("scientific.loss=[k1]", "scientific.loss[0]: unknown loss 'k1'; valid: ['ce'"),
        ("scientific.loss=null", "scientific.loss: missing"),
        ("scientific.loss=[kl, kl]", "arm 'kl' is given twice"),
        ("scientific.loss=[{a: {loss: ce, temperature: 2}}]", "ce has no such knob"),
        (
            "scientific.loss=[{a: {loss: kl, temperature: -2}}]",
            "scientific.loss[0].temperature: must be greater than 0",
        ),
        ("scientific.loss=[{a: {loss: kl, temperature: []}}]", "an empty list has no values"),
        ("scientific.loss=[3]", "give a loss name or"),
        ("scientific.loss=[{'': {loss: kl}}]", "give a loss name or"),
        ("nuisance={draws: 4}", "nuisance: draws alone tune nothing; add a factor, such as lr"),
        ("nuisance={momentum: {uniform: [0.1, 0.9]}}", "nuisance.momentum: adamw has none, so it cannot be tuned"),
        ("fixed.warmup_epochs=8", "warmup_epochs: must be less than epochs, got 8 of 8"),
        ("scientific.optimizer=[adamx]", "scientific.optimizer[0]: must be 'adamw', 'sgd'"),
        ("fixed={student: resnet18_modified, norm: layer}", "norm: resnet18_modified has batch or instance"),
        ("teacher.model=convnet9", "teacher.model: must be one of convnet2, convnet3"),
        ("fixed={norm: group, width: 6}", "norm: group needs a width that 4 divides, got [6]"),
        ("scientific.temperature=[0]", "scientific.temperature[0]: must be greater than 0, got 0"),
        ("scientific.refinement=[0, 1.2]", "scientific.refinement[1]: must be less than 1, got 1.2"),
        ("scientific.temperature=[]", "an axis is a list of at least one value, got []"),
        ("scientific.temperature=4", "an axis is a list of at least one value, got 4"),
        ("scientific.temperature=[4, 4]", "values must differ"),
        ("scientific.colour=[1]", "scientific.colour: unknown key 'colour'"),
        ("scientific.width=[4]", "also given as fixed.width; a factor is either an axis or fixed"),
        ("scientific.data.distilled.ipc=[1]", "also given as data.distilled.ipc"),
        ("scientific.data.distilled.colour=[1]", "scientific.data.distilled.colour[0]: unknown key 'colour'"),
        ("nuisance.lr.loguniform=[0.1, 0.01]", "nuisance.lr: `low < high` must hold for loguniform, got [0.1, 0.01]"),
        ("nuisance.lr.loguniform=[0, 0.01]", "`low > 0` must hold for loguniform"),
        ("nuisance.lr.loguniform=[1]", "loguniform takes 2 numbers, got [1]"),
        ("nuisance.lr={normal: [0, 1]}", "nuisance.lr: not a domain"),
        ("nuisance.lr=[]", "an empty list has nothing to choose from"),
        ("nuisance.lr={uniform: [-1, 1]}", "nuisance.lr: must be greater than 0, got -1"),
        ("nuisance.lr={by: student, convnet2: {uniform: [1, 2]}}", None),
        ("scientific.epochs=[5, 10]", "scientific.epochs: cannot be an axis"),
        ("scientific.temperature=[null]", "values are numbers, words, true or false, got [None]"),
        ("scientific.data.distilled=[{ipc: 1}, {ipc: 2}]", "values are numbers, words, true or false"),
        ("scientific.data.distilled.ipc.foo=[1]", "data.distilled.ipc is not a mapping, so it has no 'foo'"),
        ("scientific.loss=[{x: {loss: kl, temperature: null}}]", "null is no value"),
        ("scientific.loss=[{x: {loss: [kl]}}]", "unknown loss ['kl']"),
        ("nuisance.draws=true", "nuisance.draws: must be a power of two"),
        ("nuisance.draws=131072", "up to 1024, got 131072"),
        ("nuisance.lr={by: [student], convnet2: {uniform: [1, 2]}}", "got ['student']"),
        ("nuisance.precision=[fp32, bf16]", "nuisance.precision: unknown key"),
        ("nuisance.views=[10, 20]", "nuisance.views: unknown key"),
        ("confirm=[shared]", "confirm: must contain best"),
        ("seed=-1", "seed: must be greater than or equal to 0, got -1"),
        ("fixed.student=convnet4", "student: convnet4 halves images more often than their 8 pixels allow"),
        ("teacher.model=convnet4", "teacher.model: convnet4 halves images"),
        ("nuisance.lr={by: colour, a: {uniform: [1, 2]}}", "nuisance.lr.by: unknown factor 'colour'"),
        (
            "nuisance.lr={by: temperature, 1: {uniform: [1, 2]}}",
            "a range depends on the loss or on a factor no loss owns",
        ),
        ("nuisance.temperature={uniform: [1, 2]}", "a loss knob is an axis, not a nuisance"),
        ("nuisance.colour={uniform: [1, 2]}", "nuisance.colour: unknown key 'colour'"),
        ("nuisance.width={randint: [1, 2]}", "nuisance.width: also given under fixed"),
        ("nuisance.draws=3", "nuisance.draws: must be a power of two"),
        ("nuisance={lr: [0.1, 0.2, 0.3], draws: 5}", "or 3 (each of the given values once), got 5"),
        ("fixed.schedule_milestones=[8]", "a whole number of epochs less than 8, got 8"),
        ("fixed.schedule_milestones=[1.5]", "a milestone is a fraction below 1 or a whole number of epochs"),
        ("fixed.schedule_milestones=[]", "fixed.schedule_milestones: List must have at least 1 item"),
        ("fixed={schedule: cosine, schedule_gamma: 0.5}", "schedule_gamma: cosine has none; leave it out"),
        ("fixed={schedule: step_half, schedule_milestones: [0.5]}", "schedule_milestones: step_half has none"),
        ("fixed.betas=[0.9]", "fixed.betas: List must have at least 2 items"),
        ("fixed.betas=[0.9, 1]", "fixed.betas"),
        ("fixed={optimizer: sgd, betas: [0.9, 0.95]}", "betas: sgd has none; leave it out"),
        ("protocol=paper", "protocol: paper compares at one fixed lr"),
        ("early_stopping.stratify=[colour]", "early_stopping.stratify: unknown factor 'colour'"),
        ("early_stopping.audit_frac=2", "early_stopping.audit_frac: must be less than or equal to 1, got 2"),
        ("replicates=0", "replicates: must be greater than or equal to 1, got 0"),
        ("fixed.width=true", "fixed.width: must be a valid integer, got True"),
        ("fixed.student=convnet9", "fixed.student: must be one of convnet2, convnet3"),
        ("resources.gpus=lots", "resources.gpus: must be 'auto' or must be a valid number, got 'lots'"),
        (
            "data.real=mnits",
            "data.real: must be one of digits, cifar10, cifar100, mnist, fashionmnist, svhn, imagenette, PATH/TO/TREE, got 'mnits'",
        ),
        ("data.real=./nowhere", "nowhere: an image tree has a folder test or val"),
        ("data.image_size=8", "data.image_size: not for digits, which has its own"),
        ("teacher=null", "teacher: missing"),
        ("name=a b", "name: String must match pattern"),
        ("replicates", "--set replicates: give KEY=VALUE"),
        ("replicates=[", "--set replicates=[: the value is not YAML"),
        ("replicates.x=1", "--set replicates.x=1: replicates is not a mapping"),
    ],
)
def test_one_problem_gives_one_message(override: str, message: str | None, tiny: dict[str, Any]) -> None:
    if message is None:
        load_space(tiny, [override])
        return
    (problem,) = problems(tiny, override)
    assert message.lower() in problem.lower()


def test_all_problems_are_reported_together(tiny: dict[str, Any]) -> None:
    found = problems(tiny, "fixed.widht=3", "scientific.loss=[k1]", "scientific.temperature=[0]", "replicates=-1")
    assert len(found) == 4


#: Nine lists, each with ten times the one before: a billion values in 400 bytes.
BOMB = "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert (
        "no space 'nowhere'; give a path to a YAML file or one of the shipped: ['dd-challenge', 'digits'"
        in problems("nowhere")[0]
    )
    for text, message in (
        ("a: [", "not readable as YAML"),
        ("- a", "a space is a mapping of keys, got list"),
        ("name: a\nname: b", "key 'name' is given twice"),
        ("\x00", "not readable as YAML"),
        ("a: &a [*a]", "with its aliases spelled out"),
        ("[" * 5000, "not readable as YAML"),
        (BOMB, "more than 100000 values, with its aliases spelled out"),
        ("#" * 1_000_001, "1000001 bytes; a space file has at most 1000000"),
    ):
        path = tmp_path / "space.yaml"
        path.write_text(text)
        assert message in problems(path)[0]


def test_the_given_content_is_not_changed(tiny: dict[str, Any]) -> None:
    load_space(tiny, ["fixed.width=9", "scientific.refinement=[0, 1/11]"])
    assert tiny["fixed"]["width"] == 4
    assert "refinement" not in tiny["scientific"]


def test_domains_map_the_unit_interval() -> None:
    assert parse_domain(["a", "b"]).at(0.99) == "b"
    assert parse_domain({"uniform": [1, 3]}).at(0.5) == 2
    assert parse_domain({"loguniform": [0.01, 1]}).at(0.5) == pytest.approx(0.1)
    assert [parse_domain({"randint": [0, 3]}).at(u) for u in (0.0, 0.5, 0.99)] == [0, 1, 2]
    assert parse_domain({"quniform": [0, 1, 0.25]}).at(0.6) == 0.5


def test_a_grid_that_could_not_be_enumerated_is_refused(tiny: dict[str, Any]) -> None:
    values = [1 + number / 1000 for number in range(400)]
    tiny["scientific"] |= {"temperature": values, "refinement": [value - 1 for value in values]}
    with pytest.raises(ConfigError, match="at most 100000 combinations of values, got 480000"):
        load_space(tiny)
    tiny["scientific"] |= {"temperature": [1.0 + number for number in range(2000)], "refinement": [0]}
    with pytest.raises(ConfigError, match="an axis has at most 1000 values, got 2000"):
        load_space(tiny)
