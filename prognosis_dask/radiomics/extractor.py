"""pyradiomics' extractor for prepared images: what its classes share is computed once.

Features come from compiled sums and shared results where these have the bits of pyradiomics, else from its own classes,
filled with what they would compute when they are made. First-order features have the formulas and the order of
additions of ``radiomics.firstorder`` and of the functions of NumPy that it calls, without their search for missing
values. Shape features are those of a mask's mesh: surface, volume and diameters with the bits of pyradiomics' C code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from radiomics import cShape, getFeatureClasses, imageoperations
from radiomics.base import RadiomicsFeaturesBase
from radiomics.featureextractor import RadiomicsFeatureExtractor
from radiomics.shape import RadiomicsShape

from prognosis_dask.arrays import AnyArray, BoolArray, FloatArray, IntArray
from prognosis_dask.radiomics.filters import Box, box_of, filtered
from prognosis_dask.radiomics.kernels import call, chunk, kernels
from prognosis_dask.radiomics.params import RadiomicsParams, quiet
from prognosis_dask.radiomics.texture import Binned, Region, expect_not_too_many, texture_features

#: Settings that only features depend on.
_OF_FEATURES = frozenset(
    ("binWidth", "binCount", "distances", "symmetricalGLCM", "weightingNorm", "gldm_a", "voxelArrayShift", "levels")
)


class PreparedExtractor(RadiomicsFeatureExtractor):  # type: ignore[misc]
    """Takes image and mask prepared by :mod:`radiomics.extraction`, and computes shared results once.

    ``known``, where it is not None, holds the filtered images and meshes of other parameters for the same case.
    """

    known: dict[Any, Any] | None = None

    def execute(self, image: sitk.Image, mask: sitk.Image) -> dict[str, Any]:
        """The features of ``execute()`` for images that need no normalising, resampling or cropping."""
        mask, whole, box = _checked(image, mask, self.settings)
        of_shape = of_values = whole[box]
        if self.settings.get("resegmentRange") is not None:
            of_values = self._resegmented(image, mask, box)
            inner = box_of(of_values)
            assert inner is not None
            of_values = of_values[inner]
            # pyradiomics crops the mask for shape to the box of the resegmented one, whichever of them shape uses
            of_shape = of_values if self.settings.get("resegmentShape", False) else of_shape[inner]
            box = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
        values = shape_features(of_shape, image.GetSpacing(), self.enabledFeatures, self.settings, self.known)
        region = Region(of_values, image.GetSpacing(), self._reach())
        for array, name, settings in self._images(image, mask, box):
            values |= features(self.enabledFeatures, array[of_values], region, settings, name)
        return values

    def _reach(self) -> int:
        """The largest neighbour distance of any image type, in voxels."""
        settings = [self.settings, *(self.settings | custom for custom in self.enabledImagetypes.values())]
        return max(1, *(int(distance) for one in settings for distance in one.get("distances", [1])))

    def _resegmented(self, image: sitk.Image, mask: sitk.Image, box: Box) -> BoolArray:
        region = [side.stop - side.start for side in box][::-1], [side.start for side in box][::-1]
        image, mask = (sitk.RegionOfInterest(one, *region) for one in (image, mask))
        resegmented = imageoperations.resegmentMask(image, mask, **self.settings)
        _checked(image, resegmented, self.settings)
        return np.asarray(sitk.GetArrayFromImage(resegmented) == 1)

    def _images(self, image: sitk.Image, mask: sitk.Image, box: Box) -> Iterator[tuple[AnyArray, str, dict[str, Any]]]:
        for kind, custom in self.enabledImagetypes.items():
            settings = self.settings | custom
            for array, name in self._filtered(image, mask, box, kind, settings):
                yield array, name, settings

    def _filtered(
        self, image: sitk.Image, mask: sitk.Image, box: Box, kind: str, settings: dict[str, Any]
    ) -> Iterable[tuple[AnyArray, str]]:
        if self.known is None:
            return filtered(image, mask, box, kind, settings)
        key = id(image), str(box), kind, outline(settings)
        if key not in self.known:
            self.known[key] = list(filtered(image, mask, box, kind, settings))
        found: list[tuple[AnyArray, str]] = self.known[key]
        return found


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
    places = places_above(values)
    binned = _binned(values, places, region, settings)
    if texture and "levels" in settings:
        settings["levels"][image_type] = len(binned.present)
    found: dict[str, Any] = {}
    for kind, names in kinds.items():
        if kind == "firstorder":
            shift = settings.get("voxelArrayShift", 0)
            known = first_order_features(values, places, binned.counts, region.spacing, shift)
        else:
            known = texture_features(kind, binned, settings)
        wanted = names or _standard_names(kind)
        if known is None or not known.keys() >= set(wanted):
            known = _by_pyradiomics(kind, names, values, binned, settings)
            wanted = known
        found |= {f"{image_type}_{kind}_{name}": known[name] for name in wanted}
    return found


def _binned(values: AnyArray, places: IntArray | None, region: Region, settings: dict[str, Any]) -> Binned:
    """As ``binImage`` does; edges depend on the smallest and the largest value only."""
    low, high = values.min(), values.max()
    ends = values if low != low or high != high else np.array([low, high])  # NaN: as in Python's min
    edges = imageoperations.getBinEdges(ends, **settings)
    if places is not None:
        levels = np.digitize(np.arange(int(low), int(high) + 1).astype(values.dtype), edges)[places]
    else:
        levels = np.digitize(values, edges)
    return Binned(region, levels)


@cache
def _standard_names(kind: str) -> tuple[str, ...]:
    """The features of a class that are not deprecated."""
    return tuple(name for name, deprecated in getFeatureClasses()[kind].getFeatureNames().items() if not deprecated)


def _by_pyradiomics(
    kind: str, names: Iterable[str] | None, values: AnyArray, binned: Binned, settings: dict[str, Any]
) -> dict[str, Any]:
    """The features of a class by its own methods, from the state after its ``__init__``."""
    base = getFeatureClasses()[kind]
    instance: RadiomicsFeaturesBase = object.__new__(base)
    region, image = binned.region, binned.in_box()
    vars(instance).update(
        logger=logging.getLogger(base.__module__),
        settings=settings,
        label=settings.get("label", 1),
        voxelBased=False,
        coefficients={"grayLevels": binned.present, "Ng": binned.highest},
        enabledFeatures={},
        featureValues={},
        featureNames=base.getFeatureNames(),
        inputImage=region,
        imageArray=image,
        maskArray=region.mask,
        symmetricalGLCM=settings.get("symmetricalGLCM", True),
        weightingNorm=settings.get("weightingNorm"),
        gldm_a=settings.get("gldm_a", 0),
    )
    if kind == "firstorder":
        unbinned = np.zeros(region.mask.shape, values.dtype)
        unbinned[region.mask] = values
        vars(instance).update(
            imageArray=unbinned,
            discretizedImageArray=image,
            pixelSpacing=region.spacing,
            voxelArrayShift=settings.get("voxelArrayShift", 0),
        )
    for name in names or ():
        instance.enableFeatureByName(name)
    found: dict[str, Any] = instance.execute()
    return found


def outline(settings: dict[str, Any]) -> str:
    """The settings that a prepared or filtered image may depend on; equal texts, equal images."""
    return json.dumps({name: value for name, value in settings.items() if name not in _OF_FEATURES}, sort_keys=True)


def _checked(image: sitk.Image, mask: sitk.Image, settings: dict[str, Any]) -> tuple[sitk.Image, BoolArray, Box]:
    """The mask, moved to the image's grid if requested, its voxels and their box; pyradiomics checks it."""
    labelled = sitk.GetArrayViewFromImage(mask) == 1
    box = box_of(labelled)
    if box is not None and _same_grid(image, mask):
        sides = sum(side.stop - side.start > 1 for side in box)
        smallest = settings.get("minimumROISize")
        enough = smallest is None or np.count_nonzero(labelled) > smallest
        if sides >= max(1, settings.get("minimumROIDimensions", 2)) and enough:
            return mask, labelled, box
    mask = sitk.Cast(mask, sitk.sitkUInt32)
    _, moved = imageoperations.checkMask(image, mask, **settings)
    mask = mask if moved is None else moved
    labelled = sitk.GetArrayFromImage(mask) == 1
    box = box_of(labelled)
    assert box is not None
    return mask, labelled, box


