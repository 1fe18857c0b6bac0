"""`nnunet-semcl doctor`: checks the installation and prints how to fix each fault."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import pickle
import pkgutil
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from nnunet_semcl import trainers  # type: ignore[attr-defined]  # setup.cfg maps trainers/ to this name
from nnunet_semcl.commands.path import EXT_TRAINER
from nnunet_semcl.errors import InputError

OLDEST_PYTHON = (3, 10)
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_GIB = 0.5  # Docker's default is 1/16
LEAST_FILES = 1024
SET_EXT_TRAINER = 'export nnUNet_extTrainer="$(nnunet-semcl path)"'
ONLY_THIS_FOLDER = f"unset nnUNet_extTrainer; {SET_EXT_TRAINER}"
INSTALL_NNUNET = 'pip install "nnunetv2>=2.8,<2.9"'


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        kind: a fault prevents training; a note needs no action.
        text: what was checked, and what is wrong.
        fix: for a fault, the command or action that fixes it.
    """

    kind: Literal["ok", "note", "fault"]
    text: str
    fix: str = ""


def run_doctor(dataset_name_or_id: str | None = None) -> int:
    """Prints a line for each check, and the fix below each fault. Returns 1 if there is a fault, else 0.

    Args:
        dataset_name_or_id: a data set in nnUNet_preprocessed, of which every case is read too.
    """
    faults = 0
    checks: list[Callable[[], Iterator[Finding]]] = [
        check_python,
        check_torch,
        check_nnunet,
        check_folders,
        check_limits,
        check_methods,
        check_trainers,
    ]
    if dataset_name_or_id:
        checks.append(partial(_check_dataset, dataset_name_or_id))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nnU-Net's many imports warn of things that are no fault
        for check in checks:
            for finding in check():
                print(f"{finding.kind:5}  {finding.text}", flush=True)
                if finding.kind == "fault":
                    print(f"       fix it: {finding.fix}")
                    faults += 1
    print(f"\n{faults} fault{'s' if faults > 1 else ''}" if faults else "\nReady to train.")
    return 1 if faults else 0


def check_python() -> Iterator[Finding]:
    """The version of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= OLDEST_PYTHON:
        yield Finding("ok", f"Python {version}")
    else:
        yield Finding(
            "fault", f"Python {version} is too old", "install Python 3.10 or newer, then install this package in it"
        )


def check_torch() -> Iterator[Finding]:
    """PyTorch, and the device to train on."""
    try:
        import torch
    except ImportError as problem:
        yield Finding("fault", f"PyTorch cannot be imported: {problem}", "install it, following https://pytorch.org")
        return
    yield Finding("ok", f"PyTorch {torch.__version__}")
    if torch.cuda.is_available():
        yield Finding("ok", f"GPU {torch.cuda.get_device_name()}: use -device cuda")
    elif torch.backends.mps.is_available():
        yield Finding("ok", "Apple GPU: use -device mps")
    else:
        yield Finding(
            "note", "no GPU: use -device cpu; for plans small enough for a CPU: nnunet-semcl plan --preset tiny"
        )


def check_nnunet() -> Iterator[Finding]:
    """The version of nnU-Net."""
    try:
        version = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("fault", "nnU-Net is not installed", INSTALL_NNUNET)
        return
    if version.split(".")[:2] == ["2", "8"]:
        yield Finding("ok", f"nnU-Net {version}")
    else:
        yield Finding("fault", f"nnU-Net {version} is installed, but this package needs 2.8", INSTALL_NNUNET)


def check_folders() -> Iterator[Finding]:
    """nnU-Net's three folders: the variable is set, the folder exists, and its permissions suffice."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        value = os.environ.get(variable)
        if not value:
            yield Finding("fault", f"{variable} is not set", f"export {variable}=/path/to/{variable}")
        elif not Path(value).is_dir():
            yield Finding(
                "fault",
                f"{variable}={value} is not a folder",
                f'mkdir -p "{value}", or set {variable} to another folder',
            )
        else:
            try:
                if variable == "nnUNet_raw":
                    os.listdir(value)
                else:
                    tempfile.TemporaryFile(dir=value).close()
            except OSError as problem:
                use, permissions = ("read", "u+rx") if variable == "nnUNet_raw" else ("written to", "u+rwx")
                yield Finding(
                    "fault",
                    f"{variable}={value} cannot be {use}: {problem.strerror}",
                    f'chmod {permissions} "{value}", or set {variable} to a folder of your own',
                )
            else:
                yield Finding("ok", f"{variable}={value}")


