"""`nnunet-semcl embed`: what pretraining has done to the features, as figures and as a picture."""

from __future__ import annotations

import csv
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_semcl.commands.path import add_trainer_path
from nnunet_semcl.data.components import examined_cases
from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.embedding_picture import draw_embeddings
from nnunet_semcl.evaluation.embeddings import Drawn, draw_voxels, embed_case
from nnunet_semcl.evaluation.progress import each_case
from nnunet_semcl.evaluation.separability import separability
from nnunet_semcl.evaluation.trained_fold import TrainedFold, find_fold
from nnunet_semcl.files.cases import Cases, Object, labels_of
from nnunet_semcl.files.datasets import label_values

VOXELS = 100  # of each class, from all cases together
SEED = 0  # of the drawn voxels
NEIGHBOURS = {"object": 1, "voxel": 5}  # a few cases have a few objects of a class
FIGURES = ("knn", "linear", "silhouette")


@dataclass(frozen=True)
class Samples:
    """What is embedded in each state: the objects and drawn voxels of some cases, N in all.

    Attributes:
        classes, cases, kinds: (N,) texts; a kind is "object" or "voxel".
        numbers: class -> number in the picture.
    """

    classes: np.ndarray
    cases: np.ndarray
    kinds: np.ndarray
    numbers: dict[str, int]


def embed(
    dataset_name_or_id: str,
    configuration: str,
    trainer: str,
    plans_identifier: str,
    fold: str,
    device: str,
    output: Path,
) -> None:
    """Embeds objects and voxels of held-out cases in each state of the training, prints and writes what they say.

    Args:
        dataset_name_or_id, configuration, trainer, plans_identifier, fold, device: see `find_fold`.
        output: the new folder, which appears when all is done.

    Raises:
        InputError: see `find_fold`; the output exists, the fold has no checkpoint or holds no case out, a case is
            broken.
    """
    if output.exists():
        raise InputError(f"{output} exists already", "Choose a new folder with -o; nothing is overwritten.")
    add_trainer_path()
    found = find_fold(dataset_name_or_id, configuration, trainer, plans_identifier, fold, device)
    states = found.saved_states()
    held_out = found.cases[1]
    if not held_out:
        raise InputError(f"fold {fold} holds no case out", "Name a fold with cases for validation with -f.")
    found.check_cases(held_out, [])
    cases = infer_dataset_class(str(found.data))(str(found.data), held_out)
    looked_at = examined_cases(cases)
    objects = _objects(found)
    drawn = _draw(found, cases, looked_at)
    samples: Samples | None = None
    embeddings = {}
    for state, checkpoint in states.items():
        predictor = found.predictor(checkpoint)
        parts = []
        for case in each_case(looked_at, f"Embedding, {state}"):
            image, segmentation, _, _ = cases.load_case(case)
            parts.append(embed_case(predictor, image[:], segmentation[0], list(objects.values()), drawn[case]))
        samples = samples or _samples(found, objects, drawn, parts)
        kept = [np.concatenate([means[~np.isnan(means[:, 0])], voxels]) for means, voxels in parts]
        embeddings[state] = np.concatenate(kept)
    assert samples is not None
    rows = _scores(samples, embeddings)
    _print(rows, looked_at, held_out)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        folder = Path(temporary, "embed")
        folder.mkdir()
        _write(samples, embeddings, rows, folder)
        os.replace(folder, output)
    print(f"Picture: {output / 'embed.png'}, embeddings.npz and scores.csv beside it")


def _objects(found: TrainedFold) -> dict[str, Object]:
    """Name -> label or region."""
    if not found.labels.has_regions:
        return dict(label_values(found.labels))
    names = {tuple(np.ravel(value).tolist()): name for name, value in found.labels.label_dict.items()}
    return {names[labels_of(region)]: region for region in found.labels.foreground_regions}


