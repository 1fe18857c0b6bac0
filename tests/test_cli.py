"""The command line: what reaches nnU-Net, what a user reads, and how long `path` may take to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_semcl import trainers
from nnunet_semcl.cli import main
from nnunet_semcl.commands.path import EXT_TRAINER, trainer_path
from nnunet_semcl.errors import InputError

OWN = str(Path(trainers.__file__).parent)


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives back sys.argv and the environment, which train and predict change."""
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setenv("nnUNet_extTrainer", "")


# path


def test_path_is_appended_once():
    assert trainer_path(None) == trainer_path("") == OWN
    both = trainer_path("/mine")
    assert both == os.pathsep.join(["/mine", OWN])
    assert trainer_path(both) == both
    assert trainer_path(OWN + os.sep) == OWN + os.sep
    assert trainer_path(os.pathsep.join([OWN, "", "/mine"])) == os.pathsep.join([OWN, "/mine"])


def test_path_prints_the_folder_and_nothing_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    assert main(["path"]) == 0
    assert capsys.readouterr().out == f"/mine{os.pathsep}{OWN}\n"
    assert (Path(OWN) / "SemCLTrainer.py").is_file()


def test_path_and_help_import_neither_torch_nor_nnunet():
    code = (
        "import contextlib, sys; from nnunet_semcl.cli import main; main(['path'])\n"
        "with contextlib.suppress(SystemExit): main(['-h'])\n"
        "sys.exit(bool({'torch', 'nnunetv2', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0
    assert "doctor" in result.stdout


# train and predict


def test_help_of_train_is_nnunets_own():
    result = subprocess.run([sys.executable, "-m", "nnunet_semcl.cli", "train", "-h"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "usage: nnunet-semcl train" in result.stdout
    assert "-pretrained_weights" in result.stdout
    assert "--val_best" in result.stdout


def test_train_hands_everything_on_after_the_check(surroundings: None, monkeypatch: pytest.MonkeyPatch):
    from nnunetv2.run import run_training as nnunet

    from nnunet_semcl.commands import train

    checked, trained = [], []
    monkeypatch.setattr(train, "check_training_input", lambda *arguments: checked.append(arguments))
    monkeypatch.setattr(nnunet, "run_training", stock := lambda *arguments, **named: trained.append((arguments, named)))
    # -device mps: the only one for which nnU-Net leaves torch's number of threads alone
    assert (
        main(["train", "-tr", "SemCLTrainer", "4", "2d", "all", "-p", "nnUNetTinyPlans", "--c", "-device", "mps"]) == 0
    )

    assert checked == [("4", "2d", "nnUNetTinyPlans", "all")]
    ((arguments, named),) = trained
    assert arguments[:5] == ("4", "2d", "all", "SemCLTrainer", "nnUNetTinyPlans")
    assert arguments[8] is True  # --c
    assert named["device"].type == "mps"
    assert os.environ[EXT_TRAINER] == OWN
    assert nnunet.run_training is stock


def test_train_stops_at_a_failed_check_and_restores_nnunet(
    surroundings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    from nnunetv2.run import run_training as nnunet

    trained = []
    monkeypatch.setattr(nnunet, "run_training", stock := lambda *arguments, **named: trained.append(arguments))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert main(["train", "4", "2d", "0", "-device", "mps"]) == 1
    assert not trained
    assert nnunet.run_training is stock
    assert "export nnUNet_preprocessed=" in capsys.readouterr().err


def test_predict_hands_everything_on(surroundings: None, monkeypatch: pytest.MonkeyPatch):
    from nnunetv2.inference import predict_from_raw_data as nnunet

    seen = []
    monkeypatch.setattr(nnunet, "predict_entry_point", lambda: seen.extend(sys.argv))
    arguments = ["-i", "in", "-o", "out", "-d", "4", "-c", "2d", "-tr", "SemCLTrainer", "-f", "0"]
    assert main(["predict", *arguments]) == 0
    assert seen == ["nnunet-semcl predict", *arguments]
    assert os.environ[EXT_TRAINER] == OWN


# the others


def test_plan_doctor_and_demo_are_called_with_what_was_given(monkeypatch: pytest.MonkeyPatch):
    from nnunet_semcl.commands import demo, doctor, plan

    calls = []
    monkeypatch.setattr(plan, "write_preset_plans", lambda *arguments: calls.append(arguments))
    assert main(["plan", "-d", "4", "--preset", "tiny"]) == 0
    assert main(["plan", "-d", "Dataset004_H", "--preset", "my.json", "-p", "nnUNetResEncUNetMPlans"]) == 0
    assert calls == [("4", "tiny", "nnUNetPlans"), ("Dataset004_H", "my.json", "nnUNetResEncUNetMPlans")]

    monkeypatch.setattr(doctor, "run_doctor", lambda: 1)
    assert main(["doctor"]) == 1

    folders = []
    monkeypatch.setattr(demo, "run_demo", folders.append)
    assert main(["demo"]) == main(["demo", "-o", "elsewhere"]) == 0
    assert folders == [Path("nnunet_semcl_demo"), Path("elsewhere")]


def test_an_input_error_of_any_sub_command_is_told_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    from nnunet_semcl.commands import doctor

    def ill() -> int:
        raise InputError("here", "this", "that", "Do so.")

    monkeypatch.setattr(doctor, "run_doctor", ill)
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "here: found this, expected that. Do so.\n")


@pytest.mark.parametrize("arguments", [[], ["trian"], ["plan", "-d", "4"], ["path", "--here"]])
def test_arguments_that_do_not_parse_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: nnunet-semcl" in capsys.readouterr().err
