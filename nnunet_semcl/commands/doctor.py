"""`nnunet-semcl doctor`: what stands in the way of a training, and the line that mends it."""

import contextlib
import importlib
import importlib.metadata
import io
import os
import pickle
import pkgutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunet_semcl import trainers
from nnunet_semcl.commands.path import EXT_TRAINER
from nnunet_semcl.errors import InputError

OLDEST_PYTHON = (3, 10)
SET_EXT_TRAINER = 'export nnUNet_extTrainer="$(nnunet-semcl path)"'
ONLY_THIS_FOLDER = f"unset nnUNet_extTrainer; {SET_EXT_TRAINER}"
INSTALL_NNUNET = 'pip install "nnunetv2>=2.8,<2.9"'


@dataclass(frozen=True)
class Finding:
    """One line of the report. A fault comes with the line that mends it, a note asks for nothing."""

    kind: Literal["ok", "note", "fault"]
    text: str
    mend: str = ""


def run_doctor() -> int:
    """Prints a line for each check, and below each fault what mends it. Returns 1 with a fault, else 0."""
    faults = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of nnU-Net's many imports are no findings
        for check in (check_python, check_torch, check_nnunet, check_folders, check_methods, check_trainers):
            for finding in check():
                print(f"{finding.kind:5}  {finding.text}", flush=True)
                if finding.kind == "fault":
                    print(f"       mend it: {finding.mend}")
                    faults += 1
    print(f"\n{faults} fault{'s' if faults > 1 else ''}" if faults else "\nNothing stands in the way of a training.")
    return 1 if faults else 0


def check_python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= OLDEST_PYTHON:
        yield Finding("ok", f"Python {version}")
    else:
        yield Finding("fault", f"Python {version} is too old", "install Python 3.10 or newer, and this package into it")


def check_torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as problem:
        yield Finding("fault", f"PyTorch does not load: {problem}", "install it as https://pytorch.org tells")
        return
    yield Finding("ok", f"PyTorch {torch.__version__}")
    if torch.cuda.is_available():
        yield Finding("ok", f"GPU: {torch.cuda.get_device_name()} (-device cuda)")
    elif torch.backends.mps.is_available():
        yield Finding("ok", "Apple GPU (say -device mps)")
    else:
        yield Finding("note", "no GPU: say -device cpu; `nnunet-semcl plan --preset tiny` makes plans that suit a CPU")


def check_nnunet() -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("fault", "nnU-Net is not installed", INSTALL_NNUNET)
        return
    if version.split(".")[:2] == ["2", "8"]:
        yield Finding("ok", f"nnU-Net {version}")
    else:
        yield Finding("fault", f"nnU-Net {version}, but this package is made for 2.8", INSTALL_NNUNET)


def check_folders() -> Iterator[Finding]:
    """nnU-Net's three folders: set, there, and fit for what nnU-Net does in them."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        value = os.environ.get(variable)
        if not value:
            yield Finding("fault", f"{variable} is not set", f"export {variable}=/path/to/{variable}")
        elif not Path(value).is_dir():
            yield Finding(
                "fault", f"{variable}={value} is no folder", f'mkdir -p "{value}", or set {variable} to another folder'
            )
        else:
            try:
                if variable == "nnUNet_raw":
                    os.listdir(value)
                else:
                    tempfile.TemporaryFile(dir=value).close()
            except OSError as problem:
                wanted = "u+rx" if variable == "nnUNet_raw" else "u+rwx"
                yield Finding(
                    "fault",
                    f"{variable}={value} is of no use: {problem.strerror}",
                    f'chmod {wanted} "{value}", or set {variable} to a folder of your own',
                )
            else:
                yield Finding("ok", f"{variable}={value}")


def check_trainers() -> Iterator[Finding]:
    """Each of the package's trainers, as nnU-Net's own search finds it with the nnUNet_extTrainer that is set.

    It must be the package's class, the same in every search, and survive pickling: nnU-Net forgets the modules that
    it searched, and its worker processes look for them again.
    """
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as search

        expected = trainer_classes()
    except ImportError as problem:
        yield Finding("fault", f"the trainers do not load: {problem}", "pip install --force-reinstall nnunet-semcl")
        return
    lost = []
    for name, trainer in expected.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                first, second = search(name), search(name)
        except RuntimeError:
            lost.append(name)
        except Exception as problem:  # the search imports every file of the user's own trainer folders too
            yield Finding(
                "fault",
                f"{name}: nnU-Net's search breaks off in nnUNet_extTrainer: {problem!r}",
                f"mend that folder, or leave it out: {ONLY_THIS_FOLDER}",
            )
        else:
            if first is not second or not _is_picklable(first):
                yield Finding(
                    "fault",
                    f"{name}: a new class in each search, which worker processes cannot unpickle",
                    "move the class into a package; in the folder of nnUNet_extTrainer, only import it",
                )
            elif first is not trainer:
                yield Finding(
                    "fault",
                    f"{name}: nnU-Net finds another trainer of that name, of {first.__module__}",
                    f"rename that one, or leave its folder out: {ONLY_THIS_FOLDER}",
                )
            else:
                yield Finding("ok", f"{name}: found, picklable, the same class each time")
    if lost:
        value = os.environ.get(EXT_TRAINER)
        yield Finding(
            "fault",
            f"nnUNet_extTrainer {f'is {value}' if value else 'is not set'}: nnU-Net does not find {', '.join(lost)}",
            SET_EXT_TRAINER,
        )


def check_methods() -> Iterator[Finding]:
    """The methods whose settings the plans may hold, those of the user's own trainer folders among them."""
    try:
        from nnunet_semcl.methods import settings_by_section

        sections = settings_by_section()
    except (ImportError, InputError) as problem:
        yield Finding("fault", f"the methods do not load: {problem}", ONLY_THIS_FOLDER)
    else:
        yield Finding("ok", f"methods, as sections of the plans: {', '.join(sections)}")


def trainer_classes() -> dict[str, type]:
    """The trainers that the package brings, by name: every nnUNetTrainer subclass in a module of its trainers folder.

    Raises ImportError where a module of the folder does not load.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    found = {}
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
