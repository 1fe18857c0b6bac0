"""IDEAL's settings: derived from nnU-Net's plan; its section "ideal" overrides single ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.pretraining.settings import Derived, MethodSettings, setting
from nnunet_semcl.rules import COUNT, SHARE, SWITCH, TEMPERATURE, Rule, is_whole, number, whole

LOCATIONS_PER_BATCH = 1024  # the similarities of all pairs stay cheap compared with the network
RADIUS_IN_VOXELS = 4
FEWEST_PATCHES = 2  # locations of other images repel, so there must be another image


@dataclass(frozen=True, kw_only=True)
class IDEALSettings(MethodSettings, section="ideal"):
    """Settings of IDEAL's two phases.

    Attributes:
        patches_per_batch: number of patches in a batch of pretraining; two views are drawn of each.
        locations: largest number of locations that are contrasted in a patch.
        radius: radius in mm within which locations of the same image do not repel each other.
        level: level of the decoder whose features are contrasted; 0 is the finest.
        embedding_dim: length of an embedding vector.
        temperature: temperature of the contrastive loss.
        momentum: momentum of the key network, from 0 (a copy of the query network) to 1 (never updated).
        copy_paste: whether boxes of labelled patches are pasted into unlabelled ones in nnU-Net's training.
        consistency: weight of the consistency loss between the two decoders, after the ramp-up.
        ramp: share of nnU-Net's training during which that weight rises.
    """

    citations: ClassVar = [
        {
            "type": "Pretraining",
            "name": "IDEAL",
            "apa_citations": [
                "Basak, H., Chattopadhyay, S., Kundu, R., Nag, S., & Mallipeddi, R. (2023). IDEAL: Improved dense "
                "local contrastive learning for semi-supervised medical image segmentation. IEEE International "
                "Conference on Acoustics, Speech and Signal Processing (ICASSP). https://arxiv.org/abs/2210.15075"
            ],
        }
    ]

    patches_per_batch: int = setting(whole(FEWEST_PATCHES, " (locations of other images repel)"))
    locations: int = setting(COUNT)
    radius: float = setting(number(0, 1e6))
    level: int = setting(None)
    embedding_dim: int = setting(COUNT, 128, "a common choice for dense contrast")
    temperature: float = setting(TEMPERATURE, 0.2, "a common choice for dense contrast")
    momentum: float = setting(
        SHARE, 0.99, "the key network follows within about a hundred steps, since pretraining is short"
    )
    copy_paste: bool = setting(SWITCH, True, "without it, consistency did harm: Dice .62 instead of .69 on Hippocampus")
    consistency: float = setting(number(0, 1000), 1.0, "unlabelled patches count as much as labelled ones")
    ramp: float = setting(SHARE, 0.4, "the decoders have to learn something before they teach each other")

    @classmethod
    def derived(cls, configuration: ConfigurationManager) -> dict[str, Derived]:
        patches = max(FEWEST_PATCHES, configuration.batch_size)
        levels = len(configuration.pool_op_kernel_sizes) - 1
        level_rule = Rule(
            f"a whole number from 0 to {levels - 1} (a level of the decoder)", lambda v: is_whole(v) and 0 <= v < levels
        )
        return super().derived(configuration) | {
            "patches_per_batch": Derived(patches, "the plan's batch size, since the key network needs no gradients"),
            "locations": Derived(
                max(1, LOCATIONS_PER_BATCH // patches), f"{LOCATIONS_PER_BATCH} per batch, divided among its patches"
            ),
            "radius": Derived(
                RADIUS_IN_VOXELS * min(configuration.spacing),
                f"{RADIUS_IN_VOXELS} voxels along the finest axis: neighbouring voxels look alike",
            ),
            "level": Derived(0, "pretrains encoder and decoder", level_rule),
        }
