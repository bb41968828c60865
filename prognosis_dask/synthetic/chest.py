"""A synthetic chest patient: ellipses with one lesion, written as CT series and mask in folders as of a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from scipy.ndimage import gaussian_filter

from prognosis_dask.arrays import BoolArray, Float32Array, FloatArray
from prognosis_dask.synthetic.files import (
    DrawnStructure,
    image_header,
    outlines,
    series_folder,
    set_pixels,
    synthetic_uid,
    write_instance,
    write_rtstruct,
    write_seg,
)
from prognosis_dask.synthetic.patient import CHEST_LESION, FAULTS, Patient, PatientFiles, generator

MATRIX: Final = 192
SLICE_STEP_MM: Final = 3.0
MARGIN_SLICES: Final = 5
NOISE_HU: Final = 14.0
_RESCALE_INTERCEPT = -1024
_STUDY = "Made chest"


@dataclass(frozen=True)
class Ellipse:
    """An axis-parallel ellipse of the axial plane: centre and semi-axes, x before y, mm."""

    x_mm: float
    y_mm: float
    a_mm: float
    b_mm: float

    def depth(self, x_mm: Float32Array, y_mm: Float32Array) -> Float32Array:
        """1 at the centre, 0 on the rim, negative outside."""
        return np.asarray(1 - ((x_mm - self.x_mm) / self.a_mm) ** 2 - ((y_mm - self.y_mm) / self.b_mm) ** 2)


# the patient lies on the back: +x is the patient's left, +y the back
BODY: Final = Ellipse(0, 0, 138, 100)
MUSCLE: Final = Ellipse(0, 0, 128, 90)
LUNG_RIGHT: Final = Ellipse(-66, -4, 50, 68)
LUNG_LEFT: Final = Ellipse(66, -4, 50, 68)
VERTEBRA: Final = Ellipse(0, 58, 18, 16)
CORD: Final = Ellipse(0, 72, 6, 6)


@dataclass(frozen=True)
class Phantom:
    """One synthetic CT series.

    Attributes
    ----------
    image_hu
        int16, (slice, row, column), slices from foot to head.
    level_mm
        The lesion's level function on the same grid, mm: positive inside, about the distance from its surface.
    spacing_mm
        Distance of rows and of columns.
    origin_mm
        Position of the first voxel's centre in DICOM's patient coordinates, (x, y, z).
    """

    image_hu: npt.NDArray[np.int16]
    level_mm: Float32Array
    spacing_mm: float
    origin_mm: tuple[float, float, float]

    @property
    def mask(self) -> BoolArray:
        """The lesion, (slice, row, column)."""
        return self.level_mm > 0

    def z_mm(self, index: int) -> float:
        """Where slice ``index`` lies on the patient's axis."""
        return self.origin_mm[2] + index * SLICE_STEP_MM


def make_phantom(patient: Patient) -> Phantom:
    """Draw the patient's chest."""
    rng = generator(patient.seed, patient.patient_id, "phantom")
    spacing = float(rng.choice([1.6, 1.7, 1.8]))
    half = int(np.ceil(patient.radius_mm / SLICE_STEP_MM)) + MARGIN_SLICES
    z, y, x = _axes(2 * half + 1, spacing)
    side = LUNG_LEFT if rng.random() < 0.5 else LUNG_RIGHT
    centre = np.array([side.x_mm, side.y_mm, 0.0]) + rng.uniform(-8, 8, 3) * [1, 2, 0.2]
    offset = (x - centre[0], y - centre[1], z - centre[2])
    level = _lesion_level(offset, patient.radius_mm, rng)
    hole = _hole_level(offset, patient.radius_mm) if patient.cavity else None
    image = _chest(x, y, z.shape, rng)
    _blend(image, level, _lesion_hu(level, patient.texture_hu, spacing, rng), spacing)
    if hole is not None:
        _blend(image, hole, np.full_like(level, -900), spacing)
        level = np.minimum(level, -hole)
    image += NOISE_HU * rng.standard_normal(image.shape, dtype=np.float32)
    table_mm = float(rng.integers(-400, -100))
    return Phantom(
        image_hu=np.rint(image).clip(-1024, 3071).astype(np.int16),
        level_mm=level,
        spacing_mm=spacing,
        origin_mm=(float(x[0, 0, 0]), float(y[0, 0, 0]), table_mm),
    )


def _axes(slices: int, spacing: float) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Coordinates (z, y, x) of the voxels' centres around the middle of the grid, mm, ready to broadcast."""
    plane = (np.arange(MATRIX, dtype=np.float32) - (MATRIX - 1) / 2) * np.float32(spacing)
    axis = (np.arange(slices, dtype=np.float32) - (slices - 1) / 2) * np.float32(SLICE_STEP_MM)
    return axis[:, None, None], plane[None, :, None], plane[None, None, :]


def _lesion_level(
    offset: tuple[Float32Array, Float32Array, Float32Array], radius_mm: float, rng: np.random.Generator
) -> Float32Array:
    """A sphere whose radius varies with direction by a random quadratic and a random cubic form."""
    x, y, z = offset
    distance = np.sqrt(x**2 + y**2 + z**2) + np.float32(1e-3)
    u, v, w = x / distance, y / distance, z / distance
    a = rng.uniform(-0.25, 0.25, 6).astype(np.float32)
    bumps = a[0] * u * v + a[1] * v * w + a[2] * w * u + a[3] * (u**2 - w**2) + a[4] * (v**2 - w**2) + a[5] * u * v * w
    return np.asarray(np.float32(radius_mm) * (1 + bumps) - distance)