def check_limits() -> Iterator[Finding]:
    """Shared memory and open files, which the processes that make batches need: short of them, a training hangs."""
    if SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(SHARED_MEMORY).total / 2**30
        if size < LEAST_SHARED_GIB:
            yield Finding(
                "note",
                f"{SHARED_MEMORY} holds {size:.2f} GiB, and batches of all workers have to fit: if a training hangs, "
                "docker run --shm-size=8g, or export nnUNet_n_proc_DA=2",
            )
        else:
            yield Finding("ok", f"{SHARED_MEMORY} holds {size:.1f} GiB")
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < LEAST_FILES:
        yield Finding("fault", f"a process may open {files} files only", f"ulimit -n {LEAST_FILES}")
    else:
        yield Finding("ok", "open files: enough")


def _check_dataset(dataset_name_or_id: str) -> Iterator[Finding]:
    try:
        from nnunet_semcl.commands.doctor_dataset import check_dataset
    except ImportError:  # reported above
        return
    for errors, text in check_dataset(dataset_name_or_id):
        yield from (Finding("fault", *error.args) for error in errors)
        if not errors:
            yield Finding("ok", text)


def check_trainers() -> Iterator[Finding]:
    """Each trainer of the package, as nnU-Net's own search finds it with the current nnUNet_extTrainer.

    Every search must return the package's class, and pickle must be able to restore it. nnU-Net unloads the modules
    that it searched, and its worker processes import them again.
    """
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as search

        expected = trainer_classes()
    except ImportError as problem:
        yield Finding(
            "fault", f"the trainers cannot be imported: {problem}", "pip install --force-reinstall nnunet-semcl"
        )
        return
    missing = []
    for name, trainer in expected.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                first, second = search(name), search(name)
        except RuntimeError:
            missing.append(name)
        except Exception as problem:  # the search also imports every file in the user's own trainer folders
            yield Finding(
                "fault",
                f"{name}: nnU-Net's search fails in a folder of nnUNet_extTrainer: {problem!r}",
                f"fix the file that it names, or use this package's folder only: {ONLY_THIS_FOLDER}",
            )
        else:
            if first is not second or not _is_picklable(first):
                yield Finding(
                    "fault",
                    f"{name}: each search makes a new class, which worker processes cannot unpickle",
                    "move the class to a package, and only import it in the folder of nnUNet_extTrainer",
                )
            elif first is not trainer:
                yield Finding(
                    "fault",
                    f"{name}: nnU-Net finds another trainer with that name first, in {first.__module__}",
                    f"rename that trainer, or use this package's folder only: {ONLY_THIS_FOLDER}",
                )
            else:
                yield Finding("ok", f"{name}: found, picklable, the same class each time")
    if missing:
        value = os.environ.get(EXT_TRAINER)
        yield Finding(
            "fault",
            f"nnUNet_extTrainer is {value or 'not set'}: nnU-Net does not find {', '.join(missing)}",
            SET_EXT_TRAINER,
        )


def check_methods() -> Iterator[Finding]:
    """The methods that can have a section in the plans, including methods in the user's own trainer folders."""
    try:
        from nnunet_semcl.methods import settings_by_section

        sections = settings_by_section()
    except (ImportError, InputError) as problem:
        yield Finding("fault", f"the methods cannot be imported: {problem}", ONLY_THIS_FOLDER)
    else:
        yield Finding("ok", f"methods, as sections of the plans: {', '.join(sections)}")


def trainer_classes() -> dict[str, type]:
    """Name -> class of the package's trainers: every subclass of nnUNetTrainer in a module of its trainers folder.

    Raises:
        ImportError: a module of the folder cannot be imported.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(trainers.__path__):
        for name, value in vars(importlib.import_module(f"{trainers.__name__}.{module.name}")).items():
            if isinstance(value, type) and issubclass(value, nnUNetTrainer) and value is not nnUNetTrainer:
                found[name] = value
    return found


def _is_picklable(trainer: type) -> bool:
    try:
        return pickle.loads(pickle.dumps(trainer)) is trainer
    except (pickle.PicklingError, AttributeError, ImportError):
        return False
