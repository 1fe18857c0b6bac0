"""The phantom, preprocessed once with nnU-Net's own commands, and trainers for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

# Read when torch is loaded: on few cores, threads that wait actively slow down the other processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read when a command starts: glibc then keeps the memory of a step for the next one, a fifth faster on a CPU.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))
# Read when nnU-Net is loaded: otherwise each of its pools starts eight processes.
os.environ.setdefault("nnUNet_def_n_proc", "1")

import pytest
import torch
from command_server import run_command
from filelock import FileLock
from hypothesis import settings

from nnunet_semcl import plans
from nnunet_semcl.cli import main
from nnunet_semcl.commands.phantom import write_phantom

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

settings.register_profile("a busy machine is no fault", deadline=None)
settings.load_profile("a busy machine is no fault")

DATASET_ID = 999
TRAINERS = Path(__file__).parent / "trainers"
BIN = Path(sys.executable).parent

MakeTrainer = Callable[..., "nnUNetTrainer"]

# Files of minutes: started first, so that no process waits at the end for another one's.
LONG = (
    "test_kinds_of_data.py",
    "test_train_and_predict.py",
    "test_docs.py",
    "test_natural_images_workflow.py",
    "test_btcv_workflow.py",
    "test_unlabelled_training.py",
    "test_gpu_check.py",
    "test_distributed.py",
    "test_pretrain.py",
    "test_switches.py",
    "test_interruption.py",
    "test_slurm.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


class NNUNetFolders:
    """nnU-Net's three folders under one root, for the phantom."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dataset = f"Dataset{DATASET_ID}_Phantom"
        self.environment = {
            "nnUNet_raw": str(root / "raw"),
            "nnUNet_preprocessed": str(root / "preprocessed"),
            "nnUNet_results": str(root / "results"),
            "nnUNet_extTrainer": str(TRAINERS),
            "nnUNet_n_proc_DA": "0",
            "nnUNet_def_n_proc": "1",
        }
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir(exist_ok=True)

    @property
    def raw(self) -> Path:
        return self.root / "raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self.dataset

    def fold(self, trainer: str, configuration: str, plans: str = "nnUNetTinyPlans", fold: int | str = 0) -> Path:
        return self.root / "results" / self.dataset / f"{trainer}__{plans}__{configuration}" / f"fold_{fold}"

    def set_in_plans(self, configuration: str, **entries: object) -> None:
        """Changes a configuration of the tiny plans."""
        file = self.preprocessed / "nnUNetTinyPlans.json"
        plans = json.loads(file.read_text())
        plans["configurations"][configuration] |= entries
        file.write_text(json.dumps(plans))

    def start(self, command: str) -> subprocess.Popen:
        program, *arguments = command.split()
        return subprocess.Popen(
            [str(BIN / program), *arguments],
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> subprocess.CompletedProcess:
        output = self.root / "output.txt"
        code = run_command(command.split(), os.environ | self.environment, output)
        return subprocess.CompletedProcess(command, code, output.read_text())

    def call(self, command: str) -> None:
        """Runs a nnunet-semcl command in this process, which spares the seconds that torch takes to load."""
        with patch.dict(os.environ, self.environment):
            assert main(command.split()) == 0, command


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> NNUNetFolders:
    """The phantom, planned and preprocessed: 2d and 3d_fullres, PlainConvUNet and ResidualEncoderUNet. Read-only."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _prepare(tmp_path_factory.mktemp("nnunet"))
    root = tmp_path_factory.getbasetemp().parent / "nnunet"  # of all workers
    with FileLock(f"{root}.lock"):
        if not root.is_dir():
            unfinished = tmp_path_factory.getbasetemp().parent / "unfinished"
            unfinished.mkdir()
            _prepare(unfinished)
            unfinished.rename(root)
    return NNUNetFolders(root)


def _prepare(root: Path) -> NNUNetFolders:
    folders = NNUNetFolders(root)
    folders.environment["nnUNet_n_proc_DA"] = "1"  # with 0, nnU-Net's planner asks torch for zero threads
    write_phantom(folders.root / "raw", DATASET_ID, cases=5, test_cases=1, seed=0, shape=(24, 40, 48))
    residual = folders.root / "residual.json"
    tiny = json.loads(Path(plans.__file__).with_name("tiny.json").read_text())
    residual.write_text(json.dumps(tiny | {"plans_name": "nnUNetTinyResEncPlans"}))
    for command in (
        f"nnUNetv2_plan_and_preprocess -d {DATASET_ID} -c 2d 3d_fullres -npfp 1 -np 1 1",
        f"nnUNetv2_plan_experiment -d {DATASET_ID} -pl nnUNetPlannerResEncM",
    ):
        result = folders.run(command)
        assert result.returncode == 0, result.stdout
    folders.call(f"plan -d {DATASET_ID} --preset tiny")
    folders.call(f"plan -d {DATASET_ID} --preset {residual} -p nnUNetResEncUNetMPlans")
    return folders


@pytest.fixture
def folders(prepared: NNUNetFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NNUNetFolders:
    """A copy of `prepared` that a test may change; the environment points to it."""
    copy = NNUNetFolders(tmp_path)
    shutil.copytree(prepared.raw, copy.raw)
    shutil.copytree(prepared.preprocessed, copy.preprocessed)
    for name, value in copy.environment.items():
        monkeypatch.setenv(name, value)
    return copy


@pytest.fixture
def make_trainer(folders: NNUNetFolders) -> MakeTrainer:
    """Builds a trainer like nnUNetv2_train, but in this process."""
    from nnunetv2.run.run_training import get_trainer_from_args

    def make(
        trainer: str = "SemCLTrainerShort",
        configuration: str = "2d",
        fold: int | str = 0,
        plans: str = "nnUNetTinyPlans",
        resume: bool = False,
    ) -> nnUNetTrainer:
        return get_trainer_from_args(str(DATASET_ID), configuration, fold, trainer, plans, resume, torch.device("cpu"))

    return make


@pytest.fixture
def all_confident(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every voxel of every prediction counts as confident."""
    for name in ("CONFIDENT", "CONFIDENT_BACKGROUND"):
        monkeypatch.setattr(f"nnunet_semcl.data.lazy_segmentation.{name}", 0)


@pytest.fixture
def trained_fold(folders: NNUNetFolders, make_trainer: MakeTrainer) -> Callable[[str], Path]:
    """Writes what a training of fold 0 leaves behind: 1 labelled, 2 unlabelled, 2 held-out cases. Without training it.

    Returns the fold's folder; `checkpoint_final.pth` differs from `checkpoint_pretrained.pth` by noise.
    """

    def write(configuration: str = "2d") -> Path:
        names = sorted(file.stem for file in (folders.preprocessed / "nnUNetPlans_2d").glob("*.pkl"))
        splits = [{"train": names[:1], "val": names[1:3], "unlabelled": names[3:]}]
        (folders.preprocessed / "splits_final.json").write_text(json.dumps(splits))
        trainer = make_trainer(configuration=configuration)
        trainer.initialize()
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # sets the mirroring of predictions
        fold = Path(trainer.output_folder)
        for name in ("checkpoint_pretrained.pth", "checkpoint_final.pth"):
            with torch.no_grad():
                for weights in trainer.network.parameters():
                    weights += 0.02 * torch.randn_like(weights)
            if name == "checkpoint_final.pth":
                trainer.save_checkpoint(str(fold / name))
            else:
                trainer._save_pretrained(fold / name, {})
        return fold

    return write
