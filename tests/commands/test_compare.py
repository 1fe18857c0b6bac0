"""`nnunet-semcl compare` on written results of two trainers: its figures, what it names, what it refuses."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from sklearn.metrics import jaccard_score

from nnunet_semcl.cli import main
from nnunet_semcl.process_pool import ProcessPool

DATASET = "Dataset998_Compared"
LABELS = {"background": 0, "liver": 1, "spleen": 2}
SHAPE, SPACING = (8, 24, 20), (0.8, 0.9, 2.0)  # (z, y, x) and (x, y, z)
CASES = {"0": ["p1_a", "p1_b"], "1": ["p2_a"]}


def segmentation(seed: int, noise: float) -> np.ndarray:
    """Two organs, of which each prediction sees a little more or less."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPE)), (0, 1, 3, 3))
    smooth += noise * ndimage.gaussian_filter(
        np.random.default_rng(seed + 100).standard_normal((2, *SHAPE)), (0, 1, 3, 3)
    )
    labels = np.zeros(SHAPE, np.uint8)
    for organ in (1, 2):
        labels[smooth[organ - 1] > np.quantile(smooth[organ - 1], 0.8)] = organ
    return labels


def write(array: np.ndarray, file: Path, spacing: tuple[float, ...] = SPACING) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(file))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two trainers, two folds, three cases of two patients; returns the data set's folder in nnUNet_results."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setattr(ProcessPool, "start_method", "fork")  # a spawned process would import torch anew
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 3, "file_ending": ".nii.gz"}
    preprocessed, folder = (tmp_path / name / DATASET for name in ("preprocessed", "results"))
    for number, case in enumerate(["p1_a", "p1_b", "p2_a"]):
        true = segmentation(number, 0)
        write(true, preprocessed / "gt_segmentations" / f"{case}.nii.gz")
        write((100.0 * true).astype(np.float32), tmp_path / "raw" / DATASET / "imagesTr" / f"{case}_0000.nii.gz")
        fold = next(fold for fold, cases in CASES.items() if case in cases)
        for trainer, noise in (("Old", 0.6), ("New", 0.2)):
            validation = folder / f"{trainer}__nnUNetPlans__2d" / f"fold_{fold}" / "validation"
            write(segmentation(number, noise), validation / f"{case}.nii.gz")
            (validation / "summary.json").write_text("{}")
            (validation.parent.parent / "dataset.json").write_text(json.dumps(content))
    (preprocessed / "dataset.json").write_text(json.dumps(content))
    return folder


def run(tmp_path: Path, *more: str) -> int:
    return main(["compare", "-d", "998", "-c", "2d", "-o", str(tmp_path / "report"), "-np", "1", *more])


BOTH = ("-tr", "Old", "New")


def refused(capsys: pytest.CaptureFixture, tmp_path: Path, message: str, *arguments: str) -> None:
    assert run(tmp_path, *arguments) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_the_report(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(tmp_path, *BOTH, "--group", r"p\d") == 0
    printed = capsys.readouterr().out
    assert f"{DATASET}, 2d, nnUNetPlans, folds 0, 1." in printed
    assert "3 cases of 2 groups; surface Dice within 2 mm." in printed
    report = tmp_path / "report"
    assert {file.name for file in report.iterdir()} == {"report.md", "cases.csv", "iou.csv", "index.html"}
    rows = list(csv.DictReader((report / "cases.csv").open()))
    assert len(rows) == 3 * 2 * 2
    assert {row["group"] for row in rows} == {"p1", "p2"}
    by_key = {(row["case"], row["side"], row["class"]): float(row["Dice"]) for row in rows}
    for (case, side, organ), dice in by_key.items():  # by SimpleITK
        fold = next(fold for fold, cases in CASES.items() if case in cases)
        found = sitk.ReadImage(str(results / f"{side}__nnUNetPlans__2d/fold_{fold}/validation/{case}.nii.gz"))
        true = sitk.ReadImage(str(tmp_path / "preprocessed" / DATASET / "gt_segmentations" / f"{case}.nii.gz"))
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(found, true)
        assert dice == pytest.approx(overlap.GetDiceCoefficient(LABELS[organ]), abs=1e-6)
    means = {}
    for side in ("Old", "New"):
        of_case = {c: np.mean([by_key[c, side, o] for o in ("liver", "spleen")]) for c in ("p1_a", "p1_b", "p2_a")}
        means[side] = np.mean([(of_case["p1_a"] + of_case["p1_b"]) / 2, of_case["p2_a"]])
    expected = f"| **Dice** | {means['Old']:.3f} | {means['New']:.3f} | {means['New'] - means['Old']:+.3f} |"
    assert expected in (report / "report.md").read_text()
    assert re.search(rf"Dice +{means['Old']:.3f} +{means['New']:.3f} +\{means['New'] - means['Old']:+.3f}", printed)


def test_iou_is_of_all_voxels_but_the_ignored(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    labels = LABELS | {"ignore": 3}
    truths = {}
    for file in (tmp_path / "preprocessed" / DATASET / "gt_segmentations").iterdir():
        truths[file.name] = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        truths[file.name][:, :6] = 3
        write(truths[file.name], file)
    for file in (*results.glob("*/dataset.json"), tmp_path / "preprocessed" / DATASET / "dataset.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": labels}))
    assert run(tmp_path, *BOTH) == 0
    printed, report = capsys.readouterr().out, tmp_path / "report"
    rows = {row["class"]: row for row in csv.DictReader((report / "iou.csv").open())}
    assert [*rows] == ["background", "liver", "spleen", "mean", "mean with background"]
    true = np.concatenate([truths[name].ravel() for name in sorted(truths)])
    expected = []
    for side in ("Old", "New"):
        files = {file.name: file for file in results.glob(f"{side}__*/*/validation/*.nii.gz")}
        found = [sitk.GetArrayFromImage(sitk.ReadImage(str(files[name]))).ravel() for name in sorted(truths)]
        of_classes = jaccard_score(true[true < 3], np.concatenate(found)[true < 3], average=None)
        for name, value in zip(LABELS, of_classes, strict=True):
            assert float(rows[name][side]) == pytest.approx(value, rel=1e-12)
        expected.append(of_classes.mean())
        assert float(rows["mean"][side]) == pytest.approx(of_classes[1:].mean(), rel=1e-12)
    old, new = expected
    cells = [f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}"]
    assert f"| mean with background | {' | '.join(cells)} |" in (report / "report.md").read_text()
    assert "".join(f"<td>{cell}</td>" for cell in cells) in (report / "index.html").read_text()
    assert re.search(r"mean with background\s+" + r"\s+".join(map(re.escape, cells)), printed)


