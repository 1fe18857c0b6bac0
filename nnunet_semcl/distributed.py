"""Pretraining under nnU-Net's -num_gpus: all processes compute one loss over their joint rows, and process 0 writes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def rank() -> int:
    """Number of this process, 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Waits until all processes have come here."""
    if dist.is_initialized():
        dist.barrier()


def own_share(total: int, least: int = 0) -> int:
    """This process's share of a total (see `split_evenly`), but at least `least`."""
    return max(least, split_evenly(total, world_size())[rank()])


def split_evenly(total: int, parts: int) -> list[int]:
    """Splits a total into shares that differ by at most one, the larger ones first."""
    return [(total + parts - 1 - part) // parts for part in range(parts)]


@torch.compiler.disable
def gather(rows: torch.Tensor) -> torch.Tensor:
    """Concatenates the rows of all processes in the order of the processes.

    Gradients reach only a process's own rows, multiplied by the number of processes. If all processes compute the same
    loss from the gathered rows, DistributedDataParallel's average then equals the gradient of a single process.

    Shape: (N, ...), N may differ between processes -> (sum of N, ...).
    """
    if world_size() == 1:
        return rows
    counts = torch.empty(world_size(), dtype=torch.int64, device=rows.device)
    dist.all_gather(list(counts.split(1)), torch.tensor([len(rows)], device=rows.device))
    padding = rows.new_zeros(int(counts.max()) - len(rows), *rows.shape[1:])
    padded = torch.cat((rows.detach(), padding))
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    parts = [part[:n] for part, n in zip(gathered, counts.tolist(), strict=True)]
    if rows.requires_grad:
        parts[rank()] = rows.clone()
        parts[rank()].register_hook(lambda gradient: gradient * world_size())
    return torch.cat(parts)


def all_gather_object(value: Any) -> list[Any]:
    """The values of all processes, in their order; each is pickled on its way."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values
