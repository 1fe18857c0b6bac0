"""A second process on the same fold, SIGTERM, and folders that cannot be written."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nnunet_semcl.errors import InputError
from nnunet_semcl.pretraining.interruption import exclusive, on_sigterm

ID = 999
COMMAND = f"nnUNetv2_train {ID} 2d 0 -tr SemCLTrainerManyEpochs -p nnUNetTinyPlans -device cpu"


def wait_for(there, process) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_sigterm_and_a_second_process(folders, workers):
    folders.environment["nnUNet_n_proc_DA"] = workers
    fold = folders.fold("SemCLTrainerManyEpochs", "2d")
    process = folders.start(COMMAND)
    wait_for((fold / "checkpoint_pretraining.pth").is_file, process)
    process.send_signal(signal.SIGSTOP)  # it must not end before the second has come
    second = folders.run(COMMAND)
    process.send_signal(signal.SIGCONT)
    assert second.returncode != 0
    assert f"{fold}: found another process that trains in it" in second.stdout
    os.killpg(process.pid, signal.SIGTERM) if workers == "1" else process.terminate()  # a scheduler reaches workers too
    output = process.communicate()[0]
    assert process.returncode == 143, output
    assert f"is in {fold}: go on with the same command and --c" in output
    assert (fold / "checkpoint_pretraining.pth").is_file()
    assert not (fold / "checkpoint_pretrained.pth").is_file()


def test_alone_in_a_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(InputError, match="another process that trains in it"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):  # free again
        pass


def test_sigterm_is_told_once_and_by_the_main_process(tmp_path: Path) -> None:
    told: list[int] = []
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, on_sigterm(lambda: told.append(os.getpid())):
        fork = multiprocessing.get_context("fork")
        runs = fork.Event()
        worker = fork.Process(target=lambda: (runs.set(), time.sleep(60)))
        worker.start()
        runs.wait()
        worker.terminate()
        worker.join()
        assert worker.exitcode == 143
        assert not told
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143
    assert told == [os.getpid()]
    assert signal.getsignal(signal.SIGTERM) == former


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may write everywhere; so for a while this process is nobody."""
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
    folder = Path(tempfile.mkdtemp())  # not tmp_path, whose parents are closed to others
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_fold(read_only: Path) -> None:
    with (
        without_rights(),
        pytest.raises(InputError, match=rf"{read_only}.*Permission denied.*nnUNet_results"),
        exclusive(read_only),
    ):
        pass


def test_a_results_folder_that_is_none(folders, make_trainer, monkeypatch) -> None:
    file = folders.root / "results.txt"
    file.touch()
    monkeypatch.setenv("nnUNet_results", str(file))
    with pytest.raises(InputError, match=rf"{file}/.*Not a directory.*nnUNet_results"):
        make_trainer()
