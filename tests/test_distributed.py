"""Two processes on the CPU (gloo): they compute what one process computes over the whole batch."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_module
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semcl.cli import main
from nnunet_semcl.distributed import gather, of_all, rank, shares, world_size
from nnunet_semcl.pretraining.ideal_task import IDEALTask
from nnunet_semcl.pretraining.semcl_task import SemCLTask
from nnunet_semcl.pretraining.task import PretrainingTask

PATCHES, SIZE = 4, 16
TASKS = ("object", "voxel", "both", "segmentation", "ideal")
FOLD = 5  # the one that label-budget appends


class FinestLevel(DC_and_CE_loss):
    def forward(self, output: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        return super().forward(output[0], target)


def build_task(name: str) -> PretrainingTask:
    torch.manual_seed(0)
    network = PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), 1, 3, 1,
        conv_bias=True, norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip
    if name == "ideal":
        return IDEALTask(network, 0, 8, 0.2, 1.0, 0.9)
    if name == "segmentation":
        dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": world_size() > 1}
        return SemCLTask(network, "voxel", 16, 0.3, FinestLevel(dice, {}), True)
    return SemCLTask(network, name, 16, 0.3)


def whole_batch() -> dict[str, torch.Tensor]:
    rows = torch.Generator().manual_seed(1)
    voxel = torch.randperm(PATCHES * SIZE**2, generator=rows)[:90].sort().values
    place = torch.randint(0, SIZE, (30, 2), generator=rows)
    patches = torch.randn(PATCHES, 1, SIZE, SIZE, generator=rows)
    return {
        "image": torch.randn(8, 1, SIZE, SIZE, generator=rows),
        "mask": (torch.rand(8, 1, SIZE, SIZE, generator=rows) > 0.5).float(),
        "object": torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]),
        "query": torch.arange(8) // 2,
        "patch": patches,
        "target": torch.randint(0, 3, (PATCHES, 1, SIZE, SIZE), generator=rows),
        "voxel": voxel,
        "voxel_class": voxel % 3,
        "query_view": patches,
        "key_view": patches.flip(2),
        "location_image": torch.arange(30) * PATCHES // 30,
        "location": place,
    }


def part_of_batch(batch: dict[str, torch.Tensor], views: slice, patches: slice) -> dict[str, torch.Tensor]:
    """One process' part: its views and patches, and the voxels and locations that lie in them."""
    first, last = patches.start * SIZE**2, patches.stop * SIZE**2
    voxels = (batch["voxel"] >= first) & (batch["voxel"] < last)
    locations = (batch["location_image"] >= patches.start) & (batch["location_image"] < patches.stop)
    place = batch["location"][locations]
    return {
        **{name: batch[name][views] for name in ("image", "mask", "object", "query")},
        **{name: batch[name][patches] for name in ("patch", "target")},
        "voxel": batch["voxel"][voxels] - first,
        "voxel_class": batch["voxel_class"][voxels],
    }, {
        "query": batch["query_view"][patches],
        "key": batch["key_view"][patches],
        "image": batch["location_image"][locations] - patches.start,
        "voxel": place,
        "place": torch.stack((SIZE - 1 - place[:, 0], place[:, 1]), dim=1).float(),
        "position": place.float(),
        "redrawn": torch.tensor(0.0),
    }


def gradients(name: str, views: slice, patches: slice) -> dict[str, torch.Tensor]:
    task = build_task(name)
    contrast, ideal = part_of_batch(whole_batch(), views, patches)
    forward = DistributedDataParallel(task, find_unused_parameters=True) if world_size() > 1 else task
    loss = forward(ideal if name == "ideal" else contrast)["loss"]
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in task.named_parameters() if p.grad is not None}}


def of_two_processes(process: int, port: int, folder: Path, work: Callable[..., None], *args: object) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=process, world_size=2)
    work(folder, *args)
    dist.destroy_process_group()


