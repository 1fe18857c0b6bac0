"""Whether two commits train the same networks: a seeded SemCL and a seeded IDEAL run of each, compared bit for bit.

    python benchmarks/same_bits.py OLD_COMMIT NEW_COMMIT

Each commit is installed into a folder of its own and trains on the phantom with hidden labels: coarse training,
contrast, refinement and nnU-Net's training for SemCL, dense contrast and two decoders for IDEAL. A change that only
moves or renames code must leave every weight as it was. It takes about two minutes a commit on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from programs import program

REPOSITORY = Path(__file__).parent.parent
DATASET, FOLD = "999", "5"  # fold 0 with two labelled cases, as label-budget appends it
TRAINERS = """
import torch
from nnunet_semcl.trainers.IDEALTrainer import IDEALTrainer
from nnunet_semcl.trainers.SemCLTrainer import SemCLTrainer


class SemCLTrainerSameBits(SemCLTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch = 15, 40
        self.num_val_iterations_per_epoch = 1
        self.seed = 3


class IDEALTrainerSameBits(IDEALTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch = 3, 10
        self.num_val_iterations_per_epoch = 1
        self.seed = 3
"""
DRAW_PHANTOM = """
import importlib, os, pathlib
for place in ("nnunet_semcl.commands.phantom", "nnunet_semcl.datasets.phantom"):
    try:
        phantom = importlib.import_module(place)
        break
    except ModuleNotFoundError:
        pass
phantom.write_phantom(pathlib.Path(os.environ["nnUNet_raw"]), 999, cases=5, test_cases=0, shape=(24, 40, 48))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    commits = parser.parse_args().commits
    with tempfile.TemporaryDirectory() as folder:
        old, new = (weights_of(commit, Path(folder, str(number))) for number, commit in enumerate(commits))
    for name in sorted(old | new):
        print(f"{'same bits' if old.get(name) == new.get(name) else 'OTHER BITS'}  {name}  {new.get(name)}")
    sys.exit(old != new)


def weights_of(commit: str, work: Path) -> dict[str, str]:
    """Checkpoint and part -> SHA-256 of its weights, after both trainings at a commit."""
    source, package, trainers = (work / name for name in ("source", "package", "trainers"))
    trainers.mkdir(parents=True)
    (trainers / "same_bits.py").write_text(TRAINERS)
    run(["git", "-C", str(REPOSITORY), "worktree", "add", "--detach", str(source), commit])
    try:
        run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(package), str(source)])
    finally:
        run(["git", "-C", str(REPOSITORY), "worktree", "remove", "--force", str(source)])
    os.environ |= {
        "PYTHONPATH": str(package),
        "nnUNet_extTrainer": str(trainers),
        "nnUNet_n_proc_DA": "1",  # with 0 nnU-Net's planner asks torch for no thread at all
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve other processes
        **{name: str(work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
    }
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (work / name).mkdir()
    semcl = [sys.executable, "-m", "nnunet_semcl.cli"]
    run([sys.executable, "-c", DRAW_PHANTOM])
    run([program("nnUNetv2_plan_and_preprocess"), "-d", DATASET, "-c", "2d", "-npfp", "1", "-np", "1"])
    run([*semcl, "plan", "-d", DATASET, "--preset", "tiny"])
    run([*semcl, "label-budget", "-d", DATASET, "--labelled", "2"])
    os.environ["nnUNet_n_proc_DA"] = "0"  # in-process augmentation repeats bit for bit
    hashes = {}
    for trainer in ("SemCLTrainerSameBits", "IDEALTrainerSameBits"):
        train = [program("nnUNetv2_train"), DATASET, "2d", FOLD, "-tr", trainer, "-p", "nnUNetTinyPlans"]
        log = run([*train, "-device", "cpu"])
        found = [line.split(": ", 1)[1] for line in log.splitlines() if "too few voxels" in line]
        print(f"{commit}: {trainer}", *found, sep="\n  ", flush=True)
        for file in sorted((work / "nnUNet_results").glob(f"*/{trainer}__*/fold_*/checkpoint_[fp]*.pth")):
            hashes |= {f"{trainer} {file.name} {part}": value for part, value in hashes_in(file).items()}
    return hashes


def hashes_in(file: Path) -> dict[str, str]:
    import torch

    content = torch.load(file, map_location="cpu", weights_only=False)
    parts = {"network_weights": content["network_weights"], **content.get("nnunet_semcl", {})}
    parts.pop("random_states", None)
    hashes = {}
    for part, weights in parts.items():
        digest = hashlib.sha256()
        for key, value in sorted(weights.items()):
            digest.update(key.encode() + value.contiguous().numpy().tobytes())
        hashes[part] = digest.hexdigest()
    return hashes


def run(command: list[str]) -> str:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout[-3000:]}")
    return result.stdout


if __name__ == "__main__":
    main()
