"""What converters of natural images share: pictures and their labels are checked, and written in nnU-Net's raw format.

nnU-Net reads natural images as PNG, all colours in one file, and labels as grey values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from nnunetv2.configuration import default_num_processes
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from PIL import Image
from tqdm import tqdm

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import write_json
from nnunet_semcl.files.raw_dataset import new_dataset
from nnunet_semcl.files.raw_images import one_line

T = TypeVar("T")
Part = Mapping[str, "Picture"]
"""Case -> its files."""

DOWNLOAD_AGAIN = "Download the data set again, or move the file away."


class Picture(NamedTuple):
    """The files of a case.

    Attributes:
        image: in colour.
        labels: 8 bit, grey or with a palette; None for a picture without labels.
    """

    image: Path
    labels: Path | None = None


class Labels(NamedTuple):
    """What the values in a data set's files mean.

    Attributes:
        names: of the classes, by their values 0, 1, 2, ...; the first is nnU-Net's background.
        void: value of pixels without a class.
        colours: (256, 3) uint8, what each value has to look like in a palette; None if palettes do not matter.
    """

    names: tuple[str, ...]
    void: int
    colours: np.ndarray | None = None

    def of_nnunet(self) -> dict[str, int]:
        """Name -> value, with the ignore label for void: nnU-Net wants it to be the highest."""
        return {name: value for value, name in enumerate((*self.names, "ignore"))}


def files_of(folder: Path, ending: str) -> dict[str, Path]:
    """Case -> file, of the files with this ending; none if the folder does not exist."""
    files = sorted(folder.glob(f"*{ending}"))
    return {file.stem: file for file in files if not file.name.startswith(".")}  # macOS writes ._NAME next to NAME


def write_pictures(
    folder: Path,
    parts: Mapping[str, Part],
    labels: Labels,
    splits: list[dict[str, list[str]]],
    **described: str,
) -> None:
    """Checks all labels and writes the data set.

    Args:
        folder: of the data set, see `free_folder`.
        parts: end of nnU-Net's folder names (Tr, Ts, ...) -> its pictures: they go to imagesTr and labelsTr.
        labels: what the values in the files mean.
        splits: the published folds, which nnU-Net's planning takes over.
        described: further keys of dataset.json.

    Raises:
        InputError: a picture or its labels cannot be read, differ in size, or have a value that is no class or another
            colour. No folder is left.
    """
    pictures = [picture for part in parts.values() for picture in part.values()]
    print(f"Checking {len(pictures)} pictures")
    _each(partial(_check, labels=labels), pictures, "labels")
    print(f"Writing {folder}")
    with new_dataset(folder) as new:
        copies = [(case, end, picture) for end, part in parts.items() for case, picture in part.items()]
        _each(lambda copy: _write(*copy, new, labels), copies, "pictures")
        write_json(splits, new / "splits_final.json")
        generate_dataset_json(
            str(new),
            channel_names={"0": "R", "1": "G", "2": "B"},
            labels=labels.of_nnunet(),
            num_training_cases=len(parts["Tr"]),
            file_ending=".png",
            license="see reference",
            converted_by="nnunet-semcl",
            **described,
        )


def _each(work: Callable[[T], object], items: Collection[T], title: str) -> None:
    """Calls a function for each item, in threads: decoding and compressing pictures is not Python's work."""
    with ThreadPoolExecutor(default_num_processes) as pool:
        running = [pool.submit(work, item) for item in items]
        try:
            for done in tqdm(as_completed(running), title, len(running), leave=False, disable=None):
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _check(picture: Picture, labels: Labels) -> None:
    size = _open(picture.image, decode=False).size
    if picture.labels is None:
        return
    values, palette = read_labels(picture.labels)
    if values.shape != size[::-1]:
        raise InputError(
            f"{picture.labels}: its size is {values.shape[1]} x {values.shape[0]}, but that of {picture.image} is "
            f"{size[0]} x {size[1]}",
            DOWNLOAD_AGAIN,
        )
    found = np.unique(values)
    unknown = np.setdiff1d(found, [*range(len(labels.names)), labels.void])
    if unknown.size:
        raise InputError(
            f"{picture.labels}: the values {unknown[:5].tolist()} are neither 0 to {len(labels.names) - 1} nor "
            f"{labels.void} for void",
            DOWNLOAD_AGAIN,
        )
    if labels.colours is None:
        return
    for value in found.tolist():
        expected = tuple(labels.colours[value].tolist())
        colour = palette.get(value)
        if colour != expected:
            raise InputError(
                f"{picture.labels}: the colour of the value {value} is {colour or 'in no palette'}, but the data set's "
                f"is {expected}, so the values may mean other classes",
                "Give the data set's own segmentations, as they were published.",
            )


def read_labels(file: Path) -> tuple[np.ndarray, dict[int, tuple[int, ...]]]:
    """Returns the values of a picture, (Y, X) uint8, and value -> colour (R, G, B) if it has a palette.

    Raises:
        InputError: the file cannot be read, or has no values of 8 bit.
    """
    picture = _open(file)
    if picture.mode not in ("L", "P"):
        raise InputError(f"{file}: it is a picture of mode {picture.mode}, not of 8 bit labels", DOWNLOAD_AGAIN)
    colours = np.reshape(picture.getpalette() or [], (-1, 3)).astype(int).tolist()
    return np.asarray(picture), {value: tuple(colour) for value, colour in enumerate(colours)}


def _write(case: str, end: str, picture: Picture, folder: Path, labels: Labels) -> None:
    copies = {f"images{end}/{case}_0000.png": _open(picture.image).convert("RGB")}
    if picture.labels is not None:
        values, _ = read_labels(picture.labels)
        ignored = np.where(values == labels.void, np.uint8(labels.of_nnunet()["ignore"]), values)
        copies[f"labels{end}/{case}.png"] = Image.fromarray(ignored)
    for name, copy in copies.items():
        (folder / name).parent.mkdir(exist_ok=True)
        copy.save(folder / name)


def _open(file: Path, decode: bool = True) -> Image.Image:
    """Opens a picture; without decoding it knows its size alone."""
    try:
        with Image.open(file) as picture:
            if decode:
                picture.load()
            return picture
    except Exception as problem:  # the library of each format raises its own errors
        raise InputError(f"{file}: cannot be read as a picture ({one_line(problem)})", DOWNLOAD_AGAIN) from problem
