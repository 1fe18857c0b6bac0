"""`nnunet-semcl pretrain`: what it leaves, how training goes on from it, and data sets without any label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_semcl.cli import main
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

OPTIONS = ["-c", "2d", "-p", "nnUNetTinyPlans", "-device", "cpu"]
NEW = "Dataset998_Scans"


def pretrain(*options: str, dataset: str = "999") -> int:
    return main(["pretrain", "-d", dataset, *OPTIONS, *options])


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["network_weights"]


def like(folders: NNUNetFolders, name: str = NEW, images: str = "imagesTr", source: str = "999") -> int:
    options = ["-i", str(folders.raw / images), "--like", source, "-p", "nnUNetTinyPlans", "-c", "2d", "-np", "1"]
    return main(["unlabelled", "-d", name, *options])


@pytest.fixture
def scans(folders: NNUNetFolders) -> Path:
    """A data set without labels; nnU-Net has neither planned nor preprocessed it."""
    assert like(folders) == 0
    return folders.preprocessed.with_name(NEW)


def log_of(trainer: PretrainingTrainer) -> str:
    return Path(trainer.log_file).read_text()


def test_training_goes_on_from_it(
    folders: NNUNetFolders, make_trainer: MakeTrainer, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = folders.fold("SemCLTrainerShort", "2d", fold="all")
    assert pretrain("-tr", "SemCLTrainerShort") == 0
    printed = capsys.readouterr().out
    command = "nnUNetv2_train Dataset999_Phantom 2d all -tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu --c"
    assert f"This training goes on from it: {command}\n" in printed
    assert [file.name for file in fold.glob("*.pth")] == ["checkpoint_pretrained.pth"]
    pretrained = weights(fold / "checkpoint_pretrained.pth")
    assert pretrain("-tr", "SemCLTrainerShort", "--c") == 0
    assert "Pretraining is already done" in capsys.readouterr().out

    trainer = make_trainer(fold="all", resume=True)
    seen = []
    monkeypatch.setattr(type(trainer), "plot_network_architecture", lambda self: seen.append(self.network.state_dict()))
    monkeypatch.setattr(type(trainer), "train_step", lambda self, batch: {"loss": np.zeros(())})
    trainer.run_training()
    assert "Pretraining is already done" in log_of(trainer)
    assert all(torch.equal(value, pretrained[name]) for name, value in seen[0].items())
    assert (fold / "checkpoint_final.pth").is_file()


def test_a_data_set_without_any_label(scans: Path, folders: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    assert not (scans / "nnUNetPlans_2d").exists()
    assert like(folders) == 0  # again: nothing to do
    assert pretrain("-tr", "IDEALTrainerShort", dataset="998") == 0
    fold = folders.root / "results" / NEW / "IDEALTrainerShort__nnUNetTinyPlans__2d" / "fold_all"
    log = next(fold.glob("training_log*.txt")).read_text()
    assert "0 labelled and 5 unlabelled training cases" in log
    pretrained = weights(fold / "checkpoint_pretrained.pth")

    # A data set with labels starts from it: with one channel and one class more.
    content = json.loads((folders.preprocessed / "dataset.json").read_text())
    content["labels"]["tumour"] = len(content["labels"])
    content["channel_names"]["1"] = "CT"
    (folders.preprocessed / "dataset.json").write_text(json.dumps(content))
    data = folders.preprocessed / "nnUNetPlans_2d"
    dataset = nnUNetDatasetBlosc2(str(data))
    for case in dataset.identifiers:
        image, segmentation, _, properties = dataset.load_case(case)
        whole = np.concatenate((image[:], image[:])), segmentation[:], properties
        for file in data.glob(f"{case}*"):
            file.unlink()
        nnUNetDatasetBlosc2.save_case(*whole, str(data / case))
    plans = folders.preprocessed / "nnUNetTinyPlans.json"
    content = json.loads(plans.read_text())
    content["configurations"]["2d"]["semcl"] = {"start_from": str(fold / "checkpoint_pretrained.pth")}
    plans.write_text(json.dumps(content))
    trainer = make_trainer()
    trainer.initialize()
    name = "encoder.stages.1.0.convs.0.conv.weight"
    assert torch.equal(trainer.network.state_dict()[name], pretrained[name])
    assert f"by IDEALTrainerShort on {NEW}. Weights taken: " in log_of(trainer)
    assert "Adapted in channels or kernel: encoder.stages.0 (1)" in log_of(trainer)
    trainer.pretrain()
    assert not torch.equal(trainer.network.state_dict()[name], pretrained[name])
    assert json.loads((Path(trainer.output_folder) / "semcl_settings.json").read_text())["start_from"]["value"]


REFUSED = {
    "labels needed": (["-tr", "SemCLTrainerShort"], "998", f"{NEW} has no labelled case, but SemCLTrainerShort needs"),
    "no folds": (["-tr", "IDEALTrainerShort", "-f", "0"], "998", f"-f 0: {NEW} has no labelled case"),
    "no pretraining": (["-tr", "nnUNetTrainerShort"], "999", "-tr nnUNetTrainerShort has no pretraining"),
    "no trainer": (["-tr", "NoTrainer"], "999", "-tr NoTrainer: nnU-Net finds no trainer of this name"),
    "no data set": ([], "997", "no data set matches '997'"),
    "no fold": (["-f", "x"], "999", "fold: 'x' is not 'all' or a whole number"),
    "configuration": (["-c", "3d_fullres", "-tr", "IDEALTrainerShort"], "998", "contains no preprocessed cases"),
}


def test_what_cannot_be_pretrained(scans: Path, folders: NNUNetFolders, capsys: pytest.CaptureFixture) -> None:
    for options, dataset, words in REFUSED.values():
        assert pretrain(*options, dataset=dataset) == 1
        assert words in capsys.readouterr().err
    assert not list((folders.root / "results").iterdir())


def test_shares_that_leave_nothing(folders: NNUNetFolders, capsys: pytest.CaptureFixture) -> None:
    plans = folders.preprocessed / "nnUNetTinyPlans.json"
    content = json.loads(plans.read_text())
    content["configurations"]["2d"]["ideal"] = {"shares": {"pretraining": 0}}
    plans.write_text(json.dumps(content))
    assert pretrain("-tr", "IDEALTrainerShort") == 1
    assert "IDEALTrainerShort has no pretraining for 2d: no epoch is left for it" in capsys.readouterr().err


def test_data_sets_that_cannot_be_made_like_another(
    scans: Path, folders: NNUNetFolders, capsys: pytest.CaptureFixture
) -> None:
    for name, source, words in (
        ("997", "999", "no data set matches '997'"),
        ("Dataset997_Scans", "996", "no data set matches '996'"),
        ("Dataset998_Others", "999", f"{scans} has the same id. Choose another number with -d"),
        ("Dataset999_Others", "999", "Dataset999_Phantom has the same id"),
    ):
        assert like(folders, name, source=source) == 1
        assert words in capsys.readouterr().err
    plans = scans / "nnUNetTinyPlans.json"
    plans.write_text(json.dumps(json.loads(plans.read_text()) | {"original_median_shape_after_transp": [1, 1, 1]}))
    assert like(folders) == 1
    assert f"{plans} is another one than that of Dataset999_Phantom" in capsys.readouterr().err
    shutil.rmtree(scans)
    assert like(folders, images="nowhere") == 1
    assert not scans.exists()
