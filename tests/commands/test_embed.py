"""`nnunet-semcl embed` on the phantom: its files agree with each other, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import NNUNetFolders
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from sklearn.metrics import silhouette_score

from nnunet_semcl.cli import main
from nnunet_semcl.commands import embed

TrainFold = Callable[..., Path]


def run(output: Path, configuration: str = "2d", *more: str) -> int:
    options = ["-d", "999", "-c", configuration, "-f", "0", "-tr", "SemCLTrainerShort", "-p", "nnUNetTinyPlans"]
    return main(["embed", *options, "-device", "cpu", "-o", str(output), *more])


def read(output: Path) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    with np.load(output / "embeddings.npz", allow_pickle=False) as file, open(output / "scores.csv") as scores:
        return dict(file), list(csv.DictReader(scores))


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_figures_and_files_agree(
    folders: NNUNetFolders,
    trained_fold: TrainFold,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    configuration: str,
) -> None:
    monkeypatch.setattr(embed, "VOXELS", 12)
    trained_fold(configuration)
    output = folders.root / "new" / "look"
    assert run(output, configuration) == 0
    assert {file.name for file in output.iterdir()} == {"embed.png", "embeddings.npz", "scores.csv"}
    assert list(output.parent.iterdir()) == [output]
    found, scores = read(output)
    length = len(found["embedding"])
    assert all(len(array) == length for array in found.values())
    assert np.isfinite(found["embedding"]).all()
    states = ["initial", "pretrained", "trained"]
    assert list(dict.fromkeys(found["state"])) == states
    assert [(row["kind"], row["state"]) for row in scores] == [(k, s) for k in ("object", "voxel") for s in states]

    split = json.loads((folders.preprocessed / "splits_final.json").read_text())[0]
    assert set(found["case"]) == set(split["val"])
    data = str(folders.preprocessed / f"nnUNetPlans_{configuration}")
    cases = infer_dataset_class(data)(data, split["val"])
    names = {v: n for n, v in json.loads((folders.preprocessed / "dataset.json").read_text())["labels"].items()}
    initial = found["state"] == "initial"
    for case in split["val"]:
        there = {names[value] for value in np.unique(cases.load_case(case)[1][:]) if value > 0}
        of_case = initial & (found["case"] == case)
        assert set(found["class"][of_case & (found["kind"] == "object")]) == there
        of_voxels = found["class"][of_case & (found["kind"] == "voxel")].tolist()
        assert set(of_voxels) == there | {"background"}
        assert max(map(of_voxels.count, of_voxels)) == 6  # of 12 a class, from two cases
    table = capsys.readouterr().out
    for row in scores:
        chosen = (found["kind"] == row["kind"]) & (found["state"] == row["state"])
        assert int(row["samples"]) == chosen.sum()
        plain = silhouette_score(found["embedding"][chosen], found["class"][chosen], metric="cosine")
        assert float(row["silhouette"]) == pytest.approx(plain, abs=1e-5)
        assert f"{float(row['knn']):.3f}" in table
    assert matplotlib.image.imread(output / "embed.png").shape[1] > 1500


def test_one_held_out_case_gives_a_picture_and_no_accuracy(
    folders: NNUNetFolders, trained_fold: TrainFold, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(embed, "VOXELS", 10)
    trained_fold()
    file = folders.preprocessed / "splits_final.json"
    splits = json.loads(file.read_text())
    splits[0]["val"] = splits[0]["val"][:1]
    file.write_text(json.dumps(splits))
    assert run(folders.root / "look") == 0
    assert "With one held-out case there is no other case to classify by." in capsys.readouterr().out
    assert {row["knn"] for row in read(folders.root / "look")[1]} == {"nan"}


def test_regions_are_objects_and_what_is_ignored_is_not_drawn(
    folders: NNUNetFolders, trained_fold: TrainFold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "VOXELS", 10)
    file = folders.preprocessed / "dataset.json"
    content = json.loads(file.read_text())
    largest = max(content["labels"].values())
    regions = {"background": 0, "all": list(range(1, largest)), "first": 1, "rest": list(range(2, largest))}
    order = [2, 1, 3]
    file.write_text(json.dumps(content | {"labels": regions | {"ignore": largest}, "regions_class_order": order}))
    trained_fold()
    assert run(folders.root / "look") == 0
    found, _ = read(folders.root / "look")
    assert set(found["class"][found["kind"] == "object"]) == {"all", "first", "rest"}
    voxels = set(found["class"][found["kind"] == "voxel"])
    assert voxels == {"background", *(f"label {value}" for value in range(1, largest))}


def test_what_is_refused(
    folders: NNUNetFolders, trained_fold: TrainFold, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    fold = trained_fold()
    taken = tmp_path / "taken"
    taken.mkdir()
    assert run(taken) == 1
    assert run(tmp_path / "new", "2d", "-tr", "Absent") == 1
    for checkpoint in fold.glob("checkpoint_*.pth"):
        checkpoint.rename(checkpoint.with_name(f"all_{checkpoint.name}"))
    assert run(tmp_path / "new") == 1
    fold.rename(fold.with_name("fold_all"))
    for checkpoint in fold.with_name("fold_all").glob("all_*.pth"):
        checkpoint.rename(checkpoint.with_name(checkpoint.name.removeprefix("all_")))
    assert run(tmp_path / "new", "2d", "-f", "all") == 1
    lines = capsys.readouterr().err.strip().splitlines()[-4:]
    assert "taken exists already" in lines[0]
    assert "-tr Absent: nnU-Net finds no trainer" in lines[1]
    assert "fold_0 has no checkpoint_pretrained.pth and checkpoint_final.pth" in lines[2]
    assert "fold all holds no case out. Name a fold" in lines[3]
    assert not (tmp_path / "new").exists()