def _draw(found: TrainedFold, cases: Cases, looked_at: list[str]) -> dict[str, Drawn]:
    number = math.ceil(VOXELS / len(looked_at))
    labels = [int(label) for label in found.labels.all_labels]
    return {
        case: draw_voxels(cases.load_case(case)[1][0], labels, number, np.random.default_rng((SEED, position)))
        for position, case in enumerate(looked_at)
    }


def _samples(
    found: TrainedFold, objects: dict[str, Object], drawn: dict[str, Drawn], parts: list[tuple[np.ndarray, np.ndarray]]
) -> Samples:
    names = {0: "background"} | {value: name for name, value in label_values(found.labels).items()}
    classes, cases, kinds = [], [], []
    for (case, voxels), (means, _) in zip(drawn.items(), parts, strict=True):
        there = [name for name, mean in zip(objects, means, strict=True) if not np.isnan(mean[0])]
        of_voxels = [names[label] for label in voxels.labels.tolist()]
        classes += there + of_voxels
        cases += [case] * (len(there) + len(of_voxels))
        kinds += ["object"] * len(there) + ["voxel"] * len(of_voxels)
    numbers = {name: value for value, name in names.items()}
    # Regions have names of their own, and no value that is theirs alone.
    numbers |= {name: number for number, name in enumerate(objects, start=max(names) + 1) if name not in numbers}
    occurring = set(classes)
    numbers = {name: number for name, number in numbers.items() if name in occurring}
    return Samples(np.array(classes), np.array(cases), np.array(kinds), numbers)


def _scores(samples: Samples, embeddings: dict[str, np.ndarray]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for kind, neighbours in NEIGHBOURS.items():
        of_kind = samples.kinds == kind
        classes, cases = samples.classes[of_kind], samples.cases[of_kind]
        about = {"classes": len(set(classes)), "cases": len(set(cases)), "samples": len(classes)}
        for state, of_state in embeddings.items():
            figures = asdict(separability(of_state[of_kind], classes, cases, neighbours))
            rows.append({"kind": kind, "state": state, **about, **figures})
    return rows


def _print(rows: list[dict[str, object]], looked_at: list[str], held_out: list[str]) -> None:
    chosen = "" if len(looked_at) == len(held_out) else f" of {len(held_out)}"
    print(f"\n{len(looked_at)}{chosen} held-out cases; classified by the other cases alone\n")
    print(f"{'':8}{'state':12}{'classes':>8}{'samples':>9}{'k-NN':>8}{'linear':>8}{'silhouette':>12}")
    for row in rows:
        knn, linear, silhouette = (_shown(row[figure]) for figure in FIGURES)
        print(
            f"{row['kind']:8}{row['state']:12}{row['classes']:8}{row['samples']:9}{knn:>8}{linear:>8}{silhouette:>12}"
        )
    if len(looked_at) == 1:
        print("\nWith one held-out case there is no other case to classify by.")


def _shown(figure: object) -> str:
    return f"{figure:.3f}".replace("nan", "-")


def _write(samples: Samples, embeddings: dict[str, np.ndarray], rows: list[dict[str, object]], folder: Path) -> None:
    with open(folder / "scores.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    states = len(embeddings)
    columns: dict[str, Any] = {
        "embedding": np.concatenate(list(embeddings.values())),
        "class": np.tile(samples.classes, states),
        "case": np.tile(samples.cases, states),
        "kind": np.tile(samples.kinds, states),
        "state": np.repeat(list(embeddings), len(samples.classes)),
    }
    np.savez_compressed(folder / "embeddings.npz", **columns)
    panels = {_title(state, rows): of_state for state, of_state in embeddings.items()}
    draw_embeddings(panels, samples.classes, samples.kinds == "object", samples.numbers, folder / "embed.png")


def _title(state: str, rows: list[dict[str, object]]) -> str:
    knn = (f"{row['kind']}s {_shown(row['knn'])}" for row in rows if row["state"] == state)
    return f"{state}\nk-NN accuracy: {', '.join(knn)}"
