"""Invalid plans, dataset.json, splits or image labels of a preprocessed data set: the trainer reports them at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from refusal import refused

from nnunet_semcl.cli import main

if TYPE_CHECKING:
    from conftest import NNUNetFolders

    from nnunet_semcl.pretraining.trainer import PretrainingTrainer

CASES = [f"phantom_{number:03d}" for number in range(5)]
TRAIN, VAL = CASES[:4], CASES[4:]
NETWORK = ("architecture", "arch_kwargs")
PLANS = ("nnUNetTinyPlans.json", "configuration 2d")
GONE = object()


def changed(content: Any, path: tuple[str, ...], value: Any) -> Any:
    """The content with another value at the path; GONE removes the key."""
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def rewrite(file: Path, change: Callable[[Any], Any]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("batch_size",),
            GONE,
            ("the key 'batch_size' is missing", "a whole number from 1", "nnunet-semcl plan -d 999 --preset tiny"),
        ),
        (("batch_size",), "2", ("batch_size: '2' is not a whole number from 1 to 65536",)),
        (("batch_size",), 0, ("batch_size: 0 is not",)),
        (("patch_size",), GONE, ("the key 'patch_size' is missing",)),
        (("patch_size",), [64], ("patch_size: [64] is not a list of 2 or 3 whole numbers above 0",)),
        (("patch_size",), [64.0, 64.0], ("patch_size: [64.0, 64.0] is not",)),
        (("patch_size",), [63, 64], ("patch_size: 63 is not a multiple of 8, the product of the strides",)),
        (("spacing",), [float("nan"), 1.0], ("spacing: [nan, 1.0] is not a list of numbers above 0",)),
        (("spacing",), [1.0, 0.0], ("spacing: [1.0, 0.0] is not",)),
        (("spacing",), [1.0, 1.0, 1.0], ("spacing: [1.0, 1.0, 1.0] is not", "one for each axis of patch_size")),
        (("data_identifier",), GONE, ("the key 'data_identifier' is missing",)),
        (("data_identifier",), 3, ("data_identifier: 3 is not the name of a folder",)),
        (("data_identifier",), "../elsewhere", ("data_identifier: '../elsewhere' is not", "without its path")),
        (("architecture",), None, ("architecture: None is not an object with arch_kwargs",)),
        ((*NETWORK, "strides"), GONE, ("the key 'strides' is missing",)),
        (
            (*NETWORK, "strides"),
            [[1], [2]],
            ("strides: [[1], [2]] is not a list with 2 whole numbers above 0 for each stage",),
        ),
        ((*NETWORK, "features_per_stage"), [8], ("features_per_stage: [8] is not a list of 4 whole numbers above 0",)),
        (("inherits_from",), "2d", ("nnU-Net cannot read it", "Circular dependency", "Fix the plans")),
        (("inherits_from",), "3d_halfres", ("3d_halfres does not exist",)),
        (("inherits_from",), [1], ("nnU-Net cannot read it",)),
        (("semcl",), {"temprature": 0.1}, ('"semcl"', 'unknown key "temprature"')),
    ],
)
def test_plans(
    folders: NNUNetFolders,
    make_trainer: Callable[..., PretrainingTrainer],
    path: tuple[str, ...],
    value: object,
    words: tuple[str, ...],
) -> None:
    rewrite(folders.preprocessed / PLANS[0], lambda plans: changed(plans, ("configurations", "2d", *path), value))
    with refused(*(PLANS if "semcl" not in path else PLANS[1:]), *words):
        make_trainer().initialize()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("broken JSON",)),
        ('{"configurations": {', ("broken JSON",)),
        (
            "[]",
            (
                "no object 'configurations'",
                "Move the file away and create the plans again: nnUNetv2_plan_and_preprocess -d 999",
            ),
        ),
        ("null", ("no object 'configurations'",)),
        ('{"configurations": []}', ("no object 'configurations'",)),
        ('{"configurations": {"2d": null}}', ("configuration 2d: null is not an object of settings",)),
    ],
)
@pytest.mark.parametrize(
    "command", ["plan -d 999 --preset tiny -p Broken", "unlabelled -d 999 -i . -p Broken", "train 999 2d 0 -p Broken"]
)
def test_plans_that_a_command_reads(
    folders: NNUNetFolders,
    command: str,
    text: str,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["pytest"])
    monkeypatch.setattr(
        "torch.set_num_threads", lambda number: None
    )  # torch allows one call per process, nnU-Net calls it each time
    monkeypatch.setattr("torch.set_num_interop_threads", lambda number: None)
    monkeypatch.chdir(folders.root)
    (folders.preprocessed / "Broken.json").write_text(text)
    assert main([*command.split(), *(["-device", "cpu"] if command.startswith("train") else [])]) == 1
    message = capsys.readouterr().err
    assert all(word in message for word in ("Broken.json", *words)), message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("labels",),
            GONE,
            ("dataset.json: the key 'labels' is missing", "nnUNetv2_plan_and_preprocess -d 999 --clean"),
        ),
        (("labels",), ["liver"], ("labels: ['liver'] is not an object with at least one entry",)),
        (("labels",), {}, ("labels: {} is not",)),
        (("labels",), {"liver": 1}, ("labels: nnU-Net cannot use {'liver': 1}", "Background")),
        (("labels",), {"background": 0, "liver": "x"}, ("labels", "'x'")),
        (("labels",), {"background": 0, "liver": None}, ("labels", "None")),
        (
            ("labels",),
            {"background": 0, "a": 1, "b": 3},
            ("labels: the values 0, 1, 3 are not 0, 1, 2", "without a gap"),
        ),
        (("labels",), {"background": 0, "a": 1, "ignore": 1}, ("labels", "ignore label")),
        (("labels",), {"background": 0, "a": [1, 2], "b": 2}, ("labels", "regions_class_order")),
        (("channel_names",), GONE, ("the key 'channel_names' is missing",)),
        (("channel_names",), "CT", ("channel_names: 'CT' is not",)),
        (("file_ending",), GONE, ("the key 'file_ending' is missing",)),
        (("file_ending",), 3, ("file_ending: 3 is not a text",)),
    ],
)
def test_dataset_json(
    folders: NNUNetFolders,
    make_trainer: Callable[..., PretrainingTrainer],
    path: tuple[str, ...],
    value: object,
    words: tuple[str, ...],
) -> None:
    rewrite(folders.preprocessed / "dataset.json", lambda content: changed(content, path, value))
    with refused("dataset.json", *words):
        make_trainer().initialize()


def test_dataset_json_that_is_no_object(
    folders: NNUNetFolders, make_trainer: Callable[..., PretrainingTrainer]
) -> None:
    (folders.preprocessed / "dataset.json").write_text("[1]")
    with refused("dataset.json contains a list, not an object"):
        make_trainer().initialize()


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ('[{"train": ["a"]', ("broken JSON", "Fix the file")),
        ('[{"train": ["phantom_000"], "train": [], "val": []}]', ("broken JSON", "repeated key 'train'")),
        ("[" * 100_000, ("broken JSON",)),
        (None, ("contains null, not a list of folds with 'train' and 'val'",)),
        ("3", ("contains a number, not a list",)),
        ({"train": TRAIN, "val": VAL}, ("contains an object, not a list", "move it away")),
        ([], ("contains an empty list",)),
        ([CASES], ("fold 0: a list is not an object with 'train' and 'val'",)),
        ([None], ("fold 0: null is not an object",)),
        (
            [{"train": TRAIN, "val": VAL}, {"train": TRAIN}],
            ("fold 1: 'val' must be a list of case names, but is missing",),
        ),
        ([{"val": VAL}], ("fold 0: 'train' must be a list of case names, but is missing",)),
        ([{"train": "phantom_000", "val": VAL}], ("fold 0: 'train' must be", "but is 'phantom_000'")),
        ([{"train": [0, 1], "val": VAL}], ("fold 0: 'train' must be a list of case names, but is [0, 1]",)),
        ([{"train": [], "val": VAL}], ("fold 0: 'train' contains no case", "one or more")),
        ([{"train": TRAIN, "val": []}], ("fold 0: 'val' contains no case", "Add cases to 'val'")),
        (
            [{"train": [*TRAIN, "heart"], "val": VAL}],
            ("fold 0: the case 'heart' is not preprocessed", "nnUNetPlans_2d"),
        ),
        (
            [{"train": TRAIN, "val": ["heart"]}],
            ("fold 0: the case 'heart' is not", "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"),
        ),
        (
            [{"train": TRAIN, "val": ["phantom_004.nii.gz"]}],
            ("the case 'phantom_004.nii.gz' is not", "remove it from the fold"),
        ),
        ([{"train": TRAIN, "val": VAL, "unlabelled": None}], ("'unlabelled' must be", "but is None")),
        ([{"train": TRAIN, "val": VAL, "unlabelled": "phantom_003"}], ("'unlabelled' must be", "'phantom_003'")),
        (
            [{"train": TRAIN[:2], "val": VAL, "unlabelled": [3]}],
            ("'unlabelled' must be a list of case names, but is [3]",),
        ),
        (
            [{"train": TRAIN, "val": VAL, "unlabelled": TRAIN[3:]}],
            ("the case 'phantom_003' is both in 'train' and in 'unl",),
        ),
        (
            [{"train": TRAIN, "val": VAL, "unlabelled": VAL}],
            ("the case 'phantom_004' is both in 'val' and in 'unl", "Remove it"),
        ),
    ],
    ids=lambda value: str(value)[:50],
)
@pytest.mark.parametrize("trainer", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_splits(
    folders: NNUNetFolders,
    make_trainer: Callable[..., PretrainingTrainer],
    trainer: str,
    splits: object,
    words: tuple[str, ...],
) -> None:
    text = splits if isinstance(splits, str) else json.dumps(splits)
    (folders.preprocessed / "splits_final.json").write_text(text)
    with refused("splits_final.json", *words):
        make_trainer(trainer).initialize()


def test_an_unlabelled_case_that_does_not_exist(
    folders: NNUNetFolders, make_trainer: Callable[..., PretrainingTrainer]
) -> None:
    splits = [{"train": TRAIN[:2], "val": VAL, "unlabelled": ["heart"]}]
    (folders.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    with refused(
        "nnUNetPlans_2d/heart: no preprocessed image", "If nnUNet_raw lacks the case, remove it from the fold"
    ):
        make_trainer().initialize()


@pytest.mark.parametrize("fold", ["first", "-1", "1.5", "", "all "])
def test_fold(make_trainer: Callable[..., PretrainingTrainer], fold: str) -> None:
    with refused(f"fold: {fold!r} is not 'all' or a whole number"):
        make_trainer(fold=fold).initialize()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", ("broken JSON",)),
        (b"portal venous", ("broken JSON",)),
        (b"[]", ("a list is not an object", "Write one such as")),
        (b"3", ("a number is not an object",)),
        (b'{"phantom_000": 1}', ("phantom_000: 1 is not a text", "Write image labels as in")),
        (b'{"phantom_000": null}', ("phantom_000: None is not a text",)),
        (b'{"phantom_000": ["late"]}', ("phantom_000: ['late'] is not a text",)),
        (b'{"liver_1": "late"}', ("liver_1 is not one of the 5 preprocessed cases", "remove it")),
        (b'{"phantom_000.nii.gz": "late"}', ("phantom_000.nii.gz is not one of",)),
        (b'{"phantom_000": "early", "phantom_000": "late"}', ("broken JSON", "repeated key 'phantom_000'")),
        (b'{"phantom_000": "sp\xe4t"}', ("broken JSON", "utf-8")),
    ],
    ids=lambda value: str(value)[:50],
)
def test_image_labels(
    folders: NNUNetFolders, make_trainer: Callable[..., PretrainingTrainer], text: bytes, words: tuple[str, ...]
) -> None:
    (folders.raw / "image_labels.json").write_bytes(text)
    with refused("image_labels.json", *words):
        make_trainer().initialize()


def test_image_labels_that_are_a_folder(
    folders: NNUNetFolders, make_trainer: Callable[..., PretrainingTrainer]
) -> None:
    (folders.raw / "image_labels.json").mkdir()
    with refused("image_labels.json", "Is a directory"):
        make_trainer().initialize()
