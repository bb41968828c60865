"""What is said of one scan: the one prediction object of the command and of the web page, and its JSON.

The JSON (``scan.json``, ``result.json``) has the fields of :class:`ScanPrediction` by their names; docs/prediction.md
describes them. :data:`VERSION` is raised whenever a field changes its name, its unit or its meaning.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from prognosis_dask.brain.size import TumourSize

#: Of the JSON.
VERSION = 1
#: Object identifiers: of a study, a series, an image.
_UID = re.compile(r"\b\d+(?:\.\d+){5,}\b")
_PATH = re.compile(r"(?:/[^\s/:;,'\"()]+){2,}/?")
NOTICE = "Research use only. Not a medical device: not for diagnosis or for decisions on treatment."


@dataclass(frozen=True)
class Quantity:
    """A number with its unit; "1" where it is a count, a share or a ratio."""

    value: float
    unit: str


@dataclass(frozen=True)
class ScanInfo:
    """What was predicted: modality, structure, and the MR sequences that were used.

    ``name`` is the scan's, and ``files`` are its images, files or folders of a series, by sequence (``image`` where it
    has none). Both are None on the web, where they could name the patient.
    """

    name: str | None
    files: Mapping[str, str] | None
    modality: str
    roi: str
    sequences: tuple[str, ...]


@dataclass(frozen=True)
class SliceView:
    """The slices that are shown, and what a viewer begins with.

    ``rows`` and ``columns`` of each of ``slices``, ``spacing_mm`` (x, y, z), ``aspect`` the width over the height of a
    slice. ``first``, ``last`` and ``slice`` (largest area) of the structure, counted from 0, the lowest. ``centre`` and
    ``width`` of the window, in ``unit`` (HU, or "" where grey levels have none).
    """

    slices: int
    rows: int
    columns: int
    spacing_mm: tuple[float, float, float]
    aspect: float
    slice: int
    first: int
    last: int
    centre: float
    width: float
    unit: str


@dataclass(frozen=True)
class ClinicalValue:
    """A clinical column of the model: the value ``given`` (None: none was), and the median that is taken instead."""

    column: str
    unit: str
    given: str | None
    training_median: float | None


@dataclass(frozen=True)
class ModelOutput:
    """What the model says; None, or empty, where it does not apply.

    Attributes
    ----------
    kind
        ``class`` or ``survival``.
    class_
        The most probable class.
    probability
        Of each class by its name, 0 to 1; they add up to 1.
    risk_score
        The score, higher is worse: the log hazard of a Cox model, the log odds of the second of two classes.
    percentile
        Of the training cases' risk scores that lie below, %; None where the model gives all the same.
    group
        ``low`` or ``high`` risk.
    survival
        The probability, 0 to 1, to survive so many days.
    """

    kind: Literal["class", "survival"]
    class_: str | None
    probability: Mapping[str, float]
    risk_score: float | None
    percentile: float | None
    group: str | None
    survival: Mapping[str, float]


@dataclass(frozen=True)
class Influence:
    """How much one feature moves the score.

    ``value`` and ``training_median`` in ``unit``; ``percentile`` of the training cases below the value, %; ``change``
    of the score against the training cases' median in the feature's place, in the score's own unit. None: not known.
    """

    feature: str
    unit: str
    value: float | None
    training_median: float | None
    percentile: float | None
    change: float


@dataclass(frozen=True)
class Tumour:
    """Of MR of the head, how the tumour was outlined and measured.

    ``mask`` is ``drawn``, ``interpolated`` between outlined slices, or ``automatic``, with the ``confidence`` of the
    search, 0 to 1. The others: see :class:`prognosis_dask.brain.size.TumourSize`.
    """

    mask: str
    confidence: float | None
    volume_ml: float
    axial_diameter_mm: float
    perpendicular_mm: float
    product_mm2: float
    slice_index: int
    diameter_3d_mm: float
    centre_mm: tuple[float, float, float]
    template_mm: tuple[float, float, float] | None

    @classmethod
    def of(cls, size: TumourSize, mask: str, confidence: float | None) -> Tumour:
        """The tumour of this size."""
        measured = {field.name: getattr(size, field.name) for field in fields(TumourSize)}
        return cls(mask, confidence, product_mm2=size.product_mm2, **measured)


@dataclass(frozen=True)
class EpitomeSlice:
    """A slice of the epitome, counted from 0, the lowest, and what it ``shows`` of the tumour."""

    index: int
    shows: str


@dataclass(frozen=True)
class Epitome:
    """The slices that show the tumour best, and their mosaic."""

    slices: tuple[EpitomeSlice, ...]
    mosaic_png_base64: str


@dataclass(frozen=True)
class ScanPrediction:
    """All that is said of a scan.

    Attributes
    ----------
    version
        Of the JSON, :data:`VERSION`.
    notice
        What it may be used for.
    program, finished, seconds
        What made it, when (UTC), and how long it took.
    model
        What made the prediction: its title and run, what it predicts, how many cases it learnt from, how good it was.
    worth
        The same as a ``sentence`` and figures: counts of cases, patients and events, and the held-out AUC or C-index
        with its 95 % interval.
    scan, view, clinical, prediction, tumour, epitome
        See their classes. ``tumour`` and ``epitome`` are None of other than MR of the head.
    influences
        The most influential features, largest first.
    quality
        Of the structure, and of the preprocessing of MR of the head.
    warnings
        What a reader has to know before anything else.
    """

    version: int
    notice: str
    program: str
    finished: str
    seconds: float
    model: Mapping[str, str]
    worth: Mapping[str, str | float | int | None]
    scan: ScanInfo
    view: SliceView
    clinical: tuple[ClinicalValue, ...]
    prediction: ModelOutput
    influences: tuple[Influence, ...]
    tumour: Tumour | None
    epitome: Epitome | None
    quality: Mapping[str, Quantity]
    warnings: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """The content of the JSON, which pages are made of."""
        content: dict[str, Any] = json.loads(json.dumps(_plain(self), allow_nan=False))
        return content


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name.rstrip("_"): _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def json_text(plain: Mapping[str, Any]) -> str:
    """The JSON of a prediction's plain content, as it is written and downloaded."""
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def csv_text(plain: Mapping[str, Any]) -> str:
    """The same as a table: ``field``, the keys of the JSON joined by dots, and ``value``.

    >>> csv_text({"prediction": {"group": "low", "years": [1, 2.5]}}).splitlines()
    ['field,value', 'prediction.group,low', 'prediction.years.0,1', 'prediction.years.1,2.5']
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("field", "value"))
    rows.writerows(_leaves(plain))
    return text.getvalue()


def _leaves(plain: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(plain, Mapping | list | tuple):
        inner = plain.items() if isinstance(plain, Mapping) else enumerate(plain)
        for key, value in inner:
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, plain


def without_identifiers(text: str, secrets: Sequence[str] = ()) -> str:
    """A message without paths, UIDs and the ``secrets``."""
    text = _UID.sub("…", _PATH.sub("…", text))
    for secret in secrets:
        text = re.sub(re.escape(secret), "…", text, flags=re.IGNORECASE) if len(secret) > 1 else text
    return text