def _same_grid(image: sitk.Image, mask: sitk.Image) -> bool:
    return all(
        getattr(image, f"Get{name}")() == getattr(mask, f"Get{name}")()
        for name in ("Size", "Origin", "Spacing", "Direction")
    )


@lru_cache(maxsize=8)
def extractor_for(params: RadiomicsParams) -> PreparedExtractor:
    """The extractor of the parameters. Cached, since validation takes as long as a small case; must not be modified."""
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 1)
    with quiet():
        extractor = PreparedExtractor(params.content)
    extractor.settings.update(additionalInfo=False, label=1)
    return extractor


_PERCENTILES = (10, 25, 75, 90)
_EPS = np.spacing(1)


def places_above(values: AnyArray) -> IntArray | None:
    """How far each value lies above the least, of integers in a short range; None of all others.

    What is the same for equal values, a bin or a power, is then computed once for each value that there may be.
    """
    if values.dtype.kind not in "iu":
        return None
    low, high = int(values.min()), int(values.max())
    if high - low >= len(values):
        return None
    places: IntArray = values.astype(np.int64) - low  # in the values' own type it may overflow
    return places


def first_order_features(
    values: AnyArray, places: IntArray | None, counts: IntArray, spacing: tuple[float, ...], shift: float
) -> dict[str, float] | None:
    """The features that are not deprecated, by pyradiomics' names; None where a value is not finite.

    None as well where nothing is compiled.

    Parameters
    ----------
    values
        Of the region's voxels, in order, in the image's own type.
    places
        As :func:`places_above` gives them.
    counts
        How many voxels have each grey level that is there.
    spacing
        In mm.
    shift
        ``voxelArrayShift``.
    """
    terms = chunk()
    if terms is None:
        return None
    floats, size = np.ascontiguousarray(values, np.float64), len(values)
    low, high = float(floats.min()), float(floats.max())
    (p10, p25, p75, p90), median = _quantiles(floats, places, low)
    deviations, sums = np.empty(size), np.empty(6)
    call("first_order_sums", floats, size, float(shift), p10, p90, terms, deviations, sums)
    total, squares, absolute, energy, robust, inside = sums
    if not np.isfinite(total):  # NaN and infinity show in the sum
        return None
    mean, spread = total / size, np.sqrt(squares / size)
    m2, m3, m4 = (np.add.reduce(power) / size for power in _powers(deviations, places, mean, low, high))
    m2 = m2 if m2 != 0 else 1.0
    share = counts.astype(np.float64) / float(np.add.reduce(counts))
    return {
        "10Percentile": p10,
        "90Percentile": p90,
        "Energy": energy,
        "Entropy": -1.0 * np.add.reduce(share * np.log2(share + _EPS)),
        "InterquartileRange": p75 - p25,
        "Kurtosis": m4 / (m2 * m2),
        "Maximum": high,
        "Mean": mean,
        "MeanAbsoluteDeviation": absolute / size,
        "Median": median,
        "Minimum": low,
        "Range": high - low,
        "RobustMeanAbsoluteDeviation": robust / inside,
        "RootMeanSquared": np.sqrt(energy / float(size)),
        "Skewness": m3 / np.power(m2, 1.5),
        "TotalEnergy": energy * np.multiply.reduce(spacing),
        "Uniformity": np.add.reduce(share * share),
        "Variance": spread * spread,
    }


