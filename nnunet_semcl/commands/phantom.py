"""A seeded, CT-like abdomen in nnU-Net's raw format: small, fast to draw, and without data of any patient.

A body of fat, muscle and bone contains eight organs of different size, contrast and position. Some organs have equal
or similar HU: both kidneys; liver, spleen and pancreas; aorta and the unlabelled vena cava. So position and shape
matter.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from math import cos, sin
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from scipy.ndimage import gaussian_filter

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import id_of

EXTENT = (200.0, 256.0, 320.0)
"""Field of view in mm, along (z, y, x). The spacing follows from the shape of the grid."""

SHAPE = (40, 64, 80)
"""Default number of voxels along (z, y, x). The spacing is then 5 x 4 x 4 mm."""

SMALLEST_SHAPE = (16, 24, 32)
"""The coarsest grid that still shows every organ."""

NOISE = 15.0
"""Standard deviation of the noise in each voxel, in HU."""

AIR, FAT, MUSCLE = -1000.0, -95.0, 55.0


@dataclass(frozen=True)
class Blob:
    """A superellipsoid, bent along x.

    Attributes:
        hu: mean intensity in HU.
        centre: offset from the centre of the volume in mm, along (z, y, x). x points to the patient's left, y to the
            back, z to the head.
        radii: in mm, along (z, y, x).
        tilt: rotation about z in degrees.
        power: 2 gives an ellipsoid; higher values are more box-like.
        bend: shift of both ends along x towards the back, relative to the middle, in mm.
    """

    hu: float
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    tilt: float = 0.0
    power: float = 2.0
    bend: float = 0.0


# later organs overwrite earlier ones, so the small ones come last
ORGANS = {
    "liver": Blob(105, (30, -12, -58), (58, 56, 62), tilt=12, power=2.4, bend=-10),
    "spleen": Blob(118, (32, 38, 88), (38, 33, 20), tilt=-25, bend=4),
    "stomach": Blob(35, (32, -38, 52), (40, 27, 38), tilt=20, bend=12),
    "left kidney": Blob(165, (-22, 44, 58), (46, 23, 20), tilt=-25),
    "right kidney": Blob(165, (-34, 44, -56), (46, 23, 20), tilt=25),
    "pancreas": Blob(92, (-14, -4, 22), (13, 12, 52), tilt=10, power=2.4, bend=18),
    "gallbladder": Blob(12, (-16, -42, -48), (26, 15, 14)),
    "aorta": Blob(175, (0, 30, 9), (2000, 11, 11)),
}
LABELS = {"background": 0} | {name: value for value, name in enumerate(ORGANS, start=1)}

SPINE = Blob(230, (0, 66, 0), (2000, 21, 24))
VENA_CAVA = Blob(150, (0, 28, -19), (2000, 10, 13))


def write_phantom(
    raw_folder: Path,
    dataset_id: int = 999,
    cases: int = 10,
    test_cases: int = 4,
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
    variation: float = 1.0,
) -> Path:
    """Writes DatasetXXX_Phantom with imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    A case depends only on the seed, its own number and the shape: more cases do not change the earlier ones.

    Args:
        raw_folder: nnUNet_raw, created if it does not exist.
        dataset_id: 1 to 999.
        cases: number of labelled training cases.
        test_cases: number of held-out cases. labelsTs has their ground truth; nnU-Net never reads it.
        seed: seed of all random numbers.
        shape: voxels along (z, y, x), at least SMALLEST_SHAPE.
        variation: how much patients differ in position, size, shape and intensity; 1 is little.

    Returns:
        The folder of the data set.

    Raises:
        InputError: an invalid number or shape, or the id belongs to a data set that is not a phantom.
    """
    _check_numbers(dataset_id, cases, test_cases, shape)
    folder = raw_folder / f"Dataset{dataset_id:03d}_Phantom"
    _check_free(folder)
    raw_folder.mkdir(parents=True, exist_ok=True)
    train_seed, test_seed = np.random.SeedSequence(seed).spawn(2)

    with tempfile.TemporaryDirectory(dir=raw_folder, prefix=".phantom-") as temporary:
        new = Path(temporary) / folder.name
        for split, name, case_seeds in (
            ("Tr", "phantom", train_seed.spawn(cases)),
            ("Ts", "phantom_test", test_seed.spawn(test_cases)),
        ):
            (new / f"images{split}").mkdir(parents=True)
            (new / f"labels{split}").mkdir()
            for number, case_seed in enumerate(case_seeds):
                image, label = draw_case(np.random.default_rng(case_seed), shape, variation)
                _write_volume(image, new / f"images{split}" / f"{name}_{number:03d}_0000.nii.gz")
                _write_volume(label, new / f"labels{split}" / f"{name}_{number:03d}.nii.gz")
        generate_dataset_json(
            str(new),
            channel_names={"0": "CT"},
            labels=dict(LABELS),
            num_training_cases=cases,
            file_ending=".nii.gz",
            dataset_name="Phantom",
            description="Drawn by nnunet-semcl, not measured",
            license="Apache-2.0",
            converted_by="nnunet-semcl",
            phantom={"seed": seed, "shape": list(shape), "variation": variation},
        )
        if folder.exists():
            shutil.rmtree(folder)
        new.replace(folder)
    return folder


def draw_case(
    rng: np.random.Generator, shape: tuple[int, int, int] = SHAPE, variation: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one abdomen of random size, position and shape, which differ by `variation`.

    Returns:
        The image in HU (int16), and its labels with the values of LABELS (uint8).

    Shape:
        Both are (Z, Y, X).
    """
    axes = _axes(shape)
    mm = np.stack(np.meshgrid(*axes, indexing="ij"))  # (3, Z, Y, X)
    offset = rng.normal(0, 3 * variation, size=3)
    scale = rng.uniform(1 - 0.06 * variation, 1 + 0.06 * variation, size=3)
    for axis in range(3):
        mm[axis] = (mm[axis] - offset[axis]) / scale[axis] + 5 * _waves(rng, axes, wavelength=240)

    image = np.full(shape, AIR, np.float32)
    label = np.zeros(shape, np.uint8)
    from_axis = np.hypot(mm[1] / 104, mm[2] / 146)  # 1 on the skin
    for edge, hu in ((1.0, FAT), (0.90, MUSCLE), (0.81, FAT)):
        image[from_axis < edge] = hu + rng.normal(0, 4)
    bowel = [
        Blob(rng.uniform(20, 70), (rng.uniform(-90, -50), rng.uniform(-55, -15), rng.uniform(-70, 70)), (22, 14, 18))
        for _ in range(5)
    ]
    for blob in (*bowel, SPINE, VENA_CAVA):
        image[_inside(rng, blob, mm, variation)] = blob.hu + rng.normal(0, 5)
    uptake = rng.normal(1, 0.04 * variation)  # of contrast agent, the same in all organs
    for name, organ in ORGANS.items():
        inside = _inside(rng, organ, mm, variation)
        image[inside] = organ.hu * uptake + rng.normal(0, 3 * variation)
        label[inside] = LABELS[name]

    image = gaussian_filter(image, sigma=(0.6, 0.5, 0.5))  # partial volume, strongest between slices
    image += rng.normal(0, NOISE, size=shape)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), label


