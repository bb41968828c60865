"""Read parameter files of pyradiomics, and validate them by its schema and its code before any case is read."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prognosis_dask.errors import JobError
from prognosis_dask.radiomics.columns import column_names
from prognosis_dask.radiomics.params import DEFAULTS, OTHERS, ModalityParams, RadiomicsParams, quiet
from prognosis_dask.shipped import shipped

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
