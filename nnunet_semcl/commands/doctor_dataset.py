"""`nnunet-semcl doctor -d DATASET`: reads every preprocessed case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from nnunetv2.configuration import default_num_processes
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import UNLABELLED
from nnunet_semcl.files.datasets import channel_names, find_dataset, read_dataset_json
from nnunet_semcl.files.intact_cases import check_image, check_labelled_case
from nnunet_semcl.files.preprocessed import preprocessed_cases


def check_dataset(dataset_name_or_id: str) -> Iterator[tuple[list[InputError], str]]:
    """Yields the errors of each folder of cases, labelled or not, and what to say where there are none."""
    try:
        dataset = find_dataset(dataset_name_or_id)
        content = read_dataset_json(dataset)
    except InputError as error:
        yield [error], ""
        return
    manager = LabelManager(content["labels"], content.get("regions_class_order"))
    labels = [int(label) for label in manager.all_labels]
    if manager.has_ignore_label:
        labels.append(int(manager.ignore_label))
    channels = len(channel_names(content))
    for data in sorted(folder for folder in dataset.iterdir() if any(folder.glob("*.pkl"))):
        cases = sorted(file.with_suffix("") for file in data.glob("*.pkl"))
        if data.name.endswith(UNLABELLED):  # of which only the images are opened
            found = _errors_of(partial(check_image, channels=channels), cases)
        else:
            found = _errors_of(partial(check_labelled_case, channels=channels, labels=labels), cases)
            found += _errors_of(preprocessed_cases, [data])
        yield found, f"{data}: {len(cases)} cases are intact"


def _errors_of(check: Callable[[Path], object], paths: list[Path]) -> list[InputError]:
    def error_of(path: Path) -> InputError | None:
        try:
            check(path)
        except InputError as error:
            return error
        return None

    with ThreadPoolExecutor(default_num_processes) as pool:
        return [error for error in pool.map(error_of, paths) if error]
