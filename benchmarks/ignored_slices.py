"""Cases of which half the slices are ignored: Dice with SemCL's pseudo-labels in that half, and without.

    nnUNet_raw=... python benchmarks/ignored_slices.py -d 4 -c 2d -o WORK_FOLDER \
        --labelled 8 --steps 3200 --seeds 0 1 2

WORK_FOLDER/nnUNet_raw gets a copy of the data set with an ignore label. Every second case is for training: the upper or
the lower half of its slices is ignored, as a draw decides. The other cases are whole, for validation alone. Seed s
trains on so many cases, drawn by s. The runs are those of label_efficiency.py, which prints the tables: SemCL beside
SemCL_unfilled, which divides its steps alike but leaves ignored voxels ignored, and nnU-Net's own training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

HERE = Path(__file__).parent
TRAINERS = ("ColdTrainer", "SemCL_unfilled:objective=voxel", "SemCL:objective=voxel")


def main() -> None:
    args, others = _parser().parse_known_args()
    source = next(Path(os.environ["nnUNet_raw"]).glob(f"Dataset{args.d:03d}_*"))
    new_id = 900 + args.d % 100
    raw = args.o.absolute() / "nnUNet_raw"
    folder = raw / f"Dataset{new_id:03d}_{source.name[11:]}Half{args.labelled}"
    present = [other for other in raw.glob(f"Dataset{new_id:03d}_*") if other != folder]
    if present:
        raise SystemExit(f"{present[0]} was made with another --labelled: choose another -o")
    seeds = range(max(args.seeds) + 1)
    if not (folder / "dataset.json").is_file():
        _write(source, folder, args.labelled, seeds)
    command = [sys.executable, str(HERE / "label_efficiency.py"), "-d", str(new_id), "-o", str(args.o)]
    command += ["--labelled", "all", "--folds", *map(str, seeds), "--seeds", *map(str, args.seeds)]
    command += ["--trainers", *TRAINERS, "--results", str(args.results), *others]
    subprocess.run(command, env=os.environ | {"nnUNet_raw": str(raw)}, check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", type=int, required=True, help="id of a data set of volumes in nnUNet_raw")
    parser.add_argument("-o", type=Path, required=True, help="work folder")
    parser.add_argument("--labelled", type=int, default=8, help="cases of a training, half of each ignored")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "ignored_slices.jsonl")
    parser.epilog = "-c, --steps and all other options are label_efficiency.py's."
    return parser


def _write(source: Path, folder: Path, labelled: int, seeds: range) -> None:
    """Writes the data set's copy, with a fold for each seed."""
    described = json.loads((source / "dataset.json").read_text())
    ignored = 1 + max(int(np.max(value)) for value in described["labels"].values())
    described["labels"] |= {"ignore": ignored}
    ending = described["file_ending"]
    cases = sorted(file.name.removesuffix(ending) for file in (source / "labelsTr").glob(f"*{ending}"))
    training, validation = cases[::2], cases[1::2]
    if labelled > len(training):
        raise SystemExit(f"--labelled {labelled}: {source.name} has only {len(training)} cases for training")
    shutil.rmtree(folder, ignore_errors=True)  # a copy that was interrupted
    (folder / "labelsTr").mkdir(parents=True)
    (folder / "imagesTr").symlink_to((source / "imagesTr").absolute())
    rng = np.random.default_rng(0)
    for case in cases:
        image = sitk.ReadImage(str(source / "labelsTr" / f"{case}{ending}"))
        labels = sitk.GetArrayFromImage(image)
        if case in training:
            middle = len(labels) // 2
            labels[slice(middle) if rng.random() < 0.5 else slice(middle, None)] = ignored
        new = sitk.GetImageFromArray(labels)
        new.CopyInformation(image)
        sitk.WriteImage(new, str(folder / "labelsTr" / f"{case}{ending}"))
    folds = [
        {"train": sorted(np.random.default_rng(seed).permutation(training)[:labelled].tolist()), "val": validation}
        for seed in seeds
    ]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    (folder / "dataset.json").write_text(json.dumps(described))  # last: it says that the rest is complete


if __name__ == "__main__":
    main()
