"""The demo: its commands, folder, environment and trainers. The whole demo takes minutes and is not run here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_semcl.commands import demo
from nnunet_semcl.commands.crossval import CrossValidation
from nnunet_semcl.commands.demo_trainers import SemCLTrainerDemo, nnUNetTrainerDemo
from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.compare_cases import Options
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


@pytest.fixture
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops the demo at its first command."""

    def stop(*_: object) -> None:
        raise InputError("a command was stopped by the test", "")

    monkeypatch.setattr(demo, "run_logged", stop)


def test_a_failing_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "failing.log"
    script = "import sys; [print('line', i) for i in range(50)]; sys.exit('what went wrong')"
    with pytest.raises(InputError) as error:
        demo.run_logged([sys.executable, "-c", script], log, dict(os.environ))
    message = str(error.value)
    assert "failed with exit code 1" in message
    assert str(log) in message
    assert "what went wrong" in message
    assert "line 49" in message
    assert "line 31" in message
    assert "line 30\n" not in message, "20 lines, not more"
    assert len(log.read_text().splitlines()) == 51


def test_a_command_runs_in_the_folder_of_its_log_with_the_given_environment(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "good.log"
    script = "import os; print(os.getcwd()); print(os.environ['nnUNet_raw'])"
    demo.run_logged([sys.executable, "-c", script], log, os.environ | {"nnUNet_raw": "here"})
    assert log.read_text().split() == [str(log.parent), "here"]


def test_a_missing_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the command nnUNetv2_nonsense is not installed in .*Install nnunet-semcl"):
        demo.run_logged(["nnUNetv2_nonsense"], tmp_path / "log", dict(os.environ))


def test_a_folder_with_other_files_is_not_changed(tmp_path: Path, no_commands: None) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    with pytest.raises(InputError, match=f"{tmp_path} contains files that are not from a previous demo.*with -o"):
        demo.run_demo(tmp_path, 0)
    assert [f.name for f in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(InputError, match=r"precious\.txt is a file, not a folder.*with -o"):
        demo.run_demo(precious, 0)
    assert precious.read_text() == "mine"


def test_a_previous_demo_is_removed_and_an_empty_folder_is_used(
    tmp_path: Path, no_commands: None, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        with pytest.raises(InputError, match="stopped by the test"):
            demo.run_demo(tmp_path / "empty", 0)
        left = {f.name for f in (tmp_path / "empty").iterdir()}
        assert left == {demo.MARKER, "nnUNet_raw"}
        (tmp_path / "empty" / "comparison").touch()  # gone again in the second round
    assert "[1/5] Drawing a phantom data set ..." in capsys.readouterr().out


def test_a_failed_step_is_reported(tmp_path: Path, no_commands: None, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError):
        demo.run_demo(tmp_path / "demo", 0)
    assert capsys.readouterr().out.splitlines()[-1] == "[2/5] Planning and preprocessing ... failed"


def test_trainings_end_with_the_demo_since_its_own_process_starts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def run_crossval(cross: CrossValidation, options: Options) -> int:
        started.append((os.environ["nnUNet_results"], cross.trainers, options.output))
        return 1

    monkeypatch.setattr(demo, "run_logged", lambda *_: None)
    monkeypatch.setattr(demo, "run_crossval", run_crossval)
    with patch.dict(os.environ), pytest.raises(InputError, match="crossval: failed"):
        demo.run_demo(tmp_path / "demo", 0)
    folder = tmp_path / "demo"
    assert started == [(str(folder / "nnUNet_results"), demo.TRAINERS, folder / "comparison")]


def test_environment_keeps_only_the_users_variables_for_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/elsewhere")
    monkeypatch.setenv("nnUNet_n_proc_DA", "7")
    monkeypatch.setenv("nnUNet_extTrainer", "/my/trainers")
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    on_cpu, on_gpu = demo._environment(tmp_path, "cpu"), demo._environment(tmp_path, "cuda")
    assert on_cpu["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert on_cpu["nnUNet_n_proc_DA"] == "7"
    assert on_cpu["nnUNet_def_n_proc"] == "1"
    first, second = on_cpu["nnUNet_extTrainer"].split(os.pathsep)
    assert first == "/my/trainers"
    assert (Path(second) / "DemoTrainers.py").is_file()
    assert on_cpu["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in on_gpu
    assert os.environ["nnUNet_raw"] == "/elsewhere"


def test_all_steps_are_counted(tmp_path: Path) -> None:
    assert len(list(demo._commands(0))) == demo.STEPS - 2


@pytest.fixture
def trainers(folders: object, monkeypatch: pytest.MonkeyPatch) -> dict[str, nnUNetTrainer]:
    monkeypatch.setenv("nnUNet_extTrainer", demo._environment(Path(), "cpu")["nnUNet_extTrainer"])
    return {
        name: get_trainer_from_args("999", "2d", 0, name, "nnUNetTinyPlans", device=torch.device("cpu"))
        for name in demo.TRAINERS
    }


def test_both_trainers_have_the_same_number_of_steps(trainers: dict[str, nnUNetTrainer]) -> None:
    stock, semcl = trainers["nnUNetTrainerDemo"], trainers["SemCLTrainerDemo"]
    semcl.initialize()
    assert semcl.epochs["pretraining"] > 0
    assert sum(semcl.epochs.values()) == stock.num_epochs
    assert semcl.num_epochs == semcl.epochs["training"]
    assert semcl.num_iterations_per_epoch == stock.num_iterations_per_epoch


def test_neither_trainer_mirrors_and_nnunet_trains_by_adamw(trainers: dict[str, nnUNetTrainer]) -> None:
    for trainer in trainers.values():
        trainer.initialize()
        assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[-1] is None
        assert trainer.inference_allowed_mirroring_axes is None
    assert isinstance(trainers["nnUNetTrainerDemo"].optimizer, torch.optim.AdamW)


def test_nnunets_training_begins_alike_each_time(folders: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", demo._environment(Path(), "cpu")["nnUNet_extTrainer"])
    began = []
    for noise in range(2):
        torch.manual_seed(noise)
        np.random.seed(noise)
        plans = "nnUNetTinyPlans"
        trainer = get_trainer_from_args("999", "2d", 0, "nnUNetTrainerDemo", plans, device=torch.device("cpu"))
        trainer.initialize()
        torch.rand(noise)
        trainer.on_train_start()
        began.append((next(trainer.network.parameters()), next(trainer.dataloader_train)["data"]))
    assert all(torch.equal(first, second) for first, second in zip(*began, strict=True))


def test_nnunet_finds_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", demo._environment(Path(), "cpu")["nnUNet_extTrainer"])
    assert recursive_find_trainer_class_by_name("nnUNetTrainerDemo") is nnUNetTrainerDemo
    assert recursive_find_trainer_class_by_name("SemCLTrainerDemo") is SemCLTrainerDemo
    assert issubclass(SemCLTrainerDemo, SemCLTrainer)
