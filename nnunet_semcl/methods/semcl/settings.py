"""SemCL's settings: derived from nnU-Net's plan, single fields overridden by its "semcl" section."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.pretraining.settings import Derived, MethodSettings, setting
from nnunet_semcl.rules import COUNT, SWITCH, TEMPERATURE, Rule, is_whole, one_of, whole

WANTED_QUERIES = 8
OBJECTIVES = ("object", "voxel", "both")
LARGEST_QUERY = 4  # of the plan's patch along each axis: what lies beyond is for no memory
FEWEST_QUERIES = 4  # two objects, and two queries of each


@dataclass(frozen=True, kw_only=True)
class SemCLSettings(MethodSettings, section="semcl"):
    """Settings of SemCL's pretraining.

    Attributes:
        query_size: edge lengths of a query patch in voxels, divisible by the network's strides.
        queries_per_batch: queries in a batch, two views each: 2 objects x 2 queries at least.
        objective: what is contrasted: "object", "voxel" or "both".
        segmentation: whether nnU-Net's own loss stands beside the contrast.
        copy_paste: whether labelled and unlabelled patches of a batch swap boxes.
        refine: whether the masks of unlabelled cases are predicted anew, by the network that is being pretrained, after
            half of the epochs; it takes segmentation.
        voxels: voxels that are sampled from a batch, as many of each class and half of them where classes meet.
        embedding_dim: length of an embedding (the paper: 256).
        temperature: of the supervised contrast.
        coarse_model: folder of a finished nnU-Net model of the same data set and fold, of any configuration, whose
            predictions are the unlabelled cases' attention; None lets the trainer train a coarse model first.
    """

    query_size: tuple[int, ...] = setting(None)
    queries_per_batch: int = setting(whole(FEWEST_QUERIES, ": two objects with two queries each"))
    objective: str = setting(one_of(OBJECTIVES), "voxel", "pretrains encoder and decoder, in a training step's memory")
    segmentation: bool = setting(SWITCH, True, "so that the last layers learn too")
    copy_paste: bool = setting(SWITCH, True, "what is learnt of labelled cases carries over to the others")
    refine: bool = setting(SWITCH, True, "its masks are better than the coarse model's: on Hippocampus .76 beside .71")
    voxels: int = setting(COUNT, 512, "the loss stays cheap beside the network")
    embedding_dim: int = setting(COUNT, 256, "the paper's")
    temperature: float = setting(TEMPERATURE, 0.3, "the authors' code's; separates objects sooner than 0.1")
    coarse_model: str | None = setting(
        Rule("the folder of a model, or null", lambda value: value is None or isinstance(value, str)),
        None,
        "a coarse training goes first where cases are unlabelled",
    )

    @classmethod
    def derived(cls, configuration: ConfigurationManager) -> dict[str, Derived]:
        strides = np.prod(np.vstack(configuration.pool_op_kernel_sizes), axis=0)
        query_size, queries = _queries(configuration.batch_size, configuration.patch_size, strides)
        patches = f"{configuration.batch_size} patches of {_by(configuration.patch_size)}"
        of_size = (
            "the plan's patch"
            if query_size == tuple(configuration.patch_size)
            else f"as much of the plan's patch {_by(configuration.patch_size)} as lets a batch hold {WANTED_QUERIES}"
        )
        of_queries = (
            f"about as many voxels as the plan's batch of {patches}"
            if queries > FEWEST_QUERIES
            else "two objects with two queries each, the fewest for a contrast"
        )
        return super().derived(configuration) | {
            "query_size": Derived(query_size, of_size, _query_size_rule(strides, configuration.patch_size)),
            "queries_per_batch": Derived(queries, of_queries),
        }


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


def _query_size_rule(strides: np.ndarray, patch_size: list[int]) -> Rule:
    def holds(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(strides)
            and all(is_whole(v) and v > 0 for v in value)
            and all(v % s == 0 for v, s in zip(value, strides, strict=True))
            and all(v <= LARGEST_QUERY * p for v, p in zip(value, patch_size, strict=True))
            and any(v > s for v, s in zip(value, strides, strict=True))  # instance normalisation needs two voxels
        )

    return Rule(
        f"{len(strides)} whole numbers, multiples of the network's strides {strides.tolist()}, one above them, and at "
        f"most {LARGEST_QUERY} times the plan's patch {_by(patch_size)}",
        holds,
    )