def _powers(
    deviations: FloatArray, places: IntArray | None, mean: Any, low: float, high: float
) -> Iterator[FloatArray]:
    """The second, third and fourth powers of the deviations.

    Uses ``power``, which may round a square differently from a product.
    """
    if places is None:
        return (np.power(deviations, order) for order in (2, 3, 4))
    each = np.arange(int(low), int(high) + 1, dtype=np.float64) - mean
    return (np.power(each, order)[places] for order in (2, 3, 4))


def _quantiles(floats: FloatArray, places: IntArray | None, low: float) -> tuple[list[float], float]:
    """The percentiles and the median, as NumPy interpolates them between the values at two ranks."""
    size = len(floats)
    at_rank = [(size - 1) * (percentile / 100) for percentile in _PERCENTILES]
    below = [int(rank) for rank in at_rank]
    ranks = [*below, *(min(rank + 1, size - 1) for rank in below), (size - 1) // 2, size // 2]
    if places is None:
        at = np.partition(floats, sorted(set(ranks)))[ranks].tolist()
    else:
        at = (np.searchsorted(np.cumsum(np.bincount(places)), ranks, side="right") + low).tolist()
    found = [_between(at[n], at[n + 4], rank - below[n]) for n, rank in enumerate(at_rank)]
    return found, at[8] if size % 2 else (at[8] + at[9]) / 2


def _between(one: float, other: float, part: float) -> float:
    step = other - one
    return other - step * (1 - part) if part >= 0.5 else one + step * part


#: The triangles of a cube of eight voxels, by the bits of those in the mask (up to 127; beyond, the complement's),
#: three edges each, as hexadecimal digits. Marching cubes (Lorensen and Cline 1987), in the order in which pyradiomics
#: adds them (radiomics/src/cshape.c, Copyright 2017 Harvard Medical School, BSD 3-Clause).
_TRIANGLES = """
- 083 190 183198 12a 08312a 92a029 2832a8a98 b23 b2008b 190b23 b2119b98b 3a1ba3 a1008a8ba 9033b9ba9 98aba8 478
043473 190478 194147173 12a478 34730412a 92a902478 2a9297273479 478b23 b47b24204 190478b23 47b94bb29192 3a1ba3478
ba114b10447b 4789033b9ba9 47b4b99ba 954 954083 054015 854835315 12a954 08312a954 2a5542240 2a5325354834 954b23
b2008b954 054015b23 215258b28548 3a1ba3954 549a1008a8ba 54050ba5bb03 548a58ba8 789579 309539357 780017715 157173
78957912a 12a309395357 0288258572a5 2a5253357 579789b23 579972209b27 b23018178157 21b17b157 7895793a1ba3
5705097b0a10ba0 ba003ba50078570 ba557b 65a 08365a 19065a 18319865a 165126 165126083 965906026 598582526832 b2365a
b2008b65a 190b2365a b2119b98b65a 63b653513 08b0b50515b6 63b036065059 65969bb98 47865a 04347365a 19047865a
19414717365a 478165126 043473165126 478965906026 739479329596269 b2347865a b47b2420465a 190b2347865a
47b94bb2919265a 47863b653513 51b5b610b47b04b 47863b036065059 65969b4797b9 a4964a a4964a083 01aa60640 18316886461a
149124264 149124264083 024426 832824426 b23a4964a b2008ba4964a b2301aa60640 64161a148b2118b 964369139b63
18b081b61149641 63b036640 86468b 67a78a89a 67a0a709a073 67a1a7178018 67a1a7173 126168189678 269129679309739
078706602 273267 b2367a78a89a 207b2709767a9a7 67a1a7178018b23 b2117ba61167 896678169b63136 09167b 07870603bb60 67b
"""
#: A cube's corners, (z, y, x), in the order of their bits.
_CORNERS = ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0))
#: The corners that an edge joins.
_EDGES = ((0, 1), (1, 2), (2, 3), (0, 3), (4, 5), (5, 6), (6, 7), (4, 7), (0, 4), (1, 5), (2, 6), (3, 7))


