"""Which training runs where, with a program in place of a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_semcl.launchers.local import LocalLauncher
from nnunet_semcl.launchers.training import ENDED, RUNNING, WAITING, Training

LAUNCH = """
import sys, time
from pathlib import Path
from nnunet_semcl.launchers.local import LocalLauncher
from nnunet_semcl.launchers.training import Training
log = Path(sys.argv[1])
launcher = LocalLauncher("cpu", ["0"])
launcher.launch([Training("a", "0", log.parent, log, [sys.executable, "-c", sys.argv[2]])])
launcher.look()
time.sleep(600)
"""
TRAIN = """
import os, subprocess
from nnunet_semcl.launchers.local import end_with_launcher
end_with_launcher()
print(os.getpid(), flush=True)
subprocess.run(["sleep", "600"])
"""


def training(folder: Path, number: int, *command: str) -> Training:
    return Training("a", str(number), folder, folder / f"{number}.txt", command)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(launcher: LocalLauncher, trainings: list[Training]) -> None:
    launcher.launch(trainings)

    def all_ended() -> bool:
        launcher.look()
        return all(t.state == ENDED for t in trainings)

    wait_for(all_ended)


def is_alive(group: int) -> bool:
    """Whether a process of the group runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


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
    assert not is_alive(process.pid)


def test_when_it_is_killed_its_trainings_and_their_workers_end(tmp_path: Path) -> None:
    log = tmp_path / "0.txt"
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCH, str(log), TRAIN])
    wait_for(lambda: log.is_file() and log.read_text().endswith("\n"))
    group = int(log.read_text())
    assert is_alive(group)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_for(lambda: not is_alive(group))
