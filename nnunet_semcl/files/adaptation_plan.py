"""The adaptation plan, which `nnUNetv2_train_pretrained` of nnU-Net's newest code reads beside pretrained weights."""

from __future__ import annotations

import json
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn


def adaptation_entry(
    network: nn.Module, configuration: ConfigurationManager, name: str, channels: int
) -> dict[str, dict[str, Any]]:
    """Returns the checkpoint's entry, of plain values, so that torch.load reads it with weights_only=True.

    Source: nnssl, nnssl/adaptation_planning/adaptation_plan.py; nnU-Net, experiment_planning/like_nnssl.py.

    Args:
        network: nnU-Net's planned network.
        configuration: that it was planned by.
        name: of the configuration.
        channels: of the network's input.

    Returns:
        "nnssl_adaptation_plan" with the plan; nothing if the network, unlike nnU-Net's planned U-Nets, does not say
        where its encoder is.
    """
    if not hasattr(network, "key_to_encoder"):
        return {}
    size, spacing = (list(values) for values in (configuration.patch_size, configuration.spacing))
    plan = {
        "architecture_plans": {
            "arch_class_name": configuration.network_arch_class_name,
            "arch_kwargs": configuration.network_arch_init_kwargs,
            "arch_kwargs_requiring_import": configuration.network_arch_init_kwargs_req_import,
        },
        "pretrain_plan": {"configurations": {name: {"patch_size": size, "spacing": spacing}}},
        "pretrain_num_input_channels": channels,
        "recommended_downstream_patchsize": size,
        "key_to_encoder": network.key_to_encoder,
        "key_to_stem": network.key_to_stem,
        "keys_to_in_proj": network.keys_to_in_proj,
        "key_to_lpe": None,  # positions that a transformer learns
    }
    return {"nnssl_adaptation_plan": json.loads(json.dumps(plan))}  # lists for tuples