_Mesh = tuple[float, float, tuple[float, float, float, float]]


class _Shape(RadiomicsShape):  # type: ignore[misc]
    """Takes an array, (z, y, x), as its mask; in pyradiomics' module, whose logger it uses."""

    __module__ = RadiomicsShape.__module__

    def __init__(self, mask: BoolArray, spacing: tuple[float, ...], known: dict[Any, Any] | None) -> None:
        self.logger = logging.getLogger(self.__module__)
        self.voxelBased = False
        self.enabledFeatures: dict[str, bool] = {}
        self.featureValues: dict[str, Any] = {}
        self.featureNames = _NAMES
        self.pixelSpacing = np.array(spacing[::-1])
        key = "mesh", mask.shape, spacing, b"" if known is None else mask.tobytes()
        found: _Mesh = (known or {}).get(key) or mesh(mask, self.pixelSpacing)
        if known is not None:
            known[key] = found
        self.SurfaceArea, self.Volume, self.diameters = found
        places = _spread(mask, self.pixelSpacing)
        self.labelledVoxelCoordinates = places.T  # of which pyradiomics only wants the number
        # BLAS and LAPACK round differently for other memory layouts
        self.eigenValues = np.linalg.eigvals(np.dot(places.T.copy(), places))
        self.eigenValues[(self.eigenValues < 0) & (self.eigenValues > -1e-10)] = 0
        self.eigenValues.sort()


