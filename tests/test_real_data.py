"""All of nnU-Net's commands on a few cases of a real data set; skipped if the data set is missing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import NNUNetFolders

HERE = Path(__file__).parents[2]
DATA = Path(os.environ.get("NNUNET_SEMCL_TEST_DATA", HERE.parent / "shared" / "data" / "nnUNet_raw"))
HIPPOCAMPUS = DATA / "Dataset004_Hippocampus"


@pytest.mark.skipif(
    not HIPPOCAMPUS.is_dir(), reason=f"no {HIPPOCAMPUS}: set NNUNET_SEMCL_TEST_DATA to an nnUNet_raw folder with it"
)
def test_hippocampus_from_planning_to_prediction(folders: NNUNetFolders) -> None:
    raw = folders.root / "raw" / HIPPOCAMPUS.name
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / name).mkdir(parents=True)
    labels = sorted((HIPPOCAMPUS / "labelsTr").glob("*.nii.gz"))[:7]
    for number, label in enumerate(labels):
        image = label.name.replace(".nii.gz", "_0000.nii.gz")
        shutil.copy(HIPPOCAMPUS / "imagesTr" / image, raw / ("imagesTr" if number < 6 else "imagesTs"))
        if number < 6:
            shutil.copy(label, raw / "labelsTr")
    description = json.loads((HIPPOCAMPUS / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": 6}))

    folders.environment["nnUNet_n_proc_DA"] = "1"
    model = "-tr SemCLTrainerShort -p nnUNetTinyPlans -device cpu"
    for command in (
        "nnUNetv2_plan_and_preprocess -d 4 -c 2d -np 1",
        "nnunet-semcl plan -d 4 --preset tiny",
        f"nnUNetv2_train 4 2d 0 {model}",
        f"nnUNetv2_predict -d 4 -c 2d -f 0 {model} -i {raw / 'imagesTs'} -o {folders.root / 'out'} -npp 0 -nps 0",
    ):
        result = folders.run(command)
        assert result.returncode == 0, result.stdout
    assert (folders.root / "out" / labels[6].name).is_file()
