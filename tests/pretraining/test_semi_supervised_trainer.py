from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest
from conftest import MakeTrainer, NNUNetFolders

from nnunet_semcl.cli import main
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import open_case
from nnunet_semcl.pretraining.phase import PretrainingPhase


def as_older_nnunets_wrote(data: Path) -> list[str]:
    """Turns cases into compressed archives."""
    cases = sorted(file.stem for file in data.glob("*.pkl"))
    for case in cases:
        image, segmentation = data / f"{case}.b2nd", data / f"{case}_seg.b2nd"
        arrays = {"data": blosc2.open(str(image))[:], "seg": blosc2.open(str(segmentation))[:]}
        np.savez_compressed(data / f"{case}.npz", **arrays)
        image.unlink()
        segmentation.unlink()
    return cases


def test_older_cases_are_unpacked_before_the_first_batch(
    folders: NNUNetFolders, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["label-budget", "-d", "999", "--labelled", "2"]) == 0
    data = folders.preprocessed / "nnUNetPlans_2d"
    cases = as_older_nnunets_wrote(data)
    run, seen = PretrainingPhase.run, []

    def see(phase: PretrainingPhase) -> None:
        seen.append((phase.name, all(isinstance(open_case(data / case), np.memmap) for case in cases)))
        run(phase)

    monkeypatch.setattr(PretrainingPhase, "run", see)
    trainer = make_trainer(fold=5)
    trainer.initialize()
    trainer.pretrain()
    assert ("coarse", True) in seen
    assert all(unpacked for _, unpacked in seen)


def test_a_broken_archive_is_reported_although_it_is_unpacked(
    folders: NNUNetFolders, make_trainer: MakeTrainer
) -> None:
    data = folders.preprocessed / "nnUNetPlans_2d"
    case = as_older_nnunets_wrote(data)[0]
    for name, key in ((case, "data"), (f"{case}_seg", "seg")):
        np.save(data / f"{name}.npy", np.load(data / f"{case}.npz")[key])
    (data / f"{case}.npz").write_bytes(b"broken")
    trainer = make_trainer()
    trainer.initialize()
    with pytest.raises(InputError, match=rf"{case}\.npz cannot be read"):
        trainer.pretrain()
