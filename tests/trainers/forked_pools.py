"""Imported by the tests' trainers: nnU-Net's pools that write and measure predictions fork, and ours is a thread.

A spawned process imports torch and nnU-Net anew: ten of the twenty seconds of a short training.
"""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as training

from nnunet_semcl.methods.semcl import coarse_model

fork = SimpleNamespace(get_context=lambda method: multiprocessing.get_context("fork"))
evaluate_predictions.multiprocessing = training.multiprocessing = fork


class InAThread(ThreadPoolExecutor):
    """Takes what ProcessPool takes."""

    def __init__(self, processes: int) -> None:
        super().__init__(1)


coarse_model.ProcessPool = InAThread  # type: ignore[misc]
