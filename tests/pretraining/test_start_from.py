"""What of a checkpoint a network starts with, and how a trainer uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import MakeTrainer, NNUNetFolders
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from refusal import refused
from torch import nn

from nnunet_semcl.errors import InputError
from nnunet_semcl.pretraining.phase import PretrainingPhase
from nnunet_semcl.pretraining.start_from import Start, read_start

LABELS = {"labels": {"background": 0, "liver": 1}}
FEATURES = (4, 8, 16, 16, 16)


def residual(channels: int = 1, stages: int = 4, kernels: object = 3, classes: int = 2) -> ResidualEncoderUNet:
    strides = [1, 2, 2, 2, 2][:stages]
    blocks, convolutions = [1, 2, 1, 1, 1][:stages], [1] * (stages - 1)
    return ResidualEncoderUNet(
        channels, stages, FEATURES[:stages], nn.Conv3d, kernels, strides, blocks, classes, convolutions,
        conv_bias=True, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip


def plain(conv: type[nn.Module] = nn.Conv3d, features: tuple[int, ...] = FEATURES[:3]) -> PlainConvUNet:
    return PlainConvUNet(1, 3, features, conv, 3, (1, 2, 2), 1, 2, 1)


def saved(file: Path, network: nn.Module, **more: object) -> Path:
    torch.save({"network_weights": network.state_dict(), **more}, file)
    return file


def started(network: nn.Module, file: Path, labels: dict = LABELS) -> Start:
    start = read_start(file, network, labels)
    start.apply(network, lambda line: None)
    return start


def same(a: nn.Module, b: nn.Module) -> bool:
    others = b.state_dict()
    return all(torch.equal(value, others[name]) for name, value in a.state_dict().items())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pth"


@pytest.mark.parametrize("build", [residual, plain])
def test_between_equal_networks_all_is_taken(file: Path, build: Callable[[], nn.Module]) -> None:
    source, network = build(), build()
    saved(file, source, init_args={"dataset_json": LABELS}, trainer_name="SemCLTrainer")
    start = started(network, file)
    assert same(source, network)
    encoder, decoder = (len(list(getattr(network, part).parameters())) for part in ("encoder", "decoder"))
    decoder -= encoder  # which it names too
    (line,) = start.report
    assert f"by SemCLTrainer on an unknown data set. Weights taken: {encoder} of {encoder} in the encoder" in line
    assert f"{decoder} of {decoder} in the decoder" in line


@pytest.mark.parametrize(
    ("theirs", "taken"),
    [
        ({"dataset_json": LABELS}, True),
        ({"dataset_json": {"labels": {"background": 0, "spleen": 1}}}, False),
        ({"dataset_json": {"labels": LABELS["labels"], "regions_class_order": [1]}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_segmentation_layers_of_the_same_classes_alone(file: Path, theirs: dict | None, taken: bool) -> None:
    source, network = plain(), plain()
    start = started(network, saved(file, source, init_args=theirs))
    assert same(source.encoder, network.encoder)
    assert torch.equal(source.decoder.seg_layers[1].weight, network.decoder.seg_layers[1].weight) == taken
    listed = "Of other or unknown classes: decoder.seg_layers.0 (2), decoder.seg_layers.1 (2)"
    assert (listed in start.report) != taken


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 4)])
def test_equal_channels_give_the_same_response(file: Path, before: int, after: int) -> None:
    source, network = residual(before), residual(after)
    start = started(network, saved(file, source))
    assert "Adapted in channels or kernel: encoder.stem.convs (1)" in start.report
    image = torch.randn(1, 1, 16, 16, 16)
    responses = [net.encoder.stem(image.expand(1, n, -1, -1, -1)) for net, n in ((source, before), (network, after))]
    torch.testing.assert_close(*responses, atol=1e-4, rtol=1e-4)


def test_kernels_of_length_1_are_means(file: Path) -> None:
    source, network = residual(), residual(kernels=[[1, 3, 3], *[[3, 3, 3]] * 3])
    start = started(network, saved(file, source))
    for part in ("encoder.stem.convs.0.conv", "decoder.stages.2.convs.0.conv"):
        wide, flat = (net.get_submodule(part).weight for net in (source, network))
        torch.testing.assert_close(flat[:, :, 0], wide.mean(2))
    assert "encoder.stages.0 (2)" in start.report[1]
    # The other way round the middle of a kernel would be a guess.
    wider = started(residual(), saved(file, network))
    assert any("Of another shape: encoder.stem.convs (1), encoder.stages.0 (2)" in line for line in wider.report)


def test_levels_of_networks_of_another_depth_meet_at_the_same_resolution(file: Path) -> None:
    deep, shallow = residual(stages=5), residual(stages=4)
    saved(file, deep)
    start = started(shallow, file)
    for stage in range(4):
        assert same(shallow.encoder.stages[stage], deep.encoder.stages[stage])
    for level in range(3):
        assert same(shallow.decoder.stages[level], deep.decoder.stages[level + 1])
    (alone,) = (line for line in start.report if line.startswith("In the file alone: "))
    assert alone.startswith("In the file alone: encoder.stages.4 (")
    deeper = residual(stages=5)
    start = started(deeper, saved(file, shallow))
    assert same(deeper.decoder.stages[3], shallow.decoder.stages[2])
    assert any(line.startswith("Not in the file: encoder.stages.4 (") for line in start.report)


class TwoEncoders(nn.Module):
    """As nnssl's contrastive networks."""

    def __init__(self) -> None:
        super().__init__()
        self.target_encoder, self.online_encoder = residual().encoder, residual().encoder
        self.head = nn.Linear(3, 3)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "backbone.net."])
