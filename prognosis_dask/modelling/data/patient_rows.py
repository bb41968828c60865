"""From rows of cases to rows of patients: what CT, MR and PET measure are columns of their own, never one column.

An HU, an SUV and the number of an MR share nothing but the feature's name, and three series of a patient are one
patient. So each modality's columns are a family of their own (``radiomics CT``), named after it (``CT
original_glcm_Contrast``), and so are those of each region where a patient has several in a modality. Where all cases
are of one modality and patients have one each, rows and names stay as they are. Rows of cases are pooled only where the
specification says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prognosis_dask.arrays import BoolArray, IntArray
from prognosis_dask.cohort.clinical import patient_key
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.data.columns import Encoding, SourceColumn, unit_of
from prognosis_dask.modelling.data.families import family_of, image_families, is_of_images, measured_families
from prognosis_dask.modelling.data.feature_origin import origin_of
from prognosis_dask.modelling.data.sources import Source

#: DICOM's modalities of images. A column "modality" that holds anything else is somebody's own.
_MODALITIES = ("CT", "MR", "PT", "NM", "US", "MG", "CR", "DX", "XA", "RF", "OT")
#: Joins the modalities of columns in which rows are pooled.
_PLUS = "+"


@dataclass(frozen=True, order=True)
class Block:
    """Cases of one modality and, where patients have several regions in it, of one region."""

    modality: str
    roi: str = ""

    @property
    def label(self) -> str:
        """What columns are named after.

        >>> Block("CT").label, Block("CT", "GTV").label
        ('CT', 'CT GTV')
        """
        return f"{self.modality} {self.roi}".strip()


def arrange_rows(
    source: Source, rows: str = "patient", known: Sequence[Encoding] = (), outcome: Sequence[str] = ()
) -> Source:
    """The source with one row per patient, or with its cases as they are where that is what a row is to be.

    Parameters
    ----------
    source
        A table; without a column of modalities it stays as it is.
    rows
        ``patient`` or ``pooled``.
    known
        A frozen model's encodings: the rows and columns are those that it was fitted on.
    outcome
        The columns that hold the endpoint, which is one per patient.

    Raises
    ------
    StatisticsError
        When a patient has several cases where one is expected, its cases have different endpoints, or the table has no
        case of a modality that the model takes.
    """
    modalities = _modalities(source)
    wanted = list(dict.fromkeys(Block(e.modality, e.roi) for e in known if e.modality))
    if modalities is None:
        note = (
            f"{source.where} does not say of which modality its cases are; the model was fitted on {_listed(wanted)}."
        )
        return replace(source, rows_said=(note,)) if wanted else source
    if wanted:
        return _as_known(source, modalities, wanted, known, outcome)
    if known:
        return _as_ever(source, modalities, known)
    if rows == "pooled":
        return _pooled(source, modalities)
    blocks = _blocks(source, modalities)
    _expect_one_each(source, blocks)
    kinds = sorted(set(blocks))
    if len(kinds) == 1:
        return _measured_on(source, kinds[0])
    held = Counter(blocks)
    told = ", ".join(f"{block.label} ({held[block]})" for block in kinds)
    note = f"A row is a patient: what was measured on {told} are columns of their own, named after it."
    return replace(_side_by_side(source, blocks, kinds, outcome), rows_said=(note,))


def side_by_side(encodings: Sequence[Encoding]) -> bool:
    """Whether a model takes a patient's modalities or regions side by side, which no single image has."""
    return any(e.modality and e.column.startswith(f"{Block(e.modality, e.roi).label} ") for e in encodings)


def expect_one_image(encodings: Sequence[Encoding], where: str) -> None:
    """Refuse a model that a single image cannot be predicted with.

    Raises
    ------
    StatisticsError
        When it takes several modalities or regions of each patient; names them.
    """
    if side_by_side(encodings):
        wanted = dict.fromkeys(Block(e.modality, e.roi) for e in encodings if e.modality)
        raise StatisticsError(
            f"{where} takes what was measured on {_listed(list(wanted))} of a patient, and one scan is one of them; "
            "predict a run of such patients with `prognosis predict`"
        )


def _modalities(source: Source) -> list[str] | None:
    column = source.find("modality")
    if column is None:
        return None
    found = ["PT" if text.upper() == "PET" else text.upper() for text in column.texts()]
    return found if set(found) <= set(_MODALITIES) else None


def _regions(source: Source) -> list[str]:
    column = source.find("roi")
    return [""] * len(source.patients) if column is None else column.texts()


def _blocks(source: Source, modalities: Sequence[str]) -> list[Block]:
    """Each case's block; the region tells blocks apart only where a patient has several in a modality."""
    regions: dict[tuple[str, str], set[str]] = defaultdict(set)
    names = _regions(source)
    for patient, modality, region in zip(source.patients, modalities, names, strict=True):
        regions[patient_key(patient), modality].add(region)
    several = any(len(found) > 1 for found in regions.values())
    return [Block(modality, name if several else "") for modality, name in zip(modalities, names, strict=True)]


