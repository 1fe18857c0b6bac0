"""From BTCV's folder to the report of a cross-validation, by the commands that a user types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from conftest import NNUNetFolders

from nnunet_semcl import plans  # type: ignore[attr-defined]  # setup.cfg maps plans/ to this name
from nnunet_semcl.commands.convert_btcv import TRAINING
from nnunet_semcl.commands.phantom import SMALLEST_SHAPE, draw_case

TRAINERS = ("nnUNetTrainerShort", "SemCLTrainerShort")


def test_from_the_challenges_folder_to_the_report(tmp_path: Path) -> None:
    folders = NNUNetFolders(tmp_path)
    folders.dataset = "Dataset017_BTCV"
    for number in TRAINING:
        for kind, array in zip(("img", "label"), draw_case(np.random.default_rng(number), SMALLEST_SHAPE), strict=True):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((8, 8, 12))
            file = tmp_path / "RawData" / "Training" / kind / f"{kind}{number:04d}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(file))

    def run(command: str) -> str:
        done = folders.run(command)
        assert done.returncode == 0, done.stdout
        return done.stdout

    run(f"nnunet-semcl convert btcv {tmp_path / 'RawData'} -d 17")
    folders.environment["nnUNet_n_proc_DA"] = "1"  # with 0 nnU-Net's planner asks torch for no thread at all
    run("nnUNetv2_plan_and_preprocess -d 17 -c 2d -npfp 1 -np 1")
    folders.environment["nnUNet_n_proc_DA"] = "0"
    run("nnunet-semcl plan -d 17 --preset tiny")
    published = Path(plans.__file__).parent / "btcv" / "splits_final.json"
    shutil.copy(published, folders.preprocessed)

    report = tmp_path / "report"
    printed = run(
        f"nnunet-semcl crossval -d 17 -c 2d -p nnUNetTinyPlans -f 0 1 -tr {' '.join(TRAINERS)} -device cpu --jobs 2 "
        f"-np 1 -o {report}"
    )
    assert "Dataset017_BTCV, 2d, nnUNetTinyPlans, folds 0, 1." in printed
    assert "12 cases; surface Dice within 2 mm." in printed
    folds = json.loads(published.read_text())
    cases = {line.split(",")[0] for line in (report / "cases.csv").read_text().splitlines()[1:]}
    assert cases == {*folds[0]["val"], *folds[1]["val"]}
    for name in ("spleen", "right kidney", "aorta"):
        assert f"  {name} " in printed
    for trainer in TRAINERS:
        assert f"Dice of {trainer}" in (report / "index.html").read_text()