def test_names_around_the_network_are_removed(file: Path, prefix: str) -> None:
    source, network = residual(), residual()
    torch.save({"network_weights": {prefix + name: value for name, value in source.state_dict().items()}}, file)
    started(network, file)
    assert same(source.encoder, network.encoder)
    assert same(source.decoder.stages, network.decoder.stages)


def test_of_two_encoders_the_one_that_nnssl_names(file: Path) -> None:
    source, network = TwoEncoders(), residual()
    plan = {"key_to_encoder": "online_encoder.stages", "key_to_stem": "online_encoder.stem"}
    start = started(network, saved(file, source, nnssl_adaptation_plan=plan))
    assert same(source.online_encoder, network.encoder)
    assert "0 of 24 in the decoder" in start.report[0]
    assert any("target_encoder.stages.0 (" in line for line in start.report)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda file: None, "is not a file. A relative path starts at /"),
    "a folder": (Path.mkdir, "is not a file"),
    "not a checkpoint": (lambda file: file.write_bytes(b"weights"), "is not a readable checkpoint"),
    "code": (lambda file: torch.save({"network_weights": plain()}, file), "Unsupported global"),
    "another kind": (lambda file: torch.save({"state_dict": {}}, file), "lacks the keys network_weights, it has"),
    "no names": (lambda file: torch.save({"network_weights": [1]}, file), "are not named tensors"),
    "empty": (lambda file: torch.save({"network_weights": {}}, file), "no convolution of an encoder in it fits"),
    "two axes": (lambda file: saved(file, plain(nn.Conv2d)), "whose first one is 4 x 1 x 3 x 3 x 3. Start from a net"),
    "other features": (lambda file: saved(file, plain(features=(5, 9, 17))), "no convolution of an encoder in it fits"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "words"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_used_is_reported(file: Path, write: Callable[[Path], object], words: str) -> None:
    write(file)
    with refused("checkpoint.pth", words):
        read_start(file, plain(), LABELS)


def test_cut_off_and_not_finite(file: Path) -> None:
    source = plain()
    saved(file, source)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"checkpoint\.pth is not a readable checkpoint .* or remove the setting"):
        read_start(file, plain(), LABELS)
    nn.init.constant_(source.encoder.stages[0][0].convs[0].conv.weight, torch.nan)
    with pytest.raises(InputError, match="some of its weights are NaN or infinite"):
        read_start(saved(file, source), plain(), LABELS)


# in a trainer


@pytest.fixture
def make_starting(folders: NNUNetFolders, make_trainer: MakeTrainer) -> MakeTrainer:
    """Builds a trainer of the residual 3D plans, whose file of the setting is the first argument."""

    def make(file: Path, trainer: str = "IDEALTrainerShort", **more: object) -> object:
        plans = folders.preprocessed / "nnUNetTinyResEncPlans.json"
        content = json.loads(plans.read_text())
        for section in ("semcl", "ideal"):
            content["configurations"]["3d_fullres"][section] = {"start_from": str(file)}
        plans.write_text(json.dumps(content))
        return make_trainer(trainer, "3d_fullres", plans="nnUNetTinyResEncPlans", **more)

    return make


