"""Draw a synthetic patient's sequences: warped head with lesion, sampled in slices, with bias field and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from prognosis_dask.arrays import BoolArray, Float32Array, FloatArray
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.synthetic.brain.head import SyntheticHead, make_head
from prognosis_dask.synthetic.brain.lesion import SIGNAL as LESION_SIGNAL
from prognosis_dask.synthetic.brain.lesion import Lesion, make_lesion
from prognosis_dask.synthetic.brain.patient import SEQUENCES, BrainPatient
from prognosis_dask.synthetic.patient import generator

#: Side of a slice and length of the stack, mm; position of the centre in the template's space.
FIELD_MM: Final = 240.0
COVERAGE_MM: Final = 156.0
MIDDLE_MM: Final = (0.0, 10.0, 14.0)
#: Standard deviation of the noise, signal units (white matter in T1 has 800).
NOISE: Final = 15.0
#: Largest absolute logarithm of the bias field in the brain.
BIAS: Final = 0.3
#: A slice is the mean of this many planes per mm of its thickness, rounded.
_PLANES_PER_MM: Final = 0.5
#: Grid of the free-form part of the warp, mm, and its displacements' standard deviation per axis.
_WARP_STEP_MM: Final = 8.0
_WARP_SMOOTH_MM: Final = 24.0
_WARP_SD_MM: Final = 0.7
#: Points of the template whose positions in every sequence are recorded: the commissures, poles and sides of the brain.
LANDMARKS: Final[Mapping[str, tuple[float, float, float]]] = {
    "anterior-commissure": (0, 0, 0),
    "posterior-commissure": (0, 27, 0),
    "frontal-pole": (0, -66, 10),
    "occipital-pole": (0, 100, 4),
    "vertex": (0, 20, 74),
    "left-side": (64, 25, 5),
    "right-side": (-64, 25, 5),
    "left-temporal-pole": (38, -15, -32),
    "right-temporal-pole": (-38, -15, -32),
    "left-frontal": (35, -40, 30),
    "right-frontal": (-35, -40, 30),
    "left-parietal": (35, 60, 45),
    "right-parietal": (-35, 60, 45),
}


@dataclass(frozen=True)
class Sequence:
    """One sequence with its truth.

    ``image`` is int16; ``brain`` uint8 (0 and 1) and ``bias`` float32 (the factor) lie on its grid; ``to_reference``
    takes a point of this sequence to the same place in the head on the reference sequence.
    """

    image: sitk.Image
    brain: sitk.Image
    bias: sitk.Image
    to_reference: sitk.Euler3DTransform


@dataclass(frozen=True)
class SyntheticScan:
    """The images of a synthetic patient.

    Attributes
    ----------
    sequences
        By name; the first is the reference.
    lesion
        In the reference sequence's space.
    lesion_mask
        uint8, on the reference sequence's grid: voxels whose centres lie inside.
    lesion_level
        float32, the same grid: about the distance inside the surface, mm.
    to_template
        From a point of the reference sequence to the template.
    landmarks
        Name to the (x, y, z) in mm at which it lies on each sequence.
    """

    sequences: Mapping[str, Sequence]
    lesion: Lesion
    lesion_mask: sitk.Image
    lesion_level: sitk.Image
    to_template: sitk.Transform
    landmarks: Mapping[str, Mapping[str, FloatArray]]


def make_scan(patient: BrainPatient, matrix: int = 256) -> SyntheticScan:
    """Draw the patient's four sequences on ``matrix`` x ``matrix`` voxels per slice.

    A small matrix is fast: the same patient with larger voxels.
    """
    rng = generator(patient.seed, patient.patient_id, "scan")
    head = make_head(1 if matrix >= 160 else 2)
    to_template, template_to = _warp(rng)
    lesion = make_lesion(_place(head, template_to, patient.radius_mm, rng), patient.radius_mm, rng)
    sequences, landmarks = {}, {}
    for name in SEQUENCES:
        moved = _moved(name, rng)
        grid = _grid(patient, name, matrix, rng)
        sequences[name] = _sequence(name, patient, head, to_template, moved, lesion, grid, rng)
        back = moved.GetInverse()
        landmarks[name] = {
            key: np.array(back.TransformPoint(template_to(np.array(at)).tolist())) for key, at in LANDMARKS.items()
        }
    reference = sequences[SEQUENCES[0]].image
    level = image_like(lesion.level_mm(points_of(reference)).astype(np.float32), reference)
    inside = level > 0
    return SyntheticScan(sequences, lesion, inside, level, to_template, landmarks)


def _sequence(
    name: str,
    patient: BrainPatient,
    head: SyntheticHead,
    to_template: sitk.Transform,
    moved: sitk.Euler3DTransform,
    lesion: Lesion,
    grid: sitk.Image,
    rng: np.random.Generator,
) -> Sequence:
    planes = max(1, round(grid.GetSpacing()[2] * _PLANES_PER_MM))
    fine = _split(grid, planes)
    whole = sitk.CompositeTransform([to_template, moved])
    values = sitk.GetArrayFromImage(sitk.Resample(head.contrast(name), fine, whole, sitk.sitkLinear, 0.0))
    _put_in(values, name, patient, lesion, moved, fine)
    signal = values.reshape(-1, planes, *values.shape[1:]).mean(axis=1)
    brain = sitk.Resample(head.depth_mm, grid, whole, sitk.sitkLinear, -100.0) > 0
    bias = _bias(sitk.GetArrayViewFromImage(brain) > 0, rng)
    noise = NOISE * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    measured = np.hypot(signal * bias + noise[0], noise[1])  # a magnitude, so its noise is Rician
    return Sequence(
        image=image_like(np.rint(measured).clip(0, 4095).astype(np.int16), grid),
        brain=brain,
        bias=image_like(bias, grid),
        to_reference=moved,
    )


def _put_in(
    values: Float32Array,
    name: str,
    patient: BrainPatient,
    lesion: Lesion,
    moved: sitk.Euler3DTransform,
    fine: sitk.Image,
) -> None:
    """Replace the signal inside the lesion, in place."""
    points = points_of(fine)
    matrix, centre = np.array(moved.GetMatrix()).reshape(3, 3), np.array(moved.GetCenter())
    shift = centre + np.array(moved.GetTranslation()) - matrix @ centre
    points = np.tensordot(matrix, points, axes=1) + shift.reshape(3, 1, 1, 1)
    near = (np.abs(points - lesion.centre_mm.reshape(3, 1, 1, 1)) < lesion.reach_mm).all(axis=0)
    at = points[:, near]
    level = lesion.level_mm(at)
    tissue = LESION_SIGNAL[name] + patient.texture * 0.8 * lesion.texture_at(at)
    if name == "T1c":
        tissue += patient.enhancement * (1 + 0.5 * np.tanh(lesion.texture_at(at)))
    if name == "FLAIR":
        # the dark centre ends a third of the depth below the surface
        tissue *= 1 - patient.mismatch * np.clip(level / (0.3 * patient.radius_mm) - 0.5, 0, 1)
    share = np.clip(level / patient.border_mm + 0.5, 0, 1)
    values[near] += share * (1000 * np.maximum(tissue, 0.05) - values[near])


def _warp(rng: np.random.Generator) -> tuple[sitk.Transform, _Inverse]:
    """The patient's space to the template's, and back for a point: an affine part and a smooth free-form one."""
    affine = sitk.AffineTransform(3)
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*np.deg2rad([rng.uniform(-12, 12), rng.uniform(-4, 4), rng.uniform(-4, 4)]).tolist())
    scale = np.exp(rng.uniform(-0.06, 0.06, 3))
    affine.SetCenter(MIDDLE_MM)
    affine.SetMatrix((np.diag(scale) @ np.array(turn.GetMatrix()).reshape(3, 3)).ravel().tolist())
    affine.SetTranslation(rng.uniform(-6, 6, 3).tolist())
    size = [int(320 / _WARP_STEP_MM)] * 3
    field = rng.standard_normal((*size, 3))
    field = gaussian_filter(field, [_WARP_SMOOTH_MM / _WARP_STEP_MM] * 3 + [0])
    field *= _WARP_SD_MM / field.std()
    image = sitk.GetImageFromArray(field, isVector=True)
    image.SetSpacing([_WARP_STEP_MM] * 3)
    image.SetOrigin([m - 160.0 for m in MIDDLE_MM])
    free = sitk.DisplacementFieldTransform(image)
    return sitk.CompositeTransform([free, affine]), _Inverse(affine.GetInverse(), free)


@dataclass(frozen=True)
class _Inverse:
    """A point of the template in the patient's space; the free-form part is inverted by fixed-point iteration."""

    affine: sitk.Transform
    free: sitk.Transform

    def __call__(self, point: FloatArray) -> FloatArray:
        before = point
        for _ in range(20):
            before = before - (np.array(self.free.TransformPoint(before.tolist())) - point)
        return np.array(self.affine.TransformPoint(before.tolist()))


