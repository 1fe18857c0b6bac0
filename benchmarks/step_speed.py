"""What a step of each phase costs beside a step of nnU-Net's own training, by the same plan.

    nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=... \\
        python benchmarks/step_speed.py -d 18 -c 2d -p nnUNetTinyPlans -f 5

All sides take turns in one process, a few steps each, and a turn is compared with nnU-Net's turn just before. Prints a
table: milliseconds to make a batch (in this process, without workers) and to compute its step, and the ratios to
nnU-Net, for each and for both together: medians, with quartiles. The fold needs unlabelled cases, see `nnunet-semcl
label-budget`. --batches makes batches only, for plans whose steps take minutes on a CPU; then no masks are predicted
and SemCL's batches are of labelled cases.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("nnUNet_n_proc_DA", "0")
os.environ.setdefault("nnUNet_compile", "false")

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.files.cases import Cases
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.trainer import PretrainingTrainer

UNLABELLED = 4  # cases that get masks


class NNUNet(nnUNetTrainer):
    """The side that all others are compared with."""


class Short(PretrainingTrainer):
    """Writes no checkpoint; few unlabelled cases, so that masks come soon."""

    seed = 0
    disable_checkpointing = True

    def find_unlabelled_images(self, configuration: ConfigurationManager) -> dict[str, Path]:
        return dict(islice(super().find_unlabelled_images(configuration).items(), UNLABELLED))


class ShortSemCL(Short, SemCLTrainer):
    pass


class WithoutMasks(ShortSemCL):
    """All but the masks, which no model has predicted."""

    def _pseudo_labelled(self, labelled: Cases, *args: Any) -> list[Cases]:
        return [labelled]


class ShortIDEAL(Short, IDEALTrainer):
    pass


@dataclass
class Side:
    """One of the sides: `batches(n)` makes n batches, `steps` takes their steps."""

    name: str
    batches: Callable[[int], list[Any]]
    steps: Callable[[list[Any]], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="data set id")
    parser.add_argument("-c", default="2d", help="configuration")
    parser.add_argument("-p", default="nnUNetTinyPlans", help="plans")
    parser.add_argument("-f", type=int, required=True, help="a fold with unlabelled cases")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn")
    parser.add_argument("--coarse-steps", type=int, default=200, help="so that there are masks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", action="store_true", help="make batches, compute no steps")
    parser.add_argument("--only", nargs="+", default=["SemCL", "IDEAL"], help="methods")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sides = list(nnunet(args))
    if "SemCL" in args.only:
        sides += semcl(args)
    if "IDEAL" in args.only:
        sides += ideal(args)
    if args.batches:
        sides = [Side(side.name, side.batches, void) for side in sides]
    report(sides, measure(sides, args.rounds, args.steps), args.batches)


def measure(sides: list[Side], rounds: int, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of a batch and of a step, for each side and round; the first round warms up."""
    times: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
    for number in range(rounds + 1):
        for side in sides:
            started = time.perf_counter()
            batches = side.batches(steps)
            made = time.perf_counter()
            side.steps(batches)
            ended = time.perf_counter()
            if number:
                times[side.name].append((1000 * (made - started) / steps, 1000 * (ended - made) / steps))
    return times


def report(sides: list[Side], times: dict[str, list[tuple[float, float]]], batches_alone: bool) -> None:
    parts = {"batch": lambda pair: pair[0], "compute": lambda pair: pair[1], "both": sum}
    if batches_alone:
        parts = {"batch": parts["batch"]}
    columns = [f"{part}, ms" for part in parts] + [f"ratio of {part}" for part in parts]
    print(f"\n| step | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    reference = times[sides[0].name]
    for side in sides:
        own = times[side.name]
        cells = [middle([take(pair) for pair in own], 1) for take in parts.values()]
        cells += [
            middle([take(a) / take(b) for a, b in zip(own, reference, strict=True)], 2) for take in parts.values()
        ]
        print(f"| {side.name} | {' | '.join(cells)} |")


def middle(values: Any, digits: int) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def nnunet(args: argparse.Namespace) -> Iterator[Side]:
    yield training("nnU-Net's training", started(NNUNet, args))


def semcl(args: argparse.Namespace) -> Iterator[Side]:
    trainer = built(WithoutMasks if args.batches else ShortSemCL, args)
    phases = trainer.pretraining_phases()
    for _ in range(2):  # refinement is pretraining under other masks
        step = phase(f"SemCL's {(found := next(phases)).name}", found)
        if found.name == "coarse" and not args.batches:
            step.steps(step.batches(args.coarse_steps))
        yield step


def ideal(args: argparse.Namespace) -> Iterator[Side]:
    yield phase("IDEAL's pretraining", next(built(ShortIDEAL, args).pretraining_phases()))
    trainer = started(ShortIDEAL, args)
    labelled = training("IDEAL's training", trainer)
    unlabelled = trainer.unlabelled_batches

    def batches(number: int) -> list[Any]:
        trainer.unlabelled_batches = iter(list(islice(unlabelled, number)))
        return labelled.batches(number)

    yield Side(labelled.name, batches, labelled.steps)


def phase(name: str, made: PretrainingPhase) -> Side:
    batches = made._load(made.batches, count())
    return Side(name, lambda number: list(islice(batches, number)), lambda some: void(made._train(iter(some), 1)))


def training(name: str, trainer: Any) -> Side:
    """nnU-Net's training, or what a trainer makes of it."""
    return Side(
        name,
        lambda number: [next(trainer.dataloader_train) for _ in range(number)],
        lambda some: void([trainer.train_step(batch) for batch in some]),
    )


def void(result: Any) -> None:
    """For what is done for its effect."""


def built(kind: type[nnUNetTrainer], args: argparse.Namespace) -> Any:
    dataset = Path(os.environ["nnUNet_preprocessed"], maybe_convert_to_dataset_name(args.d))
    plans, content = load_json(str(dataset / f"{args.p}.json")), load_json(str(dataset / "dataset.json"))
    plans["continue_training"] = False  # as nnUNetv2_train tells a trainer
    trainer = kind(plans, args.c, args.f, content, torch.device(args.device))
    trainer.initialize()
    return trainer


def started(kind: type[nnUNetTrainer], args: argparse.Namespace) -> Any:
    """A trainer at the first step of nnU-Net's training."""
    trainer = built(kind, args)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


if __name__ == "__main__":
    main()
