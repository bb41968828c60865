"""A first job for somebody's data: what a folder holds, as a job file with comments that runs as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.clinical import endpoint_options, patient_key
from prognosis_dask.cohort.collections import resolve
from prognosis_dask.cohort.endpoints import event_codes, plain_code, unit_of
from prognosis_dask.cohort.idc import is_collection
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.sources import expect_source, sort_sources
from prognosis_dask.config.job import CohortSection, IdcSection
from prognosis_dask.config.reading import shipped
from prognosis_dask.errors import JobError, StoreError, TableError, count
from prognosis_dask.publish import expect_writable, replacing
from prognosis_dask.tables.file import Cells, read_cells
from prognosis_dask.tables.values import known_cells

#: The parameter files that come with the program, by modality.
_PARAMETERS: Final = {"CT": "ct.yaml", "MR": "mr.yaml", "PT": "pt.yaml"}
_TABLES: Final = (".csv", ".tsv", ".xlsx")
#: A larger file is no clinical table.
_LARGEST_TABLE: Final = 20_000_000
#: Names of what is mostly studied, the likeliest first.
_LESIONS: Final = ("gtv", "gross", "neoplasm", "tumor", "tumour", "lesion", "mass", "nodule", "cancer", "carcinoma")
#: Tables are looked for so many folders down.
_DEEPEST: Final = 2
#: Headings of pyradiomics' tables: features, and no clinical columns.
_COMPUTED: Final = re.compile(r"(original|diagnostics)_\w+", re.IGNORECASE)
#: What the index calls a mask whose file has no name but that.
_NAMELESS: Final = "mask"


@dataclass(frozen=True)
class Found:
    """What a source holds, as far as a job has to name it.

    Attributes
    ----------
    source
        The folder, or ``idc:COLLECTION``.
    summary
        The lines on files, images and masks.
    modalities
        Cases, or series, by modality.
    rois
        Patients by the name of the structure; files without a name of their own are left out.
    chosen
        The names that a job begins with: a lesion's in each image, as far as the names tell.
    clinical
        The clinical table, if any.
    """

    source: str
    summary: Sequence[str]
    modalities: Counter[str]
    rois: Counter[str] = field(default_factory=Counter)
    chosen: Sequence[str] = ()
    clinical: FoundTable | None = None


@dataclass(frozen=True)
class FoundTable:
    """A clinical table: whose rows are patients with images, and which columns may be the outcome.

    ``events`` counts the patients with the event; None where its codes are ambiguous, as ``doubt`` says.
    """

    path: Path
    id_column: str
    patients: int
    pairs: Sequence[tuple[str, str]]
    columns: Sequence[str]
    unit: str = ""
    events: int | None = None
    doubt: str = ""


def init_job(source: Path | str = ".", out: Path | str = ".") -> Path:
    """Look at a folder of images, or a collection of the IDC, and write a job with what was found.

    Parameters
    ----------
    source
        A folder, or ``idc:COLLECTION``.
    out
        The folder for the job file and, in ``params/``, the parameter files that it names; those there are kept.

    Returns
    -------
    pathlib.Path
        The job file. It runs as it stands: what could not be told is a comment.

    Raises
    ------
    JobError
        When there is no such source, or no image in it.
    StoreError
        When there is a job of this name, or the folder cannot be written.
    """
    source = str(source)
    expect_source(source, "FOLDER")
    if Path(source).is_file():
        raise JobError(f"FOLDER: {source} is a file, expected the folder of the images")
    if Path(out).suffix == ".toml" and not Path(out).is_dir():
        raise JobError(f"--out {out}: expected a folder; the job is written in it, named after the images' folder")
    own = source.removeprefix("idc:") if is_collection(source) else Path(source).absolute().name
    name = re.sub(r"[^\w.-]+", "-", own)
    target = Path(out) / f"{name.strip('-.') or 'job'}.toml"
    if target.exists():
        raise StoreError(f"{target} exists and is kept; choose another folder with --out")
    expect_writable(target.parent)
    found = _collection(source) if is_collection(source) else _folder(Path(source).absolute())
    text = "\n".join(_job(found, target)) + "\n"
    _copy_parameters(found.modalities, target.parent / "params")
    with replacing(target) as aside:
        aside.write_text(text, encoding="utf-8")
    return target


def _collection(source: str) -> Found:
    rules = resolve(CohortSection())
    selection = sort_sources([source], IdcSection(), rules.modalities).idc
    images = Counter(one.modality for one in selection.series if one.modality in rules.modalities)
    return Found(source, str(selection).splitlines(), images)


def _folder(folder: Path) -> Found:
    with tempfile.TemporaryDirectory(prefix="prognosis-init-") as work:
        summary = str(index_cohort([folder], Path(work), CohortSection()))
        cases = read_cases(Path(work) / "cases.csv")
    lines = [line for line in summary.splitlines() if re.match(r"(files|patients|images|masks|ROIs) ", line)]
    if not cases:
        held = ", ".join(" ".join(line.split()) for line in lines)
        masked = "; without masks, a job can outline regions itself: its sections segment, and brain for MR of the head"
        raise JobError(
            f"no image with a mask in {folder} ({held}): `prognosis index {folder} -o DIR` says what is there"
            + (masked if "images" in held else "")
        )
    named = [case for case in cases if case.roi != _NAMELESS]
    rois = Counter(name for name, _ in {(case.roi, case.patient_id) for case in named})
    modalities = Counter(modality for modality, _ in {(case.modality, case.image) for case in cases})
    return Found(str(folder), lines, modalities, rois, _chosen_rois(named), _clinical(folder, cases))


def _chosen_rois(cases: Sequence[Case]) -> list[str]:
    """Names of lesions first, of several the most frequent, until each image has one."""
    images: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        images[case.roi].add(case.image)
    chosen: list[str] = []
    open_images = {case.image for case in cases}
    for name in sorted(images, key=lambda name: (_rank(name), -len(images[name]), name)):
        if images[name] & open_images:
            chosen.append(name)
            open_images -= images[name]
    return chosen


def _clinical(folder: Path, cases: Sequence[Case]) -> FoundTable | None:
    """The table in the folder, or above it, of most of these patients; one with an outcome first."""
    patients = {patient_key(case.patient_id) for case in cases}
    tables = [table for path in _tables(folder) if (table := _table(path, patients)) is not None]
    return max(tables, key=lambda table: (bool(table.pairs), table.patients), default=None)


def _tables(folder: Path) -> Iterator[Path]:
    """Tables within a few levels, below the folder and above it."""
    for at, folders, files in os.walk(folder):
        if len(Path(at).relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
        yield from _of_tables(Path(at), files)
    for above in folder.parents[:_DEEPEST]:
        yield from _of_tables(above, [path.name for path in above.iterdir() if path.is_file()])


def _of_tables(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    for name in sorted(files):
        if name.lower().endswith(_TABLES) and (folder / name).stat().st_size < _LARGEST_TABLE:
            yield folder / name


def _table(path: Path, patients: set[str]) -> FoundTable | None:
    """What a table may say of these patients; None where no column names any of them."""
    try:
        cells = read_cells(path)
    except TableError:
        return None
    met = {
        name: len(patients & {patient_key(text) for text in column})
        for name, column in zip(cells.header, cells.columns, strict=True)
    }
    ids = max(met, key=lambda name: met[name], default="")
    computed = sum(_COMPUTED.match(name) is not None for name in cells.header)
    if computed or not ids or not met[ids] or patient_key(ids) in patients:
        return None
    pairs = endpoint_options(cells)
    others = [name for name in cells.header if name not in (ids, *(pairs[0] if pairs else ()))]
    found = FoundTable(path, ids, met[ids], pairs, others)
    return _with_events(found, cells, patients) if pairs else found


def _with_events(found: FoundTable, cells: Cells, patients: set[str]) -> FoundTable:
    columns = dict(zip(cells.header, cells.columns, strict=True))
    time, event = found.pairs[0]
    try:
        codes = event_codes(event, columns[event], key="cohort.event_codes")
    except ValueError as error:
        return replace(found, unit=unit_of(time), doubt=str(error))
    texts = known_cells(columns[event]).texts
    own = [patient_key(text) in patients for text in columns[found.id_column]]
    events = sum(codes.get(plain_code(text)) == 1 for text, is_own in zip(texts, own, strict=True) if is_own)
    return replace(found, unit=unit_of(time), events=events)


def _copy_parameters(modalities: Mapping[str, int], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for modality, file in _PARAMETERS.items():
        wanted = modality in modalities or (modality == "CT" and modalities.keys() - _PARAMETERS)
        if wanted and not (folder / file).exists():
            shutil.copyfile(shipped("jobs") / "params" / file, folder / file)


def _job(found: Found, target: Path) -> Iterator[str]:
    yield f"# Written by `prognosis init` of {found.source}, which holds"
    yield from (f"#   {line}" for line in found.summary)
    yield f"# Edit it, then: prognosis run {target.name}   (again, to resume). docs/configuration.md has every key."
    yield f"name = {_text(target.stem)}"
    yield f"title = {_text(target.stem)}"
    yield ""
    yield "[cohort]"
    yield f"sources = [{_text(found.source)}]"
    yield from _modalities(found)
    yield from _rois(found)
    yield from _clinical_keys(found.clinical)
    yield ""
    yield from _radiomics(found)
    yield ""
    yield "[deep]"
    yield "enabled = false     # true: features of a video network too; its weights are downloaded at the first run"
    yield ""
    yield from _model(found.clinical)


def _modalities(found: Found) -> Iterator[str]:
    listed = ", ".join(f"{number:,} {name}" for name, number in found.modalities.most_common())
    yield f"modalities = [{', '.join(map(_text, found.modalities))}]     # found: {listed}"


def _rois(found: Found) -> Iterator[str]:
    if not found.rois:
        yield '# roi = ["GTV-1"]     # masks are named in their files only: `prognosis index` lists the names'
        return
    yield "# regions of interest, and how many patients have each:"
    ranked = sorted(found.rois.items(), key=lambda item: (_rank(item[0]), -item[1], item[0]))
    yield from (f"#   {_text(name)}: {number:,}" for name, number in ranked[:20])
    if len(ranked) > 20:
        yield f"#   and {len(ranked) - 20} more"
    chosen = ", ".join(map(_text, found.chosen))
    yield f"roi = [{chosen}]     # of several names the first that an image has counts; re:PATTERN matches names"
    yield 'roi_policy = "first"     # or merge (their union), or each (a case for each)'


def _rank(name: str) -> int:
    """Where a structure's name stands among those that are mostly studied."""
    plain = name.casefold()
    return next((rank for rank, word in enumerate(_LESIONS) if word in plain), len(_LESIONS))


