"""What grows: time and memory of the contrast over classes, patch size and processes, and of loaders over many batches.

    python benchmarks/growth.py classes patches processes
    nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=... python benchmarks/growth.py loaders -d 18 -f 5

Tables. `loaders` takes 2000 batches of each phase from one worker process and shows that process's own memory and open
files on the way. How the start of a training grows with the number of cases is measured by start_up.py.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("nnUNet_n_proc_DA", "1")  # a worker for each loader

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from step_speed import ideal, nnunet, semcl

from nnunet_semcl.distributed import own_share, rank
from nnunet_semcl.methods.semcl.voxel_batches import sample_voxels
from nnunet_semcl.methods.semcl.voxel_contrast import VoxelContrast

VOXELS, FEATURES, DIM = 512, 32, 64
REPEATS = 7
LOOKS = 5  # at a worker


def classes(args: argparse.Namespace) -> None:
    print("\n| classes | to sample, ms | to contrast, ms |\n|---|---|---|")
    for number in (2, 14, 50, 100, 250):
        print(
            f"| {number} | {sampling(blocks((2, 96, 96, 96), number)):.1f} | {contrast(number):.1f} |",
            flush=True,
        )


def patches(args: argparse.Namespace) -> None:
    print("\n| patches | to sample, ms | MiB at the peak |\n|---|---|---|")
    for shape in ((12, 128, 128), (12, 512, 512), (2, 64, 64, 64), (2, 128, 128, 128), (2, 192, 192, 192)):
        patch = blocks(shape, 14)
        milliseconds = sampling(patch)
        tracemalloc.start()
        sampling(patch)
        mib = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        print(f"| {' x '.join(map(str, shape))} | {milliseconds:.1f} | {mib:.0f} |", flush=True)


def processes(args: argparse.Namespace) -> None:
    print("\n| processes | to contrast their joint voxels, ms |\n|---|---|")
    for number in (1, 2, 4):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29600 + number)}
        torch.multiprocessing.spawn(_rank, (number,), nprocs=number)


def loaders(args: argparse.Namespace) -> None:
    print("\n| step | batches | MiB of its own | open files |\n|---|---|---|---|")
    for method in (nnunet, semcl, ideal):
        before = children()
        for side in method(args):
            side.batches(1)
            workers = children() - before
            for number in range(0, args.number + 1, args.number // LOOKS):
                for _ in range(args.number // LOOKS if number else 0):
                    side.batches(1)
                own = max(private_memory(worker) for worker in workers)
                files = max(len(os.listdir(f"/proc/{worker}/fd")) for worker in workers)
                print(f"| {side.name} | {number} | {own:.0f} | {files} |", flush=True)
            before |= workers


def blocks(shape: tuple[int, ...], number: int) -> torch.Tensor:
    """Patches of cubes of random classes."""
    some = np.random.default_rng(0).integers(number, size=(shape[0], *(-(-edge // 8) for edge in shape[1:])))
    for axis in range(1, len(shape)):
        some = some.repeat(8, axis)
    return torch.from_numpy(some.astype(np.int16)[tuple(map(slice, shape))].copy())


def sampling(patch: torch.Tensor) -> float:
    """Milliseconds to draw the contrast's voxels from patches."""
    rng = np.random.default_rng(0)
    return median(lambda: sample_voxels(patch, VOXELS, rng))


def contrast(number: int) -> float:
    """Milliseconds of forward and backward of the voxels' contrast."""
    torch.manual_seed(rank())
    task = VoxelContrast(FEATURES, DIM, 0.3)
    features = torch.randn(2, FEATURES, 64, 64, requires_grad=True)
    voxels = own_share(VOXELS, least=2)
    batch = {"voxel": torch.randperm(2 * 64 * 64)[:voxels], "voxel_class": torch.randint(number, (voxels,))}
    return median(lambda: task(features, features, batch)[0].backward())


def _rank(this: int, number: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=this, world_size=number)
    milliseconds = contrast(14)
    if this == 0:
        print(f"| {number} | {milliseconds:.1f} |", flush=True)
    dist.destroy_process_group()


def median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def children() -> set[str]:
    """Numbers of this process's own processes."""
    return {child for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()}


def private_memory(process: str) -> float:
    """MiB that a process shares with no other."""
    return (
        sum(map(int, re.findall(r"Private_\w+:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text()))) / 2**10
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=list(TABLES))
    parser.add_argument("-d", help="data set id")
    parser.add_argument("-c", default="2d", help="configuration")
    parser.add_argument("-p", default="nnUNetTinyPlans", help="plans")
    parser.add_argument("-f", type=int, help="a fold with unlabelled cases")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--number", type=int, default=2000, help="of batches")
    args = parser.parse_args()
    args.batches, args.coarse_steps = False, 200
    torch.set_num_threads(1)
    for table in args.tables:
        TABLES[table](args)


TABLES: dict[str, Callable[[argparse.Namespace], None]] = {
    "classes": classes,
    "patches": patches,
    "processes": processes,
    "loaders": loaders,
}

if __name__ == "__main__":
    main()
