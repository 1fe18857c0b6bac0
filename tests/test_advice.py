"""An error's advice removes the fault: each is provoked, the commands of its message are run, and the check passes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.preprocessing.preprocessors import default_preprocessor

import nnunet_semcl
from nnunet_semcl.cli import main
from nnunet_semcl.commands.label_budget import add_label_budget
from nnunet_semcl.commands.plan import write_preset_plans
from nnunet_semcl.commands.unlabelled import preprocess_unlabelled
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.intact_cases import check_image, check_labelled_case
from nnunet_semcl.files.model_folder import FINGERPRINT, check_model_folder
from nnunet_semcl.files.training_input import check_training_input

if TYPE_CHECKING:
    from conftest import MakeTrainer, NNUNetFolders

CASE = "phantom_000"
COMMAND = re.compile(r"(?:nnUNetv2_\w+|nnunet-semcl) .*")
Follow = Callable[[str], None]


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch, folders: NNUNetFolders) -> Follow:
    """Runs the commands at the end of a message as a shell would, but in this process, and fails on unknown options."""
    # A spawned process takes seconds to start, and a forked one crashes where blosc2 has had threads.
    threads = SimpleNamespace(get_context=lambda method: SimpleNamespace(Pool=ThreadPool))
    for module in (default_preprocessor, fingerprint_extractor, evaluate_predictions):
        monkeypatch.setattr(module, "multiprocessing", threads)
    collect = DatasetFingerprintExtractor.collect_foreground_intensities
    monkeypatch.setattr(  # a hundred voxels in place of 100 million, which take ten seconds
        DatasetFingerprintExtractor,
        "collect_foreground_intensities",
        lambda segmentation, images, num_samples: collect(segmentation, images, num_samples=100),
    )
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # with 0, nnU-Net's planner asks torch for zero threads
    parse = ArgumentParser.parse_known_args

    def parse_all(parser: ArgumentParser, *arguments: Any) -> Any:
        known, unknown = parse(parser, *arguments)
        assert not unknown
        return known, unknown

    monkeypatch.setattr(ArgumentParser, "parse_known_args", parse_all)
    images, truth = folders.raw / "imagesTs", folders.raw / "labelsTs"

    def run(message: str) -> None:
        found = COMMAND.search(message)
        assert found, message
        for command in found[0].replace("IMAGES", str(images)).replace("TRUTH", str(truth)).split(" && "):
            name, *arguments = shlex.split(command)
            (script,) = entry_points(group="console_scripts", name=name)
            monkeypatch.setattr(sys, "argv", [name, *arguments])
            assert not script.load()()

    return run


@pytest.fixture
def planning_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """nnUNetv2_plan_and_preprocess leaves the preprocessed cases as they are: it would make the same again."""
    monkeypatch.setattr(plan_and_preprocess_entrypoints, "preprocess", lambda *arguments, **options: None)


def message_of(check: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        check()
    return str(error.value)


def change(file: Path, path: tuple[str, ...], value: object) -> None:
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))


def data(folders: NNUNetFolders, configuration: str = "2d") -> Path:
    return folders.preprocessed / f"nnUNetPlans_{configuration}"


def add_case(folders: NNUNetFolders, *configurations: str) -> None:
    """A new case in the raw data set, and in the configurations that were preprocessed since."""
    for kind, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        shutil.copy(folders.raw / kind / f"{CASE}{ending}", folders.raw / kind / f"new{ending}")
    add_files(folders, *configurations)


def add_files(folders: NNUNetFolders, *configurations: str) -> None:
    for configuration in configurations:
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            shutil.copy(data(folders, configuration) / f"{CASE}{ending}", data(folders, configuration) / f"new{ending}")


def add_to_a_split(folders: NNUNetFolders) -> None:
    add_case(folders, "2d")
    splits = [{"train": [CASE, "new"], "val": ["phantom_001"]}]
    (folders.preprocessed / "splits_final.json").write_text(json.dumps(splits))


def train(configuration: str = "2d", plans: str = "nnUNetPlans") -> None:
    check_training_input("999", configuration, plans, "0")


def budget() -> None:
    add_label_budget("999", 1)


def tiny() -> None:
    write_preset_plans("999", "tiny")


FAULTS: dict[str, tuple[Callable[[NNUNetFolders], object], Callable[[NNUNetFolders], object]]] = {
    "a configuration is not preprocessed": (
        lambda folders: shutil.rmtree(data(folders, "3d_fullres")),
        lambda folders: train("3d_fullres", "nnUNetTinyPlans"),
    ),
    "a case was added, one configuration is stale": (
        lambda folders: add_case(folders, "2d"),
        lambda folders: budget(),
    ),
    "a case was removed, one configuration is stale": (
        lambda folders: add_files(folders, "3d_fullres"),
        lambda folders: budget(),
    ),
    "a case was added to the split, one configuration is stale": (
        add_to_a_split,
        lambda folders: train("3d_fullres"),
    ),
    "no fingerprint": (
        lambda folders: (folders.preprocessed / FINGERPRINT).unlink(),
        lambda folders: check_model_folder(folders.root, folders.preprocessed),
    ),
    "no plans of a preset": (
        lambda folders: (folders.preprocessed / "nnUNetTinyPlans.json").unlink(),
        lambda folders: train(plans="nnUNetTinyPlans"),
    ),
    "plans of a name of one's own": (
        lambda folders: None,
        lambda folders: train(plans="MyPlans"),
    ),
}


@pytest.mark.parametrize(("provoke", "check"), FAULTS.values(), ids=FAULTS)
def test_the_command_removes_the_fault(
    folders: NNUNetFolders,
    follow: Follow,
    provoke: Callable[[NNUNetFolders], object],
    check: Callable[[NNUNetFolders], object],
) -> None:
    provoke(folders)
    follow(message_of(lambda: check(folders)))
    check(folders)


def test_damaged_files_of_a_configuration_have_one_remedy(folders: NNUNetFolders, follow: Follow) -> None:
    cases = [data(folders) / f"phantom_00{number}" for number in range(3)]
    cases[0].with_suffix(".pkl").unlink()
    cases[1].with_suffix(".b2nd").write_bytes(b"damaged")
    np.array({}).dump(cases[2].with_suffix(".pkl"))
    checks = [train, *(partial(check_labelled_case, case, 1, range(9)) for case in cases[1:])]
    messages = [message_of(check) for check in checks]
    (data(folders) / "old.npz").touch()
    messages.append(message_of(train))
    assert {message.split(", run: ")[1] for message in messages} == {
        "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d"
    }
    follow(messages[0])
    for check in checks:
        check()


def test_no_configuration_is_preprocessed(folders: NNUNetFolders, follow: Follow) -> None:
    def unlabelled() -> None:
        preprocess_unlabelled("999", folders.raw / "imagesTs", num_processes=1)

    for name in ("2d", "3d_fullres"):
        shutil.rmtree(data(folders, name))
    command = "nnUNetv2_preprocess -d 999 -plans_name nnUNetPlans -c 2d 3d_fullres"
    assert all(message_of(check).endswith(command) for check in (budget, unlabelled))
    follow(command)
    budget()
    unlabelled()


BROKEN_PLANS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "broken JSON": ("nnUNetPlans", lambda file: file.write_text("{")),
    "a configuration of one's own from an older nnU-Net": (
        "nnUNetPlans",
        lambda file: change(file, ("configurations", "mine"), {"UNet_class_name": "PlainConvUNet"}),
    ),
    "a value of a preset's plans": (
        "nnUNetTinyPlans",
        lambda file: change(file, ("configurations", "2d", "patch_size"), [63, 64]),
    ),
}


@pytest.mark.parametrize(("name", "damage"), BROKEN_PLANS.values(), ids=BROKEN_PLANS)
def test_broken_plans_are_moved_away_and_created_again(
    folders: NNUNetFolders, follow: Follow, planning_alone: None, name: str, damage: Callable[[Path], object]
) -> None:
    def check() -> None:
        train(plans=name) if name == "nnUNetTinyPlans" else tiny()

    file = folders.preprocessed / f"{name}.json"
    damage(file)
    message = message_of(check)
    assert "ove the file away and create the plans again" in message
    file.rename(folders.root / "away.json")
    follow(message)
    check()


def test_plans_of_another_planner(folders: NNUNetFolders, follow: Follow, planning_alone: None) -> None:
    file = folders.preprocessed / "nnUNetResEncUNetMPlans.json"
    before = json.loads(file.read_text())
    file.unlink()
    follow(message_of(lambda: train(plans=file.stem)))
    assert json.loads(file.read_text())["configurations"].keys() == before["configurations"].keys()
    train(plans=file.stem)


def test_wrong_labels(folders: NNUNetFolders, follow: Follow, planning_alone: None) -> None:
    change(folders.preprocessed / "dataset.json", ("labels",), {"background": 0, "a": 2})
    follow(message_of(train))  # the raw data set's own are correct
    train()


def test_dataset_json_is_copied_from_the_raw_data(folders: NNUNetFolders) -> None:
    (folders.preprocessed / "dataset.json").unlink()
    found = re.search(r"Copy it there from nnUNet_raw/(\S+)\.$", message_of(train))
    assert found
    shutil.copy(folders.raw.parent / found[1] / "dataset.json", folders.preprocessed)
    train()


def test_a_folder_of_former_plans_is_moved_away(folders: NNUNetFolders) -> None:
    add_files(folders, "2d")
    data(folders).rename(folders.preprocessed / "FormerPlans_2d")
    found = re.search(r"move (\S+) away: no plans", message_of(budget))
    assert found
    Path(found[1]).rename(folders.root / "away")
    budget()


def test_a_damaged_unlabelled_case_is_deleted_first(folders: NNUNetFolders, follow: Follow) -> None:
    preprocess_unlabelled("999", folders.raw / "imagesTs", ["2d"], num_processes=1)
    folder = data(folders, "2d_unlabelled")
    (image,) = (file for file in folder.glob("*.b2nd") if not file.name.endswith("_seg.b2nd"))
    image.write_bytes(b"damaged")

    def check() -> None:
        check_image(image.with_suffix(""), 1)

    message = message_of(check)
    follow(message)
    assert message_of(check) == message  # the case is complete, so it is left as it is
    assert "delete it and run: " in message
    image.unlink()
    follow(message)
    check()
    assert [path.name for path in folders.preprocessed.glob("*_unlabelled")] == [folder.name]


def test_unlabelled_cases_of_other_plans_are_preprocessed_for_the_named_ones(
    folders: NNUNetFolders, follow: Follow
) -> None:
    def check() -> None:
        preprocess_unlabelled("999", folders.raw / "imagesTs", ["2d"], "nnUNetTinyPlans", num_processes=1)

    preprocess_unlabelled("999", folders.raw / "imagesTs", ["2d"], num_processes=1)
    change(folders.preprocessed / "nnUNetTinyPlans.json", ("configurations", "2d", "spacing"), [7.0, 7.0])
    message = message_of(check)
    assert "Move the folder away" in message
    data(folders, "2d_unlabelled").rename(folders.root / "away")
    follow(message)
    check()


@pytest.mark.parametrize("command", ["plan -d 998 --preset tiny", "unlabelled -d 998 -i ."])
@pytest.mark.parametrize("name_back", [True, False])
def test_a_data_set_whose_folders_were_renamed(
    folders: NNUNetFolders,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    command: str,
    name_back: bool,
) -> None:
    monkeypatch.chdir(folders.raw / "imagesTs")
    old, new = folders.preprocessed, folders.preprocessed.with_name("Dataset998_Abdomen")
    old.rename(new)
    assert main(command.split()) == 1
    message = capsys.readouterr().err
    assert "nnUNetPlans.json, dataset_name: 'Dataset999_Phantom' is not 'Dataset998_Abdomen'" in message
    if name_back:
        new.rename(old)
        command = command.replace("998", "999")
    else:
        change(new / "nnUNetPlans.json", ("dataset_name",), new.name)
    assert main(command.split()) == 0, capsys.readouterr().err


def test_a_training_on_a_data_set_whose_folders_were_renamed(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    new = [folder.rename(folder.with_name("Dataset999_Abdomen")) for folder in (folders.raw, folders.preprocessed)]
    trainer = make_trainer()
    message = message_of(trainer.initialize)
    assert f'{folders.preprocessed} does not exist, but is the "dataset_name" of the plans nnUNetTinyPlans' in message
    assert "rename the folder in nnUNet_raw and nnUNet_results too" in message
    with pytest.raises(RuntimeError, match="More than one dataset name"):  # nnU-Net has made the old name's results
        make_trainer()
    (folders.root / "results" / folders.dataset).rename(folders.root / "results" / new[0].name)
    change(new[1] / "nnUNetTinyPlans.json", ("dataset_name",), new[0].name)
    make_trainer().check_input()


def test_a_network_of_two_stages(folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    plans = folders.preprocessed / "nnUNetTinyPlans.json"
    kwargs = json.loads(plans.read_text())["configurations"]["2d"]["architecture"]["arch_kwargs"]
    for key, value in kwargs.items():
        if isinstance(value, list):
            shallow = value[: 1 if key == "n_conv_per_stage_decoder" else 2]
            change(plans, ("configurations", "2d", "architecture", "arch_kwargs", key), shallow)
    change(plans, ("configurations", "2d", "architecture", "arch_kwargs", "n_stages"), 2)
    message = message_of(make_trainer)
    assert "nnUNetTinyPlans.json, configuration 2d: its network has 2 stages, but deep supervision needs 3" in message
    train(plans="nnUNetTinyPlans")  # which knows no trainer

    def loss(name: str) -> float:
        trainer = make_trainer(name)
        trainer.initialize()
        output = trainer.network(torch.zeros(1, 1, 64, 64))
        levels = output if isinstance(output, (list, tuple)) else [output]
        target = [level.argmax(1, keepdim=True).float() for level in levels]
        return trainer.loss(output, target if isinstance(output, (list, tuple)) else target[0]).item()

    found = re.search(r"-tr (\S+)$", message)
    assert found
    with pytest.warns(RuntimeWarning, match="invalid value"):
        assert np.isnan(loss("nnUNetTrainer"))
    assert np.isfinite(loss(found[1]))
    make_trainer(configuration="3d_fullres")


def test_the_package_names_only_commands_that_nnunet_has() -> None:
    text = "".join(file.read_text() for file in Path(nnunet_semcl.__file__).parent.rglob("*.py"))
    installed = {script.name for script in entry_points(group="console_scripts")}
    newer = {"nnUNetv2_train_pretrained"}  # of its main branch; said so where it is named
    assert set(re.findall(r"nnUNetv2_\w+", text)) <= installed | newer
    assert not re.search(r"nnUNetv2_\w+ -d DATASET_ID", text)
