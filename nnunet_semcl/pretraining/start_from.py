"""The setting "start_from": before anything is trained, the network takes those weights of a checkpoint that fit it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from nnunet_semcl.errors import InputError, first_names
from nnunet_semcl.files.checkpoints import load_safely
from nnunet_semcl.files.splits import Fold

FIX = "Name a checkpoint of this package, of nnU-Net or of nnssl, or remove the setting."
ENCODER, DECODER, SEG_LAYERS = "encoder.", "decoder.", "decoder.seg_layers."
COPY = "decoder.encoder."  # nnU-Net's decoder names the encoder's weights too
# nnU-Net counts a decoder's levels from the coarsest one: in a deeper network the same level has another number.
LEVEL = re.compile(r"(decoder\.(?:stages|transpconvs|seg_layers)\.)(\d+)(?=\.)")

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Start:
    """A checkpoint's weights, adapted to a network.

    Attributes:
        file: the checkpoint.
        weights: name in the network -> value.
        report: lines for the log: how much was taken, what was adapted, and what was not taken.
        dataset: the data set that it is from, None if unknown.
        fold: of that data set, "all" or a number, None if unknown.
        used_labels: whether it has learned from labels.
    """

    file: Path
    weights: Weights
    report: list[str]
    dataset: str | None
    fold: int | str | None
    used_labels: bool

    def check_has_not_learned_from(self, held_out: set[str], dataset: str, splits: list[Fold]) -> None:
        """Checks that the weights have not learned from labels of cases that the training validates on.

        Args:
            held_out: these cases.
            dataset: their data set.
            splits: its folds.

        Raises:
            InputError: they have, so that the fold's Dice would be too good.
        """
        if self.dataset != dataset or not self.used_labels:
            return
        if self.fold == "all":
            learned = held_out
        elif isinstance(self.fold, int) and self.fold < len(splits):
            learned = held_out & set(splits[self.fold]["train"])
        else:
            return
        if learned:
            raise InputError(
                f'"start_from" {self.file} is from fold {self.fold} of this data set, and has learned from the labels '
                f"of {len(learned)} of the {len(held_out)} cases on which this fold validates",
                "Name a checkpoint of a fold with the same validation cases, or one that used no labels.",
            )

    @torch.no_grad()
    def apply(self, network: nn.Module, log: Callable[[str], None]) -> None:
        """Puts the weights into the network; what was not taken keeps nnU-Net's random values."""
        own = _weights_of(network)
        for name, value in self.weights.items():
            own[name].copy_(value)
        for line in self.report:
            log(line)

    def check_is_in(self, network: nn.Module) -> None:
        """Checks that the network still has these weights.

        Raises:
            InputError: -pretrained_weights has replaced them.
        """
        own = _weights_of(network)
        if any(not torch.equal(own[name].cpu(), value) for name, value in self.weights.items()):
            raise InputError(
                f'-pretrained_weights has replaced the weights of "start_from" {self.file}', "Leave one of them out."
            )


def read_start(file: Path, network: nn.Module, dataset_json: dict[str, Any]) -> Start:
    """Reads a checkpoint and adapts its weights to a network, which stays as it is.

    Args:
        file: a checkpoint of ours, of nnU-Net or of nnssl.
        network: nnU-Net's planned network.
        dataset_json: of the data set; the segmentation layers are taken if the checkpoint's has the same classes.

    Raises:
        InputError: the file cannot be read, or its weights do not fit the encoder.
    """
    where = f'"start_from" {file}'
    if not file.is_file():
        raise InputError(f"{where} is not a file", f"A relative path starts at {Path.cwd()}. {FIX}")
    content = load_safely(file, torch.device("cpu"), {"network_weights"}, FIX)
    weights = content["network_weights"]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InputError(f"{where}: its network_weights are not named tensors", FIX)
    own = _weights_of(network)
    prefix = _prefix(weights, own, _encoder_of(content, network))
    weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    source = _same_levels(own, weights)
    first = next((name for name, module in network.named_modules() if isinstance(module, _ConvNd)), None)
    same_classes = _classes(_dataset_json_of(content)) == _classes(dataset_json)
    taken: Weights = {}
    absent, misshapen, other_classes = [], [], []
    for name, present in own.items():
        value = weights.get(source[name])
        if value is None:
            absent.append(name)
        elif name.startswith(SEG_LAYERS) and not same_classes:
            other_classes.append(name)
        elif (fitting := _fitting(value, present, name == f"{first}.weight")) is None:
            misshapen.append(name)
        else:
            taken[name] = fitting
    _check_taken(where, taken, own, network)
    shares = (f"{_count(taken, part)} of {_count(own, part)} in the {part[:-1]}" for part in (ENCODER, DECODER))
    known = {_block(source[name]) for name in own}
    report = [
        f"Start from {file}, {_origin(content)}. Weights taken: {', '.join(shares)}",
        _listed("Adapted in channels or kernel", [n for n in taken if weights[source[n]].shape != own[n].shape]),
        _listed("Not in the file", absent),
        _listed("Of another shape", misshapen),
        _listed("Of other or unknown classes", other_classes),
        _listed("In the file alone", [n for n in weights if _block(n) not in known and not n.startswith(COPY)]),
    ]
    used_labels = content.get("used_labels", True)  # all but what we wrote without them
    fold = _init_args(content).get("fold")
    return Start(file, taken, [line for line in report if line], _dataset_of(content), fold, used_labels)


