"""What nnU-Net's -num_gpus asks of pretraining: one loss over the rows of all processes, and one that writes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def own_share(total: int, least: int = 0) -> int:
    """This process' part of a total, as equal as they can be, the first ones larger."""
    return max(least, split_evenly(total, world_size())[rank()])


def split_evenly(total: int, parts: int) -> list[int]:
    """As equal as they can be, the first ones larger."""
    return [(total + parts - 1 - part) // parts for part in range(parts)]


@torch.compiler.disable
def gather(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes in their order, of which each may have another number: (N, ...) -> (sum of N, ...).

    Gradients reach a process' own rows, times the number of processes. So where all work out the same loss of what was
    gathered, and DistributedDataParallel averages what it gives to the weights, the result is that of one process.
    """
    if world_size() == 1:
        return rows
    numbers = torch.empty(world_size(), dtype=torch.int64, device=rows.device)
    dist.all_gather(list(numbers.split(1)), torch.tensor([len(rows)], device=rows.device))
    padding = rows.new_zeros(int(numbers.max()) - len(rows), *rows.shape[1:])
    padded = torch.cat((rows.detach(), padding))
    gathered = [torch.empty_like(padded) for _ in numbers]
    dist.all_gather(gathered, padded)
    parts = [part[:n] for part, n in zip(gathered, numbers.tolist(), strict=True)]
    if rows.requires_grad:
        parts[rank()] = rows.clone()
        parts[rank()].register_hook(lambda gradient: gradient * world_size())
    return torch.cat(parts)


def all_gather_object(value: Any) -> list[Any]:
    """The value of each process; it is pickled."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values
