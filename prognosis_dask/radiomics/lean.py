"""pyradiomics' own feature classes and formulas, given results that are already computed.

Each feature class of pyradiomics copies image and mask, bins the image again and looks up its own methods; its formulas
call NumPy's functions for missing values, although there are none. Here a class is filled with what all classes share,
and its methods run with :data:`_numpy` and :class:`Matrices` in place of the modules ``numpy`` and ``cMatrices``. Slow
formulas are rewritten with the same order of additions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from radiomics import getFeatureClasses, imageoperations
from radiomics.base import RadiomicsFeaturesBase

from prognosis_dask.arrays import AnyArray, FloatArray, IntArray
from prognosis_dask.radiomics.firstorder import FIRST_ORDER
from prognosis_dask.radiomics.kernels import call, kernels
from prognosis_dask.radiomics.levels import expect_not_too_many
from prognosis_dask.radiomics.matrices import Binned, Matrices, Region


def features(
    kinds: dict[str, Iterable[str] | None],
    values: AnyArray,
    region: Region,
    settings: dict[str, Any],
    image_type: str,
) -> dict[str, Any]:
    """The features of one image except shape: ``values`` of the region's voxels, in order.

    They are named by ``image_class_name``, in pyradiomics' order. ``settings["levels"]``, if present, receives the
    number of grey levels of the region if texture is computed.
    """
    kinds = {kind: names for kind, names in kinds.items() if not kind.startswith("shape")}
    if not kinds:
        return {}
    texture = set(kinds) != {"firstorder"}
    expect_not_too_many(values, settings, image_type, texture=texture)
    binned = _binned(values, region, settings)
    if texture and "levels" in settings:
        settings["levels"][image_type] = np.count_nonzero(np.bincount(binned.levels))
    found: dict[str, Any] = {}
    for kind, names in kinds.items():
        instance = _filled(kind, values, binned, region, settings)
        for name in names or ():
            instance.enableFeatureByName(name)
        found |= {f"{image_type}_{kind}_{name}": value for name, value in instance.execute().items()}
    return found


def _binned(values: AnyArray, region: Region, settings: dict[str, Any]) -> Binned:
    """As ``binImage`` does; edges depend on the smallest and the largest value only."""
    low, high = values.min(), values.max()
    ends = values if low != low or high != high else np.array([low, high])  # NaN: as in Python's min
    edges = imageoperations.getBinEdges(ends, **settings)
    if values.dtype.kind in "iu" and int(high) - int(low) < len(values):
        levels = np.digitize(np.arange(int(low), int(high) + 1).astype(values.dtype), edges)[values - low]
    else:
        levels = np.digitize(values, edges)
    return Binned(region, levels, settings.get("gldm_a", 0))


def _filled(
    kind: str, values: AnyArray, binned: Binned, region: Region, settings: dict[str, Any]
) -> RadiomicsFeaturesBase:
    """A feature class in the state after its ``__init__``."""
    lean = _lean(kind)
    instance = object.__new__(lean)
    levels = np.flatnonzero(np.bincount(binned.levels))
    vars(instance).update(
        logger=logging.getLogger(lean.__module__),
        settings=settings,
        label=settings.get("label", 1),
        voxelBased=False,
        coefficients={"grayLevels": levels, "Ng": binned.highest},
        enabledFeatures={},
        featureValues={},
        featureNames=_feature_names(kind),
        inputImage=region,
        imageArray=binned,
        maskArray=region.mask,
        pixelSpacing=region.spacing,
        voxelArrayShift=settings.get("voxelArrayShift", 0),
        values=values,
        symmetricalGLCM=settings.get("symmetricalGLCM", True),
        weightingNorm=settings.get("weightingNorm"),
        gldm_a=settings.get("gldm_a", 0),
    )
    return instance


@cache
def _feature_names(kind: str) -> dict[str, bool]:
    names: dict[str, bool] = getFeatureClasses()[kind].getFeatureNames()
    return names


@cache
def _lean(kind: str) -> type[RadiomicsFeaturesBase]:
    """The class with methods that use the replaced modules; in pyradiomics' module, whose logger it uses."""
    base = getFeatureClasses()[kind]
    methods = {name: _with_lean_modules(method) for name, method in vars(base).items() if type(method) is FunctionType}
    replaced = {"firstorder": FIRST_ORDER, "glcm": _GLCM}.get(kind, {})
    return type(base.__name__, (base,), methods | replaced | {"__module__": base.__module__})


