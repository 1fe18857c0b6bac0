"""`nnunet-semcl export`: a trained model as one of stock nnU-Net's, and the proof that it predicts the same."""

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
from nnunet_semcl.commands.plan import MADE_BY
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.checkpoints import load_safely
from nnunet_semcl.files.datasets import find_dataset
from nnunet_semcl.files.json_files import read_json, write_json
from nnunet_semcl.files.plans import resolve_configuration
from nnunet_semcl.methods import settings_by_section

# All that nnU-Net reads to predict, and to start from as pretrained weights. The optimiser's state stays behind: it
# may hold parts of ours, and only going on with the training needs it.
KEYS = {"network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"}
# In the child, and in all that it imports, `import nnunet_semcl` fails.
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
    """Writes the model folder and says for each fold that its logits without this package are the same bits.

    Args:
        folds: numbers, or "all".
        checkpoint: file name, in each fold's folder.
        output: the folder to make; only there once the proof is done.
        image: files of one case, one for each channel, to compare the logits of; none for noise of a patch's size.

    Raises:
        InputError: no such data set, model, or finished fold; folds that do not belong together; an output that is
            there already; an image that does not fit; a model that predicts by more than nnUNetTrainer's network.
    """
    source = _find_model(find_dataset(dataset_name_or_id, "nnUNet_results"), trainer, plans_identifier, configuration)
    if output.exists():
        raise InputError(str(output), "a file or folder", "a new one", "Name another one with -o: none is overwritten.")
    folds = list(dict.fromkeys(folds))
    _check_finished(source, folds, checkpoint)
    plans, dataset_json = (_read_object(source / name) for name in ("plans.json", "dataset.json"))
    plans = _without_our_sections(plans)
    network = resolve_configuration(plans, configuration, source / "plans.json")
    _check_image(image, dataset_json, network)

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as beside:
        model = Path(beside, "model")
        model.mkdir()
        write_json(plans, model / "plans.json")
        for name in ("dataset.json", "dataset_fingerprint.json"):
            if (source / name).is_file():
                shutil.copyfile(source / name, model / name)
        expected = {"trainer": trainer, "configuration": configuration, **network}
        for fold in folds:
            file = source / f"fold_{fold}" / checkpoint
            content = load_safely(file, torch.device("cpu"), KEYS)
            # nnU-Net takes those of the first fold for all
            expected.setdefault("mirroring axes", content["inference_allowed_mirroring_axes"])
            _check_belongs(file, content, expected)
            (model / f"fold_{fold}").mkdir()
            torch.save(_stock_checkpoint(content), model / f"fold_{fold}" / checkpoint)
        _prove(source, model, folds, checkpoint, image)
        os.replace(model, output)
    print(
        f"\nExported to {output}, which stock nnU-Net predicts with:\nnnUNetv2_predict_from_modelfolder -m {output} "
        f"-f {' '.join(folds)} -chk {checkpoint} -i IMAGES -o PREDICTIONS"
    )


def _find_model(dataset: Path, trainer: str, plans_identifier: str, configuration: str) -> Path:
    model = dataset / f"{trainer}__{plans_identifier}__{configuration}"
    if not model.is_dir():
        there_are = ", ".join(sorted(path.name for path in dataset.glob("*__*__*"))) or "none yet"
        raise InputError(
            str(model),
            "no such model",
            f"one of TRAINER__PLANS__CONFIGURATION: {there_are}",
            "Name one of these by -tr, -p and -c, or train it.",
        )
    return model


def _check_finished(source: Path, folds: list[str], checkpoint: str) -> None:
    missing = [fold for fold in folds if not (source / f"fold_{fold}" / checkpoint).is_file()]
    if missing:
        there = [path.parent.name.removeprefix("fold_") for path in sorted(source.glob(f"fold_*/{checkpoint}"))]
        begun = (source / f"fold_{missing[0]}").is_dir()
        raise InputError(
            str(source / f"fold_{missing[0]}"),
            f"no {checkpoint}" if begun else "no such folder",
            f"one in each of the folds {' '.join(folds)} (there are: {' '.join(there) or 'none'})",
            "Name the folds that are done with -f, or train the others to their end (--c goes on).",
        )


