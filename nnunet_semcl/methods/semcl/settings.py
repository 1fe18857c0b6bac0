"""SemCL's settings: derived from nnU-Net's plan; its section "semcl" overrides single ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.pretraining.settings import Derived, MethodSettings, setting
from nnunet_semcl.rules import COUNT, SHARE, SWITCH, TEMPERATURE, Rule, is_whole, number, one_of, whole

WANTED_QUERIES = 8
OBJECTIVES = ("voxel", "place", "voxel+place", "memory", "object", "object+voxel")
LARGEST_QUERY = 4  # times the plan's patch along each axis; larger queries fit into no GPU's memory
FEWEST_QUERIES = 4  # two objects with two queries each
# What these settings belong to: with another objective they are refused.
QUERIES = [{"objective": ("object", "object+voxel")}]
CLASSES = [{"objective": tuple(objective for objective in OBJECTIVES if objective != "place")}]
PLACES = [{"objective": ("place", "voxel+place")}]
CLASSES_AND_PLACES = [{"objective": ("voxel+place",)}]
VOXELS = [{"objective": tuple(objective for objective in OBJECTIVES if objective != "object")}]
MEMORY = [{"objective": ("memory",)}]
SEGMENTATION = [{"segmentation": (True,)}]


@dataclass(frozen=True, kw_only=True)
class SemCLSettings(MethodSettings, section="semcl"):
    """Settings of SemCL's pretraining.

    Attributes:
        query_size: edge lengths of a query patch in voxels.
        queries_per_batch: number of queries in a batch; two views are drawn of each.
        objective: what is contrasted: "voxel" (voxels of a batch, by their classes), "place" (voxels of different
            patches, by their places in the body), "memory" (voxels with objects in other images), "object" (the
            paper's), or the sum of two of them, "voxel+place" or "object+voxel".
        segmentation: whether nnU-Net's own loss is added to the contrastive loss.
        copy_paste: whether labelled and unlabelled patches of a batch swap boxes.
        refine: whether, after a third and two thirds of the epochs, the network under pretraining predicts the masks of
            unlabelled cases again; needs `segmentation`.
        contrast_weight: weight of the contrast of classes or objects beside nnU-Net's loss.
        place_weight: weight of the contrast of places.
        voxels: number of voxels sampled from a batch: equally many per class, half of them at class boundaries; for
            the contrast of places as many, of any voxels of the body.
        embedding_dim: length of an embedding vector.
        temperature: temperature of the contrast of classes; that of places has 0.1.
        memory: number of embeddings of each part of an object in the memory.
        sure: probability of the mask's class from which on a voxel is sure enough, and no longer contrasted.
        coarse_model: folder of a finished nnU-Net model of the same data set and fold, in any configuration, that
            predicts the masks of unlabelled cases; with None the trainer first trains a coarse model itself.
    """

    phases = ("coarse", "pretraining")
    citations: ClassVar = [
        {
            "type": "Pretraining",
            "name": "SemCL",
            "apa_citations": [
                "Lee, H. H., Tang, Y., Yang, Q., Yu, X., Cai, L. Y., Remedios, L. W., Bao, S., Landman, B. A., & "
                "Huo, Y. (2023). Semantic-aware contrastive learning for multi-object medical image segmentation. IEEE "
                "Journal of Biomedical and Health Informatics, 27(9), 4444-4453. https://arxiv.org/abs/2106.01596"
            ],
        }
    ]

    query_size: tuple[int, ...] = setting(None, needs=QUERIES)
    queries_per_batch: int = setting(whole(FEWEST_QUERIES, " (two objects with two queries each)"), needs=QUERIES)
    objective: str = setting(
        one_of(OBJECTIVES), "voxel+place", "places are known of every voxel, also where masks say nothing"
    )
    segmentation: bool = setting(SWITCH, True, "the last layers learn too")
    copy_paste: bool = setting(
        SWITCH,
        True,
        "the network transfers what it learns from labelled cases to unlabelled ones",
        [*VOXELS, *SEGMENTATION],
    )
    refine: bool = setting(
        SWITCH,
        True,
        "its masks are better each time: Dice .24, .36, .38 on BTCV at half size, 2 labelled",
        SEGMENTATION,
    )
    contrast_weight: float = setting(
        SHARE,
        0.3,
        "nnU-Net's loss ranges from -1 to about 1, the contrast is near the logarithm of the memory",
        [CLASSES[0] | SEGMENTATION[0], *CLASSES_AND_PLACES],
    )
    place_weight: float = setting(
        number(0, 100),
        1.0,
        "gives better masks of unlabelled cases than 0.1 and 0.3",
        [PLACES[0] | SEGMENTATION[0], *CLASSES_AND_PLACES],
    )
    voxels: int = setting(COUNT, 512, "the loss stays cheap compared with the network", VOXELS)
    embedding_dim: int = setting(COUNT, 64, "with 256, the paper's number, a small step takes a fifth longer")
    temperature: float = setting(
        TEMPERATURE, 0.3, "as in the authors' code; separates objects sooner than 0.1", CLASSES
    )
    memory: int = setting(COUNT, 64, "of the last steps, in which the network changes little", MEMORY)
    sure: float = setting(SHARE, 0.75, "as in SPCL (ICASSP 2026)", [MEMORY[0] | SEGMENTATION[0]])
    coarse_model: str | None = setting(
        Rule("the folder of a model, or null", lambda value: value is None or isinstance(value, str)),
        None,
        "a coarse training comes first if there are unlabelled cases",
    )

    @classmethod
    def derived(cls, configuration: ConfigurationManager) -> dict[str, Derived]:
        strides = np.prod(np.vstack(configuration.pool_op_kernel_sizes), axis=0)
        query_size, queries = _queries(configuration.batch_size, configuration.patch_size, strides)
        patch = _by(configuration.patch_size)
        size_reason = (
            "the plan's patch"
            if query_size == tuple(configuration.patch_size)
            else f"the plan's patch {patch}, reduced so that a batch holds {WANTED_QUERIES} queries"
        )
        number_reason = (
            f"a batch has about as many voxels as the plan's batch of {configuration.batch_size} patches of {patch}"
            if queries > FEWEST_QUERIES
            else "the minimum for a contrast: two objects with two queries each"
        )
        return super().derived(configuration) | {
            "query_size": Derived(query_size, size_reason, _query_size_rule(strides, configuration.patch_size)),
            "queries_per_batch": Derived(queries, number_reason),
        }


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _queries(batch_size: int, patch_size: list[int], strides: np.ndarray) -> tuple[tuple[int, ...], int]:
    """Returns size and number of queries: the plan's patch, reduced if a batch could not hold eight queries otherwise.

    A query costs about as much time and memory as a patch in the plan's batch: its two views pass the encoder only, a
    patch passes encoder and decoder.
    """
    share = min(1, batch_size / WANTED_QUERIES) ** (1 / len(patch_size))
    # At least two bottleneck voxels per axis, if the patch has them: instance normalisation needs more than one.
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
        f"a list of {len(strides)} whole numbers: multiples of the network's strides {strides.tolist()}, at least one "
        f"above them, at most {LARGEST_QUERY} times the plan's patch {_by(patch_size)}",
        holds,
    )
