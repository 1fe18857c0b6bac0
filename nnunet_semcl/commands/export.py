"""`nnunet-semcl export`: exports a trained model for stock nnU-Net and verifies that its logits stay the same."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.commands import export_logits as fresh_logits
from nnunet_semcl.commands.path import EXT_TRAINER, trainer_path
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import MADE_BY, RESTORE_MODEL
from nnunet_semcl.files.checkpoints import load_safely
from nnunet_semcl.files.datasets import channel_names, find_dataset
from nnunet_semcl.files.json_files import read_json, write_json
from nnunet_semcl.files.plans import resolve_configuration
from nnunet_semcl.files.raw_images import UnusableImageError, check_image
from nnunet_semcl.methods import settings_by_section
from nnunet_semcl.rules import json_type

# What nnU-Net reads to predict, or to load as pretrained weights. The state of the optimiser is left out: it may
# include parameters of the plugin, and is only needed to continue the training.
KEYS = {"network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"}
SEE_ERROR = (
    "Nothing was exported. This shows the full error: "
    "nnUNetv2_predict_from_modelfolder -m {} -f {} -chk {} -i IMAGES -o PREDICTIONS"
)
OWN_TRAINER = "Its network differs from nnUNetTrainer's, so nothing was exported. Predict with its own trainer."
# in the child process, and in all that it imports, `import nnunet_semcl` fails
WITHOUT_PLUGIN = (
    "import runpy, sys; sys.modules['nnunet_semcl'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)


def export_model(
    dataset_name_or_id: str,
    configuration: str,
    trainer: str,
    plans_identifier: str,
    folds: list[str],
    checkpoint: str,
    output: Path,
    image: list[Path],
) -> None:
    """Writes the model folder, and verifies that each fold predicts bit-identical logits without this package.

    Args:
        dataset_name_or_id: a data set in nnUNet_results.
        configuration: of the trained model.
        trainer: of the trained model.
        plans_identifier: of the trained model.
        folds: numbers, or "all".
        checkpoint: file name of the checkpoint in each fold's folder.
        output: the new folder. It appears only when the verification is done.
        image: files of one case to compare the logits on, one per channel. If empty, one patch of noise is used.

    Raises:
        InputError: the data set, model or fold does not exist, or the fold is not finished. The folds come from
            different trainings. The output exists already. The image does not match the data set. The model computes
            something other than nnUNetTrainer's network.
    """
    source = _find_model(find_dataset(dataset_name_or_id, "nnUNet_results"), trainer, plans_identifier, configuration)
    if output.exists():
        raise InputError(f"{output} exists already", "Choose a new folder with -o; export overwrites nothing.")
    folds = list(dict.fromkeys(folds))
    _check_finished(source, folds, checkpoint)
    plans, dataset_json = (_read_object(source / name) for name in ("plans.json", "dataset.json"))
    plans = _without_our_sections(plans)
    network = resolve_configuration(plans, configuration, source / "plans.json", any_depth=True)
    _check_image(image, dataset_json, network, PlansManager(plans))

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        model = Path(temporary, "model")
        model.mkdir()
        write_json(plans, model / "plans.json")
        for name in ("dataset.json", "dataset_fingerprint.json"):
            if (source / name).is_file():
                shutil.copyfile(source / name, model / name)
        expected = {"trainer": trainer, "configuration": configuration, **network}
        for fold in folds:
            file = source / f"fold_{fold}" / checkpoint
            content = load_safely(file, torch.device("cpu"), KEYS)
            # nnU-Net uses the first fold's axes for all folds
            expected.setdefault("mirroring axes", content["inference_allowed_mirroring_axes"])
            _check_belongs(file, content, expected)
            (model / f"fold_{fold}").mkdir()
            torch.save(_stock_checkpoint(content), model / f"fold_{fold}" / checkpoint)
        _verify(source, model, folds, checkpoint, image)
        os.replace(model, output)
    print(
        f"\nExported to {output}. Predict with stock nnU-Net:\nnnUNetv2_predict_from_modelfolder -m {output} "
        f"-f {' '.join(folds)} -chk {checkpoint} -i IMAGES -o PREDICTIONS"
    )


def _find_model(dataset: Path, trainer: str, plans_identifier: str, configuration: str) -> Path:
    model = dataset / f"{trainer}__{plans_identifier}__{configuration}"
    if not model.is_dir():
        trained = ", ".join(sorted(path.name for path in dataset.glob("*__*__*"))) or "none yet"
        raise InputError(
            f"{model}: there is no such model (trained models, as TRAINER__PLANS__CONFIGURATION: {trained})",
            "Name a trained model with -tr, -p and -c, or train this one first.",
        )
    return model


def _check_finished(source: Path, folds: list[str], checkpoint: str) -> None:
    missing = [fold for fold in folds if not (source / f"fold_{fold}" / checkpoint).is_file()]
    if missing:
        finished = [path.parent.name.removeprefix("fold_") for path in sorted(source.glob(f"fold_*/{checkpoint}"))]
        folder = source / f"fold_{missing[0]}"
        raise InputError(
            f"{folder} {f'has no {checkpoint}' if folder.is_dir() else 'does not exist'} (folds with {checkpoint}: "
            f"{' '.join(finished) or 'none'})",
            "Name only finished folds with -f, or finish the training of the others; --c continues it.",
        )


def _read_object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file} does not exist", RESTORE_MODEL)
    content = read_json(file, RESTORE_MODEL)
    if not isinstance(content, dict):
        raise InputError(f"{file} contains {json_type(content)}, not an object", RESTORE_MODEL)
    return content


def _without_our_sections(plans: dict[str, Any]) -> dict[str, Any]:
    stock = {key: value for key, value in deepcopy(plans).items() if key != MADE_BY}
    for own in stock.get("configurations", {}).values():
        for section in settings_by_section():
            own.pop(section, None)
    return stock


def _check_image(image: list[Path], dataset_json: dict[str, Any], network: dict[str, Any], plans: PlansManager) -> None:
    if not image:
        return
    if network.get("previous_stage"):
        raise InputError(
            "-i: an image is not enough for a cascade, which also needs the prediction of its previous stage",
            "Leave -i out. The logits are then compared on noise, which has the channels of the previous stage too.",
        )
    n_channels = len(channel_names(dataset_json))
    fix = "Give the files of one case in the order of the channels, or one file that holds them all."
    if len(image) not in (1, n_channels):
        raise InputError(f"-i: got {len(image)} files, but the data set needs {n_channels}, one per channel", fix)
    ending = dataset_json["file_ending"]
    for file in image:
        if not file.is_file() or not file.name.endswith(ending):
            problem = f"is not a {ending} file" if file.is_file() else "does not exist"
            raise InputError(f"-i: {file} {problem}", f"Give the images of one case as {ending} files.")
    try:
        check_image(image, n_channels, plans.image_reader_writer_class())
    except UnusableImageError as problem:
        raise InputError(f"-i: {problem}", fix) from problem


def _check_belongs(file: Path, content: dict[str, Any], expected: dict[str, Any]) -> None:
    init_args = content["init_args"]
    plans = PlansManager(_without_our_sections(init_args["plans"]))
    found = {
        **plans.get_configuration(init_args["configuration"]).configuration,
        "trainer": content["trainer_name"],
        "configuration": init_args["configuration"],
        "mirroring axes": content["inference_allowed_mirroring_axes"],
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise InputError(
                f"{file}, {key}: {found.get(key)} differs from {value}, the value of the model folder and other folds",
                "Train this fold again, or leave it out with -f.",
            )


def _stock_checkpoint(content: dict[str, Any]) -> dict[str, Any]:
    init_args = content["init_args"]
    return {key: content[key] for key in KEYS} | {
        "trainer_name": "nnUNetTrainer",
        "init_args": init_args | {"plans": _without_our_sections(init_args["plans"])},
    }


def _verify(source: Path, model: Path, folds: list[str], checkpoint: str, image: list[Path]) -> None:
    """Predicts with both models, each in a separate process, and compares the logits bit for bit."""
    print("Predicting with the plugin and without it ...", flush=True)
    task = {"checkpoint": checkpoint, "folds": folds, "image": [str(file) for file in image]}
    ours, stock = (model.with_name(name) for name in ("with_plugin", "without_plugin"))
    plugin = {EXT_TRAINER: trainer_path(os.environ.get(EXT_TRAINER))}
    _run(["-m", fresh_logits.__name__], plugin, task | {"model": str(source), "output": str(ours)}, source)
    _run(["-c", WITHOUT_PLUGIN, fresh_logits.__file__], {}, task | {"model": str(model), "output": str(stock)}, source)
    for fold in folds:
        name = f"fold_{fold}.npy"
        if not filecmp.cmp(ours / name, stock / name, shallow=False):
            raise InputError(
                f"{source / f'fold_{fold}' / checkpoint}: without the plugin, this model predicts different logits",
                OWN_TRAINER,
            )
        shape = " x ".join(map(str, np.load(stock / name, mmap_mode="r").shape))
        print(f"fold_{fold}: logits ({shape}) with and without the plugin are bit-identical")


def _run(python: list[str], trainers: dict[str, str], task: dict[str, Any], source: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != EXT_TRAINER} | trainers
    command = [sys.executable, *python, json.dumps(task)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1].strip()
        raise InputError(
            f"{source}: nnU-Net {'with' if trainers else 'without'} the plugin cannot predict with this model or this "
            f"image ({reason})",
            SEE_ERROR.format(source, *task["folds"][:1], task["checkpoint"]) if trainers else OWN_TRAINER,
        )