class Page(HTMLParser):
    """What a browser would load, and the cells of the last table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]


def test_the_page_needs_no_other_file(results: Path, tmp_path: Path) -> None:
    assert run(tmp_path, *BOTH) == 0
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert page.tags.count("img") == 3  # all three cases
    assert page.tags.count("svg") == 1
    inside = ("data:image/png;base64,", "#")
    assert all(source.startswith(inside) for source in page.sources), page.sources


def test_a_case_that_one_side_lacks_is_named(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (results / "New__nnUNetPlans__2d/fold_0/validation/p1_b.nii.gz").unlink()
    assert run(tmp_path, *BOTH) == 0
    sentence = "Left out, since New lacks them: 1 cases (p1_b)."
    assert sentence in capsys.readouterr().out
    assert sentence in (tmp_path / "report" / "report.md").read_text()


def test_a_fold_that_one_trainer_has_not_finished(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (results / "New__nnUNetPlans__2d/fold_1/validation/summary.json").unlink()
    refused(
        capsys, tmp_path, r"New__nnUNetPlans__2d: fold 1 is not finished \(finished: 0\).*-tr New", *BOTH, "-f", "1"
    )
    assert run(tmp_path, *BOTH) == 0
    assert "Left out, since not all trainers have finished them: fold 1" in capsys.readouterr().out


def test_what_is_refused(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    refused(capsys, tmp_path, "-tr Old: two trainers are compared", "-tr", "Old")
    refused(capsys, tmp_path, r"no fold is finished by all .* \(Old: 0 1; Absent: none\)", "-tr", "Old", "Absent")
    refused(capsys, tmp_path, r"--group '\(' is not a regular expression", *BOTH, "--group", "(")
    refused(capsys, tmp_path, "--group 'x' matches nothing in the case name 'p1_a'", *BOTH, "--group", "x")
    refused(capsys, tmp_path, "--tolerance -1: a distance cannot be negative", *BOTH, "--tolerance", "-1")
    refused(capsys, tmp_path, "either trainers or folders", *BOTH, "-i", "a", "b", "-gt", "c")
    file = results / "New__nnUNetPlans__2d" / "dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"labels": {"background": 0, "liver": 1}}))
    refused(capsys, tmp_path, "New__nnUNetPlans__2d/dataset.json: the labels .* are not", *BOTH)


def test_predictions_of_another_geometry(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = results / "New__nnUNetPlans__2d/fold_1/validation/p2_a.nii.gz"
    write(segmentation(2, 0.2), file, (0.8, 0.9, 3.0))
    refused(capsys, tmp_path, r"p2_a.nii.gz: its shape .* spacing \(3, 0.9, 0.8\) differs from", *BOTH)


def test_an_existing_report_is_not_overwritten(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "report").mkdir()
    assert run(tmp_path, *BOTH) == 1
    assert "report exists already. Choose a new folder with -o" in capsys.readouterr().err
    assert not list((tmp_path / "report").iterdir())


def test_folds_that_share_a_case(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for trainer in ("Old", "New"):
        write(segmentation(0, 0.2), results / f"{trainer}__nnUNetPlans__2d/fold_1/validation/p1_a.nii.gz")
    refused(capsys, tmp_path, "folds 0 and 1 both have the case p1_a", *BOTH)


def test_folders_of_predictions_with_regions(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [results / f"{trainer}__nnUNetPlans__2d/fold_0/validation" for trainer in ("Old", "New")]
    content = json.loads((results / "Old__nnUNetPlans__2d" / "dataset.json").read_text())
    content |= {"labels": {"background": 0, "both": [1, 2], "spleen": 2}, "regions_class_order": [1, 2]}
    named = []
    for name, folder in zip(("first", "second"), folders, strict=True):
        (tmp_path / name).mkdir()
        for file in folder.glob("*.nii.gz"):
            file.rename(tmp_path / name / file.name)
        (tmp_path / name / "dataset.json").write_text(json.dumps(content))
        named.append(str(tmp_path / name))
    truth, images = tmp_path / "preprocessed" / DATASET / "gt_segmentations", tmp_path / "raw" / DATASET / "imagesTr"
    command = ["compare", "-i", *named, "-gt", str(truth), "--images", str(images), "-o", str(tmp_path / "report")]
    assert main([*command, "-np", "1"]) == 0
    assert "both" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "report" / "cases.csv").open()))
    true = segmentation(0, 0) > 0
    found = segmentation(0, 0.6) > 0
    dice = next(float(r["Dice"]) for r in rows if (r["case"], r["side"], r["class"]) == ("p1_a", "first", "both"))
    assert dice == pytest.approx(2 * (true & found).sum() / (true.sum() + found.sum()), abs=1e-6)
    assert "data:image/png" in (tmp_path / "report" / "index.html").read_text()
