"""`nnunet-semcl crossval` on the phantom: stopped, started again, past a training that dies, to the report."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from conftest import NNUNetFolders
from filelock import FileLock

from nnunet_semcl.cli import main
from nnunet_semcl.commands import crossval
from nnunet_semcl.commands.crossval import table_lines
from nnunet_semcl.launchers.local import LocalLauncher
from nnunet_semcl.launchers.training import ENDED, RUNNING, Training

TRAINERS = ("nnUNetTrainerShort", "nnUNetTrainerDying", "SemCLTrainerManyEpochs")
SUMMARY = '{"foreground_mean": {"Dice": 0.8125}}'
LOGS = "crossval_nnUNetTinyPlans_2d"


def command(output: Path, *trainers: str) -> str:
    return (
        f"nnunet-semcl crossval -d 999 -c 2d -p nnUNetTinyPlans -f 0 -device cpu -o {output} -np 1 "
        f"-tr {' '.join(trainers)}"
    )


def test_killed_and_started_again(folders: NNUNetFolders) -> None:
    report = folders.root / "report"
    results = folders.root / "results" / folders.dataset
    process = folders.start(command(report, *TRAINERS))
    log = folders.fold(TRAINERS[2], "2d") / "pretraining_log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()  # as when memory is short: nobody tells its training, which has to see for itself
    output, _ = process.communicate(timeout=90)
    killed = results / LOGS / f"{TRAINERS[2]}_fold_0.txt"
    while "continue with the same command and --c" not in killed.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert re.search(r"nnUNetTrainerShort +0 +finished", output)
    assert re.search(r"nnUNetTrainerDying +0 +died \(exit code 1\)", output)
    assert "as if memory had run out" in (results / LOGS / "nnUNetTrainerDying_fold_0.txt").read_text()

    final = folders.fold(TRAINERS[0], "2d") / "checkpoint_final.pth"
    finished_at = final.stat().st_mtime_ns
    again = folders.run(command(report, TRAINERS[0], TRAINERS[2]))
    assert again.returncode == 0, again.stdout
    assert final.stat().st_mtime_ns == finished_at
    assert "Pretraining continues after epoch" in killed.read_text()
    assert (report / "index.html").is_file()
    assert f"{folders.dataset}, 2d, nnUNetTinyPlans, fold 0." in again.stdout


def test_what_is_refused(folders: NNUNetFolders, capsys: pytest.CaptureFixture) -> None:
    report = folders.root / "report"
    start = ["crossval", "-d", "999", "-p", "nnUNetTinyPlans", "-device", "cpu", "-o", str(report)]
    short = ["-tr", "nnUNetTrainerShort", "SemCLTrainerShort"]
    for arguments, message in (
        (["-c", "2d", "-tr", "nnUNetTrainerShort", "Absent"], "-tr Absent: nnU-Net finds no trainer of this name"),
        (["-c", "4d", *short], "no configuration '4d'"),
        (["-c", "2d", *short, "-f", "zero"], "fold: 'zero' is not 'all' or a whole number"),
        (["-c", "2d", *short, "--partition", "gpu"], "--partition: only jobs of Slurm have one"),
        (["-c", "2d", *short, "--cpus", "4"], "--cpus: only jobs of Slurm have them"),
        (["-c", "2d", *short, "--gpus", "1"], "--gpus: -device cpu uses none"),
        (["-c", "2d", *short, "--jobs", "2", "-device", "cuda"], "--jobs: each GPU runs one training"),
        (["-c", "2d", *short, "--launcher", "slurm", "--gpus", "1"], "--gpus: Slurm chooses the GPUs"),
        (["-c", "2d", *short, "--launcher", "slurm", "--jobs", "2"], "--jobs: Slurm runs as many jobs"),
    ):
        assert main([*start, *arguments]) == 1
        assert message in capsys.readouterr().err
    report.mkdir()
    assert main([*start, "-c", "2d", *short]) == 1
    assert "report exists already" in capsys.readouterr().err
    report.rmdir()
    logs = folders.root / "results" / folders.dataset / LOGS
    logs.mkdir(parents=True)
    with FileLock(logs / ".lock"):
        assert main([*start, "-c", "2d", *short]) == 1
    assert f"another crossval is running: {logs}" in capsys.readouterr().err
    assert not list(logs.glob("*.txt"))


def test_the_table(tmp_path: Path) -> None:
    def training(trainer: str, fold: str) -> Training:
        return Training(trainer, fold, tmp_path / f"fold_{fold}", tmp_path / "log.txt", ())

    (tmp_path / "fold_0" / "validation").mkdir(parents=True)
    (tmp_path / "fold_0" / "validation" / "summary.json").write_text(SUMMARY)
    (tmp_path / "fold_2").mkdir()
    (tmp_path / "fold_2" / "training_log_1.txt").write_text("2026: Pretraining epoch 3 of 7\n")
    trainings = [training("nnUNetTrainer", "0"), *(training("SemCLTrainer", fold) for fold in "123")]
    trainings[1].state, trainings[1].reason = ENDED, "job 7"
    trainings[2].state = RUNNING
    assert table_lines(trainings) == [
        "trainer        fold  state         phase        epoch  pseudo Dice  time left  Dice",
        "nnUNetTrainer  0     finished                                                  0.812",
        "SemCLTrainer   1     died (job 7)",
        "SemCLTrainer   2     running       pretraining  4/7",
        "SemCLTrainer   3     waiting",
    ]


def started(folder: Path, fold: str, script: str) -> Training:
    return Training("a", fold, folder / f"fold_{fold}", folder / f"{fold}.txt", ("sh", "-c", script))


def test_what_did_not_finish_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(crossval, "SECONDS", 0.02)
    finish = f"mkdir -p {tmp_path}/fold_1/validation; echo '{SUMMARY}' > {tmp_path}/fold_1/validation/summary.json"
    trainings = [started(tmp_path, "0", "exit 3"), started(tmp_path, "1", finish)]
    assert crossval._run_all(LocalLauncher("cpu", ["0"]), trainings) == trainings[:1]
    *_, first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"a +0 +died \(exit code 3\)", first)
    assert re.fullmatch(r"a +1 +finished +0\.812", second)
    # What is finished is not run again.
    trainings[1].command = ("sh", "-c", f"touch {tmp_path / 'again'}")
    assert crossval._run_all(LocalLauncher("cpu", ["0"]), trainings[1:]) == []
    assert not (tmp_path / "again").exists()


def test_a_signal_ends_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(crossval, "SECONDS", 0.02)
    before = signal.getsignal(signal.SIGTERM)
    launcher = LocalLauncher("cpu", ["0"])
    training = started(tmp_path, "0", f"kill {os.getpid()}; sleep 600")
    with pytest.raises(SystemExit) as stopped:
        crossval._run_all(launcher, [training])
    assert stopped.value.code == 128 + signal.SIGTERM
    assert all(process.poll() == -signal.SIGTERM for _, process in launcher.running.values())
    assert "Stopped. Run the same command again" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before
