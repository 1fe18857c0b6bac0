"""SemCL's settings: derived from nnU-Net's plan, single fields overridden by its "semcl" section."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.errors import InputError

WANTED_QUERIES = 8
OBJECTIVES = ("object", "voxel", "both")
FEWEST_QUERIES = 4  # two objects, and two queries of each


@dataclass(frozen=True)
class SemCLConfig:
    """Settings of SemCL's pretraining.

    Attributes:
        query_size: edge lengths of a query patch in voxels, divisible by the network's strides.
        queries_per_batch: queries in a batch, two views each: 2 objects x 2 queries at least.
        objective: what is contrasted: "object", "voxel" or "both".
        voxels: voxels that are sampled from a batch, as many of each class and half of them where classes meet.
        embedding_dim: length of an embedding (the paper: 256).
        temperature: of the supervised contrast.
        learning_rate: AdamW's largest one, after the warm-up.
        weight_decay: AdamW's.
        coarse_model: folder of a finished nnU-Net model of the same data set and fold, of any configuration, whose
            predictions are the unlabelled cases' attention; None lets the trainer train a coarse model first.
    """

    query_size: tuple[int, ...]
    queries_per_batch: int
    objective: str = "both"
    voxels: int = 1024
    embedding_dim: int = 256
    temperature: float = 0.1
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    coarse_model: str | None = None

    @classmethod
    def from_plan(cls, configuration: ConfigurationManager, name: str) -> SemCLConfig:
        """Derives the settings from a plan's configuration and applies its "semcl" section, if there is one.

        Raises:
            InputError: the section has an unknown key or an impossible value.
        """
        strides = np.prod(np.vstack(configuration.pool_op_kernel_sizes), axis=0)
        query_size, queries = _queries(configuration.batch_size, configuration.patch_size, strides)
        derived = cls(query_size, queries)
        section = configuration.configuration.get("semcl", {})
        return _override(derived, section, f'"semcl" of configuration {name}', strides)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _queries(batch_size: int, patch_size: list[int], strides: np.ndarray) -> tuple[tuple[int, ...], int]:
    """Size and number of queries: the plan's patch, or as much of it as lets a batch hold eight queries.

    A query is worth a patch of the plan's batch: its two views go through the encoder alone, which costs about what
    one patch costs through encoder and decoder, in time and in the memory that the plan was made for.
    """
    share = min(1, batch_size / WANTED_QUERIES) ** (1 / len(patch_size))
    # Two bottleneck voxels an axis at least, where the patch has them: instance normalisation needs more than one.
    query_size = [int(min(p, max(2 * s, round(share * p / s) * s))) for p, s in zip(patch_size, strides, strict=True)]
    queries = batch_size * math.prod(patch_size) // math.prod(query_size)
    return tuple(query_size), max(FEWEST_QUERIES, queries)


def _override(derived: SemCLConfig, section: Any, where: str, strides: np.ndarray) -> SemCLConfig:
    valid = [f.name for f in fields(SemCLConfig)]
    if not isinstance(section, dict):
        raise InputError(where, type(section).__name__, "an object of settings", f"Valid keys: {', '.join(valid)}.")
    for key, value in section.items():
        if key not in valid:
            raise InputError(where, f'the unknown key "{key}"', f"one of {', '.join(valid)}", "Correct or remove it.")
        expected = _fault(key, value, strides)
        if expected:
            raise InputError(f"{where}, key {key}", repr(value), expected, "Correct it, or remove the key.")
    return replace(derived, **{k: tuple(v) if k == "query_size" else v for k, v in section.items()})


def _fault(key: str, value: Any, strides: np.ndarray) -> str | None:
    """What was expected of the value, or None where it is good."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or isinstance(value, float)
    if key == "query_size":
        expected = (
            f"{len(strides)} whole numbers, multiples of the network's strides {strides.tolist()}, one above them"
        )
        good = (
            isinstance(value, (list, tuple))
            and len(value) == len(strides)
            and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value)
            and all(v % s == 0 for v, s in zip(value, strides, strict=True))
            and any(v > s for v, s in zip(value, strides, strict=True))  # instance normalisation needs two voxels
        )
    elif key == "queries_per_batch":
        expected, good = (
            f"at least {FEWEST_QUERIES}: two objects with two queries each",
            whole and value >= FEWEST_QUERIES,
        )
    elif key == "coarse_model":
        expected, good = "the folder of a model, or null", value is None or isinstance(value, str)
    elif key == "objective":
        expected, good = f"one of {', '.join(OBJECTIVES)}", value in OBJECTIVES
    elif key in ("embedding_dim", "voxels"):
        expected, good = "a whole number above 0", whole and value > 0
    elif key == "weight_decay":
        expected, good = "a number of at least 0", number and 0 <= value < math.inf
    else:
        expected, good = "a number above 0", number and 0 < value < math.inf
    return None if good else expected