def _with_lean_modules(method: FunctionType) -> FunctionType:
    scope = method.__globals__ | {"numpy": _numpy, "cMatrices": Matrices}
    copy = FunctionType(method.__code__, scope, method.__name__, method.__defaults__, method.__closure__)
    vars(copy).update(vars(method))
    return copy


def _sum(array: AnyArray, axis: Any = None, keepdims: bool = False) -> Any:
    return np.add.reduce(array, axis=axis, keepdims=keepdims)


def _nanmean(array: AnyArray, axis: Any = None) -> Any:
    """``numpy.nanmean`` without the search for missing values; they would show in the sum."""
    total = np.add.reduce(array, axis=axis)
    if np.isnan(total).any():
        return np.nanmean(array, axis)
    return total / (array.size // max(1, total.size))


_numpy = ModuleType("numpy")
vars(_numpy).update(vars(np))
vars(_numpy).update(sum=_sum, nanmean=_nanmean)


def _calculate_coefficients(self: Any) -> None:
    """Coefficients of the GLCM; ``pxAddy`` and ``pxSuby`` sum its elements by sum and difference of their levels."""
    p, highest, levels = self.P_glcm, self.coefficients["Ng"], self.coefficients["grayLevels"]
    eps = np.spacing(1)
    i, j = np.meshgrid(levels.astype("float"), levels.astype("float"), indexing="ij", sparse=True)
    sums, differences = levels[:, None] + levels, np.abs(levels[:, None] - levels)
    self.coefficients.update(
        eps=eps,
        i=i,
        j=j,
        kValuesSum=np.arange(2, highest * 2 + 1, dtype="float"),
        kValuesDiff=np.arange(0, highest, dtype="float"),
        px=p.sum(2, keepdims=True),
        py=p.sum(1, keepdims=True),
        ux=_sum(i[None, :, :, None] * p, (1, 2), keepdims=True),
        uy=_sum(j[None, :, :, None] * p, (1, 2), keepdims=True),
        pxAddy=_added_by(sums - 2, p, 2 * highest - 1),
        pxSuby=_added_by(differences, p, highest),
        HXY=(-1) * _sum(p * np.log2(p + eps), (1, 2)),
    )


def _added_by(number: IntArray, p: FloatArray, count: int) -> FloatArray:
    """The sums, (1, count, directions), of the elements of each number, in sequence."""
    if p.shape[3] < 2:  # NumPy sums a single direction pairwise
        return np.array([np.sum(p[:, number == k, :], 1) for k in range(count)]).transpose((1, 0, 2))
    number = number.ravel()
    by_direction = np.ascontiguousarray(p.reshape(-1, p.shape[3]).T)
    added = [np.bincount(number, one, count).astype(np.float64) for one in by_direction]
    return np.stack(added, axis=1)[None]


def _power_of_sums(self: Any, power: int) -> Any:
    """The mean of (i + j - ux - uy) to a power; raising to it is slow, and i + j takes few values."""
    levels, (ux, uy) = self.coefficients["grayLevels"], (self.coefficients[name] for name in ("ux", "uy"))
    sums, number = np.unique(levels[:, None] + levels, return_inverse=True)
    raised = (sums.astype("float")[None, :, None] - ux[:, :, 0] - uy[:, :, 0]) ** power
    raised = raised[:, number.reshape(len(levels), len(levels))]
    return _nanmean(_sum(self.P_glcm * raised, (1, 2)), 1)


def _cluster_prominence(self: Any) -> Any:
    return _power_of_sums(self, 4)


def _cluster_shade(self: Any) -> Any:
    return _power_of_sums(self, 3)


def _maximal_correlation(self: Any) -> Any:
    p, px, py = self.P_glcm, self.coefficients["px"], self.coefficients["py"]
    if kernels() is None:
        return getFeatureClasses()["glcm"].getMCCFeatureValue(self)
    _, n, _, ways = p.shape
    q = np.empty((ways, n, n))
    arrays = [np.ascontiguousarray(one) for one in (p, px, py)]
    call("correlation_matrix", *arrays, n, ways, float(self.coefficients["eps"]), np.empty(n * ways), q)
    values = np.linalg.eigvals(q[None])
    if n < 2:
        return 1  # flat region
    values.sort()
    return _nanmean(np.sqrt(values[:, :, -2]), 1).real


#: Replaced methods of the GLCM's class.
_GLCM: dict[str, Callable[..., Any]] = {
    "_calculateCoefficients": _calculate_coefficients,
    "getClusterProminenceFeatureValue": _cluster_prominence,
    "getClusterShadeFeatureValue": _cluster_shade,
    "getMCCFeatureValue": _maximal_correlation,
}