def run_two(folder: Path, work: Callable[..., None], *args: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(of_two_processes, (port, folder, work, *args), nprocs=2)


def save_gradients(folder: Path) -> None:
    """An uneven split, but for nnU-Net's own loss, whose mean over processes supposes an even one."""
    for name in TASKS:
        cut = PATCHES // 2 if name == "segmentation" else PATCHES - 1
        parts = [(slice(0, 6), slice(0, cut)), (slice(6, 8), slice(cut, PATCHES))]
        torch.save(gradients(name, *parts[rank()]), folder / f"{name}{rank()}.pth")
    rows = torch.arange(3.0 + rank(), requires_grad=True)
    gathered = gather(rows)
    assert gathered.tolist() == [0, 1, 2, 0, 1, 2, 3] and gather(rows.long()).tolist() == gathered.tolist()
    (gathered * torch.arange(7)).sum().backward()
    assert rows.grad.tolist() == [[0, 2, 4], [6, 8, 10, 12]][rank()]  # of both processes' losses
    assert gather(rows[: 2 * rank()].long()).tolist() == [0, 1]  # none from one of them
    assert of_all(rank()) == [0, 1]


def test_loss_and_gradients_equal_those_of_one_process(tmp_path: Path) -> None:
    run_two(tmp_path, save_gradients)
    for name in TASKS:
        expected = gradients(name, slice(0, 8), slice(0, PATCHES))
        assert len(expected) > 10
        first, second = (torch.load(tmp_path / f"{name}{process}.pth") for process in (0, 1))
        losses = torch.stack((first["loss"], second["loss"]))
        torch.testing.assert_close(losses.mean(), expected["loss"], rtol=1e-5, atol=1e-5)
        for of_process in (first, second):
            assert of_process.keys() == expected.keys()
            for key in expected.keys() - {"loss"}:
                torch.testing.assert_close(of_process[key], expected[key], rtol=1e-5, atol=1e-5, msg=f"{name} {key}")


def train(folder: Path, trainer_name: str) -> None:
    """As nnU-Net's run_ddp, which knows GPUs alone."""
    nnunet_module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    nnunet_module.device_count = lambda: 2
    on_gpu = nnunet_module.torch.device
    nnunet_module.torch.device = lambda type, index=None: on_gpu("cpu")
    try:
        trainer = get_trainer_from_args("999", "2d", FOLD, trainer_name, "nnUNetTinyPlans")
    finally:
        nnunet_module.torch.device = on_gpu
    assert trainer.is_ddp and trainer.device.type == "cpu"
    trainer.run_training()
    weights = {k: v.double().sum().item() for k, v in trainer.planned_network.state_dict().items()}
    first, second = of_all(weights)
    assert first == second
    second_decoder = getattr(trainer, "two_decoders", None)
    if second_decoder is not None:
        sums = of_all([p.double().sum().item() for p in second_decoder.parameters()])
        assert sums[0] == sums[1]
    (folder / f"{trainer_name}_{rank()}").write_text(trainer.output_folder)


@pytest.mark.parametrize("trainer", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_training_in_two_processes(folders, tmp_path: Path, trainer: str) -> None:
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    run_two(tmp_path, train, trainer)
    fold = folders.fold(trainer, "2d", fold=FOLD)
    assert [(tmp_path / f"{trainer}_{process}").read_text() for process in (0, 1)] == [str(fold)] * 2
    epochs = [json.loads(line)["epoch"] for line in (fold / "pretraining_log.jsonl").read_text().splitlines()]
    assert epochs == list(range(len(epochs))) and len(epochs) > 1
    states = torch.load(fold / "checkpoint_final.pth", weights_only=False)["nnunet_semcl"]["random_states"]
    assert len(states) == 2 and not torch.equal(states[0]["torch"], states[1]["torch"])
    assert not [file for file in fold.iterdir() if file.name.startswith(".") and file.name != ".lock"]
    log = "".join(file.read_text() for file in fold.glob("training_log*.txt"))
    assert log.count("Pretraining done.") == 1
    shutil.rmtree(folders.root / "results")


@pytest.mark.parametrize(("total", "parts", "expected"), [(5, 2, [3, 2]), (4, 4, [1] * 4), (1, 2, [1, 0])])
def test_shares(total: int, parts: int, expected: list[int]) -> None:
    assert shares(total, parts) == expected
    assert (rank(), world_size(), of_all("alone")) == (0, 1, ["alone"])
    rows = torch.ones(2, requires_grad=True)
    assert gather(rows) is rows
