"""Are the cases that `nnunet-semcl next` names first better ones to label than random ones?

    nnUNet_raw=... python benchmarks/next_case.py -d 18 -c 2d -o WORK_FOLDER --labelled 2 --more 2 --steps 3000

For each seed: some training cases of a fold keep their labels, and the trainer trains on them. Then as many more get
theirs: the first ones of `next` on one side, random ones on the other, and the trainer trains anew on either side, from
the same seed and with as many steps. Prints Dice of the fold's held-out cases, and the differences with the seed as the
unit. Start it again and it trains only what is missing.

A trainer is one of benchmarks/trainers/label_efficiency_trainers.py. Seed s takes fold s mod 5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from csv import DictReader
from pathlib import Path

import numpy as np
from measures import measures_by_case
from paired_report import mean_of
from programs import program

from nnunet_semcl.evaluation.statistics import t_interval

STEPS_PER_EPOCH = 50
FOLDS = 5
SIDES = ("next", "random")


def main() -> None:
    args = _parser().parse_args()
    if args.steps % STEPS_PER_EPOCH:
        raise SystemExit(f"--steps {args.steps}: has to be a multiple of {STEPS_PER_EPOCH}, an epoch")
    dataset = next(Path(os.environ["nnUNet_raw"]).glob(f"Dataset{args.d:03d}_*")).name
    args.o.mkdir(parents=True, exist_ok=True)
    os.environ |= {f"nnUNet_{kind}": str(args.o.absolute() / kind) for kind in ("preprocessed", "results")}
    splits = args.o / "preprocessed" / dataset / "splits_final.json"
    _prepare(args, splits.parent)
    dice: dict[str, list[float]] = {side: [] for side in ("before", *SIDES)}
    for seed in args.seeds:
        _environment(args, seed)
        _call(f"nnunet-semcl label-budget -d {args.d} --labelled {args.labelled} --seed {seed}")
        budget = {"fold": seed % FOLDS, "labelled": args.labelled, "seed": seed, "group": None}
        base = next(n for n, fold in enumerate(_read(splits)) if fold.get("label_budget") == budget)
        dice["before"].append(_train(args, base))
        folds = dict(zip(SIDES, (_ranked(args, base), _random(splits, base, seed)), strict=True))
        for side, order in folds.items():
            fold = _with_more_labels(splits, base, order[: args.more], f"{side} of fold {base}")
            dice[side].append(_train(args, fold))
        print(f"seed {seed}: " + ", ".join(f"{side} {of[-1]:.4f}" for side, of in dice.items()), flush=True)
    print(f"\n{dataset}, {args.tr}, {args.labelled} + {args.more} labelled, {args.steps} steps, Dice in %\n")
    for side, of_seeds in dice.items():
        print(f"{side:8}{100 * np.mean(of_seeds):6.1f}   each seed {' '.join(f'{100 * of:.1f}' for of in of_seeds)}")
    gains = [100 * (chosen - random) for chosen, random in zip(dice["next"], dice["random"], strict=True)]
    interval, p = t_interval(gains)
    print(f"next - random: {np.mean(gains):+.2f}, 95 % [{interval.low:+.2f}, {interval.high:+.2f}], p = {p:.2g}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-c", required=True, help="configuration")
    parser.add_argument("-p", default="nnUNetTinyPlans", help="plans")
    parser.add_argument("-o", type=Path, required=True, help="work folder for preprocessed data and results")
    parser.add_argument("-tr", default="SemCL", help="trainer")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--labelled", type=int, default=2, help="cases with labels at first")
    parser.add_argument("--more", type=int, default=2, help="cases that get labels then")
    parser.add_argument("--steps", type=int, default=3000, help="of each training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    return parser


def _prepare(args: argparse.Namespace, preprocessed: Path) -> None:
    os.environ.pop("nnUNet_extTrainer", None)  # the trainers here cannot be imported without a run's description
    os.environ["nnUNet_n_proc_DA"] = "1"  # with 0 nnU-Net's planner asks torch for no thread at all
    if not (preprocessed / f"nnUNetPlans_{args.c}").is_dir():
        _call(f"nnUNetv2_plan_and_preprocess -d {args.d} -c {args.c} -np 2")
    if args.p == "nnUNetTinyPlans":
        _call(f"nnunet-semcl plan -d {args.d} --preset tiny")


def _environment(args: argparse.Namespace, seed: int) -> None:
    """What nnU-Net's processes read: where the trainers are, and what they are told of a run."""
    run = {"seed": seed, "steps": args.steps, "steps_per_epoch": STEPS_PER_EPOCH, "in_memory": True}
    run |= {"shares": None, "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1), "settings": {}}
    os.environ["nnUNet_extTrainer"] = str(Path(__file__).parent.absolute() / "trainers")
    os.environ["LABEL_EFFICIENCY"] = json.dumps(run)
    if args.device == "cpu":
        os.environ["nnUNet_n_proc_DA"] = "0"  # in-process augmentation, so that a run repeats bit for bit


def _train(args: argparse.Namespace, fold: int) -> float:
    """Trains the fold unless it is finished, and returns the mean Dice of its held-out cases."""
    pattern = f"*/{args.tr}__{args.p}__{args.c}/fold_{fold}/validation/summary.json"
    results = args.o / "results"
    if not any(results.glob(pattern)):
        command = f"nnUNetv2_train {args.d} {args.c} {fold} -tr {args.tr} -p {args.p} -device {args.device} --c"
        _call(command, args.o / f"fold_{fold}.txt")
    return mean_of(measures_by_case(next(results.glob(pattern))).values(), "dice")


def _ranked(args: argparse.Namespace, fold: int) -> list[str]:
    """The unlabelled cases in the order of `next`."""
    folder = args.o / f"next_{fold}"
    if not folder.is_dir():
        options = f"-d {args.d} -c {args.c} -f {fold} -tr {args.tr} -p {args.p} -device {args.device}"
        _call(f"nnunet-semcl next {options} -n {args.more} -o {folder}")
    with open(folder / "next.csv") as file:
        return [row["case"] for row in DictReader(file)]


def _random(splits: Path, fold: int, seed: int) -> list[str]:
    return np.random.default_rng(seed).permutation(sorted(_read(splits)[fold]["unlabelled"])).tolist()


def _with_more_labels(splits: Path, base: int, cases: list[str], name: str) -> int:
    """Number of the fold in which these cases have their labels too; it is appended unless it is there."""
    content = _read(splits)
    fold = {
        "train": sorted([*content[base]["train"], *cases]),
        "val": content[base]["val"],
        "unlabelled": [case for case in content[base]["unlabelled"] if case not in cases],
        "more_labels": name,
    }
    if fold not in content:
        content.append(fold)
        splits.write_text(json.dumps(content, indent=4))
    return content.index(fold)


def _read(splits: Path) -> list[dict]:
    return json.loads(splits.read_text())


def _call(command: str, log: Path | None = None) -> None:
    name, *arguments = command.split()
    with open(log or os.devnull, "a") as stream:
        output = stream if log else None
        subprocess.run([program(name), *arguments], check=True, stdout=output, stderr=output)


if __name__ == "__main__":
    main()
