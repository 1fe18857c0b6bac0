"""Imported by the tests' trainers: nnU-Net's pools that write and measure predictions fork.

A spawned process imports torch and nnU-Net anew: ten of the twenty seconds of a short training.
"""

import multiprocessing
from types import SimpleNamespace

from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as training

fork = SimpleNamespace(get_context=lambda method: multiprocessing.get_context("fork"))
evaluate_predictions.multiprocessing = training.multiprocessing = fork
