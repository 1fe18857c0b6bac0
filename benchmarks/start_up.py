"""Seconds from the command to the first optimiser step, ours beside nnU-Net's own; seconds a mask; memory.

    python benchmarks/start_up.py -o WORK_FOLDER [--cases 20 50 100 200] [--large 10] [--results start_up.json]

Data sets grow from small cases to 200 of them, then come a few of 512 x 512 x 400. They are written as nnU-Net
preprocesses them, with 13 organs; half of the training cases are unlabelled, of the large ones most. What is started is
nnUNetv2_train, 2d, with a tiny network on the CPU; it ends after the step that is waited for:

    nnU-Net       nnUNetTrainer, which sees the labelled cases alone
    SemCL first   SemCLTrainer, which looks at every file once
    SemCL again   the same, with the record of what was looked at
    SemCL --c     interrupted in the contrast, when its masks were written

"ready" is before the first batch: nnU-Net has made its loaders, ours its first phase, which then has held-out batches.
"CPU s" is what the main process took of the CPU: on a busy machine it says more than the clock.
Seconds a mask are those of all that is done from the image to a case with pseudo-labels, and the network's alone. The
logits' classes come from the intensities (see start_up_trainers/semcl_start.py), since the network has learned nothing.
Of the large cases two masks are made, without a network, which takes a CPU minutes for each: the time is all the rest.
Memory is the main process' peak, and that of all its processes together, seen five times a second, shared pages once.
A start that leaves the machine less than 1 GiB is ended. The files have just been written, so that the system has them
in its cache: a slow disk comes on top. PYTHONPATH chooses another version of this package.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from programs import program

import nnunet_semcl
from nnunet_semcl.commands.phantom import write_phantom

PHANTOM, FIRST_ID = 999, 900
PLANS, RECORD = "nnUNetTinyPlans", "intact_cases.json"
SMALL, LARGE, QUICK = (40, 64, 80), (400, 512, 512), (24, 40, 48)
ORGANS, DRAWN = 13, 2  # cases that are drawn; the others are copies in files of their own
LEVELS = [0.4 * organ for organ in range(ORGANS + 1)]  # intensity of background and organs
LARGE_MASKS = 2  # that are predicted
LEAST_MIB, LONGEST = 1024, 900  # what is left of the machine's memory, and seconds, before a start is ended
STARTS = ("nnU-Net", "SemCL first", "SemCL again", "SemCL --c")
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, help="work folder")
    parser.add_argument("--cases", type=int, nargs="*", default=[20, 50, 100, 200], help="sizes of small data sets")
    parser.add_argument("--large", type=int, default=10, help="cases of 512 x 512 x 400; 0: none")
    parser.add_argument("--large-shape", type=int, nargs=3, default=LARGE, help="z y x, where memory is short")
    parser.add_argument("--repeats", type=int, default=3, help="of the small ones, interleaved")
    parser.add_argument("--results", type=Path, help="JSON file")
    parser.add_argument("--quick", action="store_true", help="one tiny data set, once")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what it has started ends too
    if args.quick:
        args.cases, args.large, args.repeats = [5], 0, 1
    work = args.o.absolute()
    prepare(work)
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; {Path(nnunet_semcl.__file__).parent}")
    rows: list[Figures] = []
    print(line("cases", "shape", "", "ready", "first step", "to nnU-Net", "CPU s", "main MiB", "all MiB"), flush=True)
    sizes = [(number, QUICK if args.quick else SMALL, args.repeats) for number in args.cases]
    sizes += [(args.large, tuple(args.large_shape), 1)] if args.large else []
    for number, (cases, shape, repeats) in enumerate(sizes):
        dataset = write_dataset(work / "preprocessed", FIRST_ID + number, cases, shape)
        large = shape > SMALL
        of_run = {"masks": LARGE_MASKS if large else None, "network": not large, "held_out": 1 if args.quick else None}
        for row in measured(work, dataset, repeats, of_run):
            rows.append({"cases": cases, "shape": list(shape), **row})
            print(as_line(rows[-1]), flush=True)
        shutil.rmtree(dataset)
        if args.results:
            args.results.write_text(json.dumps(rows, indent=1) + "\n")


def measured(work: Path, dataset: Path, repeats: int, of_run: Figures) -> Iterator[Figures]:
    """Yields a row for each way to start, and one for the masks."""
    found: dict[str, list[Figures]] = {name: [] for name in STARTS}
    for repeat in range(repeats):
        for name in STARTS:
            steps = 2 if name == "SemCL first" and not repeat else 1  # the second one comes after the masks
            results = work / ("results" if steps == 2 or name == "SemCL --c" else "results_again")
            if name != "SemCL --c":
                shutil.rmtree(results, ignore_errors=True)
            if name == "SemCL first":
                (dataset / RECORD).unlink(missing_ok=True)
            found[name].append(start(work, dataset, name, results, of_run | {"steps": steps}))
    medians = {}
    for name, runs in found.items():
        row = {"start": name}
        if any("seconds" not in run for run in runs):
            yield row | {"failed": next(run["failed"] for run in runs if "failed" in run)}
            continue
        medians[name] = statistics.median(run["seconds"] for run in runs)
        yield row | {
            "ready_seconds": statistics.median(run["ready"] for run in runs),
            "seconds": medians[name],
            "cpu_seconds": statistics.median(run["cpu"] for run in runs),
            "each": [run["seconds"] for run in runs],
            "difference": medians[name] - medians.get("nnU-Net", float("nan")),
            "main_mib": max(run["mib"] for run in runs),
            "all_mib": max(run["all_mib"] for run in runs),
        }
    of_masks = found["SemCL first"][0]
    yield {"start": "masks", **of_masks.get("masks", {"failed": of_masks.get("failed", "no mask")})}


def start(work: Path, dataset: Path, name: str, results: Path, of_run: Figures) -> Figures:
    """Runs nnUNetv2_train up to a step, and returns seconds and memory at the first one, and of the masks."""
    file, log = work / "figures.json", work / f"{dataset.name}_{name.replace(' ', '_')}.log"
    file.unlink(missing_ok=True)
    results.mkdir(exist_ok=True)
    trainer = "StartNNUNet" if name == "nnU-Net" else "StartSemCL"
    command = [program("nnUNetv2_train"), dataset.name, "2d", "0", "-tr", trainer, "-p", PLANS, "-device", "cpu"]
    command += ["--c"] if name == "SemCL --c" else []
    run = {**of_run, "started": time.time(), "file": str(file), "levels": LEVELS}
    environment = os.environ | {"nnUNet_results": str(results), "START_UP": json.dumps(run)}
    seen: list[tuple[float, float]] = []  # seconds since the start, MiB
    failed = None
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None and not failed:
                time.sleep(0.2)
                seen.append((time.time() - run["started"], memory(process.pid)))
                if (left := available()) < LEAST_MIB:
                    failed = f"ended at {seen[-1][1]:.0f} MiB: {left:.0f} MiB of the machine's memory were left"
                elif seen[-1][0] > LONGEST:
                    failed = f"ended after {LONGEST} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and its workers
        code = process.wait()
    figures = json.loads(file.read_text()) if file.is_file() else {"steps": []}
    found: Figures = {"failed": failed or f"exit code {code}, see {log}"} if failed or code else {}
    if figures["steps"]:
        found |= figures["steps"][0] | {"ready": figures["ready"]}
        found["all_mib"] = max(found["mib"], *(mib for at, mib in seen if at <= found["seconds"]))
    if run["steps"] == 2 and "masks" in figures:
        of = figures["masks"]
        found["masks"] = {
            "masks": of["number"],
            "seconds": of["all"] / of["number"],
            "network_seconds": of["network"] / of["number"] if run["network"] else None,
            "main_mib": of["mib"],
            "all_mib": max(of["mib"], *(mib for _, mib in seen)),
        }
    return found


def memory(session: int) -> float:
    """MiB of a process and, of the others in its session, what they do not share; 0 where there is no /proc."""
    kib = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                kind = "Rss" if stat.parent.name == str(session) else "Private_(?:Clean|Dirty)"
                pages = re.findall(rf"^{kind}:\s+(\d+)", stat.with_name("smaps_rollup").read_text(), re.MULTILINE)
                kib += sum(map(int, pages))
    return kib / 1024


def available() -> float:
    """MiB that are left on the machine."""
    file = Path("/proc/meminfo")
    left = re.search(r"MemAvailable:\s+(\d+)", file.read_text()) if file.is_file() else None
    return int(left[1]) / 1024 if left else float("inf")


def line(*columns: object) -> str:
    widths = (5, 11, 11, 7, 10, 10, 6, 8, 7)
    return " ".join(f"{column!s:>{width}}" for column, width in zip(columns, widths, strict=False)).rstrip()


def as_line(row: Figures) -> str:
    named = (row["cases"], "x".join(map(str, row["shape"])), row["start"])
    if "failed" in row:
        return f"{line(*named)} {row['failed']}"
    mib = (f"{row['main_mib']:.0f}", f"{row['all_mib']:.0f}")
    if row["start"] == "masks":
        network = row["network_seconds"]
        share = "without a network" if network is None else f"{network:.3f} of them the network's"
        columns = line(*named, "", "", "", "", *mib)
        return f"{columns}  {row['masks']} masks: {row['seconds']:.3f} s a mask, {share}"
    seconds = (f"{row['ready_seconds']:.2f}", f"{row['seconds']:.2f}", f"{row['difference']:+.2f}")
    return line(*named, *seconds, f"{row['cpu_seconds']:.1f}", *mib)


def prepare(work: Path) -> None:
    """Sets nnU-Net's folders, and plans a phantom unless that is done."""
    for name in ("raw", "preprocessed"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    os.environ["nnUNet_results"] = str(work / "results")
    os.environ["nnUNet_extTrainer"] = str(Path(__file__).parent.absolute() / "start_up_trainers")
    # nnU-Net starts a thread for each core: where others compute too, threads that wait without sleeping starve them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if next((work / "preprocessed").glob(f"Dataset{PHANTOM}_*/{PLANS}.json"), None):
        return
    write_phantom(work / "raw", PHANTOM, cases=5, test_cases=0, seed=0)
    for command in (
        f"nnUNetv2_plan_and_preprocess -d {PHANTOM} -npfp 1 --no_pp",
        f"nnunet-semcl plan -d {PHANTOM} --preset tiny",
    ):
        name, *arguments = command.split()
        run = subprocess.run([program(name), *arguments], capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{command}: {run.stdout}{run.stderr}")


def write_dataset(preprocessed: Path, dataset_id: int, cases: int, shape: tuple[int, ...]) -> Path:
    """Writes the cases as nnU-Net saves what it has preprocessed, with the phantom's plans, and a fold."""
    phantom = next(preprocessed.glob(f"Dataset{PHANTOM}_*"))
    folder = preprocessed / f"Dataset{dataset_id}_StartUp"
    shutil.rmtree(folder, ignore_errors=True)
    plans = json.loads((phantom / f"{PLANS}.json").read_text())
    configuration = plans["configurations"]["2d"]
    if shape > SMALL:  # whole slices, so that the CPU predicts a case within minutes
        configuration |= {"patch_size": list(shape[1:]), "batch_size": 2}
    data = folder / configuration["data_identifier"]
    data.mkdir(parents=True)
    labels = {"background": 0} | {f"organ {organ}": organ for organ in range(1, ORGANS + 1)}
    description = json.loads((phantom / "dataset.json").read_text()) | {"labels": labels, "numTraining": cases}
    names = [f"case_{number:03d}" for number in range(cases)]
    validation, labelled = max(1, cases // 10), 2 if shape > SMALL else (cases - max(1, cases // 10)) // 2
    train = validation + labelled
    fold = {"train": names[validation:train], "val": names[:validation], "unlabelled": names[train:]}
    for name, content in ((PLANS, plans | {"dataset_name": folder.name}), ("dataset", description)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "splits_final.json").write_text(json.dumps([fold]))
    shutil.copy(phantom / "dataset_fingerprint.json", folder)
    blocks, chunks = comp_blosc2_params((1, *shape), configuration["patch_size"])
    for number, name in enumerate(names):
        if number < DRAWN:
            image, segmentation = draw(np.random.default_rng(number), shape)
            properties = {
                "spacing": [1.0, 1.0, 1.0],
                "shape_before_cropping": shape,
                "bbox_used_for_cropping": [[0, length] for length in shape],
                "shape_after_cropping_and_before_resampling": shape,
                "class_locations": DefaultPreprocessor._sample_foreground_locations(
                    segmentation, list(range(1, ORGANS + 1))
                ),
            }
            target = str(data / name)
            nnUNetDatasetBlosc2.save_case(image, segmentation, properties, target, chunks=chunks, blocks=blocks)
            continue
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            shutil.copy(data / f"{names[number % DRAWN]}{ending}", data / f"{name}{ending}")
    return folder


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Ellipsoids of different intensity in noise with whole numbers of HU. Both are (1, Z, Y, X)."""
    axes = np.ogrid[tuple(slice(-1, 1, 1j * length) for length in shape)]
    segmentation = np.zeros(shape, np.int8)
    places = [(z, y, x) for z in (-0.5, 0.5) for y in (-0.6, 0, 0.6) for x in (-0.6, 0, 0.6)]
    for organ, place in enumerate(places[:ORGANS], start=1):
        centre, radii = place + rng.uniform(-0.04, 0.04, 3), rng.uniform(0.2, 0.28, 3)
        inside = sum(
            ((axis - middle) / radius).astype(np.float32) ** 2
            for axis, middle, radius in zip(axes, centre, radii, strict=True)
        )
        segmentation[inside < 1] = organ
    image = np.array(LEVELS, np.float32)[segmentation]
    image += np.rint(6 * rng.standard_normal(shape, np.float32)) / 100
    return image[None], segmentation[None]


if __name__ == "__main__":
    main()
