"""SemCL's settings: derived from nnU-Net's plan, single fields overridden by its "semcl" section."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.errors import InputError

WANTED_QUERIES = 8
RATE_BY_FEATURES = 0.08  # of 1e-2 and 3e-3 the first was better for Hippocampus with 8 features
OBJECTIVES = ("object", "voxel", "both")
FEWEST_QUERIES = 4  # two objects, and two queries of each


def _default(value: Any, reason: str) -> Any:
    return field(default=value, metadata={"reason": reason})


@dataclass(frozen=True)
class SemCLConfig:
    """Settings of SemCL's pretraining.

    Attributes:
        query_size: edge lengths of a query patch in voxels, divisible by the network's strides.
        queries_per_batch: queries in a batch, two views each: 2 objects x 2 queries at least.
        objective: what is contrasted: "object", "voxel" or "both".
        segmentation: whether nnU-Net's own loss stands beside the contrast.
        copy_paste: whether labelled and unlabelled patches of a batch swap boxes.
        voxels: voxels that are sampled from a batch, as many of each class and half of them where classes meet.
        embedding_dim: length of an embedding (the paper: 256).
        temperature: of the supervised contrast.
        learning_rate: AdamW's largest one, after the warm-up.
        weight_decay: AdamW's.
        coarse_model: folder of a finished nnU-Net model of the same data set and fold, of any configuration, whose
            predictions are the unlabelled cases' attention; None lets the trainer train a coarse model first.
        reasons: why each of the others is what it is, for the log.
    """

    query_size: tuple[int, ...]
    queries_per_batch: int
    learning_rate: float
    objective: str = _default("voxel", "pretrains encoder and decoder, in the memory of a training step")
    segmentation: bool = _default(True, "so that the last layers learn too")
    copy_paste: bool = _default(True, "what is learnt of labelled cases carries over to the others")
    voxels: int = _default(512, "the loss stays cheap beside the network")
    embedding_dim: int = _default(256, "the paper's")
    temperature: float = _default(0.3, "the default of the authors' code; separates objects sooner than 0.1")
    weight_decay: float = _default(1e-2, "torch's for AdamW")
    coarse_model: str | None = _default(None, "a coarse training goes first where cases are unlabelled")
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def from_plan(cls, configuration: ConfigurationManager, name: str) -> SemCLConfig:
        """Derives the settings from a plan's configuration and applies its "semcl" section, if there is one.

        Raises:
            InputError: the section has an unknown key or an impossible value.
        """
        strides = np.prod(np.vstack(configuration.pool_op_kernel_sizes), axis=0)
        query_size, queries = _queries(configuration.batch_size, configuration.patch_size, strides)
        patches = f"{configuration.batch_size} patches of {_by(configuration.patch_size)}"
        of_plan = {
            "query_size": "the plan's patch"
            if query_size == tuple(configuration.patch_size)
            else f"as much of the plan's patch {_by(configuration.patch_size)} as lets a batch hold {WANTED_QUERIES}",
            "queries_per_batch": f"about as many voxels as the plan's batch of {patches}"
            if queries > FEWEST_QUERIES
            else "two objects with two queries each, the fewest for a contrast",
        }
        features = configuration.network_arch_init_kwargs["features_per_stage"][0]
        of_plan["learning_rate"] = (
            f"{RATE_BY_FEATURES} over the first stage's {features} features: wide layers want less"
        )
        derived = cls(query_size, queries, RATE_BY_FEATURES / features, reasons=of_plan | _DEFAULT_REASONS)
        section = configuration.configuration.get("semcl", {})
        return _override(derived, section, f'"semcl" of configuration {name}', strides)

    def as_dict(self) -> dict[str, Any]:
        """The settings without their reasons."""
        return {name: value for name, value in asdict(self).items() if name in SETTINGS}


SETTINGS = tuple(f.name for f in fields(SemCLConfig) if f.name != "reasons")
_DEFAULT_REASONS = {f.name: f.metadata["reason"] for f in fields(SemCLConfig) if "reason" in f.metadata}


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


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
    if not isinstance(section, dict):
        raise InputError(where, type(section).__name__, "an object of settings", f"Valid keys: {', '.join(SETTINGS)}.")
    for key, value in section.items():
        if key not in SETTINGS:
            expected = f"one of {', '.join(SETTINGS)}"
            raise InputError(where, f'the unknown key "{key}"', expected, "Correct or remove it.")
        expected = _fault(key, value, strides)
        if expected:
            raise InputError(f"{where}, key {key}", repr(value), expected, "Correct it, or remove the key.")
    values = {key: tuple(value) if key == "query_size" else value for key, value in section.items()}
    return replace(derived, **values, reasons=derived.reasons | dict.fromkeys(section, f"set by {where}"))


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
    elif key in ("segmentation", "copy_paste"):
        expected, good = "true or false", isinstance(value, bool)
    elif key in ("embedding_dim", "voxels"):
        expected, good = "a whole number above 0", whole and value > 0
    elif key == "weight_decay":
        expected, good = "a number of at least 0", number and 0 <= value < math.inf
    else:
        expected, good = "a number above 0", number and 0 < value < math.inf
    return None if good else expected
