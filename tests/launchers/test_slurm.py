"""On a real Slurm of one node, skipped with the reason where there is none; and by programs of Slurm's names."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import NNUNetFolders
from slurm_cluster import missing, slurm_cluster

from nnunet_semcl.errors import InputError
from nnunet_semcl.launchers import slurm
from nnunet_semcl.launchers.slurm import JOBS, Job, JobOptions, SlurmLauncher
from nnunet_semcl.launchers.training import ENDED, QUEUED, RUNNING, Training

OPTIONS = JobOptions(gpus=0, minutes=5, cpus=1)
# Counts its starts, and ends in order after SIGTERM, as our trainers do; the second time it gets through.
PROGRAM = """
import pathlib, signal, sys, time
starts = pathlib.Path(sys.argv[1])
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
signal.signal(signal.SIGTERM, lambda *_: (print("ends in order", flush=True), sys.exit(1)))
if len(starts.read_text()) == 1:
    print("waits", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if reason := missing():
        pytest.skip(reason)
    with slurm_cluster(tmp_path_factory.mktemp("slurm") / "cluster"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "ASK_EVERY", 0)
        yield


def training(folder: Path, fold: str, *command: str) -> Training:
    return Training("a", fold, folder / fold, folder / f"{fold}.txt", command)


def wait_until(happened: Callable[[], bool], launcher: SlurmLauncher | None = None) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        if launcher:
            launcher.look()
        time.sleep(0.1)


def test_jobs(cluster: None, tmp_path: Path) -> None:
    """One is interrupted as by a time-out and goes on, one dies; another launcher finds both again."""
    long = training(tmp_path, "0", sys.executable, "-c", PROGRAM, str(tmp_path / "starts"))
    dying = training(tmp_path, "1", "sh", "-c", "echo no memory; sleep 1; exit 3")
    first = SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS)
    first.launch([long, dying])
    assert {long.state, dying.state} == {QUEUED}
    job = first.jobs["a 0"]
    wait_until(lambda: long.state == RUNNING and long.log.is_file() and "waits" in long.log.read_text(), first)
    assert f"scancel {job}" in first.leave()

    second = SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS)
    second.launch([long])
    assert second.jobs["a 0"] == job  # not submitted again
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # as Slurm does before a job's time is over
    wait_until(lambda: long.state == ENDED, second)
    assert (tmp_path / "starts").read_text() == "xx"
    assert long.log.read_text() == "waits\nends in order\n"
    wait_until(lambda: dying.state == ENDED, first)
    assert dying.log.read_text() == "no memory\n"
    assert re.fullmatch(r"job \d+", dying.reason)

    third = SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS)
    third.launch([dying])
    assert third.jobs["a 1"] != first.jobs["a 1"]  # what died is submitted again
    assert third.jobs["a 0"] == job
    wait_until(lambda: dying.state == ENDED, third)


