"""The labels of a label map: what its values mean, and what its header or a table beside it calls them.

Values are labels, a scaled mask, or fractions that need a threshold.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray, NumberArray
from prognosis_dask.errors import CaseError, Code, warn
from prognosis_dask.volumes.files import text_header
from prognosis_dask.volumes.nifti import is_nifti

#: Tolerance of a label from a whole number: conversions give 1.0000001, interpolation any value.
WHOLE = 1e-3
#: Most labels that are merged into one mask if none is selected: a file with more is an anatomy, a smoothed mask from
#: 0 to 255, or an image.
MOST_TOGETHER = 20
#: A label of an overlapping layer (Slicer's ``.seg.nrrd``) is this times the layer's number, from zero, plus the value
#: there: layer 0, which pyradiomics reads by default, keeps its values.
LAYER = 1000
#: Largest overshoot of interpolated fractions.
OVERSHOOT = 1.25


def chosen_voxels(values: NumberArray, labels: tuple[int, ...], threshold: float = 0.0) -> BoolArray:
    """The voxels with one of ``labels``; if empty, the file as a mask.

    Labels are whole numbers (:data:`WHOLE`) from zero on. A file with zero and one other value is a mask, whatever the
    value (1, 255, 0.00392). Other values are fractions, probabilities or an interpolated mask: voxels from
    ``threshold`` on belong to it, and without a threshold it is a problem, because every rule would give another ROI.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE``; ``ROI_NOT_FOUND`` if no voxel has a label; ``MASK_EMPTY``.
    """
    present = present_values(values)
    if not len(present):
        raise CaseError(Code.MASK_EMPTY, "the label map contains only zeros")
    if len(present) == 1 and present[0] > 0 and not labels:
        return _not_everywhere(np.not_equal(values, 0))
    if not _are_whole(present) or threshold > 1:
        return _shares(values, present, labels or (1,), threshold)
    _refuse_negative(present)
    if labels:
        return _labelled(values, present, labels)
    if len(present) > MOST_TOGETHER:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"{len(present)} different values ({_some(present)}) and nothing says which is the ROI: name the labels "
            f"(dataset.json or a table beside the file, or a table of cases with Label), or set image.mask_threshold "
            f"where they are shares",
        )
    warn(
        Code.MASK_LABELS_MERGED,
        f"the labels {_some(present)} were taken together as one ROI, because nothing says which is which; name them "
        f"in a table beside the file",
    )
    return _not_everywhere(np.isin(values, present[np.rint(present) != 0].astype(values.dtype)))


def present_values(values: NumberArray) -> FloatArray:
    """The distinct non-zero values, in order.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE`` where one is not finite.
    """
    found = np.unique(values[values != 0])  # a hundred times faster than sorting with the zeros
    if not np.isfinite(found).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise CaseError(Code.MASK_UNREADABLE, f"voxels that are not finite: {bad}; labels are whole numbers")
    present: FloatArray = found.astype(np.float64)
    return present


def labels_in(values: NumberArray) -> tuple[int, ...]:
    """The labels of a label map, in order; empty if its values are not labels. Layers count as :data:`LAYER` says.

    Raises
    ------
    CaseError
        As :func:`present_values`.
    """
    if values.ndim == 4:
        layers = range(values.shape[-1])
        return tuple(LAYER * layer + label for layer in layers for label in labels_in(values[..., layer]))
    present = present_values(values)
    if not _are_whole(present) or (len(present) and present[0] < 0):
        return ()
    return tuple(int(label) for label in np.unique(np.rint(present)) if label)


def _are_whole(present: FloatArray) -> bool:
    return bool(np.abs(present - np.rint(present)).max(initial=0) <= WHOLE)


def _refuse_negative(present: FloatArray) -> None:
    if present[0] < 0:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"negative values, as in {_some(present)}: an image, or a label that means something else",
        )


def _labelled(values: NumberArray, present: FloatArray, labels: tuple[int, ...]) -> BoolArray:
    wanted = present[np.isin(np.rint(present), labels)]
    if not len(wanted):
        raise CaseError(Code.ROI_NOT_FOUND, f"no voxel holds {list(labels)}; the label map has {_some(present)}")
    return np.isin(values, wanted.astype(values.dtype))


def _shares(values: NumberArray, present: FloatArray, labels: tuple[int, ...], threshold: float) -> BoolArray:
    if labels != (1,) or not threshold:
        kind = "that are no whole numbers " if not _are_whole(present) else ""
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"{len(present)} different values {kind}({_some(present)}): an image, an interpolated mask, or shares? "
            f"image.mask_threshold = 0.5 takes them from a half on",
        )
    # splines overshoot by a tenth; more means another scale, or an image
    most, least = float(present[-1]), float(present[0])
    if most > max(1.0, 2 * threshold) * OVERSHOOT or least < -most * (OVERSHOOT - 1):
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"values from {min(least, 0.0):g} to {most:g} do not go with image.mask_threshold = {threshold:g}, made "
            f"for 0 to {max(1.0, 2 * threshold):g}",
        )
    mask: BoolArray = np.greater_equal(values, threshold)
    if not mask.any():
        raise CaseError(Code.MASK_EMPTY, f"no voxel reaches image.mask_threshold = {threshold:g}; the most is {most:g}")
    return _not_everywhere(mask)


def _not_everywhere(mask: BoolArray) -> BoolArray:
    if mask.all():
        raise CaseError(Code.MASK_UNREADABLE, "no voxel is zero, so that the mask would be the whole image")
    return mask


def _some(present: FloatArray) -> str:
    shown = ", ".join(f"{value:g}" for value in present[:5])
    return shown if len(present) <= 5 else f"{shown} ... {present[-1]:g}"


_TABLES = (".json", ".txt", ".csv", ".tsv", ".label", ".lbl", ".ctbl")
_NUMBERS = ("label", "labelvalue", "value", "index", "labelid", "labelnumber", "number", "id", "no", "idx")
_NAMES = (
    "name",
    "labelname",
    "structure",
    "roi",
    "roiname",
    "segment",
    "segmentname",
    "anatomy",
    "organ",
    "description",
)
_ITK_SNAP = re.compile(r'\s*(\d+)(?:\s+[\d.]+){4}\s+\d\s+\d\s+"(.*)"\s*')
_COLOUR_TABLE = re.compile(r"\s*(\d+)\s+(\S+)(?:\s+\d+){3,4}\s*")
_XML_LABEL = re.compile(r'<Label\b[^>]*\bKey="(\d+)"[^>]*>(?:<!\[CDATA\[)?([^<\]]*)')
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Segment:
    """A name and its labels (several if a region is a union)."""

    name: str
    labels: tuple[int, ...]


def named_labels(path: Path) -> tuple[tuple[Segment, ...], str]:
    """The names of a label map's labels, and the table they come from, if any; both empty if there are none.

    In this order: Slicer's segments in an NRRD header, a label table in NIfTI's header extension (as TotalSegmentator
    writes it), a table of the same stem, ``dataset.json`` (nnU-Net, Medical Segmentation Decathlon) or a table
    whose name says "label" in the folder, then in the one above. Tables: JSON, ITK-SNAP's label descriptions, colour
    tables of Slicer and FreeSurfer, CSV and TSV with a number and a name (BIDS).

    Raises
    ------
    CaseError
        ``ROI_AMBIGUOUS`` when two such tables in one folder say different things.
    """
    own = _nrrd_segments(path) if path.name.lower().endswith((".nrrd", ".nhdr")) else _nifti_labels(path)
    if own:
        return own, ""
    folder = path.parent
    stem = path.name.lower().removesuffix(".gz").rpartition(".")[0]
    beside = [table for table in _tables(folder) if _stem(table) in (stem, f"{stem}_labels", f"{stem}_label")]
    general = [_general(folder, _tables(folder)), _general(folder.parent, _tables(folder.parent))]
    for tables in (beside, *general):
        named = {read: table for table in sorted(tables, reverse=True) if (read := _read_table(Path(table)))}
        if len(named) > 1:
            raise CaseError(
                Code.ROI_AMBIGUOUS,
                f"{' and '.join(sorted(named.values()))} name its labels differently; keep one of them",
                where=str(path),
            )
        for segments, table in named.items():
            return segments, table
    return (), ""


def layered(values: NumberArray, labels: tuple[int, ...]) -> BoolArray:
    """The voxels of some segments of a file whose fourth axis is its layers.

    Raises
    ------
    CaseError
        ``MASK_UNREADABLE`` when no segment is named, ``ROI_NOT_FOUND`` when a layer or a value is not there.
    """
    layers = values.shape[-1]
    if not labels:
        raise CaseError(
            Code.MASK_UNREADABLE,
            f"the label map has {layers} values a voxel, and its header names no segments; split overlapping segments "
            f"into one file each",
        )
    mask: BoolArray = np.zeros(values.shape[:-1], dtype=bool)
    for label in labels:
        layer, value = divmod(label, LAYER)
        found = values[..., layer] == value if layer < layers else np.zeros_like(mask)
        if not found.any():
            raise CaseError(Code.ROI_NOT_FOUND, f"no voxel holds {value} in layer {layer} of {layers}")
        mask |= found
    return mask


def _nrrd_segments(path: Path) -> tuple[Segment, ...]:
    fields = text_header(path).fields
    # before Slicer 4.11 each segment had a layer, in which it is 1, and nothing says so
    old = fields.get("dimension") == "4" and not any(
        re.fullmatch(r"Segment\d+_(Layer|LabelValue)", key) for key in fields
    )
    found = []
    for key in fields:
        match = re.fullmatch(r"Segment(\d+)_Name", key)
        if match:
            own = f"Segment{match[1]}_"
            number = int(match[1])
            layer = number if old else int(fields.get(own + "Layer", "0") or 0)
            value = 1 if old else int(fields.get(own + "LabelValue", "") or number + 1)
            if layer and value >= LAYER:
                raise CaseError(Code.MASK_UNREADABLE, f"label {value} in layer {layer}, expected less than {LAYER}")
            found.append((int(match[1]), Segment(fields[key], (layer * LAYER + value,))))
    return tuple(segment for _, segment in sorted(found, key=lambda item: item[0]))


def _nifti_labels(path: Path) -> tuple[Segment, ...]:
    if not is_nifti(path):
        return ()
    import nibabel

    try:
        header: Any = nibabel.load(path).header
        texts = [extension.get_content() for extension in header.extensions]
    except Exception:  # the fault is reported when the voxels are read
        return ()
    for text in texts:
        read = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else str(text)
        found = [(int(number), name) for number, name in _XML_LABEL.findall(read)]
        if found:
            return _segments(found)
    return ()


def _tables(folder: Path) -> tuple[str, ...]:
    try:
        return _listed(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=64)
def _listed(folder: str, changed: int) -> tuple[str, ...]:
    """The small files of a folder that may be tables; ``changed`` distinguishes its states in the cache."""
    with os.scandir(folder) as entries:
        return tuple(
            entry.path
            for entry in entries
            if entry.name.lower().endswith(_TABLES) and entry.is_file() and entry.stat().st_size <= _MOST_BYTES
        )


def _stem(table: str) -> str:
    return Path(table).name.lower().rpartition(".")[0]


def _general(folder: Path, tables: Iterable[str]) -> list[str]:
    """Tables that apply to all label maps of a folder."""
    known = re.compile(r"dataset\.json|(.*[^a-z])?(labels?|dseg|segments?)([^a-z].*)?\.\w+|.*\.(label|lbl|ctbl)")
    return [table for table in tables if known.fullmatch(Path(table).name.lower())]


def _read_table(path: Path) -> tuple[Segment, ...]:
    """Names and labels of a table; empty if it is something else."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
        if path.suffix.lower() == ".json":
            return _from_json(json.loads(text))
        if path.suffix.lower() in (".csv", ".tsv"):
            return _segments(_from_columns(text, "\t" if path.suffix.lower() == ".tsv" else ""))
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        for kind in (_ITK_SNAP, _COLOUR_TABLE):
            matches = [kind.fullmatch(line) for line in lines]
            if lines and all(matches):
                return _segments([(int(match[1]), match[2]) for match in matches if match])
    except (OSError, ValueError, TypeError, csv.Error):
        return ()
    return ()


