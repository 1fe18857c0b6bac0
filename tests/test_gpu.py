"""Mixed precision on CPU and CUDA, and trainings on CUDA; skipped with the reason where CUDA is missing."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
import torch
from small_tasks import PATCHES, TASKS, build_task, part_of_batch

if TYPE_CHECKING:
    from conftest import NNUNetFolders

ID, FOLD = 999, 5  # label-budget appends fold 5
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SCALE = 2.0**12  # a GradScaler starts at 2**16 and reduces it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("name", TASKS)
def test_losses_in_half_precision(name: str, device: str, dtype: torch.dtype) -> None:
    batch = part_of_batch(name, slice(0, 8), slice(0, PATCHES))
    expected = build_task(name)(batch)["loss"]
    task = build_task(name).to(device)
    with torch.autocast(device, dtype=dtype):
        loss = task({key: entry.to(device) for key, entry in batch.items()})["loss"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.cpu(), expected, rtol=0.02, atol=0.02)
    (loss * SCALE).backward()
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@needs_cuda
@pytest.mark.parametrize("compiled", ["f", "t"])
@pytest.mark.parametrize("name", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_training_on_cuda(folders: NNUNetFolders, name: str, compiled: str) -> None:
    folders.environment["nnUNet_compile"] = compiled
    assert folders.run(f"nnunet-semcl label-budget -d {ID} --labelled 2").returncode == 0
    result = folders.run(f"nnUNetv2_train {ID} 2d {FOLD} -tr {name} -p nnUNetTinyPlans")
    assert result.returncode == 0, result.stdout
    assert "recompile_limit" not in result.stdout
    fold = folders.fold(name, "2d", fold=FOLD)
    for file in fold.glob("*_log.jsonl"):
        assert all(math.isfinite(v) for line in file.read_text().splitlines() for v in json.loads(line).values())
    weights = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)["network_weights"]
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
@pytest.mark.parametrize("name", ["SemCLTrainerShort", "IDEALTrainerShort"])
def test_two_gpus(folders: NNUNetFolders, name: str) -> None:
    assert folders.run(f"nnunet-semcl label-budget -d {ID} --labelled 2").returncode == 0
    result = folders.run(f"nnUNetv2_train {ID} 2d {FOLD} -tr {name} -p nnUNetTinyPlans -num_gpus 2")
    assert result.returncode == 0, result.stdout
    assert "Pretraining done." in result.stdout