def _inside(rng: np.random.Generator, blob: Blob, mm: np.ndarray, variation: float) -> np.ndarray:
    """Mask of the blob after a random shift, scaling, rotation and deformation.

    Shape:
        mm is (3, Z, Y, X), the mask is (Z, Y, X).
    """
    centre = (np.asarray(blob.centre) + rng.normal(0, 3.5 * variation, size=3)).tolist()
    radii = (np.asarray(blob.radii) * rng.uniform(1 - 0.1 * variation, 1 + 0.1 * variation, size=3)).tolist()
    about_z, about_y = np.radians(np.array([blob.tilt, 0]) + rng.normal(0, 6 * variation, size=2)).tolist()
    z, y, x = (c - middle for c, middle in zip(mm, centre, strict=True))
    y, x = cos(about_z) * y - sin(about_z) * x, sin(about_z) * y + cos(about_z) * x
    z, x = cos(about_y) * z - sin(about_y) * x, sin(about_y) * z + cos(about_y) * x
    y = y - blob.bend * ((x / radii[2]) ** 2 - 0.5)
    dents = _waves(rng, _axes(mm.shape[1:]), wavelength=60)
    distance = sum(np.abs(c / radius) ** blob.power for c, radius in zip((z, y, x), radii, strict=True))
    return distance < 1 + 0.1 * blob.power * dents


def _waves(rng: np.random.Generator, axes: list[np.ndarray], wavelength: float, count: int = 3) -> np.ndarray:
    """A smooth random field in [-1, 1], the mean of plane waves, on the grid of these axes in mm. Shape (Z, Y, X)."""
    direction = rng.normal(size=(count, 3))
    direction *= 2 * np.pi / wavelength / np.linalg.norm(direction, axis=1, keepdims=True)
    phase = np.exp(1j * rng.uniform(0, 2 * np.pi, size=count))
    # exp(i k.r) is a product over the axes, so a few one-dimensional exponentials give the whole grid
    z, y, x = (np.exp(1j * np.outer(k, axis)).astype(np.complex64) for k, axis in zip(direction.T, axes, strict=True))
    return np.tensordot(z * phase[:, None], y[:, :, None] * x[:, None, :], axes=(0, 0)).real.astype(np.float32) / count


def _axes(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Positions of the voxels in mm along z, y and x, relative to the centre of the field of view."""
    return [
        ((np.arange(n) - (n - 1) / 2) * (extent / n)).astype(np.float32)
        for n, extent in zip(shape, EXTENT, strict=True)
    ]


def _write_volume(volume: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(volume)
    spacing = np.divide(EXTENT, volume.shape)[::-1]  # SimpleITK counts x, y, z
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((-spacing * (np.array(image.GetSize()) - 1) / 2).tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def _check_numbers(dataset_id: int, cases: int, test_cases: int, shape: tuple[int, int, int]) -> None:
    if not 1 <= dataset_id <= 999:
        raise InputError(f"the phantom data set cannot have the id {dataset_id}", "Choose an unused id from 1 to 999.")
    if cases < 1 or test_cases < 0:
        raise InputError(
            f"the phantom data set cannot have {cases} training cases and {test_cases} test cases",
            "Ask for at least 1 training case and 0 or more test cases.",
        )
    if len(shape) != 3 or any(n < least for n, least in zip(shape, SMALLEST_SHAPE, strict=True)):
        raise InputError(
            f"the phantom data set cannot have the shape {shape}",
            f"Ask for a shape (z, y, x) of at least {SMALLEST_SHAPE}.",
        )


def _check_free(folder: Path) -> None:
    """Only a phantom may have the id already: nnU-Net cannot tell two data sets with one id apart."""
    for other in folder.parent.glob(f"{folder.name[:10]}_*"):
        ours = (other / "dataset.json").is_file() and "phantom" in load_json(str(other / "dataset.json"))
        if other.name != folder.name or not ours:
            raise InputError(
                f"{other}: the id {id_of(folder)} belongs to a data set that is not a phantom",
                "Choose another id, or another nnUNet_raw folder.",
            )
