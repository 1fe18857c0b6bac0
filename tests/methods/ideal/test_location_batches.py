from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nnunet_semcl.methods.ideal.located_views import LocatedViews
from nnunet_semcl.methods.ideal.location_batches import LocationBatches


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three cases of two channels; the first channel holds the case's number, and the properties are broken."""
    for case in range(3):
        data = np.random.default_rng(case).random((2, 6, 40 + case, 44), dtype=np.float32)
        data[0] = case
        np.savez(tmp_path / f"case{case}.npz", data=data)
        (tmp_path / f"case{case}.pkl").write_bytes(b"garbage")
    return [tmp_path / f"case{case}" for case in range(3)]


def batches(
    images: list[Path], size: tuple[int, ...] = (24, 24), patches: int = 3, locations: int = 30, seed: int = 0
) -> LocationBatches:
    views = LocatedViews(size, (-0.5, 0.5), tuple(range(len(size))), False)
    views._intensities = lambda **data: data
    return LocationBatches(images, views, patches, locations, [2.0, 1.0, 0.5][: len(size)], seed)


@pytest.mark.parametrize("size", [(24, 24), (8, 24, 24)])
def test_shapes_and_places_within_the_views(images: list[Path], size: tuple[int, ...]) -> None:
    batch = batches(images, size)[0]
    n = len(batch["image"])
    assert batch["query"].shape == batch["key"].shape == (3, 2, *size)
    assert batch["voxel"].shape == batch["place"].shape == batch["position"].shape == (n, len(size))
    assert batch["image"].bincount().max() <= 30
    assert set(batch["image"].tolist()) == {0, 1, 2}
    cases = batch["query"][:, 0].flatten(1).amax(1)
    assert sorted(cases.round().tolist()) == [0, 1, 2]  # different cases, if there are enough
    assert (batch["voxel"] >= 0).all()
    assert (batch["voxel"] < torch.tensor(size)).all()
    nearest = batch["place"].round().long()
    assert (nearest >= 0).all()
    assert (nearest < torch.tensor(size)).all()


def test_both_views_show_the_same_intensity_at_a_location(images: list[Path]) -> None:
    batch = batches(images, patches=1, locations=200)[0]
    smooth = torch.nn.functional.avg_pool2d(torch.cat((batch["query"], batch["key"])), 5, 1, 2)[:, 1]
    at_query = smooth[(0, *batch["voxel"].T)]
    at_key = smooth[(1, *batch["place"].round().long().T)]
    assert torch.corrcoef(torch.stack((at_query, at_key)))[0, 1] > 0.5


def test_positions_are_in_mm(images: list[Path]) -> None:
    one = batches(images, (8, 24, 24))
    other = batches(images, (8, 24, 24))
    other.spacing = one.spacing * 3
    torch.testing.assert_close(other[0]["position"], one[0]["position"] * 3)


def test_a_batch_depends_only_on_seed_and_number(images: list[Path]) -> None:
    alone = [batches(images)[i] for i in range(3)]
    by_workers = DataLoader(batches(images), batch_size=None, sampler=range(3), num_workers=2)
    for a, b in zip(alone, by_workers, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(alone[0]["query"], alone[1]["query"])
    assert not torch.equal(alone[0]["query"], batches(images, seed=1)[0]["query"])


def test_views_that_share_too_little_are_drawn_again_and_counted(
    images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunet_semcl.methods.ideal import location_batches

    share, calls = location_batches.shared_locations, []

    def nothing_at_first(*args: object) -> tuple[torch.Tensor, ...]:
        calls.append(args)
        return tuple(part[: 0 if len(calls) == 1 else None] for part in share(*args))

    monkeypatch.setattr(location_batches, "shared_locations", nothing_at_first)
    assert batches(images)[0]["redrawn"] == 1
    monkeypatch.setattr(location_batches, "shared_locations", lambda *args: tuple(part[:0] for part in share(*args)))
    with pytest.raises(RuntimeError, match=r"in none of 3 cases 20 pairs of views shared 8 locations.*Check"):
        batches(images)[0]


def test_a_case_that_gives_no_views_is_passed_over_and_counted(images: list[Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "slice.npz", data=np.full((2, 1, 40, 44), 9, np.float32))  # of one slice, in 3D
    batch = batches([*images[:1], tmp_path / "slice"], (8, 24, 24), patches=2)[0]
    assert batch["passed_over"] >= 1
    assert batch["query"][:, 0].max() < 9  # both patches are of the other case
    assert batches(images, (8, 24, 24))[0]["passed_over"] == 0
