"""Parameter files of pyradiomics: read, checked by its schema and its code before any case; the columns they give."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prognosis_dask.arrays import ByteArray
from prognosis_dask.config.reading import shipped
from prognosis_dask.errors import JobError
from prognosis_dask.radiomics.params import DEFAULTS, OTHERS, ModalityParams, RadiomicsParams, quiet

if TYPE_CHECKING:
    from radiomics.featureextractor import RadiomicsFeatureExtractor


#: Units by part of a shape feature's name; the first match counts.
_SHAPE_UNITS = {
    "Ratio": "mm^-1",
    "Volume": "mm^3",
    "Surface": "mm^2",
    "Diameter": "mm",
    "AxisLength": "mm",
    "Perimeter": "mm",
}
#: First-order features whose unit differs from the image's.
_FIRST_ORDER_UNITS = {
    "Energy": "u^2",
    "TotalEnergy": "u^2 mm^3",
    "Variance": "u^2",
    "Entropy": "1",
    "Uniformity": "1",
    "Kurtosis": "1",
    "Skewness": "1",
}


#: Fewest and most voxels along a side of the test image; the mask has four.
_SIDES = (8, 40)
#: The part of a column's name that names the filter: ``log-sigma-3-0-mm-3D``, ``wavelet2-LLH``, ``lbp-2D``.
_FILTER = re.compile("lbp-[23]D|[a-z]+")


@lru_cache(maxsize=8)
def column_names(params: RadiomicsParams) -> tuple[str, ...]:
    """The features under pyradiomics' own names and in its order, fixed by the parameters alone.

    Those of each further parameter file follow, with its name before them.

    They are those of ``execute()`` on a small synthetic image on which every filter works. It has few grey levels
    whatever the bins, and its spacing follows the widest filter, so that neither a small bin nor a large sigma makes it
    large.

    Raises
    ------
    JobError
        When pyradiomics cannot compute with the parameters, or an image type, class or feature that they name yields no
        column.
    """
    if params.more:
        return tuple(named(part, name) for part, one in params.parts for name in column_names(one))
    import SimpleITK as sitk

    extractor, widest = _tried(params)
    side = min(max(_SIDES[0], math.ceil(widest) + 2), _SIDES[1])
    values = np.random.default_rng(0).integers(0, 500, (side, side, side)).astype(np.int16)
    image, mask = sitk.GetImageFromArray(values), sitk.GetImageFromArray(_mask(extractor, side))
    for made in (image, mask):
        made.SetSpacing([max(1.0, widest / (side - 2))] * 3)
    try:
        with quiet():
            names = tuple(extractor.execute(image, mask))
    except Exception as error:  # NumPy, PyWavelets, ITK and pyradiomics raise many kinds for an invalid value
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise JobError(f"pyradiomics cannot compute with these parameters: {reason}") from error
    _expect_columns(params, extractor, names)
    return names


def named(part: str, name: str) -> str:
    """The name of a feature, or image, of a further parameter file.

    >>> named("", "original_glcm_Contrast"), named("fine", "original_glcm_Contrast")
    ('original_glcm_Contrast', 'fine.original_glcm_Contrast')
    """
    return f"{part}.{name}" if part else name


def _tried(params: RadiomicsParams) -> tuple[RadiomicsFeatureExtractor, float]:
    """An extractor with the parameters' columns on any image, and the sigma of its widest filter in mm."""
    from prognosis_dask.radiomics.extractor import extractor_for

    extractor = copy(extractor_for(params))
    log = extractor.settings | extractor.enabledImagetypes.get("LoG", {})
    few = {"binCount": 8, "distances": [1]}
    extractor.enabledImagetypes = {name: own | few for name, own in extractor.enabledImagetypes.items()}
    extractor.settings = extractor.settings | {
        "minimumROISize": None,
        "minimumROIDimensions": 1,
        "resegmentRange": None,
    }
    return extractor, max(log.get("sigma", ()), default=0.0)


