"""Exported models predict the same logits without the plugin, and invalid exports are rejected."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from skimage import io

from nnunet_semcl.cli import main
from nnunet_semcl.commands.export import KEYS, WITHOUT_PLUGIN, _check_image, export_model
from nnunet_semcl.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import NNUNetFolders
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

FOLDER = "SemCLTrainerShort__nnUNetTinyPlans__2d"


def save_model(
    make_trainer: Callable[..., nnUNetTrainer], folds: tuple[int | str, ...] = (0,), trainer: str = "SemCLTrainerShort"
) -> Path:
    """The files of trained folds as nnU-Net writes them; untrained weights are enough for these tests."""
    for fold in folds:
        made = make_trainer(trainer, fold=fold)
        made.initialize()
        made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # sets the mirroring of predictions
        made.save_checkpoint(f"{made.output_folder}/checkpoint_final.pth")
    model = Path(made.output_folder_base)
    (model / "plans.json").write_text(json.dumps(made.plans_manager.plans))
    (model / "dataset.json").write_text(json.dumps(made.dataset_json))
    return model


def export(output: Path, *further: str, trainer: str = "SemCLTrainerShort") -> int:
    options = ["-d", "999", "-c", "2d", "-tr", trainer, "-p", "nnUNetTinyPlans", "-o", str(output)]
    return main(["export", *options, *further])


def set_sections(folders: NNUNetFolders) -> None:
    file = folders.preprocessed / "nnUNetTinyPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"] |= {"semcl": {"temperature": 0.2}, "ideal": {"temperature": 0.3}}
    file.write_text(json.dumps(plans))


def test_the_export_has_what_prediction_reads_and_nothing_of_the_plugin(
    folders: NNUNetFolders, make_trainer: Callable[..., nnUNetTrainer], capfd: pytest.CaptureFixture[str]
) -> None:
    set_sections(folders)
    model = save_model(make_trainer, folds=(0, "all"))
    shutil.copyfile(folders.preprocessed / "dataset_fingerprint.json", model / "dataset_fingerprint.json")
    before = {file: file.read_bytes() for file in model.rglob("*") if file.is_file()}
    capfd.readouterr()
    output = folders.root / "new" / "model"
    image = folders.raw / "imagesTs" / "phantom_test_000_0000.nii.gz"
    assert export(output, "-f", "0", "all", "-i", str(image)) == 0

    lines = capfd.readouterr().out.splitlines()
    same = "logits (9 x 24 x 40 x 48) with and without the plugin are bit-identical"
    assert [line for line in lines if "logits" in line] == [f"fold_0: {same}", f"fold_all: {same}"]
    assert lines[-1].startswith(f"nnUNetv2_predict_from_modelfolder -m {output} -f 0 all -chk checkpoint_final.pth")
    files = {str(file.relative_to(output)) for file in output.rglob("*") if file.is_file()}
    checkpoints = {"fold_0/checkpoint_final.pth", "fold_all/checkpoint_final.pth"}
    assert files == {"plans.json", "dataset.json", "dataset_fingerprint.json"} | checkpoints
    assert list(output.parent.iterdir()) == [output]
    assert all(file.read_bytes() == content for file, content in before.items())
    for name in ("dataset.json", "dataset_fingerprint.json"):
        assert (output / name).read_bytes() == (model / name).read_bytes()

    for name in checkpoints:
        written = torch.load(output / name, weights_only=True)  # contains no pickled class
        original = torch.load(model / name, weights_only=False)
        assert written.keys() == KEYS
        assert written["trainer_name"] == "nnUNetTrainer"
        assert written["inference_allowed_mirroring_axes"] == (0, 1)
        assert written["init_args"].keys() == original["init_args"].keys()
        assert written["init_args"]["plans"] == json.loads((output / "plans.json").read_text())
        weights = original["network_weights"]
        assert list(written["network_weights"]) == list(weights)
        assert all(torch.equal(value, weights[key]) for key, value in written["network_weights"].items())
    fresh = make_trainer("nnUNetTrainerShort")
    fresh.initialize()
    load_pretrained_weights(fresh.network, str(output / "fold_0" / "checkpoint_final.pth"))  # -pretrained_weights
    exported = torch.load(output / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    loaded = {key: value for key, value in fresh.network.state_dict().items() if ".seg_layers." not in key}
    assert loaded
    assert all(torch.equal(value, exported[key]) for key, value in loaded.items())
    for file in files:
        content = (output / file).read_bytes()
        assert not [word for word in (b"nnunet_semcl", b"SemCLTrainer", b"temperature") if word in content], file
    plans = json.loads((model / "plans.json").read_text())
    del plans["nnunet_semcl_plan"], plans["configurations"]["2d"]["semcl"], plans["configurations"]["2d"]["ideal"]
    assert json.loads((output / "plans.json").read_text()) == plans


@pytest.mark.parametrize("line", ["import nnunet_semcl", "from nnunet_semcl.methods.semcl.trainer import SemCLTrainer"])
def test_the_plugin_cannot_be_imported_during_verification(tmp_path: Path, line: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nprint(sys.argv[1:])\n{line}\n")
    result = subprocess.run([sys.executable, "-c", WITHOUT_PLUGIN, script, "a"], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == "['a']\n"
    assert result.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")


def test_another_network_with_the_same_keys_is_not_exported(
    folders: NNUNetFolders,
    make_trainer: Callable[..., nnUNetTrainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "own_trainers.py").write_text(OWN_TRAINERS)
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers))
    save_model(make_trainer, trainer="SemCLTrainerSine")
    output = tmp_path / "new" / "model"
    assert export(output, "-f", "0", trainer="SemCLTrainerSine") == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert "fold_0/checkpoint_final.pth: without the plugin, this model predicts different logits" in error
    assert "Predict with its own trainer" in error
    assert not list(output.parent.iterdir())


OWN_TRAINERS = '''
from copy import deepcopy
from torch import nn
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


class Sine(nn.Module):
    def forward(self, x):
        return x.sin()


class SemCLTrainerSine(SemCLTrainer):
    """The planned layers with another nonlinearity: the same keys and shapes."""

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, *args, **kwargs):
        network = SemCLTrainer.build_network_architecture(plans_manager, configuration_manager, *args, **kwargs)
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.LeakyReLU):
                    setattr(module, name, Sine())
        return network
'''


def refused(
    output: Path,
    message: str,
    folds: list[str] | None = None,
    image: list[Path] | None = None,
    d: str = "999",
    c: str = "2d",
    tr: str = "SemCLTrainerShort",
    p: str = "nnUNetTinyPlans",
) -> None:
    with pytest.raises(InputError, match=message):
        export_model(d, c, tr, p, folds or ["0"], "checkpoint_final.pth", output, image or [])


def test_missing_models_folds_and_files_are_rejected(
    folders: NNUNetFolders, make_trainer: Callable[..., nnUNetTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = folders.root / "new" / "model"
    refused(output, "no data set matches '999', available: none.*nnUNetv2_train")
    model = save_model(make_trainer, folds=(0, 1))
    refused(output, "no data set matches '998', available: Dataset999_Phantom", d="998")
    missing = rf".*: there is no such model \(trained models, .*: {FOLDER}\)\. Name"
    refused(output, f"SemCLTrainerLong{missing}", tr="SemCLTrainerLong")
    refused(output, f"nnUNetPlans{missing}", p="nnUNetPlans")
    refused(output, f"3d_fullres{missing}", c="3d_fullres")
    refused(output, r"fold_3 does not exist \(folds with checkpoint_final\.pth: 0 1\)\. Name", ["0", "3"])
    (model / "fold_1" / "checkpoint_final.pth").rename(model / "fold_1" / "checkpoint_latest.pth")
    refused(output, r"fold_1 has no checkpoint_final\.pth \(folds with .*: 0\)\. .*--c continues it", ["0", "1"])
    (model / "plans.json").unlink()
    refused(output, r"plans\.json does not exist\. Restore the complete model folder")
    monkeypatch.delenv("nnUNet_results")
    refused(output, "nnUNet_results is not set.*export nnUNet_results=")
    assert not output.parent.exists()


def test_folds_of_different_trainings_are_rejected(
    folders: NNUNetFolders, make_trainer: Callable[..., nnUNetTrainer]
) -> None:
    model = save_model(make_trainer, folds=(0, 1))
    file = model / "fold_1" / "checkpoint_final.pth"
    output = folders.root / "new" / "model"
    content = torch.load(file, weights_only=False)
    plans = content["init_args"]["plans"]
    other = {**plans["configurations"]["2d"], "patch_size": [16, 16]}
    other_plans = {**plans, "configurations": {**plans["configurations"], "2d": other}}
    for key, value, message in (
        (
            "trainer_name",
            "nnUNetTrainer",
            "trainer: nnUNetTrainer differs from SemCLTrainerShort, the value of the model",
        ),
        ("inference_allowed_mirroring_axes", None, r"mirroring axes: None differs from \(0, 1\)"),
        (
            "init_args",
            {**content["init_args"], "plans": other_plans},
            r"patch_size: \[16, 16\] differs from \[.*Train this fold again",
        ),
        (
            "init_args",
            {**content["init_args"], "configuration": "3d_fullres"},
            "configuration: 3d_fullres differs from 2d",
        ),
    ):
        torch.save({**content, key: value}, file)
        refused(output, rf"fold_1/checkpoint_final\.pth, {message}", ["0", "1"])
    file.write_bytes(file.read_bytes()[:1000])
    refused(output, r"fold_1/checkpoint_final\.pth is not a readable checkpoint", ["0", "1"])
    assert not list(output.parent.iterdir())


def test_existing_output_and_wrong_images_are_rejected(
    folders: NNUNetFolders, make_trainer: Callable[..., nnUNetTrainer], tmp_path: Path
) -> None:
    save_model(make_trainer)
    output = tmp_path / "model"
    output.mkdir()
    refused(output, "model exists already. Choose a new folder with -o")
    assert not list(output.iterdir())
    output.rmdir()
    image = folders.raw / "imagesTs" / "phantom_test_000_0000.nii.gz"
    refused(output, "-i: got 2 files, but the data set needs 1, one per channel. Give the files", image=[image, image])
    refused(output, "-i: .*absent.nii.gz does not exist. Give the images", image=[tmp_path / "absent.nii.gz"])
    refused(output, r"-i: .*dataset\.json is not a \.nii\.gz file", image=[folders.raw / "dataset.json"])
    broken = tmp_path / "broken_0000.nii.gz"
    broken.write_bytes(b"no image")
    refused(output, r"-i: .*broken_0000\.nii\.gz: cannot be read .*Give the files", image=[broken])
    assert not output.exists()


def test_one_file_may_hold_all_channels(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    io.imsave(tmp_path / "p_0000.png", picture)
    io.imsave(tmp_path / "grey_0000.png", picture[..., 0])
    described = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    plans = SimpleNamespace(image_reader_writer_class=NaturalImage2DIO)
    _check_image([tmp_path / "p_0000.png"], described, {}, plans)
    with pytest.raises(InputError, match=r"grey_0000\.png: number of channels is 1, but the data set has 3"):
        _check_image([tmp_path / "grey_0000.png"], described, {}, plans)
