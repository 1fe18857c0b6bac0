"""Trainings as jobs of Slurm, through submitit; a job whose time is over goes on in its next one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import read_json, write_json
from nnunet_semcl.launchers.training import ENDED, QUEUED, RUNNING, Training

JOBS = "slurm_jobs.json"
ANY_NUMBER = 1000  # of jobs that a training may take
ASK_EVERY = 10.0  # seconds: squeue burdens the cluster's controller
STATES = {"RUNNING": RUNNING, "COMPLETING": RUNNING}  # of squeue; any other is of a job that waits


@dataclass(frozen=True)
class JobOptions:
    """What a job asks for.

    Attributes:
        gpus: 0 or 1.
        partition: None takes Slurm's default.
        minutes: after which a job is ended and queued again.
        cpus: nnU-Net starts twelve workers where there are as many.
    """

    gpus: int
    partition: str | None = None
    minutes: int = 24 * 60
    cpus: int = 12


class SlurmLauncher:
    """Submits each training as a job. Its record of them lets the same command find them again.

    Args:
        folder: of the record and submitit's files, on a disk that all nodes see.
        dataset: its full name, which the record has to be of.
        options: what each job asks for.

    Raises:
        InputError: there is no Slurm or no submitit, or the record is of another data set.
    """

    def __init__(self, folder: Path, dataset: str, options: JobOptions) -> None:
        self.folder, self.dataset, self.options = folder, dataset, options
        self.jobs: dict[str, str] = {}  # trainer and fold -> job
        self.trainings: list[Training] = []
        self.asked = float("-inf")
        if shutil.which("sbatch") is None:
            raise InputError(
                "--launcher slurm: sbatch is not on PATH", "Run this on a node that submits jobs, or leave it out."
            )
        try:
            import submitit
        except ImportError as error:
            raise InputError("--launcher slurm: submitit is not installed", "pip install submitit") from error
        self.submitit = submitit
        record = folder / JOBS
        if record.is_file():
            content = read_json(record)
            if not isinstance(content, dict) or content.get("dataset") != dataset:
                raise InputError(
                    f"{record}: it is not a record of jobs of {dataset}", "Move it away; its jobs are not watched then."
                )
            self.jobs = content["jobs"]

    def launch(self, trainings: Sequence[Training]) -> None:
        """See Launcher.

        Raises:
            InputError: Slurm does not answer, or refuses a job.
        """
        states = self._states()
        if states is None:
            raise InputError("--launcher slurm: squeue fails, so it is not known which jobs run", "Try again later.")
        executor = self._executor()
        for training in trainings:
            if self.jobs.get(_key(training)) not in states:
                try:
                    job = executor.submit(Job(training.command, training.log))
                except self.submitit.core.utils.FailedJobError as error:
                    reason = " ".join(str(error).split())
                    fix = "Correct --partition, --time or --cpus, and run the same command again."
                    raise InputError(f"Slurm refuses the job of {_key(training)} ({reason})", fix) from error
                self.jobs[_key(training)] = job.job_id
                write_json({"dataset": self.dataset, "jobs": self.jobs}, self.folder / JOBS)
            training.state = QUEUED
            self.trainings.append(training)

    def look(self) -> None:
        if time.monotonic() - self.asked < ASK_EVERY:
            return
        self.asked = time.monotonic()
        states = self._states()
        if states is None:
            return
        for training in self.trainings:
            job = self.jobs[_key(training)]
            training.state = STATES.get(states[job], QUEUED) if job in states else ENDED
            training.reason = f"job {job}"

    def leave(self) -> str:
        left = [self.jobs[_key(training)] for training in self.trainings if training.state != ENDED]
        if not left:
            return "No job runs."
        return f"The jobs go on; the same command watches them again. To end them: scancel {' '.join(left)}"

    def _states(self) -> dict[str, str] | None:
        """Job -> state of all jobs in the queue; None if Slurm does not answer, which it does not always."""
        command = ["squeue", "--me", "--noheader", "--format", "%A %T"]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            return None
        return dict(line.split() for line in answer.stdout.splitlines())

    def _executor(self) -> Any:
        options = self.options
        executor = self.submitit.SlurmExecutor(self.folder / "slurm", max_num_timeout=ANY_NUMBER)
        asked: dict[str, Any] = {"partition": options.partition} if options.partition else {}
        asked |= {"gpus_per_node": options.gpus} if options.gpus else {}
        executor.update_parameters(
            job_name=self.dataset, time=options.minutes, cpus_per_task=options.cpus, nodes=1, ntasks_per_node=1, **asked
        )
        return executor


class Job:
    """What runs on a node.

    Args:
        command: of the training.
        log: what it prints is appended to this file.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command, self.log = command, log
        self.process: subprocess.Popen | None = None

    def __call__(self) -> None:
        """Runs the training to its end.

        Raises:
            RuntimeError: it died.
        """
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=subprocess.STDOUT, preexec_fn=_ignore_warning_of_time_out
            )
            exit_code = self.process.wait()
        if exit_code:
            raise RuntimeError(f"exit code {exit_code}: see {self.log}")

    def checkpoint(self) -> Any:
        """Called by submitit shortly before the job's time is over: ends the training, and queues it again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()
            # Not its wait(): this runs in a signal handler, in the middle of the other wait(), which holds a lock.
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Job(self.command, self.log))


def _ignore_warning_of_time_out() -> None:
    """It reaches all processes of a job, but is meant for submitit's, which then calls `checkpoint`."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _key(training: Training) -> str:
    return f"{training.trainer} {training.fold}"
