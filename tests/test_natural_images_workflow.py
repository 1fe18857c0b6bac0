"""From VOC's folder to a comparison with mIoU, by the commands that a user types."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import NNUNetFolders
from natural_images import VOC_UNLABELLED, VOC_VAL, write_voc

from nnunet_semcl.process_pool import ProcessPool

TRAINERS = ("nnUNetTrainerShort", "SemCLTrainerShort")


def test_from_vocs_folder_to_the_miou(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessPool, "start_method", "fork")  # a spawned process would import torch anew
    folders = NNUNetFolders(tmp_path)
    folders.dataset = "Dataset040_VOC2012"
    voc, report = write_voc(tmp_path / "VOC2012"), tmp_path / "report"
    folders.call(f"convert voc {voc} -d 40")

    def run(command: str) -> str:
        done = folders.run(command)
        assert done.returncode == 0, done.stdout
        return done.stdout

    folders.environment["nnUNet_n_proc_DA"] = "1"  # with 0 nnU-Net's planner asks torch for no thread at all
    run("nnUNetv2_plan_and_preprocess -d 40 -c 2d -npfp 1 -np 1")
    folders.environment["nnUNet_n_proc_DA"] = "0"
    folders.call("plan -d 40 --preset tiny")
    folders.call(f"unlabelled -d 40 -i {folders.raw / 'imagesUnlabelled'} -np 1")
    for trainer in TRAINERS:
        printed = run(f"nnUNetv2_train 40 2d 0 -tr {trainer} -p nnUNetTinyPlans -device cpu")
    assert "4 labelled and 2 unlabelled training cases" in printed
    fold = folders.fold("SemCLTrainerShort", "2d")
    assert all((fold / "coarse_masks" / f"{case}.pkl").is_file() for case in VOC_UNLABELLED)
    assert {file.stem for file in (fold / "validation").glob("*.png")} == set(VOC_VAL)  # the published fold
    folders.call(f"compare -d 40 -c 2d -p nnUNetTinyPlans -tr {' '.join(TRAINERS)} -np 1 -o {report}")
    rows = {row["class"]: row for row in csv.DictReader((report / "iou.csv").open())}
    assert float(rows["mean with background"]["SemCLTrainerShort"]) > 0
    assert rows["aeroplane"]["SemCLTrainerShort"] != ""
    assert "ignore" not in rows
