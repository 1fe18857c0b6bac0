"""An exported model where nothing of ours is installed, and nnU-Net's commands around trained models with our trainer.

    python benchmarks/export_without_plugin.py -o WORK_FOLDER

Trains SemCL for seconds on the phantom (tiny preset, 2d and 3d_fullres, folds 0 and 1), then
1. nnUNetv2_find_best_configuration with an ensemble of both, nnUNetv2_export_model_to_zip and
   nnUNetv2_install_pretrained_model_from_zip, and nnUNetv2_predict with what was installed;
2. nnunet-semcl export, and nnUNetv2_predict_from_modelfolder in a new virtual environment with nnU-Net alone, of the
   same versions.
Segmentations and probabilities have to be those of the original model, bit for bit. It takes about ten minutes on two
CPU cores, most of them pip's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_semcl.commands.demo import run_logged
from nnunet_semcl.commands.phantom import write_phantom

DATASET_ID, TRAINER, PLANS, FOLDS = 999, "SemCLSeconds", "nnUNetTinyPlans", "0 1"
CONFIGURATIONS = ("2d", "3d_fullres")
MODEL = f"-d {DATASET_ID} -tr {TRAINER} -p {PLANS} -f {FOLDS}"
PREDICT = "--save_probabilities -device cpu -npp 1 -nps 1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, help="work folder, new")
    work = parser.parse_args().o.absolute()
    work.mkdir(parents=True)
    environment = os.environ | {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    environment |= {
        "nnUNet_extTrainer": str(Path(__file__).parent.absolute() / "trainers"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
    }
    images = write_phantom(work / "raw", DATASET_ID, cases=5, test_cases=2, seed=0, shape=(24, 40, 48)) / "imagesTs"

    run(
        f"nnUNetv2_plan_and_preprocess -d {DATASET_ID} -c {' '.join(CONFIGURATIONS)} -npfp 1 -np 1 1", work, environment
    )
    run(f"nnunet-semcl plan -d {DATASET_ID} --preset tiny", work, environment)
    for configuration in CONFIGURATIONS:
        for fold in FOLDS.split():
            options = f"-tr {TRAINER} -p {PLANS} -device cpu --npz"
            run(f"nnUNetv2_train {DATASET_ID} {configuration} {fold} {options}", work, environment)
        predicted = f"-i {images} -o {work / 'original' / configuration} {PREDICT}"
        run(f"nnUNetv2_predict {MODEL} -c {configuration} {predicted}", work, environment)

    both = f"-c {' '.join(CONFIGURATIONS)} -tr {TRAINER} -p {PLANS} -f {FOLDS}"
    run(f"nnUNetv2_find_best_configuration {DATASET_ID} {both} -np 1", work, environment)
    run(f"nnUNetv2_export_model_to_zip -d {DATASET_ID} -o {work / 'model.zip'} {both}", work, environment)
    installed = environment | {"nnUNet_results": str(work / "installed")}
    run(f"nnUNetv2_install_pretrained_model_from_zip {work / 'model.zip'}", work, installed)
    for configuration in CONFIGURATIONS:
        predicted = f"-i {images} -o {work / 'from_zip' / configuration} {PREDICT}"
        run(f"nnUNetv2_predict {MODEL} -c {configuration} {predicted}", work, installed)
        compare(work, "from_zip", configuration)

    alone = environment_with_nnunet_alone(work)
    stock = {key: value for key, value in os.environ.items() if not key.startswith(("nnUNet_", "PYTHON"))}
    stock["nnUNet_def_n_proc"] = environment["nnUNet_def_n_proc"]  # threads of the softmax, and so its last bits
    imported = subprocess.run(
        # In another folder, since Python also imports from the present one.
        [alone / "python", "-c", "import nnunet_semcl"],
        env=stock,
        cwd=work,
        capture_output=True,
        text=True,
    )
    if imported.returncode == 0:
        raise SystemExit("The new environment has the plugin.")
    print(f"  import nnunet_semcl there: {imported.stderr.strip().splitlines()[-1]}")
    for configuration in CONFIGURATIONS:
        model = work / f"exported_{configuration}"
        run(f"nnunet-semcl export {MODEL} -c {configuration} -o {model}", work, environment)
        options = f"-m {model} -f {FOLDS} -i {images} -o {work / 'exported' / configuration} {PREDICT}"
        run(f"{alone / 'nnUNetv2_predict_from_modelfolder'} {options}", work, stock)
        compare(work, "exported", configuration)


def run(command: str, work: Path, environment: dict[str, str]) -> None:
    """Its output goes to a log; raises InputError, with the end of that, where the command fails."""
    started = time.monotonic()
    log = work / "logs" / f"{len(list(work.glob('logs/*'))):02}.log"
    run_logged(command.split(), log, environment)
    print(f"{time.monotonic() - started:4.0f} s  {command.replace(str(work), 'WORK_FOLDER')}", flush=True)


def environment_with_nnunet_alone(work: Path) -> Path:
    """The folder of programs of a new one, with the versions that are installed here."""
    folder = work / "venv"
    venv.create(folder, with_pip=True)
    here = [sys.executable, "-m", "pip", "list", "--format=freeze", "--exclude", "nnunet-semcl"]
    versions = subprocess.run(here, check=True, capture_output=True, text=True).stdout
    (work / "constraints.txt").write_text(versions)
    command = f"{folder / 'bin' / 'python'} -m pip install nnunetv2 -c {work / 'constraints.txt'}"
    run(command, work, dict(os.environ))
    return folder / "bin"


def compare(work: Path, name: str, configuration: str) -> None:
    """Prints how many voxels and probabilities are the same; raises SystemExit where one is not."""
    voxels, probabilities = [], []
    for file in sorted((work / "original" / configuration).glob("*.nii.gz")):
        case = file.name.removesuffix(".nii.gz")
        folders = [work / of / configuration for of in ("original", name)]
        one, other = (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(folder / file.name)) for folder in folders)
        voxels.append((one == other).ravel())
        one, other = (np.load(folder / f"{case}.npz")["probabilities"] for folder in folders)
        probabilities.append((one.view(np.uint32) == other.view(np.uint32)).ravel())
    for what, same in (("voxels", np.concatenate(voxels)), ("probabilities", np.concatenate(probabilities))):
        print(f"  {name}, {configuration}: {same.sum()} of {same.size} {what} are the original model's, bit for bit")
        if not same.all():
            raise SystemExit("Not the same.")


if __name__ == "__main__":
    main()
