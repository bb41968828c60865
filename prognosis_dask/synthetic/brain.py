"""A synthetic patient's sequences: a warped head with a lesion, sampled in slices, with bias field and noise.

The ICBM152 template is a brain without skull. Fluid, skull, scalp, face and neck are added as shells and simple bodies,
for skull stripping to remove. The lesion is an ellipsoid with texture, whose volume and diameters are known in closed
form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from prognosis_dask.arrays import BoolArray, ByteArray, Float32Array, FloatArray
from prognosis_dask.brain.template import icbm152
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.synthetic.patient import SEQUENCES, BrainPatient, generator

#: Signal per tissue and sequence, as shares of 1000; air gives none.
_SIGNAL: Final[Mapping[str, Mapping[str, float]]] = {
    "T1": {"grey": 0.58, "white": 0.80, "fluid": 0.22, "bone": 0.06, "marrow": 0.45, "fat": 0.95, "muscle": 0.45},
    "T1c": {"grey": 0.60, "white": 0.80, "fluid": 0.22, "bone": 0.06, "marrow": 0.50, "fat": 0.95, "muscle": 0.55},
    "T2": {"grey": 0.52, "white": 0.38, "fluid": 1.00, "bone": 0.06, "marrow": 0.30, "fat": 0.60, "muscle": 0.20},
    "FLAIR": {"grey": 0.58, "white": 0.46, "fluid": 0.10, "bone": 0.06, "marrow": 0.30, "fat": 0.60, "muscle": 0.25},
}
#: Distances from the brain's hull at which the next tissue starts, mm: skull, its marrow, its outer layer, scalp, air.
_BONE, _MARROW, _OUTER, _SCALP, _AIR = 2.5, 4.5, 6.5, 8.5, 14.0
#: The hull bridges gaps narrower than twice this, mm.
_HULL_MM: Final = 12.0
#: Space for the neck below the template, mm.
_BELOW_MM: Final = 36
#: Signal inside per sequence, as a share of 1000, before texture, uptake and mismatch.
_LESION_SIGNAL: Final = {"T1": 0.50, "T1c": 0.50, "T2": 0.85, "FLAIR": 0.92}
#: Voxels of the texture, mm, and the width of its patches.
_TEXTURE_MM: Final = 2.0
_BLOTCH_MM: Final = 3.0
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
class SyntheticHead:
    """Tissue shares (uint8, 255 for all of a voxel; what is left is air) and the distance from the brain's surface.

    ``depth_mm`` is float32, positive inside the brain mask of the template. Arrays are (slice, row, column); ``grid``
    is an image that carries their geometry.
    """

    tissue: Mapping[str, ByteArray]
    depth_mm: sitk.Image
    grid: sitk.Image

    def contrast(self, sequence: str) -> sitk.Image:
        """The head in a sequence, float32: signal without bias field, noise or lesion."""
        image = np.zeros(self.depth_mm.GetSize()[::-1], np.float32)
        for name, share in self.tissue.items():
            image += np.float32(1000 / 255 * _SIGNAL[sequence][name]) * share
        return image_like(image, self.grid)


@lru_cache(maxsize=1)
def make_head(voxel_mm: int) -> SyntheticHead:
    """The head on voxels of 1 or 2 mm, computed once per process."""
    template = icbm152()
    grey, white, brain = (
        _extended(sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), [voxel_mm] * 3), voxel_mm)
        for image in (template.grey, template.white, template.brain)
    )
    depth = _signed_distance(brain > 0.5)
    outside = -sitk.GetArrayFromImage(_hull_depth(brain, voxel_mm))
    shares = _shares(
        sitk.GetArrayFromImage(grey),
        sitk.GetArrayFromImage(white),
        outside,
        points_of(grey).astype(np.float32),
        voxel_mm,
    )
    return SyntheticHead({name: np.rint(255 * share).astype(np.uint8) for name, share in shares.items()}, depth, grey)


def _shares(
    grey: Float32Array, white: Float32Array, outside: Float32Array, points: Float32Array, voxel_mm: float
) -> dict[str, Float32Array]:
    """Share of each tissue in each voxel; the sum is at most 1."""

    def between(low: float, high: float) -> Float32Array:
        rise = np.clip((outside - low) / voxel_mm + 0.5, 0, 1)
        return np.asarray(rise - np.clip((outside - high) / voxel_mm + 0.5, 0, 1), np.float32)

    x, y, z = points
    skull = between(-np.inf, _AIR)
    rest = np.clip(_face_and_neck(x, y, z) - skull, 0, 1)
    field = gaussian_filter(np.random.default_rng(152).standard_normal(x.shape, dtype=np.float32), 5 / voxel_mm)
    field /= field.std()
    eyes = np.maximum(_ball(x - 33, y + 70, z + 38, 12), _ball(x + 33, y + 70, z + 38, 12)) * rest
    sinus = _ball(x / 1.3, y + 68, z + 45, 17) * rest * (1 - eyes)
    soft = np.clip(rest - eyes - sinus, 0, 1)
    inner = between(-np.inf, _BONE)
    brain = np.clip(grey + white, 0, 1)
    return {
        "grey": grey,
        "white": np.asarray(brain - grey, np.float32),
        "fluid": np.clip(inner - brain, 0, 1) + eyes,
        "bone": between(_BONE, _MARROW) + between(_OUTER, _SCALP),
        "marrow": between(_MARROW, _OUTER),
        "fat": between(_SCALP, _AIR) + soft * (field > 0.6),
        "muscle": soft * (field <= 0.6),
    }


def _face_and_neck(x: Float32Array, y: Float32Array, z: Float32Array) -> Float32Array:
    """1 inside two bodies below the skull: an ellipsoid in front, a column behind it."""
    face = 1 - (x / 62) ** 2 - ((y + 32) / 62) ** 2 - ((z + 70) / 62) ** 2
    neck = np.minimum(1 - (x / 62) ** 2 - ((y - 25) / 62) ** 2, (-40 - z) / 10)
    return np.asarray(np.maximum(face, neck) > 0, np.float32)


def _ball(x: Float32Array, y: Float32Array, z: Float32Array, radius_mm: float) -> Float32Array:
    return np.asarray(x**2 + y**2 + z**2 < radius_mm**2, np.float32)


def _hull_depth(brain: sitk.Image, voxel_mm: int) -> sitk.Image:
    """Distance inside the brain mask after a closing by a large ball, mm."""
    pad = [int(2 * _HULL_MM / voxel_mm)] * 3
    wide = sitk.ConstantPad(brain, pad, pad)
    grown = _signed_distance(wide > 0.5) > -_HULL_MM
    return sitk.Crop(_signed_distance(grown) - _HULL_MM, pad, pad)


def _signed_distance(mask: sitk.Image) -> sitk.Image:
    """Distance from the surface, mm, positive inside.

    The filter measures from the centres of the outermost voxels inside; the surface is half a voxel farther out.
    """
    distance = sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return distance + mask.GetSpacing()[0] / 2


def _extended(image: sitk.Image, voxel_mm: int) -> sitk.Image:
    return sitk.ConstantPad(image, [0, 0, _BELOW_MM // voxel_mm], [0, 0, 0])


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid in the patient's space.

    Attributes
    ----------
    centre_mm
        (x, y, z), DICOM's patient coordinates, on the reference sequence.
    semi_axes_mm
        Three, the longest first.
    rotation
        (3, 3); column i is the direction of axis i.
    texture
        Standard normal patches on a cubic grid of 2 mm around the centre.
    """

    centre_mm: FloatArray
    semi_axes_mm: FloatArray
    rotation: FloatArray
    texture: FloatArray

    @property
    def volume_ml(self) -> float:
        """4/3 pi a b c."""
        return float(4 / 3 * np.pi * np.prod(self.semi_axes_mm) / 1000)

    @property
    def diameter_3d_mm(self) -> float:
        """Twice the longest semi-axis."""
        return float(2 * self.semi_axes_mm.max())

    @property
    def axial_diameters_mm(self) -> tuple[float, float]:
        """Long and short diameter of the axial section through the centre, the largest of all axial sections."""
        long_mm, short_mm = 2 / np.sqrt(np.sort(np.linalg.eigvalsh(self._form()[:2, :2])))
        return float(long_mm), float(short_mm)

    @property
    def reach_mm(self) -> float:
        """Radius of a sphere around the centre that contains lesion and border."""
        return float(self.semi_axes_mm.max() * 1.2 + 5)

    def level_mm(self, points: FloatArray) -> FloatArray:
        """Approximate depth of points (3, ...) inside the surface, mm; negative outside, exactly zero on it."""
        offset = points - self.centre_mm.reshape(3, *[1] * (points.ndim - 1))
        inner = np.tensordot(self.rotation.T, offset, axes=1)
        scaled = np.sqrt(sum((inner[i] / self.semi_axes_mm[i]) ** 2 for i in range(3)))
        # distance from the surface to first order: (1 - r) over the gradient of r
        slope = np.sqrt(sum((inner[i] / self.semi_axes_mm[i] ** 2) ** 2 for i in range(3))) / np.maximum(scaled, 1e-6)
        return np.asarray((1 - scaled) / np.maximum(slope, 1e-6))

    def texture_at(self, points: FloatArray) -> FloatArray:
        """Texture at points (3, ...); zero outside its grid."""
        offset = points - self.centre_mm.reshape(3, *[1] * (points.ndim - 1))
        index = offset / _TEXTURE_MM + (np.array(self.texture.shape).reshape(3, *[1] * (points.ndim - 1)) - 1) / 2
        return np.asarray(map_coordinates(self.texture, index, order=1))

    def _form(self) -> FloatArray:
        """Matrix of the quadratic form that is one on the surface."""
        return np.asarray(self.rotation @ np.diag(self.semi_axes_mm**-2.0) @ self.rotation.T)


def make_lesion(centre_mm: FloatArray, radius_mm: float, rng: np.random.Generator) -> Lesion:
    """An ellipsoid with the volume of a sphere of ``radius_mm``, randomly oriented."""
    ratios = np.exp(rng.uniform(-0.2, 0.2, 3))
    semi_axes = radius_mm * np.sort(ratios / np.prod(ratios) ** (1 / 3))[::-1]
    side = 2 * int(np.ceil((1.2 * semi_axes[0] + 6) / _TEXTURE_MM)) + 1
    blotches = gaussian_filter(rng.standard_normal((side,) * 3), _BLOTCH_MM / _TEXTURE_MM)
    return Lesion(
        centre_mm=np.asarray(centre_mm, np.float64),
        semi_axes_mm=semi_axes,
        rotation=Rotation.random(random_state=rng).as_matrix(),
        texture=blotches / blotches.std(),
    )


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
    tissue = _LESION_SIGNAL[name] + patient.texture * 0.8 * lesion.texture_at(at)
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
