"""Synthetic images, masks and settings for radiomics, each from its number alone, and what pyradiomics says of them."""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk
from radiomics.featureextractor import RadiomicsFeatureExtractor
from scipy import ndimage

from prognosis_dask.errors import CaseError
from prognosis_dask.imaging.geometry import one_thread
from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.params import RadiomicsParams
from prognosis_dask.radiomics.texture import MOST

CLASSES = ("shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")


def made_case(number: int) -> tuple[Roi, RadiomicsParams]:
    """Twenty in a row share their settings, whose validation takes longer than such a case."""
    roi = Roi(*_image_and_mask(np.random.default_rng([number, 0])))
    return roi, _params(number // 20)


@lru_cache(maxsize=2)
def _params(number: int) -> RadiomicsParams:
    rng = np.random.default_rng([number, 1])
    classes: dict[str, list[str]] = {name: [] for name in CLASSES}
    setting = {"minimumROIDimensions": int(rng.integers(1, 4))} | _settings(rng, 0.13)
    if rng.random() < 0.15:  # which only a mask in one plane has
        classes, setting["force2D"] = classes | {"shape2D": []}, True
    content = {"imageType": _image_types(rng), "featureClass": classes, "setting": setting}
    return RadiomicsParams(json.dumps(content))


def _image_and_mask(rng: np.random.Generator) -> tuple[Any, ...]:
    size = tuple(int(side) for side in rng.integers(1 if rng.random() < 0.2 else 3, 22, 3))
    kind = str(rng.choice(["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]))
    # beyond whole numbers in single precision, and where double precision leaves little
    middle = float(rng.choice([0, -120, 1 << 24, 1e9, 1e15])) if rng.random() < 0.3 else 120.0
    voxels = rng.normal(middle, rng.choice([0, 1e-6, 3, 20, 60]), size)
    if rng.random() < 0.5:
        voxels = ndimage.gaussian_filter(voxels, 1)
    if rng.random() < 0.2:
        voxels[rng.random(size) < 0.5] = 0
    if not kind.startswith("float"):
        voxels = np.clip(voxels, np.iinfo(kind).min, np.iinfo(kind).max)
    image = sitk.GetImageFromArray(voxels.astype(kind))
    label = sitk.GetImageFromArray(_mask(rng, size))
    spacing = [float(rng.choice([0.7, 0.977, 1.0, 2.0, 3.3])) for _ in range(3)]
    angle = float(rng.choice([0.0, 0.1, 2.0]))
    for one in (image, label):
        one.SetSpacing(spacing)
        one.SetOrigin((-250.112, 13.7, -133.4))
        one.SetDirection([math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0, 0, 0, 1])
    return image, label, grid_of(image), (0, 0, 0)


def _mask(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """A few voxels, a line or a plane, a box at a border, several parts, scattered voxels, a ball, everything."""
    mask = np.zeros(size, np.uint8)
    start = [int(rng.integers(0, side)) for side in size]
    stop = [int(rng.integers(first + 1, side + 1)) for first, side in zip(start, size, strict=True)]
    kind = rng.integers(0, 8)
    if kind == 0:
        for _ in range(int(rng.integers(1, 4))):
            near = [int(rng.integers(max(0, at - 1), min(side, at + 2))) for at, side in zip(start, size, strict=True)]
            mask[tuple(near)] = 1
    elif kind == 1:
        for axis in rng.permutation(3)[: rng.integers(1, 3)]:
            stop[axis] = start[axis] + 1
        mask[tuple(map(slice, start, stop))] = 1
    elif kind == 2:  # from border to border, along some axes
        start = [0 if rng.random() < 0.5 else first for first in start]
        stop = [side if rng.random() < 0.5 else last for last, side in zip(stop, size, strict=True)]
        mask[tuple(map(slice, start, stop))] = 1
    elif kind == 3:
        mask[ndimage.binary_dilation(rng.random(size) < 0.02)] = 1
    elif kind == 4:
        mask[rng.random(size) < 0.3] = 1
    elif kind == 5:
        places = np.indices(size)
        centre = np.reshape(start, (3, 1, 1, 1))
        mask[((places - centre) ** 2).sum(axis=0) < rng.integers(2, 80)] = 1
    elif kind == 6:
        mask[:] = 1
    else:
        mask[tuple(map(slice, start, stop))] = 1
        mask *= rng.random(size) < 0.8
    mask[tuple(start)] |= not mask.any()
    mask[0, 0, 0] &= not mask.all()  # execute() takes a mask of everything for one of nothing
    return mask


#: What any setting of pyradiomics' schema may be; labels and grids are a case's own.
_VALUES: dict[str, tuple[Any, ...]] = {
    "minimumROISize": (1, 2, 5, None),
    "geometryTolerance": (1e-6, 1e-3),
    "correctMask": (True, False),
    "additionalInfo": (True, False),
    "binWidth": (1e-6, 0.1, 0.5, 5, 12.5, 25, 25, 1000),
    "binCount": (1, 2, 3, 8, 32, 400),  # execute() takes the square of it: 5 s a case at 1,000
    "normalize": (True, True, False),
    "normalizeScale": (1, 100),
    "removeOutliers": (0.5, 3.0, None),
    "padDistance": (0, 1, 5, 50),
    "distances": ([2], [1, 2], [1, 1], [2, 1], [30], [1, 30]),
    "force2D": (True, True, False),
    "force2Ddimension": (0, 1, 2),
    "resegmentRange": ([-1.5, 1.5], [0.1], [100, 150], [0.2, 0.9], [-1e9, 1e9]),
    "resegmentMode": ("absolute", "relative", "sigma"),
    "resegmentShape": (True, False),
    "preCrop": (True, False),
    "sigma": ([0.4], [0.6, 1.0], [2.5], [9.0]),
    "start_level": (0, 1, 2),
    "level": (1, 2),
    "wavelet": ("coif1", "haar", "db3", "bior2.2", "dmey", "sym4", "rbio1.3"),
    "gradientUseSpacing": (True, False),
    "lbp2DRadius": (0.5, 1, 1.5, 20),
    "lbp2DSamples": (1, 2, 8, 9, 16),
    "lbp2DMethod": ("default", "ror", "uniform"),
    "voxelArrayShift": (300, -1000),
    "symmetricalGLCM": (True, False),
    "weightingNorm": ("manhattan", "euclidean", "infinity", "no_weighting", None),
    "gldm_a": (0, 1, 2, 100),
}
_SPACINGS = (0, 0.6, 0.9, 1.5, 2.0, 100)
_INTERPOLATORS = (
    *("sitkNearestNeighbor", "sitkLinear", "sitkBSpline", "sitkGaussian", "sitkLabelGaussian", 1, 2, 3),
    *(f"sitk{name}WindowedSinc" for name in ("Hamming", "Cosine", "Welch", "Lanczos", "Blackman")),
)
#: Without scikit-image, execute() leaves local binary patterns in planes out.
_PATTERNS = importlib.util.find_spec("skimage") is not None
_TYPES = ("Original", "LoG", "Wavelet", "Gradient", "Square", "SquareRoot", "Logarithm", "Exponential", "LBP2D")


def _image_types(rng: np.random.Generator) -> dict[str, Any]:
    """One or two, some with settings of their own."""
    if rng.random() < 0.3:
        return {"Original": {}}
    types: dict[str, Any] = {}
    for name in map(str, rng.permutation(_TYPES)[: rng.integers(1, 3)]):
        own = _settings(rng, 0.1) if rng.random() < 0.4 else {}
        own.pop("correctMask", None)
        types[name] = {"sigma": [1.0]} | own if name == "LoG" else own
    if not _PATTERNS:
        types.pop("LBP2D", None)
    return types or {"Original": {}}


def _settings(rng: np.random.Generator, share: float) -> dict[str, Any]:
    """Each with a chance of ``share``."""
    setting = {name: _one(rng, values) for name, values in _VALUES.items() if rng.random() < share}
    if rng.random() < 2 * share:
        setting["resampledPixelSpacing"] = [_one(rng, _SPACINGS) for _ in range(3)]
        setting["interpolator"] = _one(rng, _INTERPOLATORS)
    return setting


def _one(rng: np.random.Generator, values: tuple[Any, ...]) -> Any:
    return values[rng.integers(0, len(values))]


def execute(roi: Roi, params: RadiomicsParams) -> dict[str, float]:
    """What pyradiomics itself says of the full image and mask, on one thread: several sum in no fixed order."""
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = _extractor(params)
        return {name: float(value) for name, value in extractor.execute(roi.image, roi.mask, label=1).items()}


@lru_cache(maxsize=2)
def _extractor(params: RadiomicsParams) -> RadiomicsFeatureExtractor:
    extractor = RadiomicsFeatureExtractor(params.content)
    extractor.addProvenance(False)
    return extractor


def difference(number: int) -> str:
    """How the features of a made case differ from pyradiomics' in any bit; empty if they do not."""
    roi, params = made_case(number)
    values = outcome(lambda: extract(roi, params))
    if isinstance(values, str) and f"at most {MOST:,} are computed" in values:
        return ""  # refused before it takes all memory, as execute() would
    expected = outcome(lambda: execute(roi, params))
    if isinstance(expected, str) or isinstance(values, str):
        if values == f"pyradiomics: {expected}":
            return ""
        return f"{number}: {str(values)[:200]} for {str(expected)[:200]}"
    missing = set(expected) - set(values)
    more = {name for name in set(values) - set(expected) if not math.isnan(values[name])}
    different = [name for name, value in expected.items() if name in values and not _same(values[name], value)]
    return f"{number}: {missing} {more} {different} {params.text}" if missing or more or different else ""


def outcome(action: Callable[[], dict[str, float]]) -> dict[str, float] | str:
    """The features, or why there are none."""
    try:
        return action()
    except (ValueError, RuntimeError) as error:
        return " ".join(str(error).split())
    except CaseError as error:
        return error.problem.reason


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
