"""Made images, masks and settings for radiomics, each from its number alone, and what pyradiomics says of them."""

from __future__ import annotations

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
from prognosis_dask.radiomics import RadiomicsParams, extract
from prognosis_dask.radiomics.levels import MOST

CLASSES = ("shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")


def made_case(number: int) -> tuple[Roi, RadiomicsParams]:
    """Twenty in a row share their settings, whose validation takes longer than such a case."""
    roi = Roi(*_image_and_mask(np.random.default_rng([number, 0])))
    return roi, _params(number // 20)


@lru_cache(maxsize=2)
def _params(number: int) -> RadiomicsParams:
    rng = np.random.default_rng([number, 1])
    content = {"imageType": _image_types(rng), "featureClass": {name: [] for name in CLASSES}}
    return RadiomicsParams(json.dumps(content | {"setting": _settings(rng)}))


def _image_and_mask(rng: np.random.Generator) -> tuple[Any, ...]:
    size = tuple(int(side) for side in rng.integers(3, 22, 3))
    kind = rng.choice(["int16", "uint8", "uint16", "int32", "float32", "float64"])
    voxels = rng.normal(120, rng.choice([0, 3, 20, 60]), size)
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
    """One voxel, a plane, a box at a border, several parts, scattered voxels, a ball, everything."""
    mask = np.zeros(size, np.uint8)
    start = [int(rng.integers(0, side)) for side in size]
    stop = [int(rng.integers(first + 1, side + 1)) for first, side in zip(start, size, strict=True)]
    kind = rng.integers(0, 8)
    if kind == 0:
        mask[tuple(start)] = 1
    elif kind == 1:
        axis = int(rng.integers(0, 3))
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


def _image_types(rng: np.random.Generator) -> dict[str, Any]:
    types: dict[str, Any] = {
        "LoG": {"sigma": [float(rng.choice([0.6, 1.0, 2.5]))]},
        "Wavelet": {"wavelet": str(rng.choice(["coif1", "haar", "db3", "bior2.2"])), "level": int(rng.integers(1, 3))},
        "Gradient": {"gradientUseSpacing": bool(rng.integers(0, 2))},
        **{name: {} for name in ("Square", "SquareRoot", "Logarithm", "Exponential")},
    }
    types["Wavelet"]["start_level"] = int(rng.integers(0, 2))
    if rng.random() < 0.4:
        return {"Original": {}}
    chosen = str(rng.choice(list(types)))
    return {"Original": {}, chosen: types[chosen]} if rng.random() < 0.7 else {chosen: types[chosen]}


def _settings(rng: np.random.Generator) -> dict[str, Any]:
    setting: dict[str, Any] = {"minimumROIDimensions": int(rng.integers(1, 4))}
    if rng.random() < 0.7:
        setting["binWidth"] = float(rng.choice([5, 12.5, 25]))
    else:
        setting["binCount"] = int(rng.choice([1, 8, 32]))
    if rng.random() < 0.3:
        setting["resampledPixelSpacing"] = [float(rng.choice([0, 0.9, 1.5, 2.0])) for _ in range(3)]
        setting["interpolator"] = str(rng.choice(["sitkBSpline", "sitkLinear", "sitkNearestNeighbor"]))
        setting["padDistance"] = int(rng.integers(0, 6))
    optional = {
        "distances": [[2], [1, 2]][rng.integers(0, 2)],
        "force2D": True,
        "force2Ddimension": int(rng.integers(0, 3)),
        "symmetricalGLCM": False,
        "weightingNorm": str(rng.choice(["manhattan", "euclidean", "infinity", "no_weighting"])),
        "gldm_a": int(rng.integers(0, 3)),
        "voxelArrayShift": 300,
        "resegmentRange": [-1.5, 1.5],
        "resegmentShape": True,
        "preCrop": True,
        "normalize": True,
    }
    setting |= {name: value for name, value in optional.items() if rng.random() < 0.15}
    if "resegmentRange" in setting:
        setting["resegmentMode"] = "sigma"
    if "normalize" in setting:
        setting |= {"normalizeScale": 100, "removeOutliers": 3.0}
    return setting


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
    expected = outcome(lambda: execute(roi, params))
    values = outcome(lambda: extract(roi, params))
    if isinstance(values, str) and f"at most {MOST:,} are computed" in values:
        return ""  # refused before it takes all memory, whatever execute() makes of it
    if isinstance(expected, str) or isinstance(values, str):
        if values == f"pyradiomics: {expected}":
            return ""
        return f"{number}: {str(values)[:200]} for {str(expected)[:200]}"
    missing = set(expected) - set(values)
    unlike = [name for name, value in expected.items() if name in values and not _same(values[name], value)]
    return f"{number}: {missing} {unlike} {params.text}" if missing or unlike else ""


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
