"""Which training runs where, with a program in place of a training."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from nnunet_semcl.launchers.local import LocalLauncher
from nnunet_semcl.launchers.training import ENDED, RUNNING, WAITING, Training


def training(folder: Path, number: int, *command: str) -> Training:
    return Training("a", str(number), folder, folder / f"{number}.txt", command)


def run(launcher: LocalLauncher, trainings: list[Training]) -> None:
    launcher.launch(trainings)
    deadline = time.monotonic() + 60
    while any(t.state != ENDED for t in trainings):
        launcher.look()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_gpu_has_one_training_at_a_time(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    note = f'echo "{{}} $CUDA_VISIBLE_DEVICES" >> {notes}'
    script = "; ".join((note.format("start"), "sleep 0.3", note.format("end")))
    run(LocalLauncher("cuda", ["2", "5"]), [training(tmp_path, number, "sh", "-c", script) for number in range(5)])
    busy: set[str] = set()
    lines = notes.read_text().splitlines()
    assert len(lines) == 10
    for line in lines:
        event, gpu = line.split()
        assert (gpu in busy) == (event == "end")
        busy ^= {gpu}
        assert gpu in ("2", "5")
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "2"


def test_trainings_side_by_side_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for users, expected in (("", "2"), ("5", "5")):
        monkeypatch.setenv("OMP_NUM_THREADS", users) if users else monkeypatch.delenv("OMP_NUM_THREADS", False)
        trainings = [training(tmp_path, number, "sh", "-c", "echo $OMP_NUM_THREADS") for number in range(3)]
        run(LocalLauncher("cpu", ["0", "1", "2"]), trainings)
        assert [t.log.read_text().split()[-1] for t in trainings] == [expected] * 3


def test_one_that_dies_stops_no_other(tmp_path: Path) -> None:
    trainings = [training(tmp_path, 0, "sh", "-c", "echo no memory; exit 3"), training(tmp_path, 1, "true")]
    run(LocalLauncher("cpu", ["0"]), trainings)
    assert [t.reason for t in trainings] == ["exit code 3", "exit code 0"]
    assert trainings[0].log.read_text() == "no memory\n"


def test_when_it_is_left_its_trainings_and_their_workers_end(tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.run(['sleep', '600'])"
    trainings = [training(tmp_path, number, sys.executable, "-c", script) for number in range(2)]
    launcher = LocalLauncher("cpu", ["0"])
    launcher.launch(trainings)
    launcher.look()
    assert [t.state for t in trainings] == [RUNNING, WAITING]
    ((_, process),) = launcher.running.values()
    assert launcher.leave().startswith("Stopped. Run the same command again")
    assert process.returncode < 0
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return
    raise AssertionError("a worker runs on")
