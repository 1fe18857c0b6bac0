"""Imported by the tests' trainers: pools that write and measure predictions fork, nnU-Net's and ours.

A spawned process imports torch and nnU-Net anew: ten of the twenty seconds of a short training.
"""

import multiprocessing
from types import SimpleNamespace

from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as training

from nnunet_semcl.methods.semcl import coarse_model

fork = SimpleNamespace(get_context=lambda method: multiprocessing.get_context("fork"))
for module in (evaluate_predictions, training, coarse_model):
    module.multiprocessing = fork  # type: ignore[attr-defined]