def _from_json(content: object) -> tuple[Segment, ...]:
    """``{"labels": {"tumour": 1, "region": [1, 2]}}``, or reversed; with or without ``labels`` around it."""
    if not isinstance(content, Mapping):
        return ()
    labels = content.get("labels", content)
    if not isinstance(labels, Mapping):
        return ()
    found: list[Segment] = []
    for key, value in labels.items():
        if isinstance(value, str) and str(key).strip().isdigit():
            found.append(Segment(value.strip(), (int(key),)))
        elif isinstance(value, int | str) and str(value).strip().isdigit():
            found.append(Segment(str(key).strip(), (int(value),)))
        elif isinstance(value, list) and value and all(isinstance(one, int) for one in value):
            found.append(Segment(str(key).strip(), tuple(value)))
        else:
            return ()
    return tuple(segment for segment in found if segment.labels != (0,) and segment.name)


def _from_columns(text: str, delimiter: str) -> list[tuple[int, str]]:
    first = text.partition("\n")[0]
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter or max(",;\t", key=first.count)))
    head = [re.sub(r"[^a-z]", "", cell.lower()) for cell in rows[0]] if rows else []
    number = next((head.index(name) for name in _NUMBERS if name in head), None)
    named = next((head.index(name) for name in _NAMES if name in head and head.index(name) != number), None)
    if number is None or named is None:
        return []
    full = [row for row in rows[1:] if len(row) > max(number, named)]
    return [(int(row[number]), row[named].strip()) for row in full]


def _segments(found: Iterable[tuple[int, str]]) -> tuple[Segment, ...]:
    """One segment per label; none if a label is repeated: then it is another kind of table."""
    listed = [(number, name) for number, name in found if number and name]
    if len({number for number, _ in listed}) < len(listed):
        return ()
    return tuple(Segment(name, (number,)) for number, name in listed)
