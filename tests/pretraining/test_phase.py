from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from nnunet_semcl.errors import InputError
from nnunet_semcl.pretraining.history import write_history
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.task import PretrainingTask


class Regression(PretrainingTask):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(4, 1)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        error = (self.network(batch["x"])[:, 0] - batch["y"]).square().mean()
        return {"loss": error, "error": error.detach().sqrt()}

    def remove_additions(self) -> None:
        pass


class Batches(Dataset):
    """A regression; from batch number `broken` on, the targets are infinite."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
        y = x.sum(1)
        return {"x": x, "y": y * torch.inf if self.broken is not None and number >= self.broken else y}


def phase(
    folder: Path, epochs: int = 4, workers: int = 0, batches: Batches | None = None, **more: object
) -> PretrainingPhase:
    values = {
        "name": "pretraining",
        "task": Regression(),
        "batches": batches or Batches(),
        "held_out": Batches(),
        "epochs": epochs,
        "iterations_per_epoch": 5,
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "folder": folder,
        "device": torch.device("cpu"),
        "settings": {"learning_rate": 0.05, "size": (2, 3)},
        "workers": workers,
        "write_checkpoints": True,
        "log": lambda line: None,
    }
    return PretrainingPhase(**(values | more))


def weights(p: PretrainingPhase) -> list[torch.Tensor]:
    return [w.detach().clone() for w in p.task.parameters()]


def test_it_learns_logs_and_plots(tmp_path: Path) -> None:
    lines: list[str] = []
    p = phase(tmp_path, log=lines.append)
    p.run()
    records = [json.loads(line) for line in (tmp_path / "pretraining_log.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == [0, 1, 2, 3, 4]
    assert set(records[0]) == {"epoch", "held_out_loss", "held_out_error"}
    assert records[-1]["held_out_loss"] < records[0]["held_out_loss"]
    assert records[-1]["loss"] < records[1]["loss"]
    assert (tmp_path / "pretraining.png").read_bytes()[:4] == b"\x89PNG"
    assert "Pretraining epoch 4 of 4" in lines
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path, workers: int) -> None:
    for name in ("uninterrupted", "interrupted"):
        (tmp_path / name).mkdir()
    uninterrupted = phase(tmp_path / "uninterrupted", workers=workers)
    uninterrupted.run()

    class Killed(Exception):
        pass

    def die_in_epoch_3(line: str) -> None:
        if line.startswith("Pretraining epoch 3"):
            raise Killed

    with pytest.raises(Killed):
        phase(tmp_path / "interrupted", workers=workers, log=die_in_epoch_3).run()
    resumed = phase(tmp_path / "interrupted", workers=workers)
    resumed.resume()
    assert resumed.records[-1]["epoch"] == 3
    resumed.run()
    assert all(torch.equal(a, b) for a, b in zip(weights(uninterrupted), weights(resumed), strict=True))
    assert [r["loss"] for r in resumed.records[1:]] == [r["loss"] for r in uninterrupted.records[1:]]


def test_workers_end_with_the_phase(tmp_path: Path) -> None:
    phase(tmp_path, workers=2).run()
    assert not multiprocessing.active_children()


def test_resuming_a_finished_phase_changes_nothing(tmp_path: Path) -> None:
    done = phase(tmp_path)
    done.run()
    again = phase(tmp_path)
    again.resume()
    again.run()
    assert all(torch.equal(a, b) for a, b in zip(weights(done), weights(again), strict=True))


def test_a_loss_that_is_not_finite_raises_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    message = r"epoch 3/4: the loss is (inf|nan)\. The state after epoch 2 is kept in .*Lower learning_rate"
    with pytest.raises(RuntimeError, match=message):
        phase(tmp_path, batches=Batches(broken=12)).run()
    good = phase(tmp_path)
    good.resume()
    assert good.records[-1]["epoch"] == 2
    assert all(w.isfinite().all() for w in weights(good))


class Scaler:
    """A scaler as on CUDA, which leaves out steps with infinite gradients."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.left_out = 0

    def is_enabled(self) -> bool:
        return True

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.finite = all(gradient.isfinite().all() for gradient in gradients)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.finite:
            optimizer.step()
        else:
            self.left_out += 1

    def update(self) -> None:
        pass

    def state_dict(self) -> dict:
        return {}


@pytest.mark.parametrize("overflows", [3, 14])
def test_in_half_precision_only_many_overflows_in_a_row_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflows: int
) -> None:
    class Overflowing(Batches):
        def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
            return Batches(broken=0 if 6 <= number < 6 + overflows else None)[number]

    monkeypatch.setattr("nnunet_semcl.pretraining.phase.MOST_OVERFLOWS", 10)
    p = phase(tmp_path, batches=Overflowing())
    p.scaler = Scaler(p.optimizer)
    if overflows == 3:
        p.run()
        assert p.scaler.left_out == 3
        assert all(math.isfinite(record["loss"]) for record in p.records[1:])
        assert all(w.isfinite().all() for w in weights(p))
    else:
        with pytest.raises(RuntimeError, match="the loss is inf"):
            p.run()
        assert p.scaler.left_out == 10


def test_the_log_is_json_even_where_a_figure_is_not_a_number(tmp_path: Path) -> None:
    write_history(tmp_path, "x", [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": math.nan, "other": -math.inf}])

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    lines = (tmp_path / "x_log.jsonl").read_text().splitlines()
    assert json.loads(lines[1], parse_constant=refuse) == {"epoch": 1, "loss": None, "other": None}


def test_without_held_out_cases_and_without_checkpoints(tmp_path: Path) -> None:
    p = phase(tmp_path, held_out=None, write_checkpoints=False)
    p.run()
    assert not p.checkpoint.exists()
    assert not any(k.startswith("held_out") for r in p.records for k in r)
    assert (tmp_path / "pretraining.png").exists()


def test_other_settings_are_named(tmp_path: Path) -> None:
    phase(tmp_path).run()
    other = phase(tmp_path, settings={"learning_rate": 0.1, "size": (2, 3)})
    message = (
        r"checkpoint_pretraining\.pth: the run was started with learning_rate = 0\.05, but now learning_rate = 0\.1\. "
        r"Go back to them .*, or start again without --c\."
    )
    with pytest.raises(InputError, match=message):
        other.resume()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "foreign", "code"])
def test_a_broken_checkpoint_is_reported_and_kept(tmp_path: Path, damage: str) -> None:
    phase(tmp_path).run()
    path = tmp_path / "checkpoint_pretraining.pth"
    content = path.read_bytes()
    if damage == "foreign":
        torch.save({"network_weights": {}}, path)
    elif damage == "code":
        torch.save({"task": Regression()}, path)
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"x" * 999, "empty": b""}[damage])
    broken = path.read_bytes()
    message = r"checkpoint_pretraining\.pth (is not a readable|lacks the keys) .*again with --c"
    with pytest.raises(InputError, match=message):
        phase(tmp_path).resume()
    assert path.read_bytes() == broken


def test_an_error_while_saving_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = phase(tmp_path, epochs=2)
    p.run()
    before = p.checkpoint.read_bytes()

    def half(content: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(InputError, match=r"checkpoint_pretraining\.pth.*No space left on device"):
        p._save()
    assert p.checkpoint.read_bytes() == before


@pytest.mark.parametrize("epochs", range(1, 6))
def test_a_phase_may_have_any_length(tmp_path: Path, epochs: int) -> None:
    for iterations in (1, 3, 9):
        run = phase(tmp_path, epochs=epochs, iterations_per_epoch=iterations)
        run.run()
        assert len(run.records) == epochs + 1