def _mask(extractor: RadiomicsFeatureExtractor, side: int) -> ByteArray:
    mask = np.zeros((side, side, side), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    if extractor.settings["force2D"] and "shape2D" in extractor.enabledFeatures:
        plane = np.arange(side) == 3  # shape2D needs a mask in one plane
        mask *= np.expand_dims(plane, [axis for axis in range(3) if axis != extractor.settings["force2Ddimension"]])
    return mask


def _expect_columns(params: RadiomicsParams, extractor: RadiomicsFeatureExtractor, names: Sequence[str]) -> None:
    """Refuse entries of the file that yield no feature, which pyradiomics only logs."""
    parts = [name.split("_", 2) for name in names]
    for kind, wanted in params.content.get("featureClass", {}).items():
        given = {feature for _, found, feature in parts if found == kind}
        absent = [feature for feature in wanted or () if feature not in given]
        if absent:
            why = "".join(f"; {reason}" for feature in absent if (reason := _why_deprecated(kind, feature)))
            raise JobError(f"featureClass.{kind} names {', '.join(absent)}, which gives no feature; take it out{why}")
        if not given:
            raise JobError(f"featureClass.{kind} gives no feature: {_why_no_class(kind, extractor)}")
    filters = {_FILTER.match(filtered)[0].replace("-", "").lower() for filtered, _, _ in parts}  # type: ignore[index]
    for image_type in extractor.enabledImagetypes:
        if image_type.lower() not in filters:
            raise JobError(f"imageType.{image_type} gives no feature: {_why_no_image(image_type, extractor)}")


def _why_deprecated(kind: str, feature: str) -> str:
    """What pyradiomics says of a feature that it no longer computes: as a rule, which other one has its value."""
    from radiomics import getFeatureClasses

    base = getFeatureClasses()[kind]
    try:
        getattr(base, f"get{feature}FeatureValue")(object.__new__(base))
    except DeprecationWarning as warning:
        return str(warning).partition(", see ")[0]
    except Exception:  # it computes, but nothing is there to compute from
        pass
    return ""


def _why_no_image(image_type: str, extractor: RadiomicsFeatureExtractor) -> str:
    if not [kind for kind in extractor.enabledFeatures if not kind.startswith("shape")]:
        return "the only requested class is shape, which has no image type but Original"
    if image_type == "LoG":
        return "it has no sigma; give its widths in mm, as LoG: {sigma: [1.0, 3.0]}"
    return "pyradiomics leaves it out with these settings"


def _why_no_class(kind: str, extractor: RadiomicsFeatureExtractor) -> str:
    if kind == "shape2D" and not extractor.settings["force2D"]:
        return "it needs setting.force2D: true"
    return "pyradiomics leaves it out with these settings"


def unit(column: str) -> str:
    """The unit of a column: ``1`` for a pure number, ``u`` for the image's own unit (HU in a CT).

    >>> unit("original_shape_MeshVolume"), unit("original_firstorder_Energy"), unit("wavelet-LLH_glcm_Contrast")
    ('mm^3', 'u^2', '1')
    """
    _, kind, feature = column.split("_", 2)
    if kind.startswith("shape"):
        return next((symbol for part, symbol in _SHAPE_UNITS.items() if part in feature), "1")
    return _FIRST_ORDER_UNITS.get(feature, "u") if kind == "firstorder" else "1"


#: Settings for which ``null`` is valid: it switches them off.
_MAY_BE_NULL = (
    "interpolator",
    "minimumROISize",
    "removeOutliers",
    "resampledPixelSpacing",
    "resegmentRange",
    "weightingNorm",
)
#: By the schema's type names: Python types, and the name in messages.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "text"),
}
#: DICOM's image modalities, by which a job may name parameters; and their other names.
_MODALITIES = ("CT", "MR", "PT", "NM", "US", "MG", "CR", "DX", "XA", "RF", "OT")
_ALSO = {"PET": "PT", "MRI": "MR", "MRT": "MR"}


def job_params(params: str | Sequence[str] | Mapping[str, str | Sequence[str]]) -> ModalityParams:
    """The parameters of a job's ``[radiomics]``: one file for all, or several, or those of each modality.

    Raises
    ------
    JobError
        As :func:`read_params`, when a key is not a modality, and when several files have one name.
    """
    if not isinstance(params, Mapping):
        return ModalityParams.alike(_read_several(params))
    found = {}
    for name, path in params.items():
        modality = _ALSO.get(name.upper(), name if name == OTHERS else name.upper())
        if modality not in (*_MODALITIES, OTHERS):
            known = ", ".join((*_MODALITIES[:3], OTHERS))
            raise JobError(f"radiomics.params.{name}: {name!r} is no modality of images, expected {known} or the like")
        found[modality] = _read_several(path)
    if not found:
        raise JobError('[radiomics.params] is empty; name a file for each modality, as CT = "params/ct.yaml"')
    return ModalityParams(tuple(found.items()))