def _clinical_keys(table: FoundTable | None) -> Iterator[str]:
    if table is None:
        yield '# clinical = "clinical.csv"     # no table with these patients was found in the folder or above it'
        return
    yield f"clinical = {_text(str(table.path))}     # {count(table.patients, 'patient')} of these images"
    yield f"id_column = {_text(table.id_column)}"
    if not table.pairs:
        yield "# time_column, event_column: no column looks like them; the others are"
        yield f"#   {', '.join(table.columns[:30])}"
        return
    (time, event), *others = table.pairs
    yield f"time_column = {_text(time)}"
    yield f"event_column = {_text(event)}"
    yield from (f"# or time_column = {_text(t)}, event_column = {_text(e)}" for t, e in others[:5])
    yield f"time_unit = {_text(table.unit or 'days')}" + (
        "" if table.unit else "     # assumed: the heading names no unit"
    )
    if table.doubt:
        yield f"# {table.doubt}"
    yield f"# other columns: {', '.join(table.columns[:30])}"


def _radiomics(found: Found) -> Iterator[str]:
    yield "[radiomics.params]     # pyradiomics' own files; HU, SUV and arbitrary numbers want bins of their own"
    for modality in found.modalities:
        if modality in _PARAMETERS:
            yield f'{modality} = "params/{_PARAMETERS[modality]}"'
        else:
            yield f'{modality} = "params/{_PARAMETERS["CT"]}"     # look at binWidth: it is made for HU'


def _model(table: FoundTable | None) -> Iterator[str]:
    yield "[model]"
    if table is None or not table.events:
        yield "enabled = false     # no outcome is known yet: the run ends with its features"
        yield '# label = "COLUMN"     # a class to predict in place of survival'
        yield '# features = "radiomics"     # what a model is fitted on'
    else:
        most = max(1, min(100, table.events // 10))
        yield f"max_features = {most}     # a feature for ten events, of which {table.events:,} are known"
        yield 'features = "radiomics"'


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
