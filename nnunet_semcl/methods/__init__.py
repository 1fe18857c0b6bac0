"""The pretraining methods, each in a folder or a file of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil

from nnunetv2.paths import nnUNet_extTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunet_semcl import trainers
from nnunet_semcl.errors import InputError
from nnunet_semcl.pretraining.settings import MethodSettings


def settings_by_section() -> dict[str, type[MethodSettings]]:
    """Section of the plans -> settings of the method, for this package's methods and those in nnUNet_extTrainer.

    Raises:
        InputError: a folder of nnUNet_extTrainer holds a file that cannot be imported.
    """
    for module in pkgutil.iter_modules(trainers.__path__):
        importlib.import_module(f"{trainers.__name__}.{module.name}")
    external = nnUNet_extTrainer.get() if nnUNet_extTrainer.is_set() else ""
    for folder in external.split(os.pathsep):
        if os.path.isdir(folder) and os.path.realpath(folder) not in map(os.path.realpath, trainers.__path__):
            # A class that no module has: so nnU-Net's search imports every file of the folder, as it does for -tr.
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    recursive_find_python_class(folder, "", None, folder, cleanup_imports_from_base_folder=True)
            except Exception as problem:  # whatever a user's file may raise
                raise InputError(
                    f"{folder}, a folder of nnUNet_extTrainer: cannot be imported ({problem!r})",
                    "Fix the file, or take the folder out of nnUNet_extTrainer.",
                ) from problem
    return dict(sorted(MethodSettings.by_section.items()))
