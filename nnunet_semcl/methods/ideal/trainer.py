"""IDEALTrainer: dense local contrast without labels, then training with two decoders that teach each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_semcl.data.copy_paste import pasted
from nnunet_semcl.data.image_only_cases import ImageOnlyCases
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.distributed import own_share
from nnunet_semcl.errors import InputError
from nnunet_semcl.losses.bidirectional_consistency import BidirectionalConsistencyLoss, ramp_up
from nnunet_semcl.losses.deep_supervision import levels_of
from nnunet_semcl.methods.ideal.located_views import LocatedViews
from nnunet_semcl.methods.ideal.location_batches import LocationBatches
from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.ideal.task import IDEALTask
from nnunet_semcl.networks.two_decoders import TwoDecoders
from nnunet_semcl.pretraining.loading import load_batches
from nnunet_semcl.pretraining.phase import MOST_OVERFLOWS, PretrainingPhase
from nnunet_semcl.pretraining.trainer import PretrainingTrainer


class IDEALTrainer(PretrainingTrainer):
    """Dense local contrast, then bidirectional consistency (Basak et al. 2023, arXiv 2210.15075; details inferred).

    The contrast needs no labels. If the fold has unlabelled cases, nnU-Net's training then uses batches of labelled
    and unlabelled patches and a second decoder, which is dropped at the end. Otherwise it is nnU-Net's own training.

    Attributes:
        use_consistency: whether nnU-Net's training uses unlabelled cases too.
    """

    Settings = IDEALSettings
    needs_labels = False
    use_consistency = True
    batch_size: int
    oversample_foreground_percent: float
    probabilistic_oversampling: bool
    loss: nn.Module | partial[torch.Tensor]
    two_decoders: TwoDecoders | None = None
    overflows = 0  # in a row
    two_decoders_forward: nn.Module
    unlabelled_batches: Iterator[dict[str, torch.Tensor]]

    def pretraining_phases(self) -> Iterator[PretrainingPhase]:
        if self.is_cascaded:
            self.print_to_log_file(
                "No pretraining: in a cascade the network's input also has the previous stage's masks"
            )
            return
        if not self.epochs["pretraining"]:
            return
        settings = self.pretraining_settings()
        names = ("level", "embedding_dim", "temperature", "radius", "momentum")
        task = IDEALTask(self.planned_network, **{name: settings[name] for name in names})
        batches = self._location_batches(self.training_images())
        held_out = self.held_out_images()
        held_out_batches = self._location_batches(held_out) if held_out else None
        yield self.build_phase("pretraining", task, batches, held_out_batches, self.epochs["pretraining"])

    def _location_batches(self, images: dict[str, Path]) -> LocationBatches:
        settings = self.pretraining_settings()
        rotation, dummy_2d, _, mirror_axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return LocationBatches(
            list(images.values()),
            LocatedViews(self.configuration_manager.patch_size, rotation, mirror_axes, dummy_2d),
            own_share(settings["patches_per_batch"], least=1),
            settings["locations"],
            self.configuration_manager.spacing,
            self.phase_seed("pretraining"),
        )

    def _set_batch_size_and_oversample(self) -> None:
        share = self.oversample_foreground_percent
        super()._set_batch_size_and_oversample()
        if self._is_semi_supervised:
            # The other half of a batch is unlabelled: a step uses the memory that the plan was made for.
            self.batch_size = max(1, self.batch_size // 2)
            # nnU-Net forces foreground in the last third of a batch: of one patch, that is none.
            self.probabilistic_oversampling, self.oversample_foreground_percent = True, share

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        optimizer, schedule = super().configure_optimizers()
        if self._is_semi_supervised:
            self.two_decoders = TwoDecoders(self.planned_network)
            optimizer.add_param_group({"params": list(self.two_decoders.second.parameters())})
        return optimizer, schedule

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.two_decoders is None:
            self.print_to_log_file("Training without unlabelled cases: nnU-Net's own")
            return
        cases = ImageOnlyCases(self.unlabelled_images(), self.label_manager, self.masks_background)
        self.print_to_log_file(
            f"Training with two decoders: {self.batch_size} labelled and {self.batch_size} unlabelled patches per batch"
        )
        batches = TrainingBatches(self, [cases], self.phase_seed("training"), copy_paste=False, plain_view=True)
        steps = count(self.current_epoch * self.num_iterations_per_epoch)
        workers = get_allowed_n_proc_DA() // 2
        self.unlabelled_batches = load_batches(batches, steps, workers, self.device, self.print_to_log_file)
        self.consistency_loss = BidirectionalConsistencyLoss(cast("nn.Module", self.loss))
        forward = torch.compile(self.two_decoders) if self._do_i_compile() else self.two_decoders
        self.two_decoders_forward = cast("nn.Module", forward)
        if self.is_ddp:
            devices = [self.device] if self.device.type == "cuda" else None
            self.two_decoders_forward = DistributedDataParallel(self.two_decoders_forward, devices)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.two_decoders is not None:
            settings = self.pretraining_settings()
            weight = settings["consistency"] * ramp_up(self.current_epoch / self.num_epochs, settings["ramp"])
            self.consistency_loss.weight = weight
            self.two_decoders.train()
            self.print_to_log_file(f"Consistency weight: {weight:.4f}")

    def train_step(self, batch: dict) -> dict:
        """Runs nnU-Net's own step, with its precision, clipping and optimiser, on both decoders."""
        if self.two_decoders is None:
            return super().train_step(batch)
        data = batch["data"].to(self.device, non_blocking=True)
        unlabelled = next(self.unlabelled_batches)
        image, plain = (unlabelled[view].to(self.device, non_blocking=True) for view in ("image", "plain"))
        pseudo_labels = self._pseudo_labels(plain)
        if self.pretraining_settings()["copy_paste"]:
            target = levels_of(batch["target"])[0].to(self.device, non_blocking=True)
            rng = np.random.default_rng(np.random.randint(2**31))  # from the global state, which checkpoints hold
            image, *pseudo_labels = pasted((data, target, target), (image, *pseudo_labels), rng)
        both = {**batch, "data": torch.cat((data, image))}
        network, loss = self.network, self.loss
        self.network, self.loss = self.two_decoders_forward, partial(self.consistency_loss, pseudo_labels=pseudo_labels)
        try:
            step = super().train_step(both)
        finally:
            self.network, self.loss = network, loss
        # In half precision a loss may overflow: the scaler then leaves out the step.
        self.overflows = 0 if np.isfinite(step["loss"]) else self.overflows + 1
        if self.overflows and (self.grad_scaler is None or self.overflows == MOST_OVERFLOWS):
            raise RuntimeError(
                f"Epoch {self.current_epoch}: the loss is {step['loss']}. The last checkpoint in {self.output_folder} "
                "is kept. Lower consistency, or check the images for NaN and infinite values."
            )
        return step

    def on_train_end(self) -> None:
        super().on_train_end()
        self.unlabelled_batches = iter(())  # stops the loader's workers

    def checkpoint_additions(self) -> dict[str, Any]:
        additions = super().checkpoint_additions()
        if self.two_decoders is not None:
            additions["second_decoder"] = self.two_decoders.second.state_dict()
        return additions

    def load_additions(self, additions: dict[str, Any], file: str) -> None:
        super().load_additions(additions, file)
        if ("second_decoder" in additions) != (self.two_decoders is not None):
            if self.two_decoders is None:
                problem, fix = "a second decoder, but the fold has no unlabelled cases now", "Bring them back"
            else:
                problem, fix = "no second decoder, but the fold has unlabelled cases now", "Remove them again"
            raise InputError(f"{file} has {problem}", f"{fix}, or train again from the start, without --c.")
        if self.two_decoders is not None:
            self.two_decoders.second.load_state_dict(additions["second_decoder"])

    @torch.no_grad()
    def _pseudo_labels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Returns both decoders' hard labels of images, without augmentation and without dropout."""
        assert self.two_decoders is not None
        self.two_decoders.eval()
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            outputs = self.two_decoders(image)
        self.two_decoders.train()
        return [self._hard_labels(levels_of(output)[0]) for output in outputs]

    def _hard_labels(self, output: torch.Tensor) -> torch.Tensor:
        """Converts an output (B, K, X, Y[, Z]) to a target for nnU-Net's loss.

        Returns:
            Labels (B, 1, X, Y[, Z]), or regions (B, K, X, Y[, Z]); with an ignore label, regions have one more channel,
            which ignores nothing.
        """
        labels = self.label_manager
        if not labels.has_regions:
            return output.argmax(1, keepdim=True)
        regions = output > 0
        return torch.cat((regions, torch.zeros_like(regions[:, :1])), 1) if labels.has_ignore_label else regions

    @property
    def _is_semi_supervised(self) -> bool:
        return self.use_consistency and bool(self.unlabelled_images())
