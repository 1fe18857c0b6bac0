"""Two processes, on the CPU or on one GPU (gloo), compute the same as one process over the whole batch."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_trainer_module
from small_tasks import PATCHES, TASKS, build_task, part_of_batch
from torch.nn.parallel import DistributedDataParallel

from nnunet_semcl.cli import main
from nnunet_semcl.distributed import all_gather_object, gather, rank, split_evenly, world_size

if TYPE_CHECKING:
    from conftest import NNUNetFolders

FOLD = 5  # label-budget appends it
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def gradients(name: str, views: slice, patches: slice) -> dict[str, torch.Tensor]:
    task = build_task(name)
    forward = DistributedDataParallel(task, find_unused_parameters=True) if world_size() > 1 else task
    batch = part_of_batch(name, views, patches)
    if name == "memory":
        with torch.no_grad():
            forward(batch)  # fills the memory
    loss = forward(batch)["loss"]
    loss.backward()
    result = {n: p.grad for n, p in task.named_parameters() if p.grad is not None}
    if name == "memory":
        # The order in which patches are stored depends on the number of processes.
        result |= {"stored": task.voxels["memory"].stored, "sums": task.voxels["memory"].memory.sum(2)}
    return {"loss": loss.detach(), **result}


def run_one(process: int, port: int, folder: Path, work: Callable[..., None], *args: object) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=process, world_size=2)
    work(folder, *args)
    dist.destroy_process_group()


def run_two(folder: Path, work: Callable[..., None], *args: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(run_one, (port, folder, work, *args), nprocs=2)


def save_gradients(folder: Path) -> None:
    """Splits the batch unevenly, except for nnU-Net's loss, whose mean over processes assumes an even split."""
    for name in TASKS:
        cut = PATCHES // 2 if name == "segmentation" else PATCHES - 1
        parts = [(slice(0, 6), slice(0, cut)), (slice(6, 8), slice(cut, PATCHES))]
        torch.save(gradients(name, *parts[rank()]), folder / f"{name}{rank()}.pth")
    rows = torch.arange(3.0 + rank(), requires_grad=True)
    gathered = gather(rows)
    assert gathered.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert gather(rows.long()).tolist() == gathered.tolist()
    (gathered * torch.arange(7)).sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [[0, 2, 4], [6, 8, 10, 12]][rank()]  # from the losses of both processes
    assert gather(rows[: 2 * rank()].long()).tolist() == [0, 1]  # one process has no rows
    assert all_gather_object(rank()) == [0, 1]


def test_loss_and_gradients_equal_one_process(tmp_path: Path) -> None:
    run_two(tmp_path, save_gradients)
    for name in TASKS:
        expected = gradients(name, slice(0, 8), slice(0, PATCHES))
        assert len(expected) > 10
        first, second = (torch.load(tmp_path / f"{name}{process}.pth") for process in (0, 1))
        losses = torch.stack((first["loss"], second["loss"]))
        torch.testing.assert_close(losses.mean(), expected["loss"], rtol=1e-5, atol=1e-5)
        for result in (first, second):
            assert result.keys() == expected.keys()
            for key in expected.keys() - {"loss"}:
                torch.testing.assert_close(result[key], expected[key], rtol=1e-5, atol=1e-5, msg=f"{name} {key}")


class OneDevice:
    """torch as nnU-Net's module sees it while a trainer is built: every device is this one."""

    def __init__(self, device: str) -> None:
        self.device = lambda *_, **__: torch.device(device)

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


def train(folder: Path, trainer_name: str, device: str) -> None:
    """Trains like nnU-Net's run_ddp, which wants a GPU for each process."""
    nnunet_trainer_module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    nnunet_trainer_module.device_count = lambda: 2
    nnunet_trainer_module.torch = OneDevice(device)
    try:
        trainer = get_trainer_from_args("999", "2d", FOLD, trainer_name, "nnUNetTinyPlans")
    finally:
        nnunet_trainer_module.torch = torch
    assert trainer.is_ddp
    assert trainer.device.type == device
    trainer.run_training()
    weights = {k: v.double().sum().item() for k, v in trainer.planned_network.state_dict().items()}
    first, second = all_gather_object(weights)
    assert first == second
    second_decoder = getattr(trainer, "two_decoders", None)
    if second_decoder is not None:
        sums = all_gather_object([p.double().sum().item() for p in second_decoder.parameters()])
        assert sums[0] == sums[1]
    (folder / f"{trainer_name}_{rank()}").write_text(trainer.output_folder)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("trainer", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_training_in_two_processes(folders: NNUNetFolders, tmp_path: Path, trainer: str, device: str) -> None:
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    with patch.dict(os.environ, {"nnUNet_compile": "f"}):
        run_two(tmp_path, train, trainer, device)
    fold = folders.fold(trainer, "2d", fold=FOLD)
    assert [(tmp_path / f"{trainer}_{process}").read_text() for process in (0, 1)] == [str(fold)] * 2
    epochs = [json.loads(line)["epoch"] for line in (fold / "pretraining_log.jsonl").read_text().splitlines()]
    assert epochs == list(range(len(epochs)))
    assert len(epochs) > 1
    states = torch.load(fold / "checkpoint_final.pth", weights_only=False)["nnunet_semcl"]["random_states"]
    assert len(states) == 2
    assert not torch.equal(states[0]["torch"], states[1]["torch"])
    assert not [file for file in fold.iterdir() if file.name.startswith(".") and file.name != ".lock"]
    log = "".join(file.read_text() for file in fold.glob("training_log*.txt"))
    assert log.count("Pretraining done.") == 1
    shutil.rmtree(folders.root / "results")


@pytest.mark.parametrize(("total", "parts", "expected"), [(5, 2, [3, 2]), (4, 4, [1] * 4), (1, 2, [1, 0])])
def test_even_split(total: int, parts: int, expected: list[int]) -> None:
    assert split_evenly(total, parts) == expected
    assert (rank(), world_size(), all_gather_object("alone")) == (0, 1, ["alone"])
    rows = torch.ones(2, requires_grad=True)
    assert gather(rows) is rows
