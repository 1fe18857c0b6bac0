"""nnunet-semcl unlabelled: images without labels, preprocessed by nnU-Net's preprocessor and the data set's plans."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from nnunetv2.configuration import default_num_processes
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_semcl.data.unlabelled import (
    ENDINGS,
    RECORD,
    check_unlabelled,
    preprocessing_settings,
    unlabelled_cases,
    unlabelled_folder,
)
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import channel_names, find_dataset, read_dataset_json
from nnunet_semcl.files.json_files import write_json
from nnunet_semcl.files.plans import read_plans, resolve_configuration
from nnunet_semcl.files.raw_images import UnusableImage, check_image, find_images, one_line
from nnunet_semcl.files.training_input import check_training_input

PARTS = ".part-"  # what the folder of a case in the making begins with


class Job(NamedTuple):
    """One case: its files, and the folder for each configuration that it still lacks."""

    case: str
    files: list[Path]
    folders: dict[str, Path]
    plans: PlansManager
    dataset_json: dict


def preprocess_unlabelled(
    dataset_name_or_id: str,
    images: Path,
    configurations: list[str] | None = None,
    plans_identifier: str = "nnUNetPlans",
    num_processes: int | None = None,
) -> dict[str, str]:
    """Preprocesses the images of a folder for each configuration and prints what was done.

    Cases that are complete already stay as they are, so an interrupted run goes on where it was.

    Args:
        images: laid out as nnU-Net's imagesTr.
        configurations: None for all whose labelled cases are preprocessed.
        num_processes: None for nnU-Net's default.

    Returns:
        The cases that were left out, with the reason.

    Raises:
        InputError: see `find_images`, `check_unlabelled`, `check_training_input`; a case that has labels; an
            impossible number of processes, or one of them was killed.
    """
    num_processes = default_num_processes if num_processes is None else num_processes
    if num_processes < 1:
        raise InputError("-np", f"{num_processes}", "1 process or more", "Give such a number, or leave it out.")
    dataset = find_dataset(dataset_name_or_id)
    plans, dataset_json = _read_dataset(dataset, plans_identifier)
    n_channels = len(channel_names(dataset_json))
    by_folder = _configurations_by_folder(dataset, plans, plans_identifier, configurations)
    files = find_images(images, dataset_json["file_ending"], n_channels, plans.image_reader_writer_class())
    for folder, (configuration, *_) in by_folder.items():
        manager = plans.get_configuration(configuration)
        _check_no_labels(images, files, dataset / manager.data_identifier)
        check_unlabelled(folder, plans, manager, dataset_json)

    there = {folder: set(unlabelled_cases(folder)) & files.keys() for folder in by_folder}
    jobs = []
    for case in files:
        lacking = {names[0]: folder for folder, names in by_folder.items() if case not in there[folder]}
        if lacking:
            jobs.append(Job(case, files[case], lacking, plans, dataset_json))
    for folder, (configuration, *_) in by_folder.items():
        _make_folder(folder, preprocessing_settings(plans, plans.get_configuration(configuration), dataset_json))

    left_out: dict[str, str] = {}
    on_terminal = sys.stderr.isatty()
    results = tqdm(_preprocess_all(jobs, num_processes), "Preprocessing", len(jobs), disable=not on_terminal)
    for number, (case, fault) in enumerate(results, start=1):
        if fault:
            left_out[case] = fault
        if not on_terminal:
            print(f"{number}/{len(jobs)} {case}{': left out' if fault else ''}", flush=True)

    for folder, names in by_folder.items():
        complete = set(unlabelled_cases(folder)) & files.keys()
        new, old = len(complete - there[folder]), len(there[folder])
        print(f"{', '.join(names)}: {new} preprocessed now, {old} already there, {len(files) - len(complete)} left out")
        print(f"  in {folder}")
    for case, fault in sorted(left_out.items()):
        print(f"Left out: {case}, {fault}")
    return left_out


def _read_dataset(dataset: Path, plans_identifier: str) -> tuple[PlansManager, dict]:
    content = read_plans(dataset / f"{plans_identifier}.json", any_version=True)
    return PlansManager(content), read_dataset_json(dataset)


def _configurations_by_folder(
    dataset: Path, plans: PlansManager, plans_identifier: str, named: list[str] | None
) -> dict[Path, list[str]]:
    """Folder of unlabelled cases -> the configurations that read it."""
    for name in named or ():
        check_training_input(dataset.name, name, plans_identifier, "all")
    source = dataset / f"{plans_identifier}.json"
    by_folder: dict[Path, list[str]] = {}
    for name in dict.fromkeys(named or plans.available_configurations):
        data = dataset / resolve_configuration(plans.plans, name, source)["data_identifier"]
        if any(data.glob("*.pkl")):
            by_folder.setdefault(unlabelled_folder(dataset, plans.get_configuration(name)), []).append(name)
    if not by_folder:
        raise InputError(
            str(dataset),
            "no configuration that is preprocessed",
            f"one or more of: {', '.join(plans.available_configurations)}",
            f"Run: nnUNetv2_preprocess -d {int(dataset.name[7:10])} -plans_name {plans_identifier}",
        )
    return by_folder


def _check_no_labels(images: Path, cases: dict[str, list[Path]], labelled: Path) -> None:
    both = sorted(cases.keys() & {path.stem for path in labelled.glob("*.pkl")})
    if both:
        raise InputError(
            str(images),
            f"cases of the data set itself: {', '.join(both[:5])}{', ...' if len(both) > 5 else ''}",
            "images without labels, under names of their own",
            "Take these out of the folder, or rename them if they are other images.",
        )


def _make_folder(folder: Path, settings: dict) -> None:
    folder.mkdir(exist_ok=True)
    for interrupted in folder.glob(f"{PARTS}*"):
        shutil.rmtree(interrupted)
    write_json(settings, folder / RECORD)


def _preprocess_all(jobs: list[Job], num_processes: int) -> Iterator[tuple[str, str | None]]:
    """Each case as it is done, with the reason if it was left out."""
    num_processes = min(num_processes, len(jobs))
    if num_processes <= 1:  # to start a process takes some seconds
        yield from ((job.case, _preprocess(job)) for job in jobs)
        return
    with ProcessPoolExecutor(num_processes, get_context("spawn"), initializer=_end_with_parent) as pool:
        case_of = {pool.submit(_preprocess, job): job.case for job in jobs}
        try:
            for done in as_completed(case_of):
                yield case_of[done], done.result()
        except BrokenProcessPool as broken:
            raise InputError(
                "-np",
                "a process that was killed, most likely as memory ran out",
                f"memory for {num_processes} images at a time",
                "Run it again with a smaller -np; what is done stays done.",
            ) from broken
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Lets a process of the pool end when the command is killed; else it would wait for work forever."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _preprocess(job: Job) -> str | None:
    """Preprocesses a case by nnU-Net's preprocessor for all its folders; returns why it was left out, if it was."""
    try:
        check_image(job.files, len(channel_names(job.dataset_json)), job.plans.image_reader_writer_class())
    except UnusableImage as fault:
        return str(fault)
    files = [str(file) for file in job.files]
    for name, folder in job.folders.items():
        configuration = job.plans.get_configuration(name)
        preprocessor = configuration.preprocessor_class(verbose=False)
        with TemporaryDirectory(prefix=PARTS, dir=folder) as parts:
            beside = os.path.join(parts, job.case)
            try:
                preprocessor.run_case_save(beside, files, None, job.plans, configuration, job.dataset_json)
            except OSError:
                raise  # of the disk, not of this image
            except Exception as fault:
                return f"{files[0]}: cannot be preprocessed for {name} ({one_line(fault)})"
            (folder / f"{job.case}.pkl").unlink(missing_ok=True)  # of a case that lost another file
            for ending in ENDINGS:
                os.replace(beside + ending, folder / f"{job.case}{ending}")
    return None
