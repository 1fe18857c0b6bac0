"""torch.compile in pretraining: the same numbers, and no recompilation once it knows which sizes vary."""

import pytest
import torch
from small_tasks import PATCHES, TASKS, build_task, part_of_batch
from torch._dynamo.testing import CompileCounterWithBackend

VARYING = {"ideal": ("image", "voxel", "place", "position")}  # entries whose number of rows varies between batches


@pytest.mark.parametrize("name", TASKS)
def test_the_same_loss_and_gradients_and_no_recompilation(name: str) -> None:
    torch.compiler.reset()
    plain, task = build_task(name), build_task(name)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(task, backend=counter)
    compilations = []
    for step in range(6):
        batch = part_of_batch(name, slice(0, 8), slice(0, PATCHES))
        for key in VARYING.get(name, ("voxel", "voxel_class", "at_boundary")):
            batch[key] = batch[key][: len(batch[key]) - step]
        losses = plain(batch)["loss"], compiled(batch)["loss"]
        assert torch.equal(*losses)
        for loss in losses:
            loss.backward()
        for one, other in zip(plain.parameters(), task.parameters(), strict=True):
            if one.grad is None or other.grad is None:
                assert one.grad is other.grad
            else:
                assert torch.equal(one.grad, other.grad)
        compilations.append(counter.frame_count)
    assert compilations[0] > 0, compilations
    assert compilations[1:] == compilations[1:2] * 5, compilations
    assert task.state_dict().keys() == plain.state_dict().keys()