_NAMES = RadiomicsShape.getFeatureNames()


def shape_features(
    mask: BoolArray,
    spacing: tuple[float, ...],
    kinds: dict[str, Any],
    settings: dict[str, Any],
    known: dict[Any, Any] | None = None,
) -> dict[str, Any]:
    """The features of ``computeShape()`` for a mask cut to its box; ``known`` holds the meshes of other parameters."""
    values: dict[str, Any] = {}
    for kind in ("shape", "shape2D"):
        if kind not in kinds or (kind == "shape2D" and not _is_plane(mask, settings)):
            continue
        shape = _Shape(mask, spacing, known) if kind == "shape" else _plane(mask, spacing, settings)
        for name in kinds[kind] or ():
            shape.enableFeatureByName(name)
        values |= {f"original_{kind}_{name}": value for name, value in shape.execute().items()}
    return values


def _is_plane(mask: BoolArray, settings: dict[str, Any]) -> bool:
    """By pyradiomics' own test, with the axes in reverse order."""
    return bool(settings.get("force2D", False)) and mask.shape[::-1][settings.get("force2Ddimension", 0)] > 1


def _plane(mask: BoolArray, spacing: tuple[float, ...], settings: dict[str, Any]) -> Any:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing)
    return getFeatureClasses()["shape2D"](image, image, **settings)


def mesh(mask: BoolArray, spacing: npt.ArrayLike) -> _Mesh:
    """Surface, volume and largest diameters of a mask, (z, y, x), with voxels of ``spacing``, (z, y, x), in mm.

    The diameters are those within a plane of one z (Slice), y (Column) and x (Row), then in space.
    """
    padded, spacing = np.pad(mask, 1), np.asarray(spacing)
    if kernels() is None:
        surface, volume, diameters = cShape.calculate_coefficients(padded, spacing)
        return surface, volume, tuple(diameters)
    # in half voxels, since a vertex lies halfway between two voxels
    places = [np.arange(2 * size) / 2 * step for size, step in zip(padded.shape, spacing, strict=True)]
    first, edges = _triangle_tables()
    size, both, four = np.array(padded.shape), np.empty(2), np.empty(4)
    call("surface_and_volume", padded, size, first, edges, *places, both)
    call("diameters", padded, size, *places, four)
    return float(both[0]), float(both[1]), tuple(four.tolist())


def _spread(mask: BoolArray, spacing: FloatArray) -> FloatArray:
    """The voxels' places from their mean in mm over the root of their number, (voxels, axes).

    They lie column by column in memory, as in pyradiomics.
    """
    terms = chunk()
    if terms is not None:
        along = np.empty((3, np.count_nonzero(mask)))
        call("spread", np.ascontiguousarray(mask), np.array(mask.shape), spacing, along.shape[1], terms, along)
        return along.T
    places = np.array(np.where(np.pad(mask, 1))).transpose((1, 0)) * spacing
    places -= np.mean(places, axis=0)
    places /= np.sqrt(len(places))
    return places


@cache
def _triangle_tables() -> tuple[IntArray, IntArray]:
    """First triangle of each cube; vertex coordinates of all triangles, in half voxels."""
    rows = [row.replace("-", "") for row in _TRIANGLES.split()]
    first = np.cumsum([0] + [len(row) // 3 for row in rows])
    middles = np.array([np.add(_CORNERS[one], _CORNERS[other]) for one, other in _EDGES])
    return first, middles[[int(digit, 16) for row in rows for digit in row]]
