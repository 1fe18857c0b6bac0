"""From nnUNetv2_plan_and_preprocess to nnUNetv2_predict with SemCL on a real data set, with the tiny preset.

    nnUNet_raw=... python benchmarks/real_data.py -d 4 -c 2d -o WORK_FOLDER

Prints the Dice on the cases of fold 0's validation part, which neither phase trains on, and how well pretraining tells
their objects apart before and after. Appends both as a row to benchmarks/results/real_data.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from programs import program

HERE = Path(__file__).parent
PLANS = "nnUNetTinyPlans"


def run(command: str) -> None:
    print(f"$ {command}", flush=True)
    name, *arguments = command.split()
    subprocess.run([program(name), *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-c", required=True, help="configuration")
    parser.add_argument("-tr", default="SemCLTrainerBenchmark", help="a trainer in benchmarks/trainers")
    parser.add_argument("-o", type=Path, required=True, help="work folder for preprocessed data and results")
    parser.add_argument("-device", default="cpu")
    args = parser.parse_args()
    raw = next(Path(os.environ["nnUNet_raw"]).glob(f"Dataset{args.d:03d}_*"))
    os.environ["nnUNet_preprocessed"] = str(args.o.absolute() / "nnUNet_preprocessed")
    os.environ["nnUNet_results"] = str(args.o.absolute() / "nnUNet_results")
    os.environ["nnUNet_extTrainer"] = str(HERE.absolute() / "trainers")

    started = time.time()
    if not (args.o / "nnUNet_preprocessed" / raw.name / f"nnUNetPlans_{args.c}").is_dir():
        run(f"nnUNetv2_plan_and_preprocess -d {args.d} -c {args.c} -np 2")
    run(f"nnunet-semcl plan -d {args.d} --preset tiny")
    run(f"nnUNetv2_train {args.d} {args.c} 0 -tr {args.tr} -p {PLANS} -device {args.device}")

    splits = json.loads((args.o / "nnUNet_preprocessed" / raw.name / "splits_final.json").read_text())
    images, predictions = args.o / f"{raw.name}_images", args.o / f"{raw.name}_{args.c}_predictions"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    for case in splits[0]["val"]:
        for image in (raw / "imagesTr").glob(f"{case}_[0-9][0-9][0-9][0-9].*"):
            (images / image.name).symlink_to(image.absolute())
    run(
        f"nnUNetv2_predict -d {args.d} -c {args.c} -tr {args.tr} -p {PLANS} -f 0 -i {images} -o {predictions} "
        f"-device {args.device} -npp 1 -nps 1"
    )
    model = args.o / "nnUNet_results" / raw.name / f"{args.tr}__{PLANS}__{args.c}"
    run(
        f"nnUNetv2_evaluate_folder {raw / 'labelsTr'} {predictions} -djfile {model / 'dataset.json'} "
        f"-pfile {model / 'plans.json'} --chill"
    )

    log = [json.loads(line) for line in (model / "fold_0" / "pretraining_log.jsonl").read_text().splitlines()]
    summary = json.loads((predictions / "summary.json").read_text())
    row = {
        "dataset": raw.name,
        "configuration": args.c,
        "trainer": args.tr,
        "held_out_cases": len(splits[0]["val"]),
        "dice": round(summary["foreground_mean"]["Dice"], 4),
        "dice_per_label": {label: round(m["Dice"], 4) for label, m in summary["mean"].items()},
        "voxel_separation_before": round(log[0]["held_out_voxel_separation"], 4),
        "voxel_separation_after": round(log[-1]["held_out_voxel_separation"], 4),
        "pretraining_seconds": round(sum(r.get("seconds", 0) for r in log)),
        "seconds": round(time.time() - started),
    }
    print(json.dumps(row, indent=2))
    with open(HERE / "results" / "real_data.jsonl", "a") as results:
        results.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