def _read_several(paths: str | Sequence[str]) -> RadiomicsParams:
    """The first file, and further ones by the names of their files."""
    if isinstance(paths, str):
        return read_params(paths)
    if not paths:
        raise JobError("radiomics.params is an empty list; name a file, or leave it out for pyradiomics' defaults")
    names = [re.sub("[^A-Za-z0-9-]+", "-", Path(path).stem) or "default" for path in paths[1:]]
    if len(set(names)) < len(names):
        raise JobError(f"radiomics.params names the features of its further files {', '.join(names)}; rename a file")
    further = tuple((name, read_params(path)) for name, path in zip(names, paths[1:], strict=True))
    return replace(read_params(paths[0]), more=further)


def read_params(path: str, key: str = "radiomics.params") -> RadiomicsParams:
    """Read a parameter file of pyradiomics; an empty ``path`` means its defaults with ``binWidth: 25``.

    Three settings are accepted and have no effect: ``label`` and ``label_channel``, since the case names its labels,
    and ``additionalInfo``, since diagnostics are not computed. ``key`` is the job's that names the file.

    Raises
    ------
    JobError
        When the file is missing, or pyradiomics' schema rejects it, or a value is of a type that the schema lets pass
        and pyradiomics cannot compute with (a quoted number, nothing at all), or something that it asks for would give
        no feature. The message names the key.
    """
    if not path:
        return RadiomicsParams(json.dumps(DEFAULTS))
    if not Path(path).is_file():
        raise JobError(f"{key}: no file at {path}; the project's own are in {shipped('jobs') / 'params'}")
    import radiomics
    from pykwalify.core import Core

    logging.getLogger("pykwalify").setLevel(logging.CRITICAL + 1)
    schema, checks = radiomics.getParameterValidationFiles()
    try:
        with quiet():
            core = Core(source_file=path, schema_files=[schema], extensions=[checks])
            content = core.validate()
    except (
        Exception
    ) as error:  # errors of the schema, of its added checks (ValueError, TypeError) and of the YAML reader
        reason = " ".join(str(getattr(error, "msg", None) or error).split())
        raise JobError(f"{key}: {path} is not a parameter file of pyradiomics: {reason}") from error
    try:
        _check(content, core.schema["mapping"]["setting"]["mapping"])
        params = RadiomicsParams(json.dumps(content))
        column_names(params)
    except JobError as error:
        raise JobError(f"{key}: {path}: {error}") from error
    return params


def _check(content: Mapping[str, Any], rules: Mapping[str, Any]) -> None:
    """Refuse values that the schema accepts but with which ``execute()`` would fail in every case."""
    for section, settings in _sections(content):
        for key, value in settings.items():
            _expect_value(f"{section}.{key}", value, rules.get(key, {}), null=key in _MAY_BE_NULL)
        _expect_lengths(section, settings)


def _sections(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "setting", content.get("setting", {})
    for name, settings in content.get("imageType", {}).items():
        yield f"imageType.{name}", settings


def _expect_value(name: str, value: object, rule: Mapping[str, Any], *, null: bool) -> None:
    if value is None:
        if not null:
            raise JobError(f"{name} has no value; give it one, or delete the line")
        return
    if "seq" in rule:
        items = value if isinstance(value, list) else []
        if not items:
            raise JobError(f"{name} is {value!r}, expected a list of one value or more; or delete the line")
        for item in items:
            _expect_value(name, item, rule["seq"][0], null=False)
        return
    kinds, called = _KINDS.get(str(rule.get("type")), ((int, str), "a name or a number"))
    is_bool = isinstance(value, bool) and bool not in kinds  # a number in Python
    if not isinstance(value, kinds) or is_bool or (isinstance(value, float) and not math.isfinite(value)):
        hint = "; remove the quotation marks" if isinstance(value, str) and str not in kinds else ""
        raise JobError(f"{name} is {value!r}, expected {called}{hint}")


def _expect_lengths(section: str, settings: Mapping[str, Any]) -> None:
    spacing, limits = settings.get("resampledPixelSpacing"), settings.get("resegmentRange")
    if spacing is not None and len(spacing) != 3:
        raise JobError(f"{section}.resampledPixelSpacing is {spacing}, expected three numbers")
    if limits is not None and (len(limits) > 2 or list(limits) != sorted(limits)):
        raise JobError(f"{section}.resegmentRange is {limits}, expected a lower limit and a higher one")
