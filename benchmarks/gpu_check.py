"""One script that shows this package on a GPU: does it work, how fast is it, does it help.

    nnUNet_raw=... python benchmarks/gpu_check.py -d 27 --labelled 3 --group 'patient\\d+' -o WORK_FOLDER \\
        --results gpu.json

Sections, each with a time limit of its own, in this order:

    tests   the tests that need CUDA, of two processes on one GPU too
    steps   seconds a step, peak memory and what the GPU waits, of nnU-Net's training and of each phase of SemCLTrainer
            and IDEALTrainer, by nnU-Net's own plans, with torch.compile and without
    losses  SupConLoss and DenseContrastiveLoss against the plain formula and pytorch-metric-learning's
    dice    label_efficiency.py with several trainers side by side on the one GPU

Results go into a JSON file, logs beside it; tables come last. What fails or takes too long is told and the rest goes
on. --quick runs all of it on a CPU with a phantom, to test the script itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from gpu_tables import tables
from programs import program

HERE = Path(__file__).parent.absolute()
SECTIONS = ("tests", "steps", "losses", "dice")
Figures = dict[str, Any]


def main() -> None:
    args = _arguments()
    args.o = args.o.absolute()
    args.o.mkdir(parents=True, exist_ok=True)
    _set_environment(args)
    if "dice" in args.sections:
        # A library that is missing for the last section is told before the first.
        subprocess.run([sys.executable, HERE / "label_efficiency.py", "--help"], check=True, stdout=subprocess.DEVNULL)
    check = Check(args)
    with check.preparing():
        if "tests" in args.sections:
            check.run("tests", check.tests)
    for section in args.sections:
        if section != "tests":
            check.run(section, getattr(check, section))
    print(tables(check.found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", default="999", help="data set id in nnUNet_raw")
    parser.add_argument("-o", type=Path, required=True, help="work folder for preprocessed data and models")
    parser.add_argument("-device", default="cuda")
    parser.add_argument("-c", nargs="+", default=["2d", "3d_fullres"], help="configurations whose steps are timed")
    parser.add_argument("--results", type=Path, required=True, help="JSON file; logs go beside it")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--limits", nargs="+", type=int, help="seconds, one number for each section")
    parser.add_argument("-k", default="cuda", help="which tests, as pytest's -k")
    parser.add_argument("--labelled", default="3", help="labelled cases, or groups")
    parser.add_argument("--group", help="as in nnunet-semcl label-budget")
    parser.add_argument("--timed-steps", type=int, default=36, help="a third of them warms up")
    parser.add_argument("--compile", nargs="+", choices=("true", "false"), default=["false", "true"])
    parser.add_argument("--trainers", nargs="+", default=["ColdTrainer", "SelfTraining", "OnlineSelfTraining", "SemCL"])
    parser.add_argument("--seeds", nargs="+", default=["0"])
    parser.add_argument("--steps", default="1000", help="of each trainer in dice")
    parser.add_argument("--plans", default="nnUNetPlans", help="of dice")
    parser.add_argument("--quick", action="store_true", help="two minutes on a CPU, with a phantom")
    args = parser.parse_args()
    if args.quick:
        args.d, args.device, args.c, args.timed_steps, args.compile = "999", "cpu", ["2d"], 15, ["false"]
        args.k = "half_precision and cpu"
        args.labelled, args.trainers, args.steps, args.plans = "1", ["ColdTrainer"], "50", "nnUNetTinyPlans"
    if args.limits is None:
        args.limits = [300] * len(args.sections)
    if len(args.limits) != len(args.sections):
        parser.error(f"--limits needs {len(args.sections)} numbers, one for each section")
    return args


def _set_environment(args: argparse.Namespace) -> None:
    os.environ["nnUNet_preprocessed"] = str(args.o / "preprocessed")
    os.environ["nnUNet_results"] = str(args.o / "results")
    os.environ["PYTHONUNBUFFERED"] = "1"
    if args.quick:
        from nnunet_semcl.commands.phantom import write_phantom

        os.environ |= {"nnUNet_raw": str(args.o / "raw"), "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2"}
        os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        if not (args.o / "raw").is_dir():
            write_phantom(args.o / "raw", 999, cases=5, test_cases=1, seed=0, shape=(24, 40, 48))
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        Path(os.environ[folder]).mkdir(exist_ok=True)


class Check:
    """The sections of the check, and what they found."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.cuda = args.device == "cuda"
        self.limit = dict(zip(args.sections, args.limits, strict=True))
        self.end = 0.0  # of the present section
        self.logs = args.results.absolute().parent
        self.logs.mkdir(parents=True, exist_ok=True)
        self.found: Figures = {
            "device": torch.cuda.get_device_name() if self.cuda else "CPU",
            "cores": len(os.sched_getaffinity(0)),
            "torch": torch.__version__,
            "data": args.d,
            "seconds": {},
        }

    def run(self, section: str, work: Callable[[], Any]) -> None:
        """Runs a section and writes what is known so far; a section that fails keeps its error."""
        started = time.time()
        self.end = started + self.limit[section]
        print(f"\n--- {section}: at most {self.limit[section]} s", flush=True)
        try:
            self.found[section] = work()
        except Exception as error:  # the other sections are wanted all the same
            self.found[section] = {"failed": f"{type(error).__name__}: {error}"}
            print(self.found[section]["failed"], flush=True)
        self.found["seconds"][section] = round(time.time() - started)
        self.args.results.write_text(json.dumps(self.found, indent=1) + "\n")

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Plans and preprocesses beside what runs in this context; waits at its end."""
        started = time.time()
        processes = str(min(16, self.found["cores"]))
        dataset = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{int(self.args.d):03d}_*"), None)
        done = dataset and all((dataset / f"nnUNetPlans_{configuration}").is_dir() for configuration in self.args.c)
        wanted = {"steps", "dice"} & set(self.args.sections)
        command = [program("nnUNetv2_plan_and_preprocess"), "-d", self.args.d, "-c", *self.args.c]
        command += ["-npfp", processes, "-np", *[processes] * len(self.args.c), "--no_pbar"]
        with open(self.logs / "prepare.log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log) if wanted and not done else None
            yield
            if process is not None and process.wait():
                raise SystemExit(f"{' '.join(command)} failed, see {log.name}")
        if not wanted:
            return
        self._call("label-budget", ["nnunet-semcl", "label-budget", "-d", self.args.d, *self._budget()], 60)
        if self.args.plans == "nnUNetTinyPlans":
            self._call("plan", ["nnunet-semcl", "plan", "-d", self.args.d, "--preset", "tiny"], 60)
        self.found["seconds"]["prepare"] = round(time.time() - started)

    def _budget(self) -> list[str]:
        group = ["--group", self.args.group] if self.args.group else []
        return ["--labelled", self.args.labelled, "--seed", "0", *group]

    def tests(self) -> Figures:
        """Tests by outcome, and the names of those that failed."""
        # From a copy without the package's sources: what is tested is the package that is installed.
        copy = self.args.o / "copy"
        shutil.copytree(HERE.parent / "tests", copy / "tests", dirs_exist_ok=True)
        shutil.copy(HERE.parent / "pyproject.toml", copy)
        path = os.pathsep.join([str(copy), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        files = ["tests/test_gpu.py", "tests/losses/test_supcon.py", "tests/test_distributed.py"]
        command = ["pytest", "-v", "-k", self.args.k, "-n", "4" if self.cuda else "0", *files]
        _, output = self._call("tests", command, self.end - time.time(), {"PYTHONPATH": path}, cwd=copy)
        outcomes = re.findall(r"(PASSED|FAILED|ERROR|SKIPPED)(?: \[ *\d+%\])? (tests\S+)", output)
        outcomes += [(o, t) for t, o in re.findall(r"^(tests\S+) (PASSED|FAILED|ERROR|SKIPPED)", output, re.MULTILINE)]
        count = {kind.lower(): len({test for outcome, test in outcomes if outcome == kind}) for kind, _ in outcomes}
        return {**count, "not passed": sorted({test for outcome, test in outcomes if outcome in ("FAILED", "ERROR")})}

    def steps(self) -> list[Figures]:
        """A row for each configuration, compiled or not, and phase."""
        fold = _fold(self.args, int(self.args.labelled))
        rows = []
        for compiled in self.args.compile:
            for configuration in self.args.c:
                for trainer in ("TimedSemCL", "TimedIDEAL"):
                    name = f"{trainer}_{configuration}_{'compiled' if compiled == 'true' else 'eager'}"
                    environment = {
                        "nnUNet_extTrainer": str(HERE / "timed_trainers"),
                        "nnUNet_compile": compiled,
                        "nnUNet_results": str(self.args.o / name),
                        "GPU_CHECK": json.dumps({"steps": self.args.timed_steps, "unlabelled": 4}),
                    }
                    plans = "nnUNetTinyPlans" if self.args.quick else "nnUNetPlans"
                    command = ["nnUNetv2_train", self.args.d, configuration, str(fold), "-tr", trainer, "-p", plans]
                    command += ["-device", self.args.device]
                    started = time.time()
                    if started > self.end:
                        rows.append({"run": name, "failed": "no time was left"})
                        continue
                    code, _ = self._call(name, command, self.end - started, environment)
                    print(f"{name}: {time.time() - started:.0f} s, exit code {code}", flush=True)
                    rows += self._phases(name, configuration, compiled == "true", code)
        return rows

    def _phases(self, name: str, configuration: str, compiled: bool, code: int) -> list[Figures]:
        what = {"run": name, "configuration": configuration, "compiled": compiled}
        file = next((self.args.o / name).rglob("phases.json"), None)
        if file is None:
            return [{**what, "failed": f"exit code {code}, see {name}.log"}]
        phases = json.loads(file.read_text())
        for profile in file.parent.glob("profile_*.txt"):
            shutil.copy(profile, self.logs / f"{name}_{profile.name}")
        patch = phases.pop("patch_size")
        return [{**what, "patch_size": patch, "phase": phase, **figures} for phase, figures in phases.items()]

    def losses(self) -> list[Figures]:
        """A row for each loss and number of embeddings: milliseconds of forward and backward, and peak memory."""
        numbers = ["256", "1024"] if self.args.quick else ["256", "512", "1024", "4096", "12288", "65536"]
        # In a process of its own: what it takes of the GPU's memory, it gives back.
        command = [sys.executable, str(HERE / "loss_speed.py"), "--json", "-device", self.args.device, "-n", *numbers]
        _, output = self._call("losses", command, self.end - time.time())
        return [json.loads(line) for line in output.splitlines() if line.startswith("{")]

    def dice(self) -> list[Figures]:
        """Rows of label_efficiency.py."""
        rows = self.logs / "label_efficiency.jsonl"
        group = ["--group", self.args.group] if self.args.group else []
        command = [sys.executable, str(HERE / "label_efficiency.py"), "-d", self.args.d, "-c", "2d"]
        command += ["-p", self.args.plans, "-device", self.args.device, "-o", str(self.args.o / "dice"), *group]
        command += ["--labelled", self.args.labelled, "--steps", self.args.steps, "--seeds", *self.args.seeds]
        command += ["--trainers", *self.args.trainers, "--in-memory", "--results", str(rows)]
        command += ["--jobs", "1" if self.args.quick else str(len(self.args.trainers) * len(self.args.seeds))]
        (self.args.o / "dice").mkdir(exist_ok=True)
        shared = self.args.o / "dice" / "nnUNet_preprocessed"
        if not shared.exists():
            shared.symlink_to(self.args.o / "preprocessed")
        processes = max(1, self.found["cores"] // len(self.args.trainers) // len(self.args.seeds) - 1)
        environment = {"nnUNet_n_proc_DA": str(processes), "nnUNet_compile": "false"}  # less than compiling takes
        code, output = self._call("dice", command, self.end - time.time(), environment)
        for log in (self.args.o / "dice" / "runs").glob("*/log.txt"):
            shutil.copy(log, self.logs / f"dice_{log.parent.name}.log")
        if code and not rows.is_file():
            raise RuntimeError(f"exit code {code}: {output[-500:]}")
        return [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else []

    def _call(
        self,
        name: str,
        command: list[str],
        limit: float,
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> tuple[int, str]:
        """Runs a command, and kills it with its workers after `limit` seconds. Returns exit code and output."""
        file = self.logs / f"{name}.log"
        with open(file, "w") as log:
            process = subprocess.Popen(
                [program(command[0]), *command[1:]],
                env=os.environ | (environment or {}),
                cwd=cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(max(1, limit))
            except subprocess.TimeoutExpired:
                log.write(f"\nStopped after {limit:.0f} s\n")
                code = -signal.SIGKILL
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that are left
            process.wait()
        return code, file.read_text(errors="replace")


def _fold(args: argparse.Namespace, labelled: int) -> int:
    """The fold of seed 0 that label-budget made of fold 0."""
    dataset = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{int(args.d):03d}_*"))
    wanted = {"fold": 0, "labelled": labelled, "seed": 0, "group": args.group}
    splits = json.loads((dataset / "splits_final.json").read_text())
    return next(number for number, fold in enumerate(splits) if fold.get("label_budget") == wanted)


if __name__ == "__main__":
    main()
