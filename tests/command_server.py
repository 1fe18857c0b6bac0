"""nnU-Net's commands in forks of a process that has loaded them: to load torch takes longer than a short training."""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["nnunetv2.run.run_training", "nnunet_semcl.cli", "nnunet_semcl.methods.semcl.trainer"])


def run_command(command: list[str], environment: dict[str, str], output: Path) -> int:
    """Runs a console command of this Python environment; its output goes to a file. Returns the exit code."""
    process = SERVER.Process(target=_run, args=(command, environment, output))
    process.start()
    process.join(600)
    assert process.exitcode is not None, f"{command} hangs:\n{output.read_text()}"
    return process.exitcode


def _run(command: list[str], environment: dict[str, str], output: Path) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    (entry_point,) = entry_points(group="console_scripts", name=command[0])
    sys.exit(entry_point.load()())