def _weights_of(network: nn.Module) -> Weights:
    """All weights by name; nnU-Net's networks hold most of them under several names, here each has one."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _prefix(weights: Weights, own: Weights, encoder: str | None) -> str:
    """What the file's names have before the network's: "module.", "_orig_mod.", or names of a network around it."""
    names = [name for name in own if name.startswith(ENCODER)]
    found = {key.removesuffix(name) for key in weights for name in names if key.endswith(name)}
    if encoder in found:
        return encoder or ""
    return max(sorted(found, key=len), key=lambda prefix: sum(prefix + name in weights for name in own), default="")


def _encoder_of(content: dict[str, Any], network: nn.Module) -> str | None:
    """The prefix that nnssl's adaptation plan names: some of its networks have two encoders, one a moving average."""
    plan = content.get("nnssl_adaptation_plan")
    theirs, ours = (plan or {}).get("key_to_encoder"), getattr(network, "key_to_encoder", None)
    return theirs.removesuffix(ours) if theirs and ours and theirs.endswith(ours) else None


def _same_levels(own: Weights, weights: Weights) -> dict[str, str]:
    """Name in the network -> name in the file, for which the decoder's levels are counted from the finest one."""
    deeper = _levels(weights) - _levels(own)
    return {name: LEVEL.sub(lambda match: f"{match[1]}{int(match[2]) + deeper}", name) for name in own}


def _levels(names: Iterable[str]) -> int:
    return max((int(match[2]) + 1 for name in names if (match := LEVEL.match(name))), default=0)


def _fitting(value: torch.Tensor, own: torch.Tensor, is_first: bool) -> torch.Tensor | None:
    """The value in the shape of the network's own, or None.

    Args:
        is_first: of the first convolution. For other input channels it becomes its sum over the channels, divided among
            the new ones: equal channels then give the same response as before.
    """
    if value.ndim != own.ndim:
        return None
    if is_first and value.shape[1] != own.shape[1]:
        value = value.sum(1, keepdim=True).expand(-1, own.shape[1], *value.shape[2:]) / own.shape[1]
    for axis in range(2, value.ndim):
        if own.shape[axis] == 1:
            value = value.mean(axis, keepdim=True)  # as nnU-Net's newest code does
    return value.to(own.dtype) if value.shape == own.shape else None


def _check_taken(where: str, taken: Weights, own: Weights, network: nn.Module) -> None:
    if not any(name.startswith(ENCODER) and value.ndim > 2 for name, value in taken.items()):
        shapes = [" x ".join(map(str, value.shape)) for name, value in own.items() if name.startswith(ENCODER)]
        raise InputError(
            f"{where}: no convolution of an encoder in it fits the planned {type(network).__name__}, whose first one "
            f"is {shapes[0] if shapes else 'missing'}",
            "Start from a network of the same kind, with as many axes and features, or choose plans like its own.",
        )
    if not all(value.isfinite().all() for value in taken.values()):
        raise InputError(f"{where}: some of its weights are NaN or infinite", FIX)


def _init_args(content: dict[str, Any]) -> dict[str, Any]:
    """What nnU-Net's trainer was built with, as far as the checkpoint says so."""
    init_args = content.get("init_args")
    return init_args if isinstance(init_args, dict) else {}


def _dataset_json_of(content: dict[str, Any]) -> dict[str, Any]:
    dataset_json = _init_args(content).get("dataset_json")
    return dataset_json if isinstance(dataset_json, dict) else {}


def _dataset_of(content: dict[str, Any]) -> str | None:
    plans = _init_args(content).get("plans")
    return plans.get("dataset_name") if isinstance(plans, dict) else None


def _classes(dataset_json: dict[str, Any]) -> tuple[list, Any] | None:
    """The classes in the order of the network's outputs; None if they are unknown."""
    labels = dataset_json.get("labels")
    return (list(labels.items()), dataset_json.get("regions_class_order")) if isinstance(labels, dict) else None


def _origin(content: dict[str, Any]) -> str:
    return f"by {content.get('trainer_name', 'an unknown trainer')} on {_dataset_of(content) or 'an unknown data set'}"


def _count(names: Iterable[str], part: str) -> int:
    return sum(name.startswith(part) for name in names)


def _block(name: str) -> str:
    return ".".join(name.split(".")[:3])


def _listed(title: str, names: Iterable[str]) -> str:
    blocks = Counter(map(_block, names))
    return f"{title}: {first_names([f'{block} ({count})' for block, count in blocks.items()])}" if blocks else ""
