"""nnU-Net's own commands with this package's trainers: training, prediction, and a training killed and continued."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
import SimpleITK as sitk
import torch
from nnunetv2.run import run_training

from nnunet_semcl.commands.path import trainer_path
from nnunet_semcl.commands.train import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import NNUNetFolders
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

ID = 999


def test_train_predict_and_continue_with_stock_nnunet(folders: NNUNetFolders) -> None:
    trained = folders.run(f"nnUNetv2_train {ID} 2d 0 -tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu")
    assert trained.returncode == 0, trained.stdout
    fold = folders.fold("SemCLTrainerShort", "2d")
    for name in ("checkpoint_final.pth", "checkpoint_pretrained.pth", "pretraining_log.jsonl", "pretraining.png",
                 "progress.png", "validation/summary.json"):  # fmt: skip
        assert (fold / name).is_file(), name
    assert not (fold / "checkpoint_pretraining.pth").exists()
    assert "Pretraining epoch 3 of 3" in trained.stdout
    assert trained.stdout.index("Pretraining done") < trained.stdout.index("Epoch 0")
    pretrained, final = (
        torch.load(fold / f"checkpoint_{name}.pth", weights_only=False)["network_weights"]
        for name in ("pretrained", "final")
    )
    assert all(torch.equal(final[key], pretrained[key]) for key in pretrained)  # the last epoch only validates

    stock = folders.run(
        f"nnUNetv2_train {ID} 2d 0 -tr nnUNetTrainerShort -p nnUNetTinyPlans -device cpu "
        f"-pretrained_weights {fold / 'checkpoint_pretrained.pth'}"
    )
    assert stock.returncode == 0, stock.stdout
    assert "Loading pretrained weights" in stock.stdout

    output = folders.root / "predicted"
    predicted = folders.run(
        f"nnUNetv2_predict -d {ID} -c 2d -f 0 -tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu "
        f"-i {folders.raw / 'imagesTs'} -o {output} -npp 0 -nps 0"
    )
    assert predicted.returncode == 0, predicted.stdout
    image = sitk.ReadImage(str(output / "phantom_test_000.nii.gz"))
    truth = sitk.ReadImage(str(folders.raw / "labelsTs" / "phantom_test_000.nii.gz"))
    assert image.GetSize() == truth.GetSize()

    # exported, and predicted without the package's trainers
    model, stock_output = folders.root / "model", folders.root / "predicted_by_stock"
    exported = folders.run(
        f"nnunet-semcl export -d {ID} -c 2d -tr SemCLTrainerShort -p nnUNetTinyPlans -f 0 -o {model}"
    )
    assert exported.returncode == 0, exported.stdout
    assert "with and without the plugin are bit-identical" in exported.stdout
    del folders.environment["nnUNet_extTrainer"]
    predicted = folders.run(
        f"nnUNetv2_predict_from_modelfolder -m {model} -f 0 -device cpu -i {folders.raw / 'imagesTs'} "
        f"-o {stock_output} -npp 1 -nps 1"
    )
    assert predicted.returncode == 0, predicted.stdout
    (name,) = (file.name for file in output.glob("*.nii.gz"))
    assert (stock_output / name).read_bytes() == (output / name).read_bytes()


def test_3d_through_nnunet_semcl(folders: NNUNetFolders) -> None:
    folders.environment["nnUNet_n_proc_DA"] = "1"  # with a worker process, as in normal use
    result = folders.run(f"nnunet-semcl train {ID} 3d_fullres 1 -tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu")
    assert result.returncode == 0, result.stdout
    assert "Mean Validation Dice" in result.stdout


def test_on_a_cpu_a_training_takes_omp_num_threads(folders: NNUNetFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(run_training, "run_training", lambda *_, **__: seen.append(torch.get_num_threads()))
    command = f"{ID} 2d 0 -tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu".split()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as torch does when it is imported with that variable
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        train(command)
        monkeypatch.delenv("OMP_NUM_THREADS")
        train(command)
    finally:
        torch.set_num_threads(before)
    assert seen == [1, os.cpu_count()]


def test_killed_in_pretraining_and_continued(
    folders: NNUNetFolders, make_trainer: Callable[..., nnUNetTrainer]
) -> None:
    command = f"nnUNetv2_train {ID} 2d 0 -tr SemCLTrainerManyEpochs -p nnUNetTinyPlans -device cpu"
    fold = folders.fold("SemCLTrainerManyEpochs", "2d")
    process = folders.start(command)
    log = fold / "pretraining_log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and len(log.read_text().splitlines()) >= 4):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = torch.load(fold / "checkpoint_pretraining.pth", weights_only=True)["records"][-1]["epoch"]
    assert 3 <= done < 8

    continued = folders.run(command + " --c")
    assert continued.returncode == 0, continued.stdout
    assert f"Pretraining continues after epoch {done}" in continued.stdout
    assert f"Pretraining epoch {done} of" not in continued.stdout
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == list(range(9))
    assert (fold / "checkpoint_final.pth").is_file()
    interrupted = torch.load(fold / "checkpoint_pretrained.pth", weights_only=True)["network_weights"]

    uninterrupted = make_trainer("SemCLTrainerManyEpochs")
    uninterrupted.initialize()
    uninterrupted.pretrain()
    expected = uninterrupted.network.state_dict()
    differing = {
        key: (expected[key] - value).abs().max().item()
        for key, value in interrupted.items()
        if not torch.equal(expected[key], value)
    }
    assert not differing


def test_the_installed_trainers_are_found_by_nnunet(folders: NNUNetFolders, capsys: pytest.CaptureFixture) -> None:
    folders.environment["nnUNet_extTrainer"] = trainer_path(None)
    folders.call("doctor")
    report = capsys.readouterr().out
    for name in ("SemCLTrainer", "SemCLTrainer_5epochs", "SemCLTrainer_100epochs", "SemCLTrainer_250epochs"):
        assert f"{name}: found, picklable, the same class each time" in report


def test_invalid_input_gives_one_clear_line(folders: NNUNetFolders) -> None:
    for command, message in (
        ("nnunet-semcl train 998 2d 0 -tr SemCLTrainer -device cpu", "no data set matches '998'"),
        (
            f"nnunet-semcl train {ID} 2d 0 -tr SemCLTrainer -p Other -device cpu",
            "Other.json does not exist, available plans: ",
        ),
        (f"nnunet-semcl train {ID} 4d 0 -tr SemCLTrainer -device cpu", "no configuration '4d'"),
    ):
        result = folders.run(command)
        assert result.returncode == 1
        assert message in result.stdout, result.stdout
        assert "Traceback" not in result.stdout, result.stdout
        assert not list((folders.root / "results").iterdir())
