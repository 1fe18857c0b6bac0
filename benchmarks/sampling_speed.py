"""Seconds to draw the contrast's voxels from a batch, and to make a batch, nnU-Net's loader beside ours.

    python benchmarks/sampling_speed.py [--edge 128] [--classes 14]

Two patches of random blobs, one thread, medians. The whole of nnU-Net's augmentation of such patches is measured
beside it: of a training step's batch, sampling is the part that pretraining adds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy.ndimage import gaussian_filter

from nnunet_semcl.methods.semcl.voxel_batches import sample_voxels

VOXELS = 512
PATCHES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=128, help="voxels along each axis of a patch")
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    size = (args.edge,) * 3
    blobs = [
        gaussian_filter(rng.normal(size=(PATCHES, *size)), (0, *[args.edge / 10] * 3)) for _ in range(args.classes)
    ]
    classes = torch.from_numpy(np.stack(blobs).argmax(0).astype(np.int16))
    rotation = (-np.pi / 6, np.pi / 6)
    augment = nnUNetTrainer.get_training_transforms(size, rotation, [[1.0] * 3], (0, 1, 2), False)
    larger = [round(1.3 * args.edge)] * 3  # nnU-Net cuts a larger patch, of which a turned one is taken
    image = torch.randn(1, *larger)
    segmentation = torch.randint(0, args.classes, (1, *larger), dtype=torch.int16)

    def augmented() -> None:
        for _ in range(PATCHES):
            augment(image=image.clone(), segmentation=segmentation.clone())

    sampling = median(
        lambda: sample_voxels(classes, range(args.classes), VOXELS, np.random.default_rng(0)), args.repeats
    )
    nnunet = median(augmented, args.repeats)
    print(f"{PATCHES} patches of {args.edge}^3, {args.classes} classes, one thread, {args.repeats} repeats")
    print(
        f"nnU-Net's augmentation: {nnunet:.3f} s; drawing {VOXELS} voxels: {sampling:.3f} s ({sampling / nnunet:.0%})"
    )


def median(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
