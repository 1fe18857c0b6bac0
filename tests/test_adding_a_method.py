"""The method in docs/adding-a-method.md, taken out of the page unchanged and used through nnU-Net's commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import TRAINERS, MakeTrainer, NNUNetFolders

from nnunet_semcl.cli import main
from nnunet_semcl.commands import doctor, export
from nnunet_semcl.commands.plan import load_preset
from nnunet_semcl.methods import settings_by_section

PAGE = Path(__file__).parent.parent / "docs" / "adding-a-method.md"
SHORT = """
import forked_pools
from MaskedTrainer import MaskedTrainer


class MaskedTrainerShort(MaskedTrainer):
    num_epochs, num_iterations_per_epoch = 7, 3
    num_val_iterations_per_epoch = 1
    seed = 1

    def epoch_shares(self, settings):
        return {"pretraining": 0.8}, "six of seven epochs"
"""
FOLD = 5  # the one that label-budget appends: two labelled cases, two unlabelled ones
TRAIN = f"nnUNetv2_train 999 2d {FOLD} -tr MaskedTrainerShort -p nnUNetTinyPlans -device cpu"


@pytest.fixture
def masked(folders: NNUNetFolders, monkeypatch: pytest.MonkeyPatch) -> NNUNetFolders:
    """nnU-Net's folders with the page's file in a folder of nnUNet_extTrainer."""
    trainers = folders.root / "my_trainers"
    trainers.mkdir()
    method, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (trainers / "MaskedTrainer.py").write_text(method)
    (trainers / "short.py").write_text(SHORT)
    shutil.copy(TRAINERS / "forked_pools.py", trainers)
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers))
    folders.environment["nnUNet_extTrainer"] = str(trainers)
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    return folders


def killed_in_pretraining(folders: NNUNetFolders, log: Path) -> None:
    process = folders.start(TRAIN)
    deadline = time.monotonic() + 120
    while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_trained_killed_continued_exported_and_predicted(masked: NNUNetFolders, make_trainer: MakeTrainer) -> None:
    fold = masked.fold("MaskedTrainerShort", "2d", fold=FOLD)
    log = fold / "pretraining_log.jsonl"
    killed_in_pretraining(masked, log)
    assert not (fold / "checkpoint_pretrained.pth").exists()
    continued = masked.run(f"{TRAIN} --c")
    assert continued.returncode == 0, continued.stdout
    assert re.search(r"Pretraining continues after epoch [2-5]", continued.stdout)
    assert "2 labelled and 2 unlabelled training cases" in continued.stdout
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(7))
    assert records[-1]["held_out_loss"] < records[0]["held_out_loss"]
    assert json.loads((fold / "masked_settings.json").read_text())["ratio"]["value"] == 0.6
    interrupted = torch.load(fold / "checkpoint_pretrained.pth", weights_only=True)["network_weights"]

    model, output = masked.root / "model", masked.root / "predictions"
    exported = masked.run(
        f"nnunet-semcl export -d 999 -c 2d -tr MaskedTrainerShort -p nnUNetTinyPlans -f {FOLD} -o {model}"
    )
    assert exported.returncode == 0, exported.stdout
    del masked.environment["nnUNet_extTrainer"]
    predicted = masked.run(
        f"nnUNetv2_predict_from_modelfolder -m {model} -f {FOLD} -device cpu -npp 1 -nps 1 "
        f"-i {masked.raw / 'imagesTs'} -o {output}"
    )
    assert predicted.returncode == 0, predicted.stdout
    assert len(list(output.glob("*.nii.gz"))) == 1

    uninterrupted = make_trainer("MaskedTrainerShort", fold=FOLD)
    uninterrupted.initialize()
    uninterrupted.pretrain()
    weights = uninterrupted.network.state_dict()
    assert all(torch.equal(weights[key], weight) for key, weight in interrupted.items())
    assert len(weights) == len(interrupted)


def test_presets_export_and_doctor_know_its_section(
    masked: NNUNetFolders, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert list(settings_by_section()) == ["ideal", "masked", "semcl"]
    preset = tmp_path / "masked.json"
    preset.write_text(json.dumps({"plans_name": "nnUNetMaskedPlans", "masked": {"block": 4}}))
    assert load_preset(str(preset)).sections == {"masked": {"block": 4}}
    plan = ["plan", "-d", "999", "--preset", str(preset), "-p", "nnUNetTinyPlans"]
    assert main(plan) == 0
    plans = json.loads((masked.preprocessed / "nnUNetMaskedPlans.json").read_text())
    assert plans["configurations"]["2d"]["masked"] == {"block": 4}
    assert "masked" not in export._without_our_sections(plans)["configurations"]["2d"]

    preset.write_text(json.dumps({"plans_name": "nnUNetMaskedPlans", "masked": {"blocks": 4}}))
    assert main(plan) == 1
    assert '"masked" of configuration 2d: unknown key "blocks"' in capsys.readouterr().err
    (finding,) = doctor.check_methods()
    assert finding.text == "methods, as sections of the plans: ideal, masked, semcl"


def test_a_broken_file_of_the_folder_is_named_and_stops_nothing(
    masked: NNUNetFolders, capsys: pytest.CaptureFixture
) -> None:
    (masked.root / "my_trainers" / "broken.py").write_text("import no_such_module")
    assert {"ideal", "semcl"} <= settings_by_section().keys()
    assert "my_trainers of nnUNet_extTrainer cannot be imported as a whole" in capsys.readouterr().out