def _hole_level(offset: tuple[Float32Array, Float32Array, Float32Array], radius_mm: float) -> Float32Array:
    x, y, z = offset
    return np.asarray(np.float32(0.4 * radius_mm) - np.sqrt((x - np.float32(0.15 * radius_mm)) ** 2 + y**2 + z**2))


def _chest(x: Float32Array, y: Float32Array, z_shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Air, fat, muscle, lungs with vessels, a vertebra with its canal; equal in all slices except for vessels."""
    plane = np.full((MATRIX, MATRIX), -1000, np.float32)
    for organ, hu in ((BODY, -90), (MUSCLE, 45), (VERTEBRA, 280), (CORD, 35)):
        plane[organ.depth(x, y)[0] > 0] = hu
    lungs = (np.maximum(LUNG_LEFT.depth(x, y), LUNG_RIGHT.depth(x, y)) > 0)[0]
    plane[lungs] = -850
    chest = np.repeat(plane[None], z_shape[0], axis=0)
    # a coarse field, three voxels wide, whose peaks are the vessels
    field = gaussian_filter(rng.standard_normal(chest.shape, dtype=np.float32), 1.5, truncate=2)
    vessels = (field > 2.2 * field.std()) & lungs
    chest[vessels] = -150
    return chest


def _lesion_hu(level: Float32Array, texture_hu: float, spacing: float, rng: np.random.Generator) -> Float32Array:
    """Soft tissue with patches about 5 mm wide of standard deviation ``texture_hu``."""
    sigma = (2.5 / SLICE_STEP_MM, 2.5 / spacing, 2.5 / spacing)
    blotches = gaussian_filter(rng.standard_normal(level.shape, dtype=np.float32), sigma, truncate=3)
    blotches *= texture_hu / blotches.std()
    return np.asarray(blotches + 35)


def _blend(image: Float32Array, level: Float32Array, tissue_hu: Float32Array, spacing: float) -> None:
    """Insert the tissue where ``level`` is positive, with partial volume across its surface."""
    share = np.clip(level / np.float32(spacing) + 0.5, 0, 1)
    image += share * (tissue_hu - image)


@disable_value_validation()  # a third of the time
def write_patient(images: Path, patient: Patient) -> int:
    """Write one patient's series and mask, damage them for a bad case; returns the number of files."""
    phantom = make_phantom(patient)
    ct = _write_ct(images, patient, phantom)
    datasets = [ds for _, ds in ct]
    if patient.mask_format == "SEG":
        mask = write_seg(images, patient, CHEST_LESION, phantom.mask, datasets)
    else:
        mask = write_rtstruct(images, patient, _structures(phantom), datasets)
    files = PatientFiles(images / patient.patient_id, tuple(path for path, _ in ct), mask)
    for fault in FAULTS:
        if fault.patient_id == patient.patient_id:
            fault.damage(files)
    return sum(path.is_file() for path in (*files.ct, files.mask))


def _structures(phantom: Phantom) -> list[DrawnStructure]:
    """The lesion and the organs around it."""
    every = range(len(phantom.image_hu))
    corner = phantom.origin_mm[:2]
    return [
        DrawnStructure("Lung-Left", "ORGAN", [(i, _ring(LUNG_LEFT)) for i in every]),
        DrawnStructure("Lung-Right", "ORGAN", [(i, _ring(LUNG_RIGHT)) for i in every]),
        DrawnStructure("Spinal-Cord", "ORGAN", [(i, _ring(CORD)) for i in every]),
        DrawnStructure(CHEST_LESION, "GTV", outlines(phantom.level_mm, phantom.spacing_mm, corner)),
    ]


def _ring(organ: Ellipse, points: int = 24) -> FloatArray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack(
        [organ.x_mm + organ.a_mm * np.cos(angle), organ.y_mm + organ.b_mm * np.sin(angle)],
        axis=1,
    )


def _write_ct(root: Path, patient: Patient, phantom: Phantom) -> list[tuple[Path, Dataset]]:
    """Write one file per slice. Returns (file, dataset) from foot to head; instance 1 is the slice at the head."""
    series_uid = synthetic_uid(patient, "ct")
    folder = series_folder(root, patient, 2, "Chest", series_uid)
    slices = len(phantom.image_hu)
    written = []
    for index, plane in enumerate(phantom.image_hu):
        number = slices - index
        ds = _ct_slice(patient, phantom, series_uid, index, number, plane)
        path = folder / f"1-{number:02d}.dcm"
        write_instance(path, ds)
        written.append((path, ds))
    return written


def _ct_slice(
    patient: Patient, phantom: Phantom, series_uid: UID, index: int, number: int, plane: npt.NDArray[np.int16]
) -> Dataset:
    ds = image_header(patient, _STUDY, "CT", series_uid, number)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = synthetic_uid(patient, "ct", number)
    ds.SeriesNumber = 2
    ds.SeriesDescription = "Chest"
    ds.BodyPartExamined = "CHEST"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.KVP = 120
    x, y, _ = phantom.origin_mm
    ds.ImagePositionPatient = [round(x, 3), round(y, 3), phantom.z_mm(index)]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [phantom.spacing_mm, phantom.spacing_mm]
    ds.SliceThickness = SLICE_STEP_MM
    ds.SliceLocation = phantom.z_mm(index)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _RESCALE_INTERCEPT, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    set_pixels(ds, plane - _RESCALE_INTERCEPT)
    return ds
