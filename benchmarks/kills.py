"""SIGKILL at random moments of a tiny run; --c has to end in the bits of the run that nobody killed.

    python benchmarks/kills.py -o WORK_FOLDER --kills 25 --trainers SemCLSeconds IDEALSeconds

A run is nnUNetv2_train on the phantom, two labelled cases and two unlabelled ones, 2d, on the CPU. It is killed within
two seconds of a moment that is drawn among those to come, five times with --c; then it has to get through, and the next
one starts from the beginning. After each kill every checkpoint, JSON file, log and mask in the fold's folder has to be
readable. When a run gets through, the weights of its checkpoints and its validation Dice have to be those of the first
run, which is left alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# Read when torch is loaded: on few cores, threads that wait without sleeping starve the other processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read when nnU-Net is loaded: else validation starts eight processes.
os.environ["nnUNet_def_n_proc"] = "1"

import blosc2
import torch
from nnunetv2.run.run_training import run_training_entry
from programs import program

from nnunet_semcl.commands.phantom import write_phantom
from nnunet_semcl.files.checkpoints import load_safely

DATASET_ID, FOLD = 999, 5
KILLS_A_RUN = 5
CHECKPOINTS = ("checkpoint_pretrained.pth", "checkpoint_best.pth", "checkpoint_final.pth")
# Where a run was, told by what it wrote last.
MOMENTS = {
    "checkpoint_final.pth": "validation",
    "checkpoint_latest.pth": "training",
    "checkpoint_pretrained.pth": "first epoch of training",
    "checkpoint_refinement_2.pth": "second refinement",
    "refined_masks_2": "third prediction of masks",
    "checkpoint_refinement.pth": "refinement",
    "refined_masks": "second prediction of masks",
    "checkpoint_pretraining.pth": "pretraining",
    "coarse_masks": "first prediction of masks",
    "checkpoint_coarse.pth": "coarse training",
}
# Forked, so that each run spares the half minute that torch and nnU-Net take to load.
FORK = multiprocessing.get_context("fork")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, help="work folder")
    parser.add_argument("--kills", type=int, default=25, help="for each trainer")
    parser.add_argument("--trainers", nargs="+", default=["SemCLSeconds", "IDEALSeconds"])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    prepare(args.o.absolute())
    chance = random.Random(args.seed)
    for trainer in args.trainers:
        kill(trainer, args.o.absolute(), args.kills, chance)


def kill(trainer: str, work: Path, kills: int, chance: random.Random) -> None:
    """Prints what was seen.

    Raises:
        SystemExit: a run did not survive; its folder and its log stay.
    """
    fold = work / f"results/Dataset{DATASET_ID}_Phantom/{trainer}__nnUNetTinyPlans__2d/fold_{FOLD}"
    log, expected = work / f"{trainer}.log", work / f"{trainer}.pkl"
    shutil.rmtree(fold, ignore_errors=True)
    log.unlink(missing_ok=True)
    run = start(log, train, trainer)
    moments = moments_of(run, fold)
    if ended(run) or ended(start(log, write_results, fold, expected)):
        raise SystemExit(f"{trainer} fails without a kill: see {log}")
    print(f"{trainer}: {', '.join(MOMENTS[name] for name in moments)}", flush=True)
    shutil.rmtree(fold)
    killed: Counter[str] = Counter()
    finished = 0
    kills_of_run = 0
    while killed.total() < kills or kills_of_run:
        run = start(log, train, trainer)
        if kills_of_run < KILLS_A_RUN:
            aim = chance.choice([name for name in moments if not (fold / name).exists()] or moments)
            while run.is_alive() and not (fold / aim).exists():
                time.sleep(0.02)
            run.join(chance.uniform(0, 2))
        else:
            run.join()
        if run.is_alive():
            os.killpg(run.pid, signal.SIGKILL)
        if ended(run) == -signal.SIGKILL:
            killed[next((moment for name, moment in MOMENTS.items() if (fold / name).exists()), "start")] += 1
            kills_of_run += 1
            survived = ended(start(log, check_files, fold)) == 0
        else:
            finished += 1
            kills_of_run = 0
            survived = run.exitcode == 0 and ended(start(log, check_results, fold, expected)) == 0
            if survived:
                shutil.rmtree(fold)
        if not survived:
            raise SystemExit(f"{trainer} did not survive kill {killed.total()}: see {log} and {fold}")
    print("\n".join(f"  in {moment}: {number}" for moment, number in killed.most_common()))
    print(
        f"  survived {killed.total()} / tried {killed.total()}; {finished} runs finished, in the same bits", flush=True
    )


def moments_of(run: BaseProcess, fold: Path) -> list[str]:
    """What a run writes that tells where it is, in its order."""
    seen: dict[str, None] = {}
    while run.is_alive():
        seen |= dict.fromkeys(name for name in reversed(MOMENTS) if (fold / name).exists())
        time.sleep(0.02)
    return list(seen)


def start(log: Path, work: Callable[..., None], *args: Any) -> BaseProcess:
    def child() -> None:
        os.setsid()  # so that a kill takes its workers too
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work(*args)

    process = FORK.Process(target=child)
    process.start()
    return process


def ended(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def train(trainer: str) -> None:
    options = f"-tr {trainer} -p nnUNetTinyPlans -device cpu --c"
    sys.argv = ["nnUNetv2_train", str(DATASET_ID), "2d", str(FOLD), *options.split()]
    run_training_entry()


def check_files(fold: Path) -> None:
    for file in fold.glob("*"):
        if file.suffix == ".pth" and not file.name.startswith("."):
            load_safely(file, torch.device("cpu"), set())
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            [json.loads(line) for line in file.read_text().splitlines()]
    for file in fold.glob("*_masks/[!.]*"):
        if file.suffix == ".b2nd":
            blosc2.open(str(file), mode="r")[:]
        else:
            pickle.loads(file.read_bytes())


def results(fold: Path) -> dict[str, Any]:
    read = {name: load_safely(fold / name, torch.device("cpu"), {"network_weights"}) for name in CHECKPOINTS}
    weights = {f"{name} {key}": value for name in CHECKPOINTS for key, value in read[name]["network_weights"].items()}
    dice = json.loads((fold / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
    return {**weights, "dice": torch.tensor(dice)}


def write_results(fold: Path, expected: Path) -> None:
    expected.write_bytes(pickle.dumps(results(fold)))


def check_results(fold: Path, expected: Path) -> None:
    now, then = results(fold), pickle.loads(expected.read_bytes())
    differing = [key for key in now.keys() | then.keys() if not torch.equal(now[key], then[key])]
    assert not differing, differing


def prepare(work: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    os.environ |= {
        "nnUNet_extTrainer": str(Path(__file__).parent.absolute() / "trainers"),
        "nnUNet_n_proc_DA": "1",  # with 0 nnU-Net's planner asks torch for no thread at all
    }
    if not (work / "raw" / f"Dataset{DATASET_ID}_Phantom").exists():
        write_phantom(work / "raw", DATASET_ID, cases=5, test_cases=0, seed=0, shape=(24, 40, 48))
        for command in (
            f"nnUNetv2_plan_and_preprocess -d {DATASET_ID} -c 2d -npfp 1 -np 1",
            f"nnunet-semcl plan -d {DATASET_ID} --preset tiny",
            f"nnunet-semcl label-budget -d {DATASET_ID} --labelled 2",
        ):
            name, *arguments = command.split()
            subprocess.run([program(name), *arguments], check=True)
    os.environ["nnUNet_n_proc_DA"] = "0"  # in-process augmentation, which repeats


if __name__ == "__main__":
    main()
