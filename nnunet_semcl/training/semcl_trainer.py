"""SemCLTrainer: objects under attention masks are pulled into clusters, then nnU-Net trains as always."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import nn

from nnunet_semcl.config import SemCLConfig
from nnunet_semcl.data.attention import LabelAttention
from nnunet_semcl.data.query_batches import QueryBatches
from nnunet_semcl.data.views import QueryViews
from nnunet_semcl.errors import InputError
from nnunet_semcl.pretraining.semcl_task import SemCLTask
from nnunet_semcl.training.pretraining_trainer import PretrainingTrainer


class SemCLTrainer(PretrainingTrainer):
    """Semantic-aware contrastive pretraining (Lee et al. 2023, arXiv 2106.01596) with the labels as attention.

    Attributes:
        use_attention: whether the encoder sees an object's mask beside the image.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.use_attention = True

    def pretrain(self) -> None:
        if self.is_cascaded:
            self.print_to_log_file(
                f"{type(self).__name__} does not pretrain {self.configuration_name} yet: the previous "
                "stage's channels are not in its queries. Training goes on as nnU-Net's."
            )
            return
        super().pretrain()

    def pretraining_settings(self) -> dict[str, Any]:
        config = SemCLConfig.from_plan(self.configuration_manager, self.configuration_name)
        return {**config.as_dict(), "use_attention": self.use_attention}

    def build_pretraining_task(self, network: nn.Module) -> SemCLTask:
        encoder = getattr(network, "encoder", None)
        if encoder is None or not hasattr(encoder, "output_channels"):
            raise InputError(
                "plans",
                f"the network {type(network).__name__}",
                "one with an encoder, as nnU-Net's U-Nets",
                "Train with -tr nnUNetTrainer.",
            )
        settings = self.pretraining_settings()
        return SemCLTask(encoder, settings["embedding_dim"], settings["temperature"], self.use_attention)

    def build_pretraining_batches(self, cases: nnUNetBaseDataset, seed: int) -> QueryBatches:
        settings = self.pretraining_settings()
        labels = self.label_manager
        objects = labels.foreground_regions if labels.has_regions else labels.foreground_labels
        rotation, dummy_2d, _, mirror_axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        views = QueryViews(settings["query_size"], rotation, mirror_axes, dummy_2d)
        attention = LabelAttention(cases, list(objects))
        return QueryBatches(attention, views, settings["queries_per_batch"], seed)
