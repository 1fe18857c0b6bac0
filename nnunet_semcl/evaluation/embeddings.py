"""Embeddings of a case's objects and voxels: the network's last decoder features, under the true segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from nnunet_semcl.files.cases import UNKNOWN, Object, labels_of
from nnunet_semcl.networks.decoder_features import DecoderFeatures

SIGMA = 1 / 8  # of a window's edge, as in nnU-Net's prediction


@dataclass(frozen=True)
class Drawn:
    """Voxels drawn from a case.

    Attributes:
        positions: (V, 3) in the preprocessed case.
        labels: (V,).
    """

    positions: np.ndarray
    labels: np.ndarray


def draw_voxels(segmentation: np.ndarray, labels: Sequence[int], number: int, rng: np.random.Generator) -> Drawn:
    """Draws up to `number` voxels of each label, each voxel of a label with the same chance, those at its boundary too.

    Args:
        segmentation: (X, Y, Z).
        labels: background included, if it is to be drawn from.
        number: of voxels a label; a label with fewer gives all.
        rng: decides.
    """
    flat = segmentation.reshape(-1)
    places, values = [], []
    for label in labels:
        voxels = np.flatnonzero(flat == label)
        chosen = rng.choice(voxels, min(number, len(voxels)), replace=False)
        places.append(np.sort(chosen))
        values.append(np.full(len(chosen), label))
    positions = np.stack(np.unravel_index(np.concatenate(places), segmentation.shape), 1)
    return Drawn(positions, np.concatenate(values))


def embed_case(
    predictor: nnUNetPredictor, image: np.ndarray, segmentation: np.ndarray, objects: Sequence[Object], drawn: Drawn
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of the features under each object's mask, and the features at the drawn voxels.

    Features are blended over nnU-Net's sliding windows with its Gaussian weights, as nnU-Net blends logits. Windows
    without an object or a drawn voxel are left out, and no feature map is larger than a window.

    Args:
        predictor: nnU-Net's, with a network that has a decoder; predictions are not mirrored.

    Shape:
        image: (C, X, Y, Z), preprocessed.
        segmentation: (X, Y, Z).
        objects: O of them.
        drawn: V voxels.
        Returns: (O, D) float32, NaN for an object without a voxel, and (V, D) float32.
    """
    patch = predictor.configuration_manager.patch_size
    padded, inner = pad_nd_image(torch.from_numpy(image), patch, "constant", {"value": 0}, True, None)
    labels = torch.full(padded.shape[1:], UNKNOWN, dtype=torch.int16)
    labels[inner[1:]] = torch.from_numpy(segmentation.astype(np.int16))
    voxels = torch.from_numpy(drawn.positions + [axis.start for axis in inner[1:]])
    needed = labels > 0
    needed[tuple(voxels.T)] = True
    windows = [w for w in predictor._internal_get_sliding_window_slicers(padded.shape[1:]) if needed[w[1:]].any()]
    gaussian = compute_gaussian(tuple(patch), SIGMA, dtype=torch.float32, device=torch.device("cpu"))
    weight = torch.zeros(padded.shape[1:])
    for window in windows:
        weight[window[1:]] += gaussian
    index = torch.full(padded.shape[1:], -1, dtype=torch.int32)
    index[tuple(voxels.T)] = torch.arange(len(voxels), dtype=torch.int32)

    last = DecoderFeatures(predictor.network.decoder)
    object_sums, voxel_sums = (torch.zeros(number, last.channels) for number in (len(objects), len(voxels)))
    try:
        for window in windows:
            features = _features(predictor, last, padded[window])
            share = (gaussian / weight[window[1:]]).to(features.device)
            features = (features * share).flatten(1)  # (D, voxels of the window)
            here = labels[window[1:]].flatten()
            masks = torch.stack([torch.isin(here, torch.tensor(labels_of(obj))) for obj in objects]).to(features)
            object_sums += (masks @ features.T).cpu()
            drawn_here = index[window[1:]].flatten()
            place = torch.nonzero(drawn_here >= 0)[:, 0]
            voxel_sums[drawn_here[place].long()] += features[:, place.to(features.device)].T.cpu()
    finally:
        last.remove()
    sizes = np.array([np.isin(segmentation, labels_of(obj)).sum() for obj in objects])
    means = object_sums.numpy() / np.where(sizes, sizes, np.nan)[:, None]
    return means.astype(np.float32), voxel_sums.numpy()


@torch.inference_mode()
def _features(predictor: nnUNetPredictor, last: DecoderFeatures, window: torch.Tensor) -> torch.Tensor:
    """The features of an image's window: (C, X, Y[, Z]) -> (D, X, Y[, Z]) in single precision, on the device."""
    device = predictor.device
    with torch.autocast("cuda") if device.type == "cuda" else nullcontext():  # as in nnU-Net's prediction
        predictor.network(window[None].to(device))
    return last.take()[0].float()
