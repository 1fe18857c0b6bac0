"""Images as users lay them down: which files make a case, and every fault that makes one useless."""

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
from nnunet_semcl.files.raw_images import UnusableImage, check_image, find_images

VALUES = np.random.default_rng(0).normal(size=(6, 8, 10)).astype(np.float32)


def write(
    file: Path,
    values: np.ndarray = VALUES,
    spacing: tuple[float, ...] = (1, 2, 3),
    origin: tuple[float, ...] = (0, 0, 0),
    turned: float = 0,
) -> Path:
    """Writes the values; `turned` is an angle about z in radians."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    cos, sin = np.cos(turned), np.sin(turned)
    image.SetDirection((cos, -sin, 0, sin, cos, 0, 0, 0, 1))
    sitk.WriteImage(image, str(file))
    return file


def find(folder: Path, n_channels: int = 1, file_ending: str = ".nii.gz") -> dict[str, list[Path]]:
    return find_images(folder, file_ending, n_channels, SimpleITKIO())


# which files make a case


def test_files_are_grouped_by_case_in_the_order_of_their_channels(tmp_path: Path, capsys: pytest.CaptureFixture):
    names = ["b_1_0001.nii.gz", "b_1_0000.nii.gz", "a.5_0000.nii.gz", "a.5_0001.nii.gz"]
    for name in [*names, "README.txt", "c_0000.nii"]:
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    assert find(tmp_path, n_channels=2) == {
        "a.5": [tmp_path / "a.5_0000.nii.gz", tmp_path / "a.5_0001.nii.gz"],
        "b_1": [tmp_path / "b_1_0000.nii.gz", tmp_path / "b_1_0001.nii.gz"],
    }
    assert "2 files do not end in .nii.gz" in capsys.readouterr().out


def test_refuses_a_folder_that_is_missing_empty_or_of_another_format(tmp_path: Path):
    with pytest.raises(InputError, match=r"-i: found .*none, which is no folder"):
        find(tmp_path / "none")
    with pytest.raises(InputError, match=r"found no files, expected images .* CASE_0000\.nii\.gz"):
        find(tmp_path)
    (tmp_path / "scan_0000.nii").touch()
    with pytest.raises(InputError, match=r"found 1 files such as scan_0000\.nii, expected .* CASE_0000\.nii\.gz"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan_00.nii.gz", "_0000.nii.gz", "scan_seg_0000.nii.gz"])
def test_refuses_a_name_that_nnunet_cannot_read(tmp_path: Path, name: str):
    for file in ("good_0000.nii.gz", name):
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=f"{name}: found a name that nnU-Net cannot read"):
        find(tmp_path)


def test_refuses_missing_and_surplus_channels(tmp_path: Path):
    for name in ("a_0000", "a_0001", "b_0001"):
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(InputError, match="case b: found channels 0001, expected 0000, 0001"):
        find(tmp_path, n_channels=2)
    with pytest.raises(InputError, match="case a: found channels 0000, 0001, expected 0000,"):
        find(tmp_path, n_channels=1)
    with pytest.raises(InputError, match="case a: found channels 0000, 0001, expected 0000, 0001, 0002"):
        find(tmp_path, n_channels=3)


def test_one_file_does_for_all_channels_where_it_holds_them(tmp_path: Path):
    colours = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    io.imsave(tmp_path / "street_0000.png", colours)
    files = find_images(tmp_path, ".png", 3, NaturalImage2DIO())
    assert files == {"street": [tmp_path / "street_0000.png"]}
    check_image(files["street"], 3, NaturalImage2DIO())

    write(tmp_path / "scan_0000.nii.gz")
    with pytest.raises(InputError, match="case scan: found channels 0000, expected 0000, 0001"):
        find(tmp_path, n_channels=2)


# images that are of no use


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO])
def test_a_sound_image_of_two_channels_passes_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture, reader: type):
    files = [
        write(tmp_path / "a_0000.nii.gz"),
        # as far off as rounding in a file
        write(tmp_path / "a_0001.nii.gz", VALUES + 1, (1.00001, 2, 3), (0, 0, 1e-4), turned=1e-6),
    ]
    check_image(files, 2, reader())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_enough(tmp_path: Path, value: float):
    values = VALUES.copy()
    values[3, 4, 5] = value
    for ending, reader in ((".nrrd", SimpleITKIO()), (".nii.gz", NibabelIO())):
        file = write(tmp_path / f"a_0000{ending}", values)
        with pytest.raises(UnusableImage, match=f"a_0000{ending}: NaN or infinity"):
            check_image([file], 1, reader)


def test_a_constant_image_is_of_no_use(tmp_path: Path):
    file = write(tmp_path / "a_0000.nii.gz", np.full_like(VALUES, -1000))
    with pytest.raises(UnusableImage, match=r"a_0000\.nii\.gz: the same value in every voxel"):
        check_image([file], 1, SimpleITKIO())


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("content", ["nothing", "text", "half"])
def test_an_unreadable_file_is_named(tmp_path: Path, reader: type, ending: str, content: str):
    file = write(tmp_path / f"a_0000{ending}")
    whole = file.read_bytes()
    file.write_bytes({"nothing": b"", "text": b"not an image", "half": whole[: len(whole) // 2]}[content])
    with pytest.raises(UnusableImage, match=rf"a_0000{ending}: cannot be read \(.+\)$"):
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
def test_channels_of_another_geometry_are_named_with_what_differs(tmp_path: Path, changed: dict, what: str):
    files = [write(tmp_path / "a_0000.nii.gz"), write(tmp_path / "a_0001.nii.gz", **changed)]
    with pytest.raises(UnusableImage, match=rf"a_0001\.nii\.gz: another {what} than a_0000\.nii\.gz$"):
        check_image(files, 2, SimpleITKIO())
    with pytest.raises(UnusableImage, match=r"a_0001\.nii\.gz: another "):
        check_image(files, 2, NibabelIO())


def test_another_number_of_channels_within_a_file(tmp_path: Path):
    io.imsave(tmp_path / "a_0000.png", np.arange(35, dtype=np.uint8).reshape(5, 7), check_contrast=False)
    with pytest.raises(UnusableImage, match=r"a_0000\.png: 1 channels where the data set has 3"):
        check_image([tmp_path / "a_0000.png"], 3, NaturalImage2DIO())