@pytest.fixture
def from_nnssl(make_trainer: MakeTrainer, file: Path) -> Path:
    """A file as nnssl writes it, of the same encoder with one channel more and one class."""
    trainer = make_trainer("nnUNetTrainerShort", "3d_fullres", plans="nnUNetTinyResEncPlans")
    configuration = trainer.configuration_manager
    network = trainer.build_network_architecture(trainer.plans_manager, configuration, 2, 1, False)
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None, "arch_kwargs_requiring_import": None},
        "pretrain_plan": {"configurations": {"onemmiso": {"patch_size": [64, 64, 64], "spacing": [1, 1, 1]}}},
        "pretrain_num_input_channels": 2,
        "recommended_downstream_patchsize": [64, 64, 64],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "key_to_lpe": None,
    }
    return saved(file, network, nnssl_adaptation_plan=plan, trainer_name="BaseMAETrainer", citations=[])


def test_it_pretrains_from_nnssls_weights_and_continues_without_the_file(
    make_starting: MakeTrainer, from_nnssl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_starting(from_nnssl)
    trainer.initialize()
    weights = torch.load(from_nnssl, weights_only=True)["network_weights"]
    started_with = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    assert torch.equal(started_with["encoder.stages.1.blocks.0.conv1.conv.weight"],
                       weights["encoder.stages.1.blocks.0.conv1.conv.weight"])  # fmt: skip
    assert torch.equal(started_with["decoder.transpconvs.0.weight"], weights["decoder.transpconvs.0.weight"])
    log = next(Path(trainer.output_folder).glob("training_log*.txt")).read_text()
    assert f"Start from {from_nnssl}, by BaseMAETrainer on an unknown data set." in log
    assert "Adapted in channels or kernel: encoder.stem.convs (1)" in log

    # What was not taken is what the seed gives without the setting.
    other = make_starting(from_nnssl)
    other.method_settings.__dict__["start_from"] = None
    other.initialize()
    layer = "decoder.seg_layers.0.weight"
    assert torch.equal(started_with[layer], other.network.state_dict()[layer])

    class KilledError(Exception):
        pass

    def stop(*_: object) -> None:
        raise KilledError

    train = PretrainingPhase._train
    monkeypatch.setattr(PretrainingPhase, "_train", stop)
    with pytest.raises(KilledError):
        trainer.pretrain()
    monkeypatch.setattr(PretrainingPhase, "_train", train)
    from_nnssl.unlink()
    continued = make_starting(from_nnssl, resume=True)
    continued.initialize()
    continued.pretrain()
    assert Path(continued.output_folder, "checkpoint_pretrained.pth").is_file()
    make_starting(from_nnssl, resume=True).initialize()
    with pytest.raises(InputError, match=rf'"start_from" {from_nnssl} is not a file'):
        make_starting(from_nnssl).initialize()  # anew


def test_pretrained_weights_of_nnunet_beside_it(make_starting: MakeTrainer, from_nnssl: Path, tmp_path: Path) -> None:
    trainer = make_starting(from_nnssl)
    trainer.initialize()
    network = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, trainer.num_input_channels, 2, True
    )
    other = saved(tmp_path / "other.pth", network)
    load_pretrained_weights(trainer.network, str(other))
    with pytest.raises(InputError, match=r'-pretrained_weights has replaced .* "start_from" .*Leave one of them out'):
        trainer.pretrain()


@pytest.mark.parametrize(
    ("fold", "used_labels", "learned"),
    [("all", True, "1 of the 1"), (1, True, "1 of the 1"), (0, True, None), ("all", False, None), (99, True, None)],
)
def test_weights_that_know_the_labels_of_validation_cases(
    make_starting: MakeTrainer, file: Path, fold: int | str, used_labels: bool, learned: str | None
) -> None:
    source = make_starting(file)
    network = source.build_network_architecture(source.plans_manager, source.configuration_manager, 1, 9, True)
    init_args = {"plans": {"dataset_name": source.plans_manager.dataset_name}, "fold": fold}
    saved(file, network, init_args=init_args, used_labels=used_labels)
    with refused(f"is from fold {fold} of this data set", f"{learned} cases") if learned else nullcontext():
        make_starting(file).initialize()
    other = {**init_args, "plans": {"dataset_name": "Dataset111_Other"}}
    saved(file, network, init_args=other, used_labels=used_labels)
    make_starting(file).initialize()
