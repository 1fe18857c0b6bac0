"""`nnunet-semcl next` on the phantom: its figures against the plain formulas, its pictures, what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import NNUNetFolders
from scipy.special import softmax
from scipy.stats import entropy

from nnunet_semcl.cli import main
from nnunet_semcl.evaluation.trained_fold import find_fold
from nnunet_semcl.files.cases import open_case

TrainFold = Callable[..., Path]
OPTIONS = ["-d", "999", "-c", "2d", "-tr", "SemCLTrainerShort", "-p", "nnUNetTinyPlans", "-device", "cpu"]


def run(output: Path, *more: str) -> int:
    return main(["next", *OPTIONS, "-f", "0", "-o", str(output), *more])


def table(output: Path) -> list[dict[str, str]]:
    with open(output / "next.csv") as file:
        return list(csv.DictReader(file))


def split(folders: NNUNetFolders) -> dict[str, list[str]]:
    return json.loads((folders.preprocessed / "splits_final.json").read_text())[0]


def test_hidden_and_given_cases_are_ranked(
    folders: NNUNetFolders, trained_fold: TrainFold, capsys: pytest.CaptureFixture
) -> None:
    fold = trained_fold()
    given = folders.raw / "imagesTs"
    assert main(["unlabelled", "-d", "999", "-i", str(given), "-c", "2d", "-p", "nnUNetTinyPlans", "-np", "1"]) == 0
    hidden = split(folders)["unlabelled"]
    data = folders.preprocessed / "nnUNetPlans_2d"
    for case in hidden:  # whose labels are never opened
        (data / f"{case}_seg.b2nd").write_bytes(b"garbage")
        (data / f"{case}.pkl").write_bytes(b"garbage")
    output = folders.root / "new" / "next"
    assert run(output, "-n", "2") == 0
    rows = table(output)
    test_case = next(given.iterdir()).name.removesuffix("_0000.nii.gz")
    assert {row["case"] for row in rows} == {*hidden, test_case}
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        kept = "imagesTs" if row["case"] == test_case else "imagesTr"
        assert Path(row["image"]) == folders.raw / kept / f"{row['case']}_0000.nii.gz"

    pictures = [f"{row['rank']:0>2}_{row['case']}.png" for row in rows[:2]]
    assert {file.name for file in output.iterdir()} == {"next.csv", *pictures}
    assert list(output.parent.iterdir()) == [output]
    assert all(np.ptp(matplotlib.image.imread(output / picture)) > 0.5 for picture in pictures)
    printed = capsys.readouterr().out
    assert all(row["case"] in printed.split("rank  case")[1] for row in rows[:2])
    assert rows[2]["case"] not in printed.split("rank  case")[1]

    found = find_fold("999", "2d", "SemCLTrainerShort", "nnUNetTinyPlans", "0", "cpu")
    predictor = found.predictor(fold / "checkpoint_final.pth")
    for row in rows[:1]:
        folder = data if row["case"] in hidden else folders.preprocessed / "nnUNetPlans_2d_unlabelled"
        voxels = torch.from_numpy(open_case(folder / row["case"])[:])
        p = softmax(predictor.predict_sliding_window_return_logits(voxels).float().numpy(), 0)
        notable = 1 - p[0] >= 0.1
        assert float(row["unsure"]) == pytest.approx(entropy(p, base=len(p), axis=0)[notable].mean(), abs=1e-4)
        assert 0 <= float(row["represents"]) <= 2


def test_another_checkpoint_and_regions(folders: NNUNetFolders, trained_fold: TrainFold) -> None:
    file = folders.preprocessed / "dataset.json"
    content = json.loads(file.read_text())
    largest = max(content["labels"].values())
    regions = {"background": 0, "all": list(range(1, largest)), "first": 1, "ignore": largest}
    file.write_text(json.dumps(content | {"labels": regions, "regions_class_order": [2, 1]}))
    trained_fold()
    assert run(folders.root / "next", "-chk", "checkpoint_pretrained.pth", "-n", "1") == 0
    rows = table(folders.root / "next")
    assert {row["case"] for row in rows} == set(split(folders)["unlabelled"])
    assert all(0 < float(row["unsure"]) <= 1 for row in rows)


def test_cases_in_which_nothing_is_found_are_named(
    folders: NNUNetFolders, trained_fold: TrainFold, capsys: pytest.CaptureFixture
) -> None:
    fold = trained_fold()
    content = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    weights = content["network_weights"]
    last = max(key for key in weights if key.startswith("decoder.seg_layers") and key.endswith("bias"))
    weights[last] = torch.tensor([50.0] + [0.0] * (len(weights[last]) - 1))
    torch.save(content, fold / "checkpoint_final.pth")
    assert run(folders.root / "next") == 0
    assert "In 2 of 2 cases the network finds nothing and suspects nothing" in capsys.readouterr().out
    assert {row["unsure"] for row in table(folders.root / "next")} == {"0.000000"}


def test_what_is_refused(
    folders: NNUNetFolders, trained_fold: TrainFold, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    trained_fold()
    (tmp_path / "taken").mkdir()
    assert run(tmp_path / "taken") == 1
    assert run(tmp_path / "new", "-chk", "checkpoint_best.pth") == 1
    assert run(tmp_path / "new", "-c", "3d_cascade") == 1
    file = folders.preprocessed / "splits_final.json"
    splits = json.loads(file.read_text())
    del splits[0]["unlabelled"]
    file.write_text(json.dumps(splits))
    assert run(tmp_path / "new") == 1
    lines = capsys.readouterr().err.strip().splitlines()[-4:]
    assert "taken exists already" in lines[0]
    assert "fold_0 has no checkpoint_best.pth (checkpoint_final.pth, checkpoint_pretrained.pth)" in lines[1]
    assert "has no configuration '3d_cascade'" in lines[2]
    assert (
        "has no unlabelled case. To add some, run: nnunet-semcl unlabelled -d 999 -p nnUNetTinyPlans -c 2d" in lines[3]
    )
    with pytest.raises(SystemExit):
        run(tmp_path / "new", "-n", "0")
    assert "argument -n: 0 is not a whole number of 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
