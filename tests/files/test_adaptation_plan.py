"""checkpoint_pretrained.pth as nnU-Net's newest code reads it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import MakeTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_semcl.files.adaptation_plan import adaptation_entry


@pytest.mark.parametrize(
    ("plans", "network"),
    [("nnUNetTinyPlans", "PlainConvUNet"), ("nnUNetTinyResEncPlans", "ResidualEncoderUNet")],
)
def test_the_pretrained_checkpoint(make_trainer: MakeTrainer, plans: str, network: str) -> None:
    trainer = make_trainer("IDEALTrainerShort", "3d_fullres", plans=plans)
    trainer.num_epochs = 2
    trainer.initialize()
    trainer.pretrain()
    content = torch.load(Path(trainer.output_folder, "checkpoint_pretrained.pth"), weights_only=True)
    weights, plan = content["network_weights"], content["nnssl_adaptation_plan"]
    configuration = trainer.configuration_manager
    assert type(trainer.network).__name__ == network
    for key in ("key_to_encoder", "key_to_stem"):
        assert plan[key] == getattr(trainer.network, key)
        assert any(name.startswith(f"{plan[key]}.") for name in weights)
    assert isinstance(plan["keys_to_in_proj"], list)
    for key in plan["keys_to_in_proj"]:
        assert weights[f"{key}.weight"].shape[1] == plan["pretrain_num_input_channels"] == trainer.num_input_channels
    assert plan["key_to_lpe"] is None
    assert plan["recommended_downstream_patchsize"] == list(configuration.patch_size)
    first = next(iter(plan["pretrain_plan"]["configurations"].values()))
    assert (first["patch_size"], first["spacing"]) == (list(configuration.patch_size), list(configuration.spacing))
    (citation,) = content["citations"]
    assert citation["name"] == "IDEAL"
    assert "Basak" in citation["apa_citations"][0]

    # The network can be built from the plan alone, and takes the weights.
    built = plan["architecture_plans"]
    assert hasattr(import_module(built["arch_class_name"].rpartition(".")[0]), network)
    rebuilt = get_network_from_plans(
        built["arch_class_name"], built["arch_kwargs"], built["arch_kwargs_requiring_import"],
        plan["pretrain_num_input_channels"], trainer.label_manager.num_segmentation_heads, deep_supervision=True,
    )  # fmt: skip
    rebuilt.load_state_dict(weights)


def test_a_network_that_does_not_say_where_its_encoder_is(make_trainer: MakeTrainer) -> None:
    configuration = make_trainer().configuration_manager
    assert adaptation_entry(nn.Sequential(), configuration, "2d", 1) == {}
