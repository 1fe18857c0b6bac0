"""Parts that pretraining adds to nnU-Net's networks, in pure torch: they import nothing else of this package."""

from nnunet_semcl.networks.attention_stem import AttentionConv, add_attention_stem, remove_attention_stem
from nnunet_semcl.networks.decoder_features import DecoderFeatures
from nnunet_semcl.networks.projection_head import ProjectionHead, attention_pool
from nnunet_semcl.networks.two_decoders import TwoDecoders
from nnunet_semcl.networks.voxel_head import VoxelHead

__all__ = [
    "AttentionConv",
    "DecoderFeatures",
    "ProjectionHead",
    "TwoDecoders",
    "VoxelHead",
    "add_attention_stem",
    "attention_pool",
    "remove_attention_stem",
]
