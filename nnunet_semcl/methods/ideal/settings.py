"""IDEAL's settings: derived from nnU-Net's plan, single fields overridden by its "ideal" section."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.pretraining.settings import Derived, MethodSettings, setting
from nnunet_semcl.rules import COUNT, SHARE, SWITCH, TEMPERATURE, Rule, is_whole, number, whole

LOCATIONS_PER_BATCH = 1024  # similarities of all pairs stay cheap beside the network
RADIUS_IN_VOXELS = 4
FEWEST_PATCHES = 2  # locations of another image are what repels


@dataclass(frozen=True, kw_only=True)
class IDEALSettings(MethodSettings, section="ideal"):
    """Settings of IDEAL's two phases.

    Attributes:
        patches_per_batch: patches in a batch of pretraining, two views each.
        locations: of a patch, at most.
        radius: in mm, within which locations of one image do not repel each other.
        level: of the decoder's features that are contrasted, 0 for the finest.
        embedding_dim: length of an embedding.
        temperature: of the contrast.
        momentum: of the key network, from 0, a copy, to 1, which never moves.
        copy_paste: whether boxes of labelled patches are pasted into the unlabelled ones of the training.
        consistency: weight of the two decoders' agreement at the end of the ramp.
        ramp: share of the training in which that weight rises.
    """

    patches_per_batch: int = setting(whole(FEWEST_PATCHES, ": other images repel"))
    locations: int = setting(COUNT)
    radius: float = setting(number(0, 1e6))
    level: int = setting(None)
    embedding_dim: int = setting(COUNT, 128, "usual for a dense contrast")
    temperature: float = setting(TEMPERATURE, 0.2, "usual for a dense contrast")
    momentum: float = setting(SHARE, 0.99, "the keys follow within a hundred steps: pretraining is short")
    copy_paste: bool = setting(SWITCH, True, "pseudo-labels alone did harm: on Hippocampus .62 beside .69")
    consistency: float = setting(number(0, 1000), 1.0, "unlabelled patches count as much as labelled ones")
    ramp: float = setting(SHARE, 0.4, "the decoders have to know something before they teach")

    @classmethod
    def derived(cls, configuration: ConfigurationManager) -> dict[str, Derived]:
        patches = max(FEWEST_PATCHES, configuration.batch_size)
        levels = len(configuration.pool_op_kernel_sizes) - 1
        of_decoder = Rule(
            f"a whole number from 0 to {levels - 1}, a level of the decoder", lambda v: is_whole(v) and 0 <= v < levels
        )
        return super().derived(configuration) | {
            "patches_per_batch": Derived(patches, "the plan's batch: the key network takes no gradient"),
            "locations": Derived(
                max(1, LOCATIONS_PER_BATCH // patches), f"{LOCATIONS_PER_BATCH} of a batch, shared among its patches"
            ),
            "radius": Derived(
                RADIUS_IN_VOXELS * min(configuration.spacing),
                f"{RADIUS_IN_VOXELS} voxels along the finest axis: neighbours look alike",
            ),
            "level": Derived(0, "pretrains encoder and decoder", of_decoder),
        }
