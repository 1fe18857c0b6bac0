"""Augmented views of a patch: spatial transforms for all channels, intensity transforms for the image alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

from nnunet_semcl.files.cases import UNKNOWN

MAX_ROTATION = np.pi / 6  # the paper's 30 degrees
SCALING = (0.85, 1.25)  # the range of the paper's resized crops, but with the mean size as in training
SHIFT = 1 / 8  # of the view's size, so that the object is not always in the centre


class Views:
    """Rotates, scales, shifts and mirrors a patch, and applies nnU-Net's intensity augmentation.

    Args:
        size: edge lengths of a view in voxels, (X, Y[, Z]).
        rotation: nnU-Net's range for the data set in radians; clipped to the paper's 30 degrees.
        mirror_axes: nnU-Net's mirror axes; None or empty for no mirroring.
        dummy_2d: whether to rotate and scale within slices only, as nnU-Net does for anisotropic patches.

    Attributes:
        cut_size: edge lengths of the patch to cut from a case. It is larger than a view, so that a rotated, scaled and
            shifted view rarely shows voxels outside the patch.
    """

    def __init__(
        self,
        size: Sequence[int],
        rotation: tuple[float, float],
        mirror_axes: Sequence[int] | None,
        dummy_2d: bool,
    ) -> None:
        self.size = tuple(size)
        rotation = (max(rotation[0], -MAX_ROTATION), min(rotation[1], MAX_ROTATION))
        plane = list(size[1:] if dummy_2d else size)
        rotated = get_patch_size(plane, rotation, rotation, rotation, SCALING).tolist()
        cut = [r + 2 * int(p * SHIFT) for r, p in zip(rotated, plane, strict=True)]
        self.cut_size = [size[0], *cut] if dummy_2d else cut
        self._geometry = _geometry(plane, rotation, [r / 2 for r in rotated], mirror_axes, dummy_2d)
        self._intensities = _intensities()


def _geometry(
    size: list[int],
    rotation: tuple[float, float],
    centre_from_border: list[float],
    mirror_axes: Sequence[int] | None,
    dummy_2d: bool,
) -> BasicTransform:
    spatial = SpatialTransform(
        size,
        patch_center_dist_from_border=centre_from_border,
        random_crop=True,
        p_rotation=1,
        rotation=rotation,
        p_scaling=1,
        scaling=SCALING,
        p_synchronize_scaling_across_axes=1,
        mode_seg="nearest",
        border_mode_seg="constant",
        padding_value_seg=UNKNOWN,
    )
    transforms = [Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform()] if dummy_2d else [spatial]
    if mirror_axes:
        transforms.append(MirrorTransform(allowed_axes=tuple(mirror_axes)))
    return ComposeTransforms(transforms)


def _intensities() -> BasicTransform:
    """nnU-Net's intensity transforms with its ranges, but more frequent: the two views must differ."""
    return ComposeTransforms(
        [
            RandomTransform(GaussianNoiseTransform(noise_variance=(0, 0.1)), apply_probability=0.3),
            RandomTransform(GaussianBlurTransform(blur_sigma=(0.5, 1.0)), apply_probability=0.3),
            RandomTransform(
                MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), synchronize_channels=False),
                apply_probability=0.5,
            ),
            RandomTransform(
                ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False),
                apply_probability=0.5,
            ),
            RandomTransform(
                GammaTransform(
                    BGContrast((0.7, 1.5)),
                    p_invert_image=0,
                    synchronize_channels=False,
                    p_per_channel=1,
                    p_retain_stats=1,
                ),
                apply_probability=0.5,
            ),
        ]
    )