def _place(head: SyntheticHead, template_to: _Inverse, radius_mm: float, rng: np.random.Generator) -> FloatArray:
    """A lesion centre in one hemisphere of the cerebrum, deep enough to lie within the brain."""
    for _ in range(1000):
        point = np.array([rng.choice([-1, 1]) * rng.uniform(22, 45), rng.uniform(-45, 75), rng.uniform(8, 50)])
        depth = head.depth_mm.GetPixel(head.depth_mm.TransformPhysicalPointToIndex(point.tolist()))
        if depth > 1.3 * radius_mm:
            return template_to(point)
    raise ValueError(f"no place in the brain for a lesion of radius {radius_mm:.1f} mm")


def _moved(name: str, rng: np.random.Generator) -> sitk.Euler3DTransform:
    """The head's position during this sequence; that of the reference is fixed."""
    moved = sitk.Euler3DTransform()
    angles, shift = np.deg2rad(rng.uniform(-3, 3, 3)), rng.uniform(-3, 3, 3)
    if name != SEQUENCES[0]:
        moved.SetCenter(MIDDLE_MM)
        moved.SetRotation(*angles.tolist())
        moved.SetTranslation(shift.tolist())
    return moved


def _grid(patient: BrainPatient, name: str, matrix: int, rng: np.random.Generator) -> sitk.Image:
    """An empty image with the sequence's geometry; some sequences are oblique, like FLAIR along the skull base."""
    step = patient.slice_step_mm if name == SEQUENCES[0] else float(rng.choice([3.0, patient.slice_step_mm]))
    slices = round(COVERAGE_MM / step)
    tilt = float(np.deg2rad(rng.uniform(8, 17))) if name != SEQUENCES[0] and rng.random() < 0.3 else 0.0
    spacing = FIELD_MM / matrix
    grid = sitk.Image([matrix, matrix, slices], sitk.sitkUInt8)
    grid.SetSpacing([spacing, spacing, step])
    turn = sitk.Euler3DTransform()
    turn.SetRotation(tilt, 0, 0)
    direction = np.array(turn.GetMatrix()).reshape(3, 3)
    half = (np.array(grid.GetSize()) - 1) / 2 * grid.GetSpacing()
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin(np.round(np.array(MIDDLE_MM) - direction @ half, 3).tolist())
    return grid


