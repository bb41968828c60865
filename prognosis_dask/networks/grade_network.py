"""The study's 3D convolutional network for the grade, described without a library that runs it, and its input.

The input is one small volume per case: the study's own (64 x 64 pixels, 20 averaged slices), or a crop of the brain or
of the tumour with equal spacing in all directions. Intensities are not changed: normalise the image before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import Float32Array, FloatArray, NumberArray
from prognosis_dask.errors import CaseError, Code

#: Slices, rows and columns of the study's input.
STUDY_SHAPE = (20, 64, 64)


@dataclass(frozen=True)
class InputGrid:
    """Voxels (slice, row, column) of equal ``spacing_mm``, along the patient's axes."""

    shape: tuple[int, int, int]
    spacing_mm: float


#: 144 x 192 x 160 mm contain a brain, 100 mm a glioma; the network has about as many parameters as the study's.
BRAIN = InputGrid((36, 48, 40), 4.0)
TUMOUR = InputGrid((40, 40, 40), 2.5)


def study_input(slices: NumberArray) -> Float32Array:
    """The study's input: slices resized, averaged in chunks, zero slices appended.

    Each slice is resized bilinearly, with aligned pixel centres and without smoothing, as by OpenCV's ``resize``.
    Chunks of ``ceil(n / 20)`` consecutive slices are averaged, the last one over the remaining slices; fewer than 20
    chunks are padded with slices of zeros. So 48 slices give 16 averages of 3, and 4 slices of zeros.

    Parameters
    ----------
    slices
        Axial slices (slice, row, column), any number of each.

    Returns
    -------
    array of shape (20, 64, 64), float32

    Raises
    ------
    CaseError
        ``IMAGE_INVALID`` when it is no such stack or holds NaN or infinite values.
    """
    _check(slices)
    count, rows, columns = slices.shape
    wanted, height, width = STUDY_SHAPE
    resized = _bilinear(rows, height) @ slices.astype(np.float64) @ _bilinear(columns, width).T
    starts = np.arange(0, count, -(-count // wanted))
    sums = np.add.reduceat(resized, starts, axis=0)
    volume = np.zeros(STUDY_SHAPE, np.float32)
    volume[: len(starts)] = sums / np.diff(starts, append=count)[:, None, None]
    return volume


def isotropic_crop(image: sitk.Image, mask: sitk.Image, grid: InputGrid) -> Float32Array:
    """The image around the middle of the mask's bounding box, on a grid along the patient's axes.

    Smoothed along the axes on which the new spacing is coarser (a Gaussian of half that spacing); linear in
    between; zero outside the image.

    Parameters
    ----------
    image, mask
        On one grid; the mask is not zero in the brain, or in the tumour.
    grid
        :data:`BRAIN`, :data:`TUMOUR`, or another one.

    Returns
    -------
    array of shape ``grid.shape`` (slice from feet to head, row from front to back, column from right to left), float32

    Raises
    ------
    CaseError
        ``MASK_OTHER_GRID`` when mask and image differ in size, ``MASK_EMPTY`` when the mask is empty, ``IMAGE_INVALID``
        when the image holds NaN or infinite values.
    """
    if image.GetSize() != mask.GetSize():
        raise CaseError(
            Code.MASK_OTHER_GRID, f"the mask has {mask.GetSize()} voxels; expected the image's {image.GetSize()}"
        )
    _check(sitk.GetArrayViewFromImage(image))
    smooth = sitk.Cast(image, sitk.sitkFloat32)
    for axis, spacing in enumerate(image.GetSpacing()):
        if spacing < grid.spacing_mm and image.GetSize()[axis] >= 4:  # the recursive filter needs four voxels
            smooth = sitk.RecursiveGaussian(
                smooth, grid.spacing_mm / 2, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis
            )
    size = grid.shape[::-1]
    half = [grid.spacing_mm * (number - 1) / 2 for number in size]
    origin = [middle - reach for middle, reach in zip(_middle(mask), half, strict=True)]
    cut = sitk.Resample(
        smooth, size, sitk.Transform(), sitk.sitkLinear, origin, [grid.spacing_mm] * 3, np.eye(3).ravel().tolist(), 0.0
    )
    return sitk.GetArrayFromImage(cut)  # type: ignore[no-any-return]


def _check(slices: NumberArray) -> None:
    if slices.ndim != 3 or 0 in slices.shape:
        raise CaseError(
            Code.IMAGE_INVALID, f"the image has the shape {slices.shape}; expected (slice, row, column), none of them 0"
        )
    bad = slices.size - np.count_nonzero(np.isfinite(slices))
    if bad:
        raise CaseError(Code.IMAGE_INVALID, f"voxels that are not finite: {bad} of {slices.size}; expected numbers")


def _bilinear(length: int, wanted: int) -> FloatArray:
    """The matrix (wanted, length) of linear interpolation between pixel centres, with constant edges."""
    at = ((np.arange(wanted) + 0.5) * length / wanted - 0.5).clip(0, length - 1)
    below = np.floor(at).astype(int)
    weights = np.zeros((wanted, length))
    row = np.arange(wanted)
    weights[row, below] = 1 - (at - below)
    weights[row, np.minimum(below + 1, length - 1)] += at - below
    return weights


def _middle(mask: sitk.Image) -> tuple[float, ...]:
    """The centre of the mask's bounding box, in mm."""
    inside = np.nonzero(sitk.GetArrayViewFromImage(mask))
    if not len(inside[0]):
        raise CaseError(Code.MASK_EMPTY, "the mask has no voxel; expected the brain or the tumour")
    middle = [(float(at.min()) + float(at.max())) / 2 for at in reversed(inside)]
    return mask.TransformContinuousIndexToPhysicalPoint(middle)  # type: ignore[no-any-return]


Values = dict[str, Float32Array]

#: Filters of the two convolutions (3 x 3 x 3, same padding), each followed by max pooling over 2 x 2 x 2.
FILTERS = (32, 64)
#: Width of the two hidden layers, and their dropout rates.
WIDTHS = (512, 32)
DROPPED = (0.25, 0.5)
#: Dropout factors of the two hidden layers, (n, 512) and (n, 32): zero, or one over the kept fraction.
Hidden = tuple[Float32Array, Float32Array]
#: Adam's epsilon, as in Keras.
EPSILON = 1e-7


@dataclass(frozen=True)
class GradeNetwork:
    """Convolution 32, maximum, convolution 64, maximum, dense 512 and 32 with ReLU and dropout, dense 1, sigmoid.

    As in the study, the convolutions have no activation; max pooling separates them.

    Attributes
    ----------
    input_shape
        Slices, rows and columns of a volume; the study's are 20, 64 and 64.
    """

    input_shape: tuple[int, int, int] = STUDY_SHAPE

    def __post_init__(self) -> None:
        if min(self.input_shape) < 4:
            raise ValueError(f"volumes are {self.input_shape}; two poolings need 4 or more voxels on every axis")

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Output shape of each layer for one volume, channels first.

        >>> GradeNetwork().layers["pool_2"], GradeNetwork().layers["flat"]
        ((64, 5, 16, 16), (81920,))
        """
        shapes: dict[str, tuple[int, ...]] = {}
        size = self.input_shape
        for number, filters in enumerate(FILTERS, 1):
            shapes[f"conv_{number}"] = (filters, *size)
            size = (size[0] // 2, size[1] // 2, size[2] // 2)
            shapes[f"pool_{number}"] = (filters, *size)
        shapes["flat"] = (FILTERS[-1] * math.prod(size),)
        return shapes | {"dense_1": (WIDTHS[0],), "dense_2": (WIDTHS[1],), "output": (1,)}

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the order of computation; kernels are (out, in, slice, row, column).

        >>> sum(math.prod(shape) for shape in GradeNetwork().parameters.values())
        42016257
        """
        (flat,) = self.layers["flat"]
        kernels = {
            "conv_1": (FILTERS[0], 1, 3, 3, 3),
            "conv_2": (FILTERS[1], FILTERS[0], 3, 3, 3),
            "dense_1": (WIDTHS[0], flat),
            "dense_2": (WIDTHS[1], WIDTHS[0]),
            "output": (1, WIDTHS[1]),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in kernels.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes

    def draw(self, rng: np.random.Generator) -> Values:
        """Values to begin with: uniform within sqrt(6 / (fan in + fan out)), biases zero, as Keras has it.

        Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".
        """
        values: Values = {}
        for name, shape in self.parameters.items():
            if name.endswith("bias"):
                values[name] = np.zeros(shape, np.float32)
                continue
            bound = np.float32(math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:]))))
            values[name] = (2 * rng.random(shape, dtype=np.float32) - 1) * bound
        return values


def feature_names() -> tuple[str, ...]:
    """The deep features: what the 512 and the 32 wide layer give after their ReLU.

    >>> len(feature_names()), feature_names()[0], feature_names()[-1]
    (544, 'dense512_000', 'dense32_31')
    """
    return tuple(f"dense{width}_{index:0{len(str(width - 1))}}" for width in WIDTHS for index in range(width))