def test_crossval(cluster: None, folders: NNUNetFolders) -> None:
    """Stopped, interrupted as by a time-out, started again, to the report."""
    trainers = ("nnUNetTrainerShort", "SemCLTrainerManyEpochs")
    command = (
        f"nnunet-semcl crossval -d 999 -c 2d -p nnUNetTinyPlans -f 0 -device cpu -o {folders.root / 'report'} -np 1 "
        f"-tr {' '.join(trainers)} --launcher slurm --time 10 --cpus 1"
    )
    logs = folders.root / "results" / folders.dataset / "crossval_nnUNetTinyPlans_2d"
    process = folders.start(command)
    log = folders.fold(trainers[1], "2d") / "pretraining_log.jsonl"
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) >= 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "The jobs go on; the same command watches them again. To end them: scancel" in output
    job = json.loads((logs / JOBS).read_text())["jobs"][f"{trainers[1]} 0"]
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    again = folders.run(command)
    assert again.returncode == 0, again.stdout
    assert json.loads((logs / JOBS).read_text())["jobs"][f"{trainers[1]} 0"] == job
    text = (logs / f"{trainers[1]}_fold_0.txt").read_text()
    assert "continue with the same command and --c" in text
    assert "Pretraining continues after epoch" in text
    assert (folders.root / "report" / "index.html").is_file()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sbatch that counts jobs, and squeue that prints the file that is returned, or fails if there is none."""
    queue, counted, folder = tmp_path / "queue", tmp_path / "counted", tmp_path / "bin"
    folder.mkdir()
    submit = f'case "$(cat $1)" in *absent*) echo invalid partition >&2; exit 1;; esac; echo >> {counted}'
    for name, script in (
        ("sbatch", f'{submit}; echo "Submitted batch job $(wc -l < {counted})"'),
        ("squeue", f"cat {queue}"),
        ("srun", ""),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(slurm, "ASK_EVERY", 0)
    queue.write_text("")
    return queue


def test_states_follow_the_queue(programs: Path, tmp_path: Path) -> None:
    trainings = [training(tmp_path, fold, "true") for fold in "01"]
    first = SlurmLauncher(tmp_path, "Dataset999_Phantom", JobOptions(gpus=1, partition="gpu", minutes=5))
    first.launch(trainings)
    asked = (tmp_path / "slurm" / "1_submission.sh").read_text()
    for option in ("--partition=gpu", "--gpus-per-node=1", "--cpus-per-task=12", "--time=5"):
        assert f"#SBATCH {option}\n" in asked
    programs.write_text("1 RUNNING\n2 PENDING\n77 RUNNING\n")
    first.look()
    assert [t.state for t in trainings] == [RUNNING, QUEUED]
    programs.rename(tmp_path / "away")  # Slurm does not answer
    first.look()
    assert [t.state for t in trainings] == [RUNNING, QUEUED]
    programs.write_text("2 PENDING\n")
    first.look()
    assert [t.state for t in trainings] == [ENDED, QUEUED]
    assert trainings[0].reason == "job 1"
    assert first.leave().endswith("To end them: scancel 2")

    second = SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS)
    second.launch(trainings)  # what ended is submitted again
    assert second.jobs == {"a 0": "3", "a 1": "2"}


def test_what_cannot_be_submitted(programs: Path, tmp_path: Path) -> None:
    refused = SlurmLauncher(tmp_path, "Dataset999_Phantom", JobOptions(gpus=0, partition="absent", minutes=5, cpus=1))
    with pytest.raises(InputError, match=r"Slurm refuses the job of a 0 \(.*invalid partition.*Correct --partition"):
        refused.launch([training(tmp_path, "0", "true")])
    assert refused.leave() == "No job runs."
    programs.unlink()
    with pytest.raises(InputError, match="squeue fails"):  # else what runs would be submitted again
        SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS).launch([training(tmp_path, "0", "true")])
    assert not (tmp_path / JOBS).exists()


def test_a_job_says_how_its_training_ended(tmp_path: Path) -> None:
    Job(["true"], tmp_path / "log")()
    with pytest.raises(RuntimeError, match=f"exit code 3: see {tmp_path / 'log'}"):
        Job(["sh", "-c", "exit 3"], tmp_path / "log")()


def test_a_job_ends_its_training_before_it_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    log = tmp_path / "log"
    job = Job([sys.executable, "-c", PROGRAM, str(tmp_path / "starts")], log)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(job)
        wait_until(lambda: log.is_file() and "waits" in log.read_text())
        again = job.checkpoint()
        assert log.read_text() == "waits\nends in order\n"
        with pytest.raises(RuntimeError, match="exit code 1"):
            done.result()
    again.function()
    assert (tmp_path / "starts").read_text() == "xx"


def test_a_record_of_another_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbatch"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / JOBS).write_text('{"dataset": "Dataset004_Hippocampus", "jobs": {}}')
    with pytest.raises(InputError, match=f"{JOBS}: it is not a record of jobs of Dataset999_Phantom"):
        SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS)


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--launcher slurm: sbatch is not on PATH"):
        SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS)


def test_without_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbatch"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="submitit is not installed"):
        SlurmLauncher(tmp_path, "Dataset999_Phantom", OPTIONS)
