"""Label efficiency: trainer x labelled cases x steps x seed, on held-out cases, at equal optimiser steps.

    nnUNet_raw=... python benchmarks/label_efficiency.py -d 4 -c 2d -o WORK_FOLDER \
        --labelled 2 --steps 3200 --seeds 0 1 2 3 4 5 6 7 --trainers ColdTrainer Control SelfTraining SemCL

A trainer is a class of benchmarks/trainers/label_efficiency_trainers.py, with settings behind a colon, for example
SemCL:objective=object. Steps are those of all phases together, coarse training and pretraining included. Seed s chooses
the labelled cases and trains on fold 1 + (s mod 4): fold 0, on which things were chosen, is not reported (--folds 0
is for choosing). Dice is that of the final checkpoint on the fold's validation cases, which no phase learns from or
chooses by. With --group, labelled cases are counted by group, e.g. by patient.

Each run appends a row to the results file. The script runs only what is missing there and continues what was
interrupted. Then it prints the tables and draws the figure; --report does only that.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from threading import Lock
from typing import cast

from measures import measures_by_case
from paired_report import draw, mean_of, report
from programs import program

HERE = Path(__file__).parent
FOLDS = (1, 2, 3, 4)
# 1: rows of version 0.1.0: on fold 0, a Control with two one-cycles, medpy's surface distances, steps divided by the
# benchmark, contrast of voxels, and pseudo-labels that all supervise.
PROTOCOL = 2
COLD = "ColdTrainer"
NO_PRETRAINING = (COLD, "AdamWOneCycle", "OnlineSelfTraining", "IDEAL_noPretraining")
NO_COARSE = (*NO_PRETRAINING, "IDEAL", "SemCL_noUnlabelled")
STEPS_PER_EPOCH = 50
COARSE_SHARE, PRETRAINING_SHARE, IDEAL_SHARE = 0.25, 0.7, 0.1  # of the steps, in protocol 1


@dataclass(frozen=True)
class Run:
    dataset: str
    configuration: str
    plans: str
    trainer: str
    labelled: str
    steps: int
    coarse_steps: int | None  # None: the trainer divides the steps
    pretraining_steps: int | None
    seed: int
    group: str | None = None  # of cases, by which labelled ones are counted
    fold: int = 0  # with all its labels, from which the labelled cases are chosen
    protocol: int = PROTOCOL

    @property
    def name(self) -> str:
        trainer = self.trainer.replace(":", "_").replace(",", "_")
        divided = "" if self.coarse_steps is None else f"{self.coarse_steps}+{self.pretraining_steps}of"
        steps = f"{divided}{self.steps}"
        counted = "groups" if self.group else ""
        return f"{trainer}_{self.labelled}labelled{counted}_{steps}_fold{self.fold}_seed{self.seed}"


def main() -> None:
    args = _parser().parse_args()
    if any(steps % STEPS_PER_EPOCH for steps in args.steps):
        raise SystemExit(f"--steps {args.steps}: each has to be a multiple of {STEPS_PER_EPOCH}, an epoch")
    raw = next(Path(os.environ["nnUNet_raw"]).glob(f"Dataset{args.d:03d}_*"))
    runs = [
        Run(
            raw.name,
            args.c,
            args.p,
            trainer,
            labelled,
            steps,
            *_steps_of_phases(trainer, labelled, steps, args),
            seed,
            args.group,
            args.folds[seed % len(args.folds)],
            args.protocol,
        )
        for steps, labelled, seed, trainer in product(args.steps, args.labelled, args.seeds, args.trainers)
    ]
    if not args.report:
        _set_environment(args.o, args.jobs)
        folds = _prepare(args, raw)
        lock = Lock()
        with ThreadPoolExecutor(args.jobs) as pool:
            done = {_key(row) for row in _rows(args.results)}
            waiting = [run for run in runs if _key(asdict(run)) not in done]
            print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them done")
            list(pool.map(lambda run: _train(run, folds[run.fold, run.labelled, run.seed], args, lock), waiting))
    wanted = {_key(asdict(run)) for run in runs}
    rows = [row for row in _rows(args.results) if _key(row) in wanted]
    print(report(rows, args.trainers))
    draw(rows, args.trainers, args.results.with_suffix(".png"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-c", required=True, help="configuration")
    parser.add_argument("-p", default="nnUNetTinyPlans", help="plans")
    parser.add_argument("-o", type=Path, required=True, help="work folder for preprocessed data and results")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--trainers", nargs="+", default=[COLD, "Control", "SemCL"])
    parser.add_argument("--labelled", nargs="+", default=["2", "8", "all"])
    parser.add_argument("--steps", nargs="+", type=int, default=[2000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folds", nargs="+", type=int, default=list(FOLDS), help="seed s takes folds[s mod number]")
    shares = "of the steps, {}; without it the trainer divides them"
    parser.add_argument("--coarse-share", type=float, help=shares.format("before the contrast"))
    parser.add_argument("--pretraining-share", type=float, help=shares.format("in contrast"))
    parser.add_argument("--group", help="as in nnunet-semcl label-budget")
    parser.add_argument("--splits", type=Path, help="a splits_final.json in place of nnU-Net's own folds")
    parser.add_argument("--in-memory", action="store_true", help="hold the cases in memory: faster, for small data")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "label_efficiency.jsonl")
    parser.add_argument("--protocol", type=int, default=PROTOCOL, help="with --report --folds 0: 1 shows the old rows")
    parser.add_argument("--report", action="store_true", help="only print and draw what is there")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the runs that are missing")
    return parser


def _class(trainer: str) -> str:
    return trainer.partition(":")[0]


def _steps_of_phases(
    trainer: str, labelled: str, steps: int, args: argparse.Namespace
) -> tuple[int | None, int | None]:
    """Steps of coarse training and pretraining, if they are asked for; what a trainer does not do, training gets."""
    coarse, pretraining = args.coarse_share, args.pretraining_share
    if args.protocol > 1 and coarse is None and pretraining is None:
        return None, None
    coarse = COARSE_SHARE if coarse is None else coarse
    if pretraining is None:
        pretraining = IDEAL_SHARE if _class(trainer) == "IDEAL" else PRETRAINING_SHARE
    return (
        _share(steps, coarse) if _class(trainer) not in NO_COARSE and labelled != "all" else 0,
        _share(steps, pretraining) if _class(trainer) not in NO_PRETRAINING else 0,
    )


def _share(steps: int, share: float) -> int:
    """Whole epochs, so that no step is lost: all trainers get the same number."""
    return round(steps * share / STEPS_PER_EPOCH) * STEPS_PER_EPOCH


def _set_environment(work: Path, jobs: int) -> None:
    os.environ["nnUNet_preprocessed"] = str(work.absolute() / "nnUNet_preprocessed")
    os.environ.pop("nnUNet_extTrainer", None)  # the trainers here cannot be imported without a run's description
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # glibc then keeps the memory of a step for the next one: a fifth faster on a CPU, the same bits
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    os.environ.setdefault("nnUNet_def_n_proc", "1")


def _prepare(args: argparse.Namespace, raw: Path) -> dict[tuple[int, str, int], int]:
    """Preprocessed data, plans and folds: (fold with all labels, labelled, seed) -> fold to train on."""
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    os.environ["nnUNet_n_proc_DA"] = "1"  # with 0 nnU-Net's planner asks torch for no thread at all
    os.environ["nnUNet_results"] = str(args.o)
    if not (preprocessed / f"nnUNetPlans_{args.c}").is_dir():
        _call(f"nnUNetv2_plan_and_preprocess -d {args.d} -c {args.c} -np 2")
    if args.splits and not (preprocessed / "splits_final.json").is_file():
        (preprocessed / "splits_final.json").write_bytes(args.splits.read_bytes())
    if args.p == "nnUNetTinyPlans":
        _call(f"nnunet-semcl plan -d {args.d} --preset tiny")
    group = ["--group", args.group] if args.group else []
    folds = {}
    for labelled, seed in product(args.labelled, args.seeds):
        base = args.folds[seed % len(args.folds)]
        if labelled == "all":
            folds[base, labelled, seed] = base
            continue
        _call(f"nnunet-semcl label-budget -d {args.d} --labelled {labelled} --seed {seed}", *group)
        splits = json.loads((preprocessed / "splits_final.json").read_text())
        wanted = {"fold": base, "labelled": int(labelled), "seed": seed, "group": args.group}
        folds[base, labelled, seed] = next(i for i, fold in enumerate(splits) if fold.get("label_budget") == wanted)
    return folds


def _train(run: Run, fold: int, args: argparse.Namespace, lock: Lock) -> None:
    trainer, _, settings = run.trainer.partition(":")
    folder = args.o / "runs" / run.name
    description = {
        "seed": run.seed,
        "steps": run.steps,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "in_memory": args.in_memory,
        "shares": None
        if run.coarse_steps is None
        else [run.coarse_steps / run.steps, cast("int", run.pretraining_steps) / run.steps],
        "threads": max(1, (os.cpu_count() or 1) // args.jobs),
        "settings": {key: _value(text) for key, text in (s.split("=") for s in settings.split(",") if s)},
    }
    environment = {
        "nnUNet_results": str(folder.absolute()),
        "nnUNet_extTrainer": str(HERE.absolute() / "trainers"),
        "LABEL_EFFICIENCY": json.dumps(description),
        # In-process augmentation, so that a run repeats bit for bit.
        "nnUNet_n_proc_DA": "0" if args.device == "cpu" else os.environ.get("nnUNet_n_proc_DA", "12"),
    }
    again = ["--c"] if folder.exists() else []
    command = ["nnUNetv2_train", str(args.d), run.configuration, str(fold), "-tr", trainer, "-p", run.plans, *again]
    command += ["-device", args.device]
    with lock:  # two lines at a time would run into each other
        print(f"{run.name}: {' '.join(command)}", flush=True)
    if args.dry_run:
        return
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with open(folder / "log.txt", "a") as log:
        subprocess.run(
            [program(command[0]), *command[1:]], env=os.environ | environment, stdout=log, stderr=log, check=True
        )
    summary = next(folder.glob(f"*/*/fold_{fold}/validation/summary.json"))
    cases = measures_by_case(summary)
    seconds = None if again else round(time.time() - started)  # the time of an interrupted run is not known
    # What a trainer's name meant at the time: defaults change. Only trainers with phases have settings.
    file = next(folder.glob(f"*/*/fold_{fold}/*_settings.json"), None)
    settings = {key: entry["value"] for key, entry in json.loads(file.read_text()).items()} if file else {}
    row = {**asdict(run), "settings": settings, "seconds": seconds, "cases": cases}
    with lock, open(args.results, "a") as results:
        results.write(json.dumps(row) + "\n")
        print(f"{run.name}: Dice {mean_of(cases.values(), 'dice'):.4f}, {seconds} s", flush=True)


def _call(command: str, *more: str) -> None:
    name, *arguments = command.split()
    subprocess.run([program(name), *arguments, *more], check=True)


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _key(row: dict) -> tuple:
    return tuple(row.get(field.name, field.default) for field in fields(Run))


if __name__ == "__main__":
    main()
