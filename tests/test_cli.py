"""The command line: what nnU-Net receives, what a user reads, and what `path` may import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_semcl import trainers  # type: ignore[attr-defined]  # setup.cfg maps trainers/ to this name
from nnunet_semcl.cli import main
from nnunet_semcl.commands.path import EXT_TRAINER, trainer_path
from nnunet_semcl.errors import InputError

OWN = str(Path(trainers.__file__).parent)


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores sys.argv and the environment, which train and predict change."""
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setenv("nnUNet_extTrainer", "")


# path


def test_path_is_appended_once() -> None:
    assert trainer_path(None) == trainer_path("") == OWN
    both = trainer_path("/mine")
    assert both == os.pathsep.join(["/mine", OWN])
    assert trainer_path(both) == both
    assert trainer_path(OWN + os.sep) == OWN + os.sep
    assert trainer_path(os.pathsep.join([OWN, "", "/mine"])) == os.pathsep.join([OWN, "/mine"])


def test_path_prints_the_folder_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    assert main(["path"]) == 0
    assert capsys.readouterr().out == f"/mine{os.pathsep}{OWN}\n"
    assert (Path(OWN) / "SemCLTrainer.py").is_file()


def test_path_and_help_import_neither_torch_nor_nnunet() -> None:
    code = (
        "import contextlib, sys; from nnunet_semcl.cli import main; main(['path'])\n"
        "with contextlib.suppress(SystemExit): main(['-h'])\n"
        "sys.exit(bool({'torch', 'nnunetv2', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0
    assert "doctor" in result.stdout


# train and predict


def test_version_is_that_of_the_package_and_of_nnunet(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"nnunet-semcl \d+\.\d+\.\d+, nnunetv2 2\.8\.\d+\n", capsys.readouterr().out)


def test_train_help_is_nnunets() -> None:
    result = subprocess.run([sys.executable, "-m", "nnunet_semcl.cli", "train", "-h"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "usage: nnunet-semcl train" in result.stdout
    assert "-pretrained_weights" in result.stdout
    assert "--val_best" in result.stdout


def test_train_passes_all_arguments_on_after_the_check(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.run import run_training as nnunet

    from nnunet_semcl.commands import train

    checked, trained = [], []
    monkeypatch.setattr(train, "check_training_input", lambda *arguments: checked.append(arguments))
    monkeypatch.setattr(nnunet, "run_training", stock := lambda *arguments, **named: trained.append((arguments, named)))
    # -device mps: the only device for which nnU-Net does not change torch's number of threads
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
    restored: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from nnunetv2.run import run_training as nnunet

    trained = []
    monkeypatch.setattr(nnunet, "run_training", stock := lambda *arguments, **named: trained.append(arguments))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert main(["train", "4", "2d", "0", "-device", "mps"]) == 1
    assert not trained
    assert nnunet.run_training is stock
    assert "export nnUNet_preprocessed=" in capsys.readouterr().err


def test_predict_passes_all_arguments_on(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.inference import predict_from_raw_data as nnunet

    seen = []
    monkeypatch.setattr(nnunet, "predict_entry_point", lambda: seen.extend(sys.argv))
    arguments = ["-i", "in", "-o", "out", "-d", "4", "-c", "2d", "-tr", "SemCLTrainer", "-f", "0"]
    assert main(["predict", *arguments]) == 0
    assert seen == ["nnunet-semcl predict", *arguments]
    assert os.environ[EXT_TRAINER] == OWN


# other commands


def test_plan_doctor_and_demo_receive_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_semcl.commands import demo, doctor, plan

    calls = []
    monkeypatch.setattr(plan, "write_preset_plans", lambda *arguments: calls.append(arguments))
    assert main(["plan", "-d", "4", "--preset", "tiny"]) == 0
    assert main(["plan", "-d", "Dataset004_H", "--preset", "my.json", "-p", "nnUNetResEncUNetMPlans"]) == 0
    assert calls == [("4", "tiny", "nnUNetPlans"), ("Dataset004_H", "my.json", "nnUNetResEncUNetMPlans")]

    monkeypatch.setattr(doctor, "run_doctor", lambda dataset: 1)
    assert main(["doctor"]) == 1

    demos = []
    monkeypatch.setattr(demo, "run_demo", lambda *arguments: demos.append(arguments))
    assert main(["demo"]) == main(["demo", "-o", "elsewhere", "--seed", "3"]) == 0
    assert demos == [(Path("nnunet_semcl_demo"), 0), (Path("elsewhere"), 3)]


def test_an_input_error_of_any_sub_command_is_printed_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from nnunet_semcl.commands import doctor

    def failing(dataset: str | None) -> int:
        raise InputError("file.json: no 'key'", "Add it.")

    monkeypatch.setattr(doctor, "run_doctor", failing)
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "file.json: no 'key'. Add it.\n")


SUB_COMMANDS = (
    *("path", "plan", "label-budget", "convert", "convert btcv", "convert voc", "convert camvid", "unlabelled"),
    *("pretrain", "export", "crossval", "compare", "embed", "next", "doctor", "demo"),
)


@pytest.mark.parametrize("command", SUB_COMMANDS)
def test_help_ends_with_an_example(
    command: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "-h"])
    assert stop.value.code == 0
    example = capsys.readouterr().out.splitlines()[-1]
    assert example.startswith("Example: ")
    assert f"nnunet-semcl {command}" in example


@pytest.mark.parametrize("arguments", [[], ["trian"], ["plan", "-d", "4"], ["path", "--here"]])
def test_arguments_that_do_not_parse_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: nnunet-semcl" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--jobs", "--time", "--cpus", "-np"])
@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many"])
def test_what_is_counted_is_one_or_more(option: str, number: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["crossval", "-d", "1", "-c", "2d", "-tr", "A", "B", "-o", "o", f"{option}={number}"])
    assert ended.value.code == 2
    assert f"argument {option}: {number} is not a whole number of 1 or more" in capsys.readouterr().err


def test_help_names_the_defaults_of_a_job(capsys: pytest.CaptureFixture) -> None:
    from nnunet_semcl.launchers.slurm import JobOptions

    with pytest.raises(SystemExit):
        main(["crossval", "-h"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"goes on in the next one (default: {JobOptions(1).minutes})" in shown
    assert f"of a job of Slurm (default: {JobOptions(1).cpus})" in shown