def _read_object(file: Path) -> dict[str, Any]:
    content = read_json(file) if file.is_file() else None
    if not isinstance(content, dict):
        found = "no such file" if content is None else f"a JSON {type(content).__name__}"
        raise InputError(str(file), found, "what nnU-Net wrote there", "Bring back the whole folder that it wrote.")
    return content


def _without_our_sections(plans: dict[str, Any]) -> dict[str, Any]:
    stock = {key: value for key, value in deepcopy(plans).items() if key != MADE_BY}
    for own in stock.get("configurations", {}).values():
        for section in settings_by_section():
            own.pop(section, None)
    return stock


def _check_image(image: list[Path], dataset_json: dict[str, Any], network: dict[str, Any]) -> None:
    if not image:
        return
    if network.get("previous_stage"):
        raise InputError(
            "-i",
            "an image for a cascade",
            "none, since the previous stage's prediction is part of the input",
            "Leave -i out: the noise that is predicted then has those channels.",
        )
    channels = len(dataset_json.get("modality", dataset_json.get("channel_names")))
    if len(image) != channels:
        raise InputError(
            "-i", f"{len(image)} files", f"{channels}, one for each channel", "Give those of one case, in order."
        )
    for file in image:
        if not file.is_file() or not file.name.endswith(dataset_json["file_ending"]):
            found = "another kind of file" if file.is_file() else "no such file"
            raise InputError(
                f"-i {file}", found, f"an image in {dataset_json['file_ending']}", "Give those of one case."
            )


def _check_belongs(file: Path, content: dict[str, Any], expected: dict[str, Any]) -> None:
    init_args = content["init_args"]
    plans = PlansManager(_without_our_sections(init_args["plans"]))
    found = {
        **plans.get_configuration(init_args["configuration"]).configuration,
        "trainer": content["trainer_name"],
        "configuration": init_args["configuration"],
        "mirroring axes": content["inference_allowed_mirroring_axes"],
    }
    for what, value in expected.items():
        if found.get(what) != value:
            raise InputError(
                f"{file}, {what}",
                f"{found.get(what)}",
                f"{value}, as the model's folder and its other folds have it",
                "Train that fold again, or leave it out with -f.",
            )


def _stock_checkpoint(content: dict[str, Any]) -> dict[str, Any]:
    init_args = content["init_args"]
    return {key: content[key] for key in KEYS} | {
        "trainer_name": "nnUNetTrainer",
        "init_args": init_args | {"plans": _without_our_sections(init_args["plans"])},
    }


def _prove(source: Path, model: Path, folds: list[str], checkpoint: str, image: list[Path]) -> None:
    """Predicts with both models, each in a process of its own, and compares the logits bit for bit."""
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
                str(source / f"fold_{fold}" / checkpoint),
                "other logits without the plugin",
                "those with it, bit for bit",
                "Its network computes something else than nnUNetTrainer's: predict with its own trainer. Nothing was "
                "exported.",
            )
        shape = " x ".join(map(str, np.load(stock / name, mmap_mode="r").shape))
        print(f"fold_{fold}: logits ({shape}) without the plugin are those with it, bit for bit")


def _run(python: list[str], trainers: dict[str, str], task: dict[str, Any], source: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != EXT_TRAINER} | trainers
    command = [sys.executable, *python, json.dumps(task)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1].strip()
        raise InputError(
            str(source),
            f"a model or an image that nnU-Net {'with' if trainers else 'without'} the plugin fails on ({reason})",
            "weights of nnUNetTrainer's network, and an image like those of training",
            "See what nnUNetv2_predict says of both. Nothing was exported.",
        )