def _expect_one_each(source: Source, blocks: Sequence[Block], wanted: Iterable[Block] = ()) -> None:
    """Two cases of a patient in a block are test and retest, or two lesions: which counts is not ours to say."""
    cases: dict[tuple[str, Block], list[int]] = defaultdict(list)
    for row, (patient, block) in enumerate(zip(source.patients, blocks, strict=True)):
        cases[patient_key(patient), block].append(row)
    among = set(wanted) or set(blocks)
    several = {at: rows for at, rows in cases.items() if len(rows) > 1 and at[1] in among}
    if several:
        (_, block), rows = next(iter(several.items()))
        named = ", ".join((source.cases or source.patients)[row] for row in rows[:3])
        patients = len({patient for patient, _ in several})
        raise StatisticsError(
            f"{source.where}: {count(patients, 'patient')} with several cases of {block.label}, the first "
            f"{source.patients[rows[0]]!r} ({named}): which of them counts? Keep one of each in cohort.cases, or set "
            'rows = "pooled" (in a job model.rows), so that each case is a row, and all of a patient in one fold'
        )


def _as_known(
    source: Source,
    modalities: Sequence[str],
    wanted: Sequence[Block],
    known: Sequence[Encoding],
    outcome: Sequence[str],
) -> Source:
    """The rows and columns that a frozen model takes."""
    takes = {modality for block in wanted for modality in block.modality.split(_PLUS)}
    absent = sorted(takes - set(modalities))
    apart = side_by_side(known)
    if (absent and apart) or not takes & set(modalities):
        raise StatisticsError(
            f"the model was fitted on {_listed(wanted)}, and {source.where} has no case of {', '.join(absent)}; it has "
            f"{', '.join(sorted(set(modalities)))}"
        )
    if not apart:
        keep = np.array([modality in takes for modality in modalities])
        others = Counter(m for m in modalities if m not in takes)
        lost = {f"of {modality}, which the model was not fitted on": n for modality, n in sorted(others.items())}
        return replace(_rows_of(source, keep), left_out=lost)
    regions = {block.modality: bool(block.roi) for block in wanted}
    blocks = [Block(m, roi if regions.get(m) else "") for m, roi in zip(modalities, _regions(source), strict=True)]
    _expect_one_each(source, blocks, wanted)
    return _side_by_side(source, blocks, wanted, outcome, whole=True)


def _as_ever(source: Source, modalities: Sequence[str], known: Sequence[Encoding]) -> Source:
    """For a model that does not say on what it was fitted, since it is older than that or has no image features."""
    several = sorted(set(modalities))
    if len(several) > 1 and any(is_of_images(encoding.family) for encoding in known):
        raise StatisticsError(
            f"the model does not say of which modality its features are, and {source.where} has {', '.join(several)}: "
            "fit it again"
        )
    return source


def _pooled(source: Source, modalities: Sequence[str]) -> Source:
    """Every case a row, in the same columns whatever it is of; those that some modality has not are no features."""
    several = sorted(set(modalities))
    pooled = _measured_on(source, Block(_PLUS.join(several)))
    if len(several) == 1:
        return pooled
    of = np.array(modalities)
    names = [name for name in source.features if _kind(source, name) in measured_families()]
    held = {name for name in names if all(_any_value(source.columns[name], of == one) for one in several)}
    lost = [name for name in names if name not in held]
    note = f"Rows of {', '.join(several)} are pooled in the same columns, since rows is 'pooled'."
    if lost:
        note += f" {count(len(lost), 'column')} that not all of them have are left out."
    features = tuple(name for name in source.features if name not in set(lost))
    failed = {
        family: _not_whole([source.columns[n] for n in held if source.families.get(n) == family], len(modalities))
        for family in source.failed
    }
    return replace(pooled, features=features, failed=failed, rows_said=(note,))


def _measured_on(source: Source, block: Block) -> Source:
    kinds = (*measured_families(), *image_families())
    measured = {name: (block.modality, block.roi) for name in source.features if _kind(source, name) in kinds}
    return replace(source, measured=measured, origin=origin_of(source.origin, block.modality.split(_PLUS)))


