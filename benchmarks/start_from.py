"""Pretraining on images without labels, then `start_from` on a few labelled cases, against starting cold.

    nnUNet_raw=... python benchmarks/start_from.py -d 18 -c 3d_fullres -o WORK_FOLDER

For each seed a fold of the data set: the images of its training cases become a data set without labels, on which
`nnunet-semcl pretrain` runs IDEAL's first phase; then benchmarks/trainers' Control trains on a few labelled ones of
them alone: SemCLTrainer's optimiser and schedule, without contrast and pseudo-labels. (In so few steps nnU-Net's SGD
finds nothing at all.) Dice is that of the fold's validation cases, which neither has seen.

    Cold        training on the labelled cases
    ColdAsLong  the same, with as many steps more as pretraining takes
    Started     training from the pretrained weights

Appends a row to the results file for each run, runs only what is missing there, and prints the table; --report does
only that. Not equal: wall time, and views (pretraining sees two of each patch).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path

from measures import measures_by_case
from paired_report import report
from programs import program

HERE = Path(__file__).parent
ARMS = ("Cold", "ColdAsLong", "Started")
STEPS_PER_EPOCH = 50
PLANS = "nnUNetTinyPlans"
SCANS = 900  # and the fold: ids of the data sets without labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-c", required=True, help="configuration")
    parser.add_argument("-o", type=Path, required=True, help="work folder for preprocessed data and results")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--labelled", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2000, help="of the training, a multiple of 50")
    parser.add_argument("--pretraining-steps", type=int, default=2000, help="a multiple of 50")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seed s takes fold 1 + (s mod 4)")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "start_from.jsonl")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if not args.report:
        raw = next(Path(os.environ["nnUNet_raw"]).glob(f"Dataset{args.d:03d}_*"))
        os.environ["nnUNet_preprocessed"] = str(args.o.absolute() / "nnUNet_preprocessed")
        os.environ["nnUNet_results"] = str(args.o.absolute() / "nnUNet_results")
        os.environ.pop("nnUNet_extTrainer", None)
        prepare(args, raw)
        for seed in args.seeds:
            for arm in ARMS:
                if not any(is_of(row, settings_of(args, arm, seed)) for row in rows(args.results)):
                    train(args, raw, arm, seed)
    wanted = [settings_of(args, arm, seed) for seed in args.seeds for arm in ARMS]
    print(report([row for row in rows(args.results) if any(is_of(row, one) for one in wanted)], list(ARMS)))


def settings_of(args: argparse.Namespace, arm: str, seed: int) -> dict:
    return {
        "dataset": args.d,
        "configuration": args.c,
        "trainer": arm,
        "labelled": str(args.labelled),
        "steps": args.steps,
        "pretraining_steps": args.pretraining_steps,
        "seed": seed,
        "fold": 1 + seed % 4,
    }


def is_of(row: dict, settings: dict) -> bool:
    return settings.items() <= row.items()


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def prepare(args: argparse.Namespace, raw: Path) -> None:
    """Plans, preprocessed cases, and a fold with few labels for each seed."""
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    one_worker = {"nnUNet_n_proc_DA": "1"}  # with 0 nnU-Net's planner asks torch for no thread at all
    if not (preprocessed / f"nnUNetPlans_{args.c}").is_dir():
        call(f"nnUNetv2_plan_and_preprocess -d {args.d} -c {args.c} -np 2", one_worker)
    call(f"nnunet-semcl plan -d {args.d} --preset tiny", one_worker)
    for seed in args.seeds:
        call(f"nnunet-semcl label-budget -d {args.d} --labelled {args.labelled} --seed {seed}")


def train(args: argparse.Namespace, raw: Path, arm: str, seed: int) -> None:
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    splits = json.loads((preprocessed / "splits_final.json").read_text())
    fold = 1 + seed % 4
    budget = {"fold": fold, "labelled": args.labelled, "seed": seed, "group": None}
    few = next(number for number, split in enumerate(splits) if split.get("label_budget") == budget)
    work = args.o.absolute() / "runs" / f"{arm}_seed{seed}_{args.labelled}of{args.steps}"
    settings: dict[str, object] = {}
    steps = args.steps
    if arm == "ColdAsLong":
        steps += args.pretraining_steps
    if arm == "Started":
        settings["start_from"] = str(pretrained(args, raw, splits[fold]["train"], fold, seed))
    started = time.time()
    command = f"nnUNetv2_train {args.d} {args.c} {few} -tr Control -p {PLANS} -device {args.device}"
    call(command + (" --c" if work.exists() else ""), described(args, seed, steps, None, settings, work))
    cases = measures_by_case(next(work.glob(f"*/*/fold_{few}/validation/summary.json")))
    row = settings_of(args, arm, seed) | {"seconds": round(time.time() - started), "cases": cases}
    with args.results.open("a") as results:
        results.write(json.dumps(row) + "\n")


def pretrained(args: argparse.Namespace, raw: Path, cases: list[str], fold: int, seed: int) -> Path:
    """The checkpoint of a pretraining on the cases' images, which are a data set of their own."""
    name = f"Dataset{SCANS + fold}_Scans"
    images, work = args.o / name, args.o.absolute() / "runs" / f"pretraining_seed{seed}_{args.pretraining_steps}"
    images.mkdir(exist_ok=True)
    for case in cases:
        for image in (raw / "imagesTr").glob(f"{case}_[0-9][0-9][0-9][0-9].*"):
            if not (images / image.name).exists():
                (images / image.name).symlink_to(image.absolute())
    call(f"nnunet-semcl unlabelled -d {name} --like {raw.name} -p {PLANS} -c {args.c} -i {images} -np 2")
    steps = args.pretraining_steps + STEPS_PER_EPOCH  # a trainer keeps an epoch for nnU-Net's training
    share = args.pretraining_steps / steps
    command = f"nnunet-semcl pretrain -d {name} -c {args.c} -p {PLANS} -tr IDEAL -device {args.device}"
    call(command + (" --c" if work.exists() else ""), described(args, seed, steps, [share], {}, work))
    return next(work.glob("*/*/fold_all/checkpoint_pretrained.pth"))


def described(
    args: argparse.Namespace, seed: int, steps: int, shares: list[float] | None, settings: dict[str, object], work: Path
) -> dict[str, str]:
    """The environment of a run of benchmarks/trainers."""
    run = {
        "seed": seed,
        "steps": steps,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "in_memory": False,
        "shares": shares,
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "settings": settings,
    }
    return {
        "LABEL_EFFICIENCY": json.dumps(run),
        "nnUNet_extTrainer": str(HERE.absolute() / "trainers"),
        "nnUNet_results": str(work),
        "nnUNet_n_proc_DA": "0" if args.device == "cpu" else os.environ.get("nnUNet_n_proc_DA", "12"),
    }


def call(command: str, environment: dict[str, str] | None = None) -> None:
    print(f"$ {command}", flush=True)
    name, *arguments = command.split()
    if "nnUNet_results" in (environment or {}):
        Path(environment["nnUNet_results"]).mkdir(parents=True, exist_ok=True)
    subprocess.run([program(name), *arguments], env=os.environ | (environment or {}), check=True)


if __name__ == "__main__":
    main()
