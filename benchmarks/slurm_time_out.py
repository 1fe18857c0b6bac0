"""`nnunet-semcl crossval --launcher slurm` on a Slurm of this machine whose jobs run out of time.

    python benchmarks/slurm_time_out.py -o WORK_FOLDER

Two trainers, fold 0 of the phantom, on the CPU, in jobs of two minutes, of which Slurm gives warning after half a
minute. Prints the command's output, how many jobs each training took, and where it went on. It takes about five
minutes and wants Debian's munge and slurm-wlm, and root.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from kills import prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "launchers"))
from slurm_cluster import missing, slurm_cluster

TRAINERS = ("nnUNetTrainerMinute", "SemCLTrainerMinute")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, help="work folder")
    work = parser.parse_args().o.absolute()
    if reason := missing():
        raise SystemExit(reason)
    prepare(work)
    os.environ["nnUNet_extTrainer"] = str(Path(__file__).parent.absolute() / "slurm_trainers")
    command = f"crossval -d 999 -c 2d -p nnUNetTinyPlans -f 0 -device cpu -tr {' '.join(TRAINERS)} -np 1"
    command += f" --launcher slurm --time 2 --cpus 1 -o {work / 'report'}"
    with slurm_cluster(work / "slurm"):
        subprocess.run([sys.executable, "-m", "nnunet_semcl.cli", *command.split()], check=True)
    logs = next((work / "results").glob("*/crossval_nnUNetTinyPlans_2d"))
    for trainer in TRAINERS:
        _, *jobs = (logs / f"{trainer}_fold_0.txt").read_text().split("Using device")
        print(f"{trainer}: {len(jobs)} jobs, from and to {'; '.join(map(_span, jobs))}")


def _span(log: str) -> str:
    """The first and last epoch of a job."""
    epochs = re.findall(r"\w+ epoch \d+ of \d+|Epoch \d+$", log, re.MULTILINE)
    return f"{epochs[0]} - {epochs[-1]}" if epochs else "validation"


if __name__ == "__main__":
    main()
