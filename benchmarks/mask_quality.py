"""How good are the pseudo-labels of label_efficiency.py's runs? Compares them with the labels that were hidden.

    nnUNet_preprocessed=WORK_FOLDER/nnUNet_preprocessed python benchmarks/mask_quality.py WORK_FOLDER/runs/SemCL_*

A row for each set of masks, in percent but for `found`; for data sets with labels, not regions:

    Dice        of the masks with the labels, a mean over objects and cases
    found       objects in a case's pseudo-labels, on average
    right       of the voxels that are taught as an object, the share that is that object
    taught      of the voxels of objects that were found, the share that is taught as what it is
    background  of the same voxels, the share that is taught as background
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path

import numpy as np

from nnunet_semcl.data.lazy_segmentation import LazySegmentation
from nnunet_semcl.files.cases import UNKNOWN, open_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    runs = parser.parse_args().runs
    print("| run | masks | Dice | found | right | taught | background |\n|---|---|---|---|---|---|---|")
    for masks in sorted(masks for run in runs for masks in run.glob("*/*/fold_*/*_masks")):
        figures = " | ".join(f"{figure:.1f}" for figure in quality(masks))
        print(f"| {masks.parents[3].name} | {masks.name} | {figures} |")


def quality(masks: Path) -> tuple[float, ...]:
    """The figures of a folder of masks, runs/RUN/DATASET/TRAINER__PLANS__CONFIGURATION/fold_N/NAME_masks."""
    _, plans, configuration = masks.parents[1].name.split("__")
    dataset = Path(os.environ["nnUNet_preprocessed"], masks.parents[2].name)
    content = json.loads((dataset / f"{plans}.json").read_text())
    data = dataset / content["configurations"][configuration]["data_identifier"]
    dice: list[float] = []
    found_objects = taught = right = found_voxels = right_of_found = background = 0
    cases = [file.stem for file in sorted(masks.glob("*.pkl"))]
    for case in cases:
        missing = pickle.loads((masks / f"{case}.pkl").read_bytes())["missing"]
        true, predicted = (np.asarray(open_case(where / f"{case}_seg")[:]) for where in (data, masks))
        for one in np.unique(true[true > 0]):
            there, here = true == one, predicted == one
            dice.append(2 * np.count_nonzero(there & here) / (np.count_nonzero(there) + np.count_nonzero(here)))
        supervises = LazySegmentation(predicted, predicted, open_case(masks / case), UNKNOWN, missing)[:]
        found = np.setdiff1d(predicted[predicted > 0], missing)
        of_found = np.isin(true, found)
        found_objects += len(found)
        found_voxels += np.count_nonzero(of_found)
        taught += np.count_nonzero(supervises > 0)
        right += np.count_nonzero((supervises > 0) & (supervises == true))
        right_of_found += np.count_nonzero(of_found & (supervises == true))
        background += np.count_nonzero(of_found & (supervises == 0))
    shares = (right / taught, right_of_found / found_voxels, background / found_voxels)
    return 100 * float(np.mean(dice)), found_objects / len(cases), *(100 * share for share in shares)


if __name__ == "__main__":
    main()
