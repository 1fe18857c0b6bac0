"""A preprocessed data set whose plans, dataset.json, splits or image labels cannot be: told by the trainer at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusal import refused

from nnunet_semcl.cli import main

CASES = [f"phantom_{number:03d}" for number in range(5)]
TRAIN, VAL = CASES[:4], CASES[4:]
NETWORK = ("architecture", "arch_kwargs")
PLANS = ("nnUNetTinyPlans.json", "configuration 2d")
GONE = object()


def changed(content: Any, path: tuple[str, ...], value: Any) -> Any:
    """The content with another value at the path; GONE takes the key away."""
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
        (("batch_size",), GONE, ("no 'batch_size'", "nnUNetv2_plan_experiment")),
        (("batch_size",), "2", ("batch_size: found '2'", "a whole number from 1")),
        (("batch_size",), 0, ("batch_size: found 0",)),
        (("patch_size",), GONE, ("no 'patch_size'",)),
        (("patch_size",), [64], ("patch_size: found [64]", "2 or 3 whole numbers")),
        (("patch_size",), [64.0, 64.0], ("patch_size: found [64.0, 64.0]",)),
        (("patch_size",), [63, 64], ("patch_size: found 63 voxels", "a multiple of the 8 that the strides make")),
        (("spacing",), [float("nan"), 1.0], ("spacing: found [nan, 1.0]", "numbers above 0")),
        (("spacing",), [1.0, 0.0], ("spacing: found [1.0, 0.0]",)),
        (("spacing",), [1.0, 1.0, 1.0], ("spacing: found [1.0, 1.0, 1.0]", "as many")),
        (("data_identifier",), GONE, ("no 'data_identifier'",)),
        (("data_identifier",), 3, ("data_identifier: found 3", "the name of a folder")),
        (("data_identifier",), "../elsewhere", ("data_identifier: found '../elsewhere'",)),
        (("architecture",), None, ("architecture: found None", "arch_kwargs")),
        ((*NETWORK, "strides"), GONE, ("no 'strides'",)),
        ((*NETWORK, "strides"), [[1], [2]], ("strides: found [[1], [2]]", "2 whole numbers for each stage")),
        ((*NETWORK, "features_per_stage"), [8], ("features_per_stage: found [8]", "4 whole numbers")),
        (("inherits_from",), "2d", ("Circular dependency", "Mend the plans")),
        (("inherits_from",), "3d_halfres", ("3d_halfres does not exist",)),
        (("inherits_from",), [1], ("what nnU-Net cannot read",)),
        (("semcl",), {"temprature": 0.1}, ('"semcl"', 'unknown key "temprature"')),
    ],
)
def test_plans(folders, make_trainer, path: tuple[str, ...], value: object, words: tuple[str, ...]):
    rewrite(folders.preprocessed / PLANS[0], lambda plans: changed(plans, ("configurations", "2d", *path), value))
    with refused(*(PLANS if "semcl" not in path else PLANS[1:]), *words):
        make_trainer().initialize()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("broken JSON",)),
        ('{"configurations": {', ("broken JSON",)),
        ("[]", ("no configurations", "Make them again: nnUNetv2_plan_and_preprocess -d 999")),
        ("null", ("no configurations",)),
        ('{"configurations": []}', ("no configurations",)),
        ('{"configurations": {"2d": null}}', ("configuration 2d", "found a JSON NoneType")),
    ],
)
@pytest.mark.parametrize(
    "command", ["plan -d 999 --preset tiny -p Broken", "unlabelled -d 999 -i . -p Broken", "train 999 2d 0 -p Broken"]
)
def test_plans_that_a_command_reads(folders, command: str, text: str, words: tuple[str, ...], capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)  # once a process, which nnU-Net's parser forgets
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
        (("labels",), GONE, ("dataset.json: found no 'labels'", "nnUNetv2_plan_and_preprocess")),
        (("labels",), ["liver"], ("labels: found ['liver']", "an object")),
        (("labels",), {}, ("labels: found {}",)),
        (("labels",), {"liver": 1}, ("labels: found {'liver': 1}", "Background")),
        (("labels",), {"background": 0, "liver": "x"}, ("labels", "'x'")),
        (("labels",), {"background": 0, "liver": None}, ("labels", "None")),
        (("labels",), {"background": 0, "a": 1, "b": 3}, ("labels: found the values 0, 1, 3", "without a gap")),
        (("labels",), {"background": 0, "a": 1, "ignore": 1}, ("labels", "ignore label")),
        (("labels",), {"background": 0, "a": [1, 2], "b": 2}, ("labels", "regions_class_order")),
        (("channel_names",), GONE, ("no 'channel_names'",)),
        (("channel_names",), "CT", ("channel_names: found 'CT'",)),
        (("file_ending",), GONE, ("no 'file_ending'",)),
        (("file_ending",), 3, ("file_ending: found 3", "a text")),
    ],
)
def test_dataset_json(folders, make_trainer, path: tuple[str, ...], value: object, words: tuple[str, ...]):
    rewrite(folders.preprocessed / "dataset.json", lambda content: changed(content, path, value))
    with refused("dataset.json", *words):
        make_trainer().initialize()


def test_dataset_json_that_is_no_object(folders, make_trainer):
    (folders.preprocessed / "dataset.json").write_text("[1]")
    with refused("dataset.json: found a JSON list", "an object"):
        make_trainer().initialize()


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ('[{"train": ["a"]', ("broken JSON", "Mend it")),
        ('[{"train": ["phantom_000"], "train": [], "val": []}]', ("broken JSON", "twice the key 'train'")),
        ("[" * 100_000, ("broken JSON",)),
        (None, ("found a JSON NoneType", "a list with 'train' and 'val'")),
        ("3", ("found a JSON int",)),
        ({"train": TRAIN, "val": VAL}, ("found a JSON dict", "move it away")),
        ([], ("found an empty list",)),
        ([CASES], ("fold 0: found a JSON list", "an object with 'train' and 'val'")),
        ([None], ("fold 0: found a JSON NoneType",)),
        ([{"train": TRAIN, "val": VAL}, {"train": TRAIN}], ("fold 1: found no list of case names as 'val'",)),
        ([{"val": VAL}], ("fold 0: found no list of case names as 'train'",)),
        ([{"train": "phantom_000", "val": VAL}], ("fold 0: found no list of case names as 'train'",)),
        ([{"train": [0, 1], "val": VAL}], ("fold 0: found no list of case names as 'train'",)),
        ([{"train": [], "val": VAL}], ("fold 0: found no case in 'train'", "at least one")),
        ([{"train": TRAIN, "val": []}], ("fold 0: found no case in 'val'", "at least one")),
        ([{"train": [*TRAIN, "heart"], "val": VAL}], ("fold 0: found the case 'heart'", "not in", "nnUNetPlans_2d")),
        ([{"train": TRAIN, "val": ["heart"]}], ("fold 0: found the case 'heart'", "nnUNetv2_preprocess -d 999")),
        ([{"train": TRAIN, "val": ["phantom_004.nii.gz"]}], ("found the case 'phantom_004.nii.gz'", "mend the split")),
        ([{"train": TRAIN, "val": VAL, "unlabelled": None}], ("no list of case names as 'unlabelled'",)),
        ([{"train": TRAIN, "val": VAL, "unlabelled": "phantom_003"}], ("no list of case names as 'unlabelled'",)),
        ([{"train": TRAIN[:2], "val": VAL, "unlabelled": [3]}], ("no list of case names as 'unlabelled'",)),
        ([{"train": TRAIN, "val": VAL, "unlabelled": TRAIN[3:]}], ("the case 'phantom_003' in 'train' and in 'unl",)),
        ([{"train": TRAIN, "val": VAL, "unlabelled": VAL}], ("the case 'phantom_004' in 'val' and in 'unlabelled'",)),
    ],
    ids=lambda value: str(value)[:50],
)
@pytest.mark.parametrize("trainer", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_splits(folders, make_trainer, trainer: str, splits: object, words: tuple[str, ...]):
    text = splits if isinstance(splits, str) else json.dumps(splits)
    (folders.preprocessed / "splits_final.json").write_text(text)
    with refused("splits_final.json", *words):
        make_trainer(trainer).initialize()


def test_an_unlabelled_case_that_is_not_there(folders, make_trainer):
    splits = [{"train": TRAIN[:2], "val": VAL, "unlabelled": ["heart"]}]
    (folders.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    with refused("nnUNetPlans_2d/heart: found no preprocessed image", "Preprocess them"):
        make_trainer().initialize()


@pytest.mark.parametrize("fold", ["first", "-1", "1.5", "", "all "])
def test_fold(make_trainer, fold: str):
    with refused(f"fold: found {fold!r}", "'all' or a whole number"):
        make_trainer(fold=fold).initialize()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", ("broken JSON",)),
        (b"portal venous", ("broken JSON",)),
        (b"[]", ("found a JSON list", "an object like")),
        (b"3", ("found a JSON int",)),
        (b'{"phantom_000": 1}', ("phantom_000: found 1", "Give a text")),
        (b'{"phantom_000": null}', ("phantom_000: found None",)),
        (b'{"phantom_000": ["late"]}', ("phantom_000: found ['late']",)),
        (b'{"liver_1": "late"}', ("liver_1: found no such case", "one of the 5")),
        (b'{"phantom_000.nii.gz": "late"}', ("phantom_000.nii.gz: found no such case",)),
        (b'{"phantom_000": "early", "phantom_000": "late"}', ("broken JSON", "twice the key 'phantom_000'")),
        (b'{"phantom_000": "sp\xe4t"}', ("broken JSON", "utf-8")),
    ],
    ids=lambda value: str(value)[:50],
)
def test_image_labels(folders, make_trainer, text: bytes, words: tuple[str, ...]):
    (folders.raw / "image_labels.json").write_bytes(text)
    with refused("image_labels.json", *words):
        make_trainer().initialize()


def test_image_labels_that_are_a_folder(folders, make_trainer):
    (folders.raw / "image_labels.json").mkdir()
    with refused("image_labels.json", "Is a directory"):
        make_trainer().initialize()
