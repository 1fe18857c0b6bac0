"""The pretraining methods, each in a folder or a file of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil

from nnunetv2.paths import nnUNet_extTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunet_semcl.pretraining.settings import MethodSettings


def settings_by_section() -> dict[str, type[MethodSettings]]:
    """Returns section of the plans -> settings class, for this package's methods and those in nnUNet_extTrainer.

    If a file in a folder of nnUNet_extTrainer cannot be imported, that is a warning: nnU-Net may never need the file.
    """
    trainers = importlib.import_module("nnunet_semcl.trainers")
    for module in pkgutil.iter_modules(trainers.__path__):
        importlib.import_module(f"{trainers.__name__}.{module.name}")
    external = nnUNet_extTrainer.get() if nnUNet_extTrainer.is_set() else ""
    for folder in external.split(os.pathsep):
        if os.path.isdir(folder) and os.path.realpath(folder) not in map(os.path.realpath, trainers.__path__):
            try:
                # No class has an empty name, so nnU-Net's search imports every file of the folder, as it does for -tr.
                with contextlib.redirect_stdout(io.StringIO()):
                    recursive_find_python_class(folder, "", None, folder, cleanup_imports_from_base_folder=True)
            except Exception as problem:  # whatever a user's file may raise
                print(f"WARNING: {folder} of nnUNet_extTrainer cannot be imported as a whole ({problem!r})")
    return dict(sorted(MethodSettings.by_section.items()))
