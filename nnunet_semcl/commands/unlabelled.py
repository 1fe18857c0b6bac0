"""`nnunet-semcl unlabelled`: preprocesses images without labels, using nnU-Net and the data set's own plans."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

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
from nnunet_semcl.errors import InputError, access_error
from nnunet_semcl.files.advice import preprocess_command
from nnunet_semcl.files.dataset_like import create_dataset_like
from nnunet_semcl.files.datasets import channel_names, find_dataset, read_dataset_json
from nnunet_semcl.files.json_files import write_json
from nnunet_semcl.files.plans import read_plans, resolve_configuration
from nnunet_semcl.files.preprocessed import preprocessed_cases
from nnunet_semcl.files.raw_images import UnusableImageError, check_image, find_images, one_line
from nnunet_semcl.files.training_input import check_configuration, check_training_input
from nnunet_semcl.process_pool import ProcessPool

PARTS = ".part-"  # prefix of the temporary folder of a case that is being preprocessed


class Job(NamedTuple):
    """One case to preprocess.

    Attributes:
        case: its name.
        files: one per channel.
        folders: configuration -> folder, for the folders that lack the case.
        plans: the data set's plans.
        dataset_json: the data set's dataset.json.
    """

    case: str
    files: list[Path]
    folders: dict[str, Path]
    plans: PlansManager
    dataset_json: dict[str, Any]


def preprocess_unlabelled(
    dataset_name_or_id: str,
    images: Path,
    configurations: list[str] | None = None,
    plans_identifier: str = "nnUNetPlans",
    num_processes: int | None = None,
    like: str | None = None,
) -> dict[str, str]:
    """Preprocesses the images of a folder for each configuration, and prints a summary.

    Complete cases are not preprocessed again, so a second call continues an interrupted one.

    Args:
        dataset_name_or_id: a data set in nnUNet_preprocessed; with `like` the name of a new one.
        images: folder of images, named as in nnU-Net's imagesTr.
        configurations: None for all configurations with preprocessed labelled cases; with `like` for all.
        plans_identifier: of the data set's plans.
        num_processes: None for nnU-Net's default.
        like: the data set whose plans one without labels takes; None for a data set with plans of its own.

    Returns:
        Case -> reason, for the cases that were left out.

    Raises:
        InputError: see `find_images`, `check_unlabelled`, `create_dataset_like` and `check_training_input`. A case has
            labels in the data set. The number of processes is invalid, or a process was killed.
    """
    num_processes = default_num_processes if num_processes is None else num_processes
    if num_processes < 1:
        raise InputError(f"-np {num_processes}: at least one process is needed", "Give 1 or more, or leave -np out.")
    source = find_dataset(like or dataset_name_or_id)
    plans, dataset_json = _read_dataset(source, plans_identifier)
    files = find_images(images, dataset_json["file_ending"], len(channel_names(dataset_json)))
    dataset = create_dataset_like(dataset_name_or_id, source, plans_identifier) if like else source
    by_folder = _configurations_by_folder(dataset, plans, plans_identifier, configurations, bool(like))
    for folder, (configuration, *_) in by_folder.items():
        manager = plans.get_configuration(configuration)
        _check_no_labels(images, files, dataset / manager.data_identifier)
        check_unlabelled(folder, plans, manager, dataset_json)

    complete_before = {folder: set(unlabelled_cases(folder)) & files.keys() for folder in by_folder}
    jobs = []
    for case in files:
        missing = {names[0]: folder for folder, names in by_folder.items() if case not in complete_before[folder]}
        if missing:
            jobs.append(Job(case, files[case], missing, plans, dataset_json))
    for folder, (configuration, *_) in by_folder.items():
        _make_folder(folder, preprocessing_settings(plans, plans.get_configuration(configuration), dataset_json))

    left_out = _run(jobs, num_processes)
    for folder, names in by_folder.items():
        complete = set(unlabelled_cases(folder)) & files.keys()
        new, old = len(complete - complete_before[folder]), len(complete_before[folder])
        print(
            f"{', '.join(names)}: {new} preprocessed now, {old} complete already, {len(files) - len(complete)} left out"
        )
        print(f"  in {folder}")
    for case, reason in sorted(left_out.items()):
        print(f"Left out: {case}, {reason}")
    return left_out


def _run(jobs: list[Job], num_processes: int) -> dict[str, str]:
    """Preprocesses the cases and shows the progress. Returns the cases that were left out, with the reason."""
    left_out: dict[str, str] = {}
    on_terminal = sys.stderr.isatty()
    results = tqdm(_preprocess_all(jobs, num_processes), "Preprocessing", len(jobs), disable=not on_terminal)
    for number, (case, reason) in enumerate(results, start=1):
        if reason:
            left_out[case] = reason
        if not on_terminal:
            print(f"{number}/{len(jobs)} {case}{': left out' if reason else ''}", flush=True)
    return left_out


def _read_dataset(dataset: Path, plans_identifier: str) -> tuple[PlansManager, dict[str, Any]]:
    content = read_plans(dataset / f"{plans_identifier}.json", any_version=True)
    return PlansManager(content), read_dataset_json(dataset)


def _configurations_by_folder(
    dataset: Path, plans: PlansManager, plans_identifier: str, named: list[str] | None, no_labels: bool
) -> dict[Path, list[str]]:
    """Folder of unlabelled cases -> names of the configurations that use it."""
    for name in named or ():
        if no_labels:
            check_configuration(dataset.name, name, plans_identifier)
        else:
            check_training_input(dataset.name, name, plans_identifier, "all")
    source = dataset / f"{plans_identifier}.json"
    by_folder: dict[Path, list[str]] = {}
    names: dict[Path, str] = {}
    for name in dict.fromkeys(named or plans.available_configurations):
        data = dataset / resolve_configuration(plans.plans, name, source, any_depth=True)["data_identifier"]
        names.setdefault(data, name)
        if no_labels or preprocessed_cases(data):
            by_folder.setdefault(unlabelled_folder(dataset, plans.get_configuration(name)), []).append(name)
    if not by_folder:
        raise InputError(
            f"{dataset}: none of the configurations is preprocessed ({', '.join(plans.available_configurations)})",
            f"Run: {preprocess_command(dataset, plans_identifier, *names.values())}",
        )
    return by_folder


def _check_no_labels(images: Path, cases: dict[str, list[Path]], labelled: Path) -> None:
    both = sorted(cases.keys() & preprocessed_cases(labelled))
    if both:
        raise InputError(
            f"{images}: the data set has labelled cases with the same names: {', '.join(both[:5])}"
            f"{', ...' if len(both) > 5 else ''}",
            "Remove these images from the folder, or rename them if they are different images.",
        )


def _make_folder(folder: Path, settings: dict[str, Any]) -> None:
    try:
        folder.mkdir(exist_ok=True)
        for interrupted in folder.glob(f"{PARTS}*"):
            shutil.rmtree(interrupted)
    except OSError as problem:
        raise access_error(problem, folder, "nnUNet_preprocessed") from problem
    write_json(settings, folder / RECORD)


def _preprocess_all(jobs: list[Job], num_processes: int) -> Iterator[tuple[str, str | None]]:
    """Yields each case when it is finished, with the reason if it was left out."""
    num_processes = min(num_processes, len(jobs))
    if num_processes <= 1:  # starting a process takes some seconds
        yield from ((job.case, _preprocess(job)) for job in jobs)
        return
    with ProcessPool(num_processes) as pool:
        case_of = {pool.submit(_preprocess, job): job.case for job in jobs}
        try:
            for done in as_completed(case_of):
                yield case_of[done], done.result()
        except BrokenProcessPool as broken:
            raise InputError(
                f"-np {num_processes}: a process was killed, probably because memory ran out",
                "Run the command again with a smaller -np. Complete cases are not preprocessed again.",
            ) from broken
        finally:
            pool.shutdown(cancel_futures=True)


def _preprocess(job: Job) -> str | None:
    """Preprocesses a case for all its folders with nnU-Net's preprocessor. Returns the reason if it was left out."""
    try:
        check_image(job.files, len(channel_names(job.dataset_json)), job.plans.image_reader_writer_class())
    except UnusableImageError as problem:
        return str(problem)
    files = [str(file) for file in job.files]
    for name, folder in job.folders.items():
        configuration = job.plans.get_configuration(name)
        preprocessor = configuration.preprocessor_class(verbose=False)
        with TemporaryDirectory(prefix=PARTS, dir=folder) as parts:
            temporary = os.path.join(parts, job.case)
            try:
                preprocessor.run_case_save(temporary, files, None, job.plans, configuration, job.dataset_json)
            except OSError:
                raise  # a problem of the disk, not of this image
            except Exception as problem:
                return f"{files[0]}: cannot be preprocessed for {name} ({one_line(problem)})"
            (folder / f"{job.case}.pkl").unlink(missing_ok=True)  # left by a case that lost another file
            for ending in ENDINGS:
                os.replace(temporary + ending, folder / f"{job.case}{ending}")
    return None
