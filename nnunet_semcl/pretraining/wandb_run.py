"""Phases in Weights & Biases, where nnU-Net logs there: a run for each, in the group of nnU-Net's own run.

nnU-Net's run counts the epochs of its training as steps, which only rise, so a phase cannot come before them there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nnunetv2.training.logging import nnunet_logger

from nnunet_semcl.distributed import rank
from nnunet_semcl.pretraining.history import Record
from nnunet_semcl.pretraining.phase import PretrainingPhase

GROUP = "WANDB_RUN_GROUP"  # read by W&B itself
FOLDER = "wandb_pretraining"  # nnU-Net takes what is in the folder wandb for its own run


@contextmanager
def wandb_group(name: str) -> Iterator[None]:
    """Gives runs that start in the block a group, unless the user has named one."""
    named = os.environ.get(GROUP)
    os.environ[GROUP] = named or name
    try:
        yield
    finally:
        if named is None:
            del os.environ[GROUP]


@contextmanager
def wandb_run(logger: nnunet_logger.MetaLogger, phase: PretrainingPhase) -> Iterator[Callable[[Record], None] | None]:
    """Starts the phase's run, or continues it. Yields what logs an epoch; None if nnU-Net does not log to W&B.

    Args:
        logger: nnU-Net's.
        phase: its settings are the run's, and its epochs the run's steps.
    """
    beside = next((one for one in logger.loggers if isinstance(one, nnunet_logger.WandbLogger)), None)
    if beside is None or rank() > 0:
        yield None
        return
    folder = phase.folder / FOLDER
    folder.mkdir(exist_ok=True)
    run = nnunet_logger.wandb.init(
        project=beside.project,
        mode=beside.mode,
        dir=str(folder),
        group=beside.run.group,
        job_type=phase.name,
        id=f"{beside.run.id}-{phase.name}",  # with --c nnU-Net finds its own run again, and so this one
        resume="allow",
        reinit="create_new",  # nnU-Net's run stays open
        config=phase.settings,
    )
    try:
        yield lambda record: run.log({k: v for k, v in record.items() if k != "epoch"}, step=int(record["epoch"]))
    finally:
        run.finish()