def _split(grid: sitk.Image, planes: int) -> sitk.Image:
    """The grid with every slice divided into planes."""
    columns, rows, slices = grid.GetSize()
    x, y, step = grid.GetSpacing()
    fine = sitk.Image([columns, rows, slices * planes], sitk.sitkUInt8)
    fine.SetSpacing([x, y, step / planes])
    fine.SetDirection(grid.GetDirection())
    fine.SetOrigin(grid.TransformContinuousIndexToPhysicalPoint([0, 0, -0.5 + 0.5 / planes]))
    return fine


def _bias(brain: BoolArray, rng: np.random.Generator) -> Float32Array:
    """A smooth factor: the exponential of a random cubic polynomial, scaled to reach ``BIAS`` in the brain."""
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in brain.shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    c = rng.uniform(-1, 1, 9).astype(np.float32)
    log = c[0] * x + c[1] * y + c[2] * z + c[3] * x * y + c[4] * y * z + c[5] * x * z
    log = log + c[6] * x**2 + c[7] * y**2 + c[8] * y**3
    log -= log[brain].mean()
    return np.asarray(np.exp(BIAS * log / np.abs(log[brain]).max()), np.float32)


def points_of(image: sitk.Image) -> FloatArray:
    """Positions of voxel centres, (3, slice, row, column), mm, (x, y, z)."""
    steps = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
    columns, rows, slices = image.GetSize()
    index = np.stack(np.meshgrid(np.arange(slices), np.arange(rows), np.arange(columns), indexing="ij")[::-1])
    return np.asarray(np.tensordot(steps, index, axes=1) + np.asarray(image.GetOrigin()).reshape(3, 1, 1, 1))
