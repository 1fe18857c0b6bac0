"""Plans made smaller by a preset: patch sizes, networks that nnU-Net builds from them, and rejected input."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.commands.plan import load_preset, smaller_patch, write_preset_plans
from nnunet_semcl.errors import InputError

TINY = load_preset("tiny").as_file()
NAME = "Dataset004_Hippocampus"


def planned(patch: list[int], batch_size: int, residual: bool = False, spacing: list[float] | None = None) -> dict:
    """A configuration as nnU-Net plans it, with the topology that nnU-Net computes for the patch."""
    dims = len(patch)
    _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing or [1.0] * dims, patch, 4, 999999)
    n_stages = len(strides)
    convs = (
        {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6, 6][:n_stages]}
        if residual
        else {"n_conv_per_stage": [2] * n_stages}
    )
    architectures = "dynamic_network_architectures.architectures"
    return {
        "data_identifier": f"nnUNetPlans_{'2d' if dims == 2 else '3d_fullres'}",
        "batch_size": batch_size,
        "patch_size": [int(size) for size in patch],
        "spacing": [1.0] * dims,
        "batch_dice": dims == 2,
        "architecture": {
            "network_class_name": (
                f"{architectures}.unet.ResidualEncoderUNet" if residual else f"{architectures}.unet.PlainConvUNet"
            ),
            "arch_kwargs": {
                "n_stages": n_stages,
                "features_per_stage": [min(32 * 2**stage, 512) for stage in range(n_stages)],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": [list(kernel) for kernel in kernels],
                "strides": [list(stride) for stride in strides],
                **convs,
                "n_conv_per_stage_decoder": [1 if residual else 2] * (n_stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preprocessed data set with plans for 2d, an anisotropic 3d_fullres and a cascade."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / NAME
    folder.mkdir()
    write(
        folder / "nnUNetPlans.json",
        {
            "dataset_name": NAME,
            "plans_name": "nnUNetPlans",
            "transpose_forward": [0, 1, 2],
            "configurations": {
                "2d": planned([320, 320], 30),
                "3d_fullres": planned([28, 256, 224], 3, spacing=[5.0, 1.0, 1.0]),
                "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            },
        },
    )
    write(folder / "dataset.json", {"labels": {"background": 0, "anterior": 1}})
    return folder


def write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content))


def configurations(plans: Path) -> dict[str, dict]:
    return json.loads(plans.read_text())["configurations"]


# patch size


@st.composite
def patches(draw: st.DrawFn) -> tuple[list[int], list[list[int]], int]:
    dims = draw(st.sampled_from([2, 3]))
    axis = st.sampled_from([1, 1, 2, 2, 2, 3])
    strides = [[1] * dims, *draw(st.lists(st.lists(axis, min_size=dims, max_size=dims), max_size=5))]
    steps = draw(st.lists(st.integers(1, 20), min_size=dims, max_size=dims))
    patch = [number * math.prod(along) for number, along in zip(steps, zip(*strides, strict=True), strict=True)]
    return patch, strides, draw(st.integers(1, 300))


@given(patches())
def test_patch_is_divisible_never_grows_and_respects_its_bound(case: tuple[list[int], list[list[int]], int]) -> None:
    patch, strides, max_size = case
    smaller = smaller_patch(patch, strides, max_size)
    for axis, (old, new) in enumerate(zip(patch, smaller, strict=True)):
        total = math.prod(stride[axis] for stride in strides)
        assert new % total == 0
        assert 0 < new <= old
        assert new <= max(max_size, 2 * total)
        assert new // total >= min(2, old // total)  # the bottleneck keeps more than one voxel
        assert old <= max_size or new + total > min(old, max(max_size, 2 * total))  # no smaller than necessary


@given(patches())
def test_reducing_the_patch_twice_gives_the_same_patch(case: tuple[list[int], list[list[int]], int]) -> None:
    patch, strides, max_size = case
    once = smaller_patch(patch, strides, max_size)
    assert smaller_patch(once, strides, max_size) == once


# the plans that are written


def test_what_a_preset_does_not_set_is_unchanged(dataset: Path) -> None:
    source = dataset / "nnUNetPlans.json"
    before = json.loads(source.read_text())
    after = json.loads(write_preset_plans("4", "tiny").read_text())

    assert json.loads(source.read_text()) == before
    assert after["plans_name"] == "nnUNetTinyPlans"
    assert {key for key in before if before[key] != after[key]} == {"plans_name", "configurations"}
    for name in ("2d", "3d_fullres"):
        old, new = before["configurations"][name], after["configurations"][name]
        assert {key for key in old if old[key] != new[key]} == {"batch_size", "patch_size", "architecture"}
        old, new = old["architecture"]["arch_kwargs"], new["architecture"]["arch_kwargs"]
        assert {key for key in old if old[key] != new[key]} == {
            "features_per_stage",
            "n_conv_per_stage",
            "n_conv_per_stage_decoder",
        }
    assert after["configurations"]["3d_cascade_fullres"] == before["configurations"]["3d_cascade_fullres"]


def test_bounds_are_applied(dataset: Path) -> None:
    after = configurations(write_preset_plans(NAME, "tiny"))
    assert after["2d"]["batch_size"] == 12
    assert after["2d"]["patch_size"] == [128, 128]
    assert after["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] == [8, 16, 32, 64, 64, 64, 64]
    assert after["3d_fullres"]["batch_size"] == 2
    depth, *plane = after["3d_fullres"]["patch_size"]
    assert depth == 28  # already within the bound
    assert plane == [64, 64]  # twice the total stride of 32; the bound of 48 would leave less


@pytest.mark.parametrize("residual", [False, True], ids=["PlainConvUNet", "ResidualEncoderUNet"])
def test_nnunet_builds_the_network_and_every_weight_has_a_gradient(dataset: Path, residual: bool) -> None:
    plans = json.loads((dataset / "nnUNetPlans.json").read_text())
    plans["configurations"] = {
        "2d": planned([160, 128], 30, residual),
        "3d_fullres": planned([16, 80, 64], 3, residual, spacing=[4.0, 1.0, 1.0]),
    }
    write(dataset / "nnUNetPlans.json", plans)
    manager = PlansManager(str(write_preset_plans("4", "tiny")))
    for name in ("2d", "3d_fullres"):
        configuration = manager.get_configuration(name)
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            1,
            3,
            deep_supervision=True,
        )
        outputs = network(torch.randn(1, 1, *configuration.patch_size))
        assert outputs[0].shape == (1, 3, *configuration.patch_size)
        sum(output.square().mean() for output in outputs).backward()
        assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.requires_grad)
        assert sum(weight.numel() for weight in network.parameters()) < 2e6


def test_a_configuration_that_inherits_is_bounded_only_in_what_it_overrides(dataset: Path) -> None:
    plans = json.loads((dataset / "nnUNetPlans.json").read_text())
    plans["configurations"] |= {
        "2d_bs100": {"inherits_from": "2d", "batch_size": 100},
        "2d_bs4": {"inherits_from": "2d", "batch_size": 4},
        "2d_shallow": {
            "inherits_from": "2d",
            "patch_size": [160, 64],
            "architecture": planned([64, 64], 2)["architecture"],
        },
        "3d_deep": {"inherits_from": "3d_fullres", "architecture": planned([128, 128, 128], 2)["architecture"]},
    }
    plans["configurations"]["3d_fullres"] = planned([96, 96, 96], 3)
    plans["configurations"]["3d_fullres"]["architecture"] = planned([32, 32, 32], 3)["architecture"]
    write(dataset / "nnUNetPlans.json", plans)

    after = configurations(write_preset_plans("4", "tiny"))
    assert after["2d_bs100"] == {"inherits_from": "2d", "batch_size": 12}
    assert after["2d_bs4"] == {"inherits_from": "2d", "batch_size": 4}
    assert after["2d_shallow"]["patch_size"] == [128, 64]
    assert after["2d_shallow"]["architecture"]["arch_kwargs"]["features_per_stage"][0] == 8
    assert "batch_size" not in after["2d_shallow"]
    # the parent's 48 voxels are no multiple of 3d_deep's total stride of 32
    assert after["3d_fullres"]["patch_size"] == [48, 48, 48]
    assert after["3d_deep"]["patch_size"] == [64, 64, 64]


def test_changes_are_printed(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    write_preset_plans("4", "tiny")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert f"{NAME}: nnUNetPlans -> nnUNetTinyPlans" in lines
    assert "batch_size: 30 -> 12" in lines
    assert "patch_size: [320, 320] -> [128, 128]" in lines
    assert "3d_cascade_fullres: same as 3d_fullres" in lines
    assert "Train with them: nnUNetv2_train 4 CONFIGURATION FOLD -p nnUNetTinyPlans" in lines


# which files are overwritten


def test_plans_of_this_command_are_replaced(dataset: Path, tmp_path: Path) -> None:
    made_by = json.loads(write_preset_plans("4", "tiny").read_text())["nnunet_semcl_plan"]
    assert made_by == {"source_plans_name": "nnUNetPlans", "preset": TINY}
    write(tmp_path / "mine.json", made_by["preset"] | {"max_batch_size_2d": 5})
    assert configurations(write_preset_plans("4", str(tmp_path / "mine.json")))["2d"]["batch_size"] == 5
    assert sorted(os.listdir(dataset)) == ["dataset.json", "nnUNetPlans.json", "nnUNetTinyPlans.json"]


@pytest.mark.parametrize("plans_name", ["nnUNetPlans", "nnUNetResEncUNetMPlans", "dataset"])
def test_other_files_are_not_overwritten(dataset: Path, tmp_path: Path, plans_name: str) -> None:
    (dataset / "nnUNetResEncUNetMPlans.json").write_bytes((dataset / "nnUNetPlans.json").read_bytes())
    before = (dataset / f"{plans_name}.json").read_bytes()
    write(tmp_path / "mine.json", TINY | {"plans_name": plans_name})
    with pytest.raises(InputError, match=f"{plans_name}.json (is|was) .* cannot be replaced. .*et another plans_name"):
        write_preset_plans("4", str(tmp_path / "mine.json"))
    assert (dataset / f"{plans_name}.json").read_bytes() == before


def test_a_failed_write_leaves_the_old_plans_intact(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write_preset_plans("4", "tiny")
    before = target.read_bytes()
    write(tmp_path / "mine.json", TINY | {"max_batch_size_2d": 5})

    def full(self: Path, text: str) -> int:
        self.write_bytes(text[:100].encode())
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space"):
        write_preset_plans("4", str(tmp_path / "mine.json"))
    assert target.read_bytes() == before


# errors of a user


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"max_patch_size": 64},
            r"mine.json: unknown key 'max_patch_size'. Use only these keys: plans_name, base",
        ),
        ({"plans_name": 7}, r"mine.json, plans_name: 7 is not a text. Correct"),
        ({"max_batch_size_2d": 2.5}, r"mine.json, max_batch_size_2d: 2.5 is not a whole number. Correct"),
        ({"max_batch_size_2d": True}, r"mine.json, max_batch_size_2d: True is not a whole number"),
        ({"max_patch_size_3d": 0}, r"mine.json, max_patch_size_3d: 0 is less than 1. Use at least 1"),
        (
            {"max_num_features": 4},
            r"mine.json, max_num_features: 4 is less than base_num_features \(8\). Use at least 8",
        ),
        ({"plans_name": "my__plans"}, r"mine.json, plans_name: 'my__plans' is not a valid name.*single underscores"),
        ({"plans_name": "../Plans"}, r"mine.json, plans_name: '../Plans' is not a valid name"),
    ],
)
def test_an_invalid_preset_is_rejected(tmp_path: Path, change: dict, message: str) -> None:
    write(tmp_path / "mine.json", TINY | change)
    with pytest.raises(InputError, match=message):
        load_preset(str(tmp_path / "mine.json"))


def test_settings_for_pretraining_are_written_to_every_configuration(dataset: Path, tmp_path: Path) -> None:
    write(tmp_path / "mine.json", {"plans_name": "Mine", "semcl": {"temperature": 0.2}})
    before = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]
    after = configurations(write_preset_plans("4", str(tmp_path / "mine.json")))
    for name, configuration in after.items():
        assert configuration.pop("semcl") == {"temperature": 0.2}
        assert all(before[name].get(key, value) == value for key, value in configuration.items())
    write(tmp_path / "mine.json", {"plans_name": "Mine", "semcl": {"temprature": 0.2}})
    with pytest.raises(InputError, match='unknown key "temprature"'):
        write_preset_plans("4", str(tmp_path / "mine.json"))


def test_a_preset_has_the_settings_of_the_paper(dataset: Path) -> None:
    section = configurations(write_preset_plans("4", "paper"))["2d"]["semcl"]
    assert section["objective"] == "object"
    assert not section["segmentation"]


def test_a_broken_or_missing_preset_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    for without_name in ('{"max_batch_size_2d": 2}', "[]"):
        file.write_text(without_name)
        with pytest.raises(InputError, match=r"mine\.json: there is no 'plans_name'\. Set it. All keys: plans_name"):
            load_preset(str(file))
    file.write_text("{")
    with pytest.raises(InputError, match="broken JSON"):
        load_preset(str(file))
    with pytest.raises(InputError, match=r"--preset huge does not exist \(presets: .*tiny\)\. Name one"):
        load_preset("huge")
    with pytest.raises(InputError, match=r"none\.json does not exist .*path of your own"):
        load_preset(str(tmp_path / "none.json"))


@pytest.mark.parametrize("value", [None, "", "/no/such/folder"])
def test_an_unset_preprocessed_folder_is_rejected(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_preprocessed", value)
    with pytest.raises(InputError, match="export nnUNet_preprocessed="):
        write_preset_plans("4", "tiny")


def test_an_unknown_or_ambiguous_data_set_is_rejected(dataset: Path) -> None:
    for unknown in ("5", "Dataset005_None", "hippocampus"):
        with pytest.raises(InputError, match=f"no data set matches '{unknown}', available: {NAME}"):
            write_preset_plans(unknown, "tiny")
    (dataset.parent / "Dataset004_Heart").mkdir()
    with pytest.raises(InputError, match="2 data sets match '4': Dataset004_Heart, Dataset004_Hippo"):
        write_preset_plans("4", "tiny")
    assert write_preset_plans(NAME, "tiny").is_file()


def test_missing_old_or_invalid_plans_are_rejected(dataset: Path) -> None:
    with pytest.raises(InputError, match=r"MPlans\.json does not exist, available plans: nnUNetPlans\. .*-d 4"):
        write_preset_plans("4", "tiny", "nnUNetResEncUNetMPlans")
    with pytest.raises(InputError, match=r"dataset\.json has no object 'configurations'.*Name the data set's plans"):
        write_preset_plans("4", "tiny", "dataset")
    plans = json.loads((dataset / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_cascade_fullres"]["inherits_from"] = "3d_halfres"
    write(dataset / "nnUNetPlans.json", plans)
    with pytest.raises(InputError, match="3d_halfres does not exist"):
        write_preset_plans("4", "tiny")
    plans["configurations"] = {"2d": {"patch_size": [64, 64], "UNet_class_name": "PlainConvUNet"}}
    write(dataset / "nnUNetPlans.json", plans)
    with pytest.raises(InputError, match=r"configuration 2d has no 'architecture'.*create the plans again"):
        write_preset_plans("4", "tiny")
    assert sorted(os.listdir(dataset)) == ["dataset.json", "nnUNetPlans.json"]


def test_a_network_that_is_not_nnunets_is_rejected(dataset: Path) -> None:
    plans = json.loads((dataset / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "my.networks.UTransformer"
    write(dataset / "nnUNetPlans.json", plans)
    with pytest.raises(
        InputError, match=r"configuration 2d: a preset cannot be applied to the network UTransformer.*PlainConvUNet"
    ):
        write_preset_plans("4", "tiny")
