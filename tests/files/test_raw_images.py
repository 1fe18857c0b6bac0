"""Raw images from users: which files make a case, and every fault that makes an image unusable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from skimage import io

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.raw_images import UnusableImageError, check_image, find_images

VALUES = np.random.default_rng(0).normal(size=(6, 8, 10)).astype(np.float32)


def write(
    file: Path,
    values: np.ndarray = VALUES,
    spacing: tuple[float, ...] = (1, 2, 3),
    origin: tuple[float, ...] = (0, 0, 0),
    turned: float = 0,
) -> Path:
    """Writes an image of the values. `turned` is its angle about z in radians."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    cos, sin = np.cos(turned), np.sin(turned)
    image.SetDirection((cos, -sin, 0, sin, cos, 0, 0, 0, 1))
    sitk.WriteImage(image, str(file))
    return file


def find(folder: Path, n_channels: int = 1, file_ending: str = ".nii.gz") -> dict[str, list[Path]]:
    return find_images(folder, file_ending, n_channels)


# which files make a case


def test_files_are_grouped_by_case_in_the_order_of_their_channels(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = ["b_1_0001.nii.gz", "b_1_0000.nii.gz", "a.5_0000.nii.gz", "a.5_0001.nii.gz"]
    for name in [*names, "README.txt", "c_0000.nii"]:
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert find(tmp_path, n_channels=2) == {
        "a.5": [tmp_path / "a.5_0000.nii.gz", tmp_path / "a.5_0001.nii.gz"],
        "b_1": [tmp_path / "b_1_0000.nii.gz", tmp_path / "b_1_0001.nii.gz"],
    }
    assert "2 files do not end in .nii.gz and are ignored" in capsys.readouterr().out


def test_refuses_a_folder_that_is_missing_empty_or_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"-i: .*none is not a folder"):
        find(tmp_path / "none")
    with pytest.raises(InputError, match=r"contains no images CASE_0000\.nii\.gz\. .*imagesTr"):
        find(tmp_path)
    (tmp_path / "scan_0000.nii").touch()
    with pytest.raises(
        InputError, match=r"contains no images CASE_0000\.nii\.gz, only 1 files such as scan_0000\.nii\."
    ):
        find(tmp_path)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan_00.nii.gz", "_0000.nii.gz", "scan_seg_0000.nii.gz"])
def test_refuses_a_name_that_nnunet_cannot_read(tmp_path: Path, name: str) -> None:
    for file in ("good_0000.nii.gz", name):
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=rf"{name} is not named CASE_0000\.nii\.gz.* Rename the file"):
        find(tmp_path)


def test_refuses_missing_and_extra_channels(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_0001"):
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(InputError, match="case b: the channels are 0001, but the data set has 0000, 0001"):
        find(tmp_path, n_channels=2)
    with pytest.raises(InputError, match=r"case a: the channels are 0000, 0001, but the data set has 0000\."):
        find(tmp_path, n_channels=1)
    with pytest.raises(InputError, match="case a: the channels are 0000, 0001, but the data set has 0000, 0001, 0002"):
        find(tmp_path, n_channels=3)


def test_one_file_is_enough_if_it_contains_all_channels(tmp_path: Path) -> None:
    colours = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    io.imsave(tmp_path / "street_0000.png", colours)
    io.imsave(tmp_path / "a_grey_one_0000.png", colours[..., 0])
    files = find_images(tmp_path, ".png", 3)
    assert files == {case: [tmp_path / f"{case}_0000.png"] for case in ("a_grey_one", "street")}
    check_image(files["street"], 3, NaturalImage2DIO())
    with pytest.raises(
        UnusableImageError, match=r"a_grey_one_0000\.png: number of channels is 1, but the data set has 3"
    ):
        check_image(files["a_grey_one"], 3, NaturalImage2DIO())


# images that cannot be used


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO])
def test_a_valid_image_of_two_channels_passes_without_a_message(
    tmp_path: Path, capfd: pytest.CaptureFixture, reader: type
) -> None:
    files = [
        write(tmp_path / "a_0000.nii.gz"),
        # differs by no more than rounding in a file
        write(tmp_path / "a_0001.nii.gz", VALUES + 1, (1.00001, 2, 3), (0, 0, 1e-4), turned=1e-6),
    ]
    check_image(files, 2, reader())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_is_reported(tmp_path: Path, value: float) -> None:
    values = VALUES.copy()
    values[3, 4, 5] = value
    for ending, reader in ((".nrrd", SimpleITKIO()), (".nii.gz", NibabelIO())):
        file = write(tmp_path / f"a_0000{ending}", values)
        with pytest.raises(UnusableImageError, match=f"a_0000{ending}: NaN or infinity"):
            check_image([file], 1, reader)


def test_a_constant_image_cannot_be_used(tmp_path: Path) -> None:
    file = write(tmp_path / "a_0000.nii.gz", np.full_like(VALUES, -1000))
    with pytest.raises(UnusableImageError, match=r"a_0000\.nii\.gz: the same value in every voxel"):
        check_image([file], 1, SimpleITKIO())


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("content", ["nothing", "text", "half"])
def test_an_unreadable_file_is_named(tmp_path: Path, reader: type, ending: str, content: str) -> None:
    file = write(tmp_path / f"a_0000{ending}")
    intact = file.read_bytes()
    file.write_bytes({"nothing": b"", "text": b"not an image", "half": intact[: len(intact) // 2]}[content])
    with pytest.raises(UnusableImageError, match=rf"a_0000{ending}: cannot be read \(.+\)$"):
        check_image([file], 1, reader())


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"values": VALUES[1:]}, "size"),
        ({"spacing": (1, 2, 3.1)}, "spacing"),
        ({"origin": (0, 0, 1)}, "origin"),
        ({"turned": 0.1}, "direction"),
    ],
)
def test_channels_that_differ_in_geometry_are_named(tmp_path: Path, changed: dict, what: str) -> None:
    files = [write(tmp_path / "a_0000.nii.gz"), write(tmp_path / "a_0001.nii.gz", **changed)]
    with pytest.raises(UnusableImageError, match=rf"a_0001\.nii\.gz: differs from a_0000\.nii\.gz in {what}$"):
        check_image(files, 2, SimpleITKIO())
    with pytest.raises(UnusableImageError, match=r"a_0001\.nii\.gz: differs from a_0000\.nii\.gz in "):
        check_image(files, 2, NibabelIO())


def test_a_file_with_the_wrong_number_of_channels(tmp_path: Path) -> None:
    io.imsave(tmp_path / "a_0000.png", np.arange(35, dtype=np.uint8).reshape(5, 7), check_contrast=False)
    with pytest.raises(UnusableImageError, match=r"a_0000\.png: number of channels is 1, but the data set has 3"):
        check_image([tmp_path / "a_0000.png"], 3, NaturalImage2DIO())
