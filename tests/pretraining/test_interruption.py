"""A second process on the same fold, SIGTERM, and folders that cannot be written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from filelock import FileLock

from nnunet_semcl.errors import InputError
from nnunet_semcl.pretraining import interruption
from nnunet_semcl.pretraining.interruption import exclusive, on_sigterm

ID = 999
COMMAND = f"nnUNetv2_train {ID} 2d 0 -tr SemCLTrainerManyEpochs -p nnUNetTinyPlans -device cpu"


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_sigterm_and_a_second_process(folders: NNUNetFolders, workers: str) -> None:
    folders.environment["nnUNet_n_proc_DA"] = workers
    fold = folders.fold("SemCLTrainerManyEpochs", "2d")
    process = folders.start(COMMAND)
    wait_for((fold / "checkpoint_pretraining.pth").is_file, process)
    process.send_signal(signal.SIGSTOP)  # it must not end before the second one starts
    second = folders.run(COMMAND)
    process.send_signal(signal.SIGCONT)
    assert second.returncode != 0
    assert f"another process is training this fold: {fold}" in second.stdout
    os.killpg(process.pid, signal.SIGTERM) if workers == "1" else process.terminate()  # schedulers signal workers too
    output = process.communicate()[0]
    assert process.returncode == 143, output
    assert f"is in {fold}: continue with the same command and --c" in output
    assert (fold / "checkpoint_pretraining.pth").is_file()
    assert not (fold / "checkpoint_pretrained.pth").is_file()


def test_only_one_process_holds_a_folder(tmp_path: Path) -> None:
    message = rf"another process is training this fold: {tmp_path} \(it holds {tmp_path}/\.lock\)\. Wait for it, or"
    warnings: list[str] = []
    with (
        exclusive(tmp_path, warnings.append),
        pytest.raises(InputError, match=message),
        exclusive(tmp_path, warnings.append),
    ):
        pass
    with exclusive(tmp_path, warnings.append):  # free again
        pass
    assert not warnings


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOLCK, "No locks available"),
        OSError(errno.EIO, "Input/output error"),
        NotImplementedError("flock"),
    ],
)
def test_a_file_system_without_locks_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def acquire(lock: FileLock) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", acquire)
    warnings: list[str] = []
    trained = False
    with exclusive(tmp_path, warnings.append):
        trained = True
    assert trained
    (warning,) = warnings
    assert f"{tmp_path}/.lock cannot be locked" in warning
    assert str(error) in warning


def test_outside_the_main_thread_no_handler_is_set() -> None:
    """As in notebooks and agents that train in a thread of their own."""
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def train() -> None:
        with on_sigterm(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before]


def test_sigterm_is_reported_once_and_by_the_main_process(tmp_path: Path) -> None:
    reported: list[int] = []
    previous_handler = signal.getsignal(signal.SIGTERM)

    def signal_a_worker_then_this_process() -> None:
        fork = multiprocessing.get_context("fork")
        runs = fork.Event()
        worker = fork.Process(target=lambda: (runs.set(), time.sleep(60)))
        worker.start()
        runs.wait()
        worker.terminate()
        worker.join()
        assert worker.exitcode == 143
        assert not reported
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped, on_sigterm(lambda: reported.append(os.getpid())):
        signal_a_worker_then_this_process()
    assert stopped.value.code == 143
    assert reported == [os.getpid()]
    assert signal.getsignal(signal.SIGTERM) == previous_handler


class SignalsWhenDeleted:
    """Python ignores an exception that is raised while an object is deleted, or in a callback around a fork."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sigterm_that_python_swallows_still_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "RAISE_AGAIN", 0.1)
    reports: list[int] = []

    def train() -> None:
        SignalsWhenDeleted()  # deleted at once
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.01)

    with pytest.raises(SystemExit) as stopped, on_sigterm(lambda: reports.append(1)):
        train()
    assert stopped.value.code == 143
    assert reports == [1]
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_training_that_ends_before_the_second_try_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "RAISE_AGAIN", 0.2)
    with on_sigterm(lambda: None):
        SignalsWhenDeleted()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    time.sleep(0.4)  # an alarm now would end this process


@contextmanager
def without_permissions() -> Iterator[None]:
    """Root may write everywhere, so this process becomes the user nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())  # not tmp_path: other users may not enter its parents
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_fold(read_only: Path) -> None:
    with (
        without_permissions(),
        pytest.raises(InputError, match=rf"cannot write {read_only}.*Permission denied.*permission.*nnUNet_results"),
        exclusive(read_only, pytest.fail),
    ):
        pass


def test_a_results_folder_that_is_a_file(
    folders: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folders.root / "results.txt"
    file.touch()
    monkeypatch.setenv("nnUNet_results", str(file))
    with pytest.raises(InputError, match=rf"cannot write {file}/.*Not a directory.*nnUNet_results"):
        make_trainer()


def test_a_checkpoint_is_written_once_and_not_read_again(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    trainer.initialize()
    trainer.logger.log("ema_fg_dice", 0.5, 0)
    saved, loaded, save, load = [], [], torch.save, torch.load
    monkeypatch.setattr(torch, "save", lambda *args, **options: (saved.append(args), save(*args, **options)))
    monkeypatch.setattr(torch, "load", lambda *args, **options: (loaded.append(args), load(*args, **options))[1])
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    assert (len(saved), len(loaded)) == (1, 0)
    assert "nnunet_semcl" in load(f"{trainer.output_folder}/checkpoint_latest.pth", weights_only=False)
