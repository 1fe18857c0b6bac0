"""nnU-Net's trainer with lengths and switches as class attributes: a variant is two lines, without a constructor."""

from __future__ import annotations

from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.errors import access_error
from nnunet_semcl.files.datasets import check_dataset_json
from nnunet_semcl.files.plans import resolve_configuration
from nnunet_semcl.pretraining.wandb_run import wandb_group


class ClassAttributeTrainer(nnUNetTrainer):
    """A class attribute of a subclass, such as `num_epochs = 100`, overrides nnU-Net's own default.

    nnU-Net's constructor sets its defaults on the instance, where they would hide class attributes.

    Raises:
        InputError: the plans or dataset.json are invalid, or the results folder cannot be written.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        # nnU-Net's own errors name neither file nor key, so these checks come first.
        dataset = plans.get("dataset_name")
        resolve_configuration(plans, configuration, f"{dataset}/{plans.get('plans_name')}.json")
        check_dataset_json(dataset_json, f"{dataset}/dataset.json")
        model = f"{type(self).__name__}__{plans.get('plans_name')}__{configuration}"
        try:
            with wandb_group(f"{dataset} {model} fold_{fold}"):
                super().__init__(plans, configuration, fold, dataset_json, device)
        except OSError as error:
            raise access_error(error, Path(error.filename), "nnUNet_results") from error
        for name in vars(self):
            if hasattr(type(self), name):
                setattr(self, name, getattr(type(self), name))