def _side_by_side(
    source: Source, blocks: Sequence[Block], kinds: Sequence[Block], outcome: Sequence[str], *, whole: bool = False
) -> Source:
    """A row per patient, with the columns of each block; ``whole``: also those that hold no value in it."""
    cases: dict[str, list[int]] = defaultdict(list)
    for row, (patient, block) in enumerate(zip(source.patients, blocks, strict=True)):
        if block in set(kinds):
            cases[patient_key(patient)].append(row)
    members = list(cases.values())
    columns, apart = _of_patients(source, members, outcome)
    features: list[str] = []
    families: dict[str, str] = {}
    measured: dict[str, tuple[str, str]] = {}
    failed: dict[str, BoolArray] = {}
    absent: dict[str, BoolArray] = {}
    for block in kinds:
        at = np.array([next((row for row in rows if blocks[row] == block), -1) for rows in members])
        made = {name: _rows_at(source.columns[name], at) for name in apart}
        made = {name: column for name, column in made.items() if whole or _any_value(column, at >= 0)}
        for name, column in made.items():
            kind, new = _kind(source, name), f"{block.label} {name}"
            columns[new] = replace(column, name=new, unit=column.unit or unit_of(name, kind))
            families[new] = f"{kind} {block.label}" if kind in image_families() else kind
            measured[new] = (block.modality, block.roi)
            if name in set(source.features):
                features.append(new)
        for family in dict.fromkeys(_kind(source, name) for name in made):
            if family in image_families():
                absent[f"{family} {block.label}"] = np.asarray(at < 0)
            if family in source.failed:
                own = [column for name, column in made.items() if _kind(source, name) == family]
                failed[f"{family} {block.label}" if family in image_families() else family] = _not_whole(own, len(at))
    features += [name for name in source.features if name not in set(apart)]
    return replace(
        source,
        patients=tuple(source.patients[rows[0]] for rows in members),
        cases=(),
        columns=columns,
        features=tuple(features),
        families={**{n: f for n, f in source.families.items() if n in columns}, **families},
        origin=origin_of(source.origin, sorted({block.modality for block in kinds})),
        failed=failed,
        absent=absent,
        measured=measured,
    )


def _of_patients(
    source: Source, members: Sequence[Sequence[int]], outcome: Sequence[str]
) -> tuple[dict[str, SourceColumn], list[str]]:
    """The columns that are the patients', and the names of those that are the cases'."""
    columns: dict[str, SourceColumn] = {}
    apart: list[str] = []
    for name, column in source.columns.items():
        if _kind(source, name) in measured_families():
            apart.append(name)
            continue
        at = _one_each(column, members)
        if at is not None:
            columns[name] = _rows_at(column, at)
        elif name in outcome:
            raise StatisticsError(f"{source.where}: {name} differs between the cases of a patient; it is one for all")
        elif name not in ("modality", "roi"):
            apart.append(name)
    return columns, apart


def _one_each(column: SourceColumn, members: Sequence[Sequence[int]]) -> IntArray | None:
    """The row of each patient's value, which all its cases have or lack; None where they differ."""
    cells = column.cells if isinstance(column.cells, np.ndarray) else column.texts()
    known = ~np.isnan(cells) if isinstance(cells, np.ndarray) else [bool(text) for text in cells]
    at = []
    for rows in members:
        held = [row for row in rows if known[row]]
        if len({cells[row] for row in held}) > 1:
            return None
        at.append(held[0] if held else rows[0])
    return np.array(at)


def _rows_at(column: SourceColumn, at: IntArray) -> SourceColumn:
    """The column with the rows at these positions; no value where one is below zero."""
    rows = tuple(column.row(row) if row >= 0 else 0 for row in at.tolist())
    if isinstance(column.cells, np.ndarray):
        return replace(column, cells=np.where(at >= 0, column.cells[at], np.nan), rows=rows)
    return replace(column, cells=[column.cells[row] if row >= 0 else "" for row in at.tolist()], rows=rows)


def _rows_of(source: Source, keep: BoolArray) -> Source:
    at = np.flatnonzero(keep)
    columns = {name: _rows_at(column, at) for name, column in source.columns.items()}
    every = np.ones(len(at), dtype=bool)
    held = {
        family: [c for n, c in columns.items() if source.families.get(n) == family and _any_value(c, every)]
        for family in source.failed
    }
    return replace(
        source,
        patients=tuple(source.patients[row] for row in at),
        cases=tuple(source.cases[row] for row in at) if source.cases else (),
        columns=columns,
        failed={family: _not_whole(own, len(at)) for family, own in held.items()},
    )


def _any_value(column: SourceColumn, rows: BoolArray) -> bool:
    values = column.plain
    if values is not None:
        return bool(np.isfinite(values[rows]).any())
    texts = column.texts()
    return any(texts[row] for row in np.flatnonzero(rows))


def _not_whole(columns: Sequence[SourceColumn], rows: int) -> BoolArray:
    """Rows that lack some value; all where there is no column."""
    if not columns:
        return np.ones(rows, dtype=bool)
    return np.asarray(np.isnan(np.column_stack([column.numbers() for column in columns])).any(axis=1))


def _kind(source: Source, name: str) -> str:
    return source.families.get(name) or family_of(name, source.family or "features")


def _listed(blocks: Sequence[Block]) -> str:
    return ", ".join(block.label for block in blocks)
