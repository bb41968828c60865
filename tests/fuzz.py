"""Damaged inputs, thousands of them: what the readers make of each is a result or a problem, never anything else.

An input is a small cohort, table or settings file that is right, with one mutation: bytes flipped, cut, repeated or
zeroed; an element of DICOM deleted, emptied, repeated or set to an extreme; a cell, a number or a line changed. Each is
read as a user's would be. A fault is a traceback, a hang, or a wrong value where a witness knows the right one:

* the patient beside the damaged one stays as it was;
* a mask whose geometry, read by pydicom, has not changed stays as it was, or is a problem;
* pixels of a slice that is taken equal GDCM's, voxels of a NIfTI file that is taken equal nibabel's;
* rows of a table whose line was not touched keep their endpoint, or lose it with a word.

`python -m tests.fuzz --inputs 10000` prints how many were taken, how many were refused, and every fault with its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import openpyxl
import pydicom
import SimpleITK as sitk
from numpy.random import Generator
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection, ImageSection, load_job
from prognosis_dask.errors import CaseError, PrognosisError
from prognosis_dask.execution.clusters import read_cluster
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.spec import load_spec
from prognosis_dask.radiomics.parameter_file import column_names, read_params
from tests.dicom_helpers import write_rtstruct, write_seg, write_series

#: One input takes a few hundredths of a second; a hundred times that is a hang.
HANG_S = 20
#: More than this for a cohort of a few kilobytes is a fault of its own.
MEMORY_BYTES = 8 * 2**30
ROOT = Path(__file__).resolve().parents[1]
SHAPE = (8, 24, 20)
TABLE = ("PatientID", "time_days", "event", "age", "sex", "stage")


class Hang(BaseException):
    """Not an Exception, so that nothing that is tried swallows it."""


@dataclass(frozen=True)
class Fault:
    """What went wrong with one input, and the seed that makes it again."""

    kind: str
    seed: int
    what: str


def fuzz(inputs: int, folder: Path, first_seed: int = 0) -> tuple[Counter[str], list[Fault]]:
    """Read ``inputs`` damaged inputs, all kinds in turn; how many of each were taken and refused, and the faults."""
    made = Bases(folder)
    outcomes: Counter[str] = Counter()
    faults: list[Fault] = []
    for seed in range(first_seed, first_seed + inputs):
        kind = list(KINDS)[seed % len(KINDS)]
        outcome = _try(kind, seed, made)
        outcomes[f"{kind} {'fault' if isinstance(outcome, Fault) else outcome}"] += 1
        if isinstance(outcome, Fault):
            faults.append(outcome)
    return outcomes, faults


def _try(kind: str, seed: int, made: Bases) -> str | Fault:
    work = made.folder / "input"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        with warnings.catch_warnings(), _bounded(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return KINDS[kind](np.random.default_rng(seed), work, made)
    except Hang:
        return Fault(kind, seed, f"no answer in {HANG_S} s")
    except BaseException as error:  # whatever it is, it is a fault
        if isinstance(error, KeyboardInterrupt):
            raise
        return Fault(kind, seed, f"{type(error).__name__}: {str(error)[:300]}")


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES, hard))
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# --- what is right, made once ---


class Bases:
    """The inputs before they are damaged, and what is true of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cohorts = {"rtstruct": self._dicom("rtstruct"), "seg": self._dicom("seg")}
        self.nifti = self._nifti()
        self.masks = {name: _masks(root, folder / "truth") for name, root in self.cohorts.items()}
        self.rows = _table_rows()

    def _dicom(self, kind: str) -> Path:
        root = self.folder / kind
        rng = np.random.default_rng(0)
        for patient in ("P1", "P2"):
            stored = rng.integers(-200, 200, SHAPE).astype(np.int16)
            series = write_series(root / patient / "ct", stored, rescale=(1, 0))
            for path in series.iterdir():
                _rename(path, patient)
            mask = root / patient / "mask.dcm"
            if kind == "seg":
                write_seg(mask, series, _ball()[..., None], [1])
            else:
                _linked(write_rtstruct(mask, _rings()), series)
                _rename(mask, patient)
        return root

    def _nifti(self) -> Path:
        root = self.folder / "nifti"
        for patient in ("P1", "P2"):
            (root / patient).mkdir(parents=True)
            values = np.random.default_rng(1).normal(0, 100, SHAPE[::-1]).astype(np.float32)
            for name, data in (("ct", values), ("mask", _ball().T.astype(np.uint8))):
                nibabel.save(nibabel.Nifti1Image(data, np.diag([1.0, 1.0, 2.0, 1.0])), root / patient / f"{name}.nii")
        return root


def _ball() -> np.ndarray:
    z, y, x = np.indices(SHAPE)
    return ((z - 4) * 2) ** 2 + (y - 12) ** 2 + (x - 10) ** 2 <= 6.4**2


def _rings() -> list[np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = {z: np.sqrt(6.4**2 - (2 * (z - 4)) ** 2) for z in range(1, 8)}
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(24)], axis=1)
    return [np.array([10, 12, 2.0 * z]) + r * circle for z, r in radius.items()]


def _rename(path: Path, patient: str) -> None:
    dataset = pydicom.dcmread(path)
    dataset.PatientID = patient
    dataset.save_as(path)


def _linked(path: Path, series: Path) -> None:
    """Give an RTSTRUCT the frame of reference and the series that it was drawn on."""
    structures, image = pydicom.dcmread(path), pydicom.dcmread(next(series.iterdir()))
    structures.SeriesInstanceUID, structures.StudyInstanceUID = generate_uid(), image.StudyInstanceUID
    frame, study, drawn = Dataset(), Dataset(), Dataset()
    drawn.SeriesInstanceUID = image.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [drawn]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = image.FrameOfReferenceUID, [study]
    structures.ReferencedFrameOfReferenceSequence = [frame]
    structures.save_as(path)


def _table_rows() -> list[list[str]]:
    rng = np.random.default_rng(2)
    rows = [list(TABLE)]
    for number in range(40):
        days, event = f"{rng.exponential(600):.1f}", str(rng.integers(2))
        rows.append([f"P{number:02}", days, event, str(rng.integers(40, 80)), rng.choice(["m", "f"]), "I"])
        rows[-1][5] = str(rng.choice(["I", "II", "III"]))
    return rows


# --- the mutations ---


def damage_bytes(data: bytes, rng: Generator) -> bytes:
    """One way of several: flip, zero, cut, repeat, insert, swap."""
    if not data:
        return b"\0"
    start = int(rng.integers(len(data)))
    length = int(min(len(data) - start, rng.choice([1, 2, 4, 64, 1024])))
    part = data[start : start + length]
    ways: list[Callable[[], bytes]] = [
        lambda: data[:start] + bytes(b ^ (1 << int(rng.integers(8))) for b in part) + data[start + length :],
        lambda: data[:start] + bytes(length) + data[start + length :],
        lambda: data[:start],
        lambda: data[: start + length] + data[start:],
        lambda: data[:start] + rng.bytes(length) + data[start:],
        lambda: data[:start] + data[start + length :],
    ]
    return ways[int(rng.integers(len(ways)))]()


EXTREMES = (
    "",
    " ",
    "0",
    "-1",
    "1e308",
    "NaN",
    "Infinity",
    "-0.0",
    "1\\2\\3\\4\\5\\6\\7",
    "é",
    "x" * 400,
    "1e-300",
    "7",
)


def damage_element(path: Path, rng: Generator) -> None:
    """Delete, empty, set to an extreme or repeat one element at any depth of a DICOM file."""
    dataset = pydicom.dcmread(path)
    places = [(parent, element.tag) for parent, element in _elements(dataset)]
    parent, tag = places[int(rng.integers(len(places)))]
    element = parent[tag]
    way = int(rng.integers(4))
    if way == 0:
        del parent[tag]
    elif way == 1:
        element.value = [] if element.VR == "SQ" else None
    elif element.VR == "SQ":
        element.value = [*element.value, *element.value] if way == 2 else list(reversed(element.value))
    else:
        raw = EXTREMES[int(rng.integers(len(EXTREMES)))]
        parent[tag] = pydicom.dataelem.RawDataElement(
            tag, element.VR, len(raw), _bytes(element.VR, raw, rng), 0, False, True
        )
    with contextlib.suppress(Exception):  # what pydicom cannot write stays as it was
        written = io.BytesIO()
        dataset.save_as(written)
        path.write_bytes(written.getvalue())


def _bytes(vr: str, text: str, rng: Generator) -> bytes:
    sizes = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "OB": 2, "OW": 2}
    data = rng.bytes(sizes[vr]) if vr in sizes else text.encode()
    return data + b" " * (len(data) % 2)


def _elements(dataset: Dataset) -> Iterator[tuple[Dataset, pydicom.DataElement]]:
    for element in list(dataset):
        yield dataset, element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def damage_text(text: str, rng: Generator) -> str:
    """A line deleted, repeated or moved, or a word or number of it replaced."""
    lines = text.splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    way = int(rng.integers(5))
    if way == 0:
        return "".join(lines[:at] + lines[at + 1 :])
    if way == 1:
        return "".join(lines[: at + 1] + lines[at:])
    if way == 2:
        return damage_bytes(text.encode(), rng).decode(errors="replace")
    words = lines[at].split("=" if "=" in lines[at] else ":")
    values = [
        "-1",
        "0",
        "1e400",
        "nan",
        "[]",
        "{}",
        "''",
        '"x"',
        "true",
        "[1, 'a']",
        "99999999999999999999",
        "null",
        "-0.5",
    ]
    words[-1] = f" {values[int(rng.integers(len(values)))]}\n"
    lines[at] = ("=" if "=" in lines[at] else ":").join(words)
    return "".join(lines)


# --- reading them ---


def _masks(root: Path, work: Path) -> dict[str, np.ndarray]:
    """Each patient's mask in the full grid, where it can be had."""
    shutil.rmtree(work, ignore_errors=True)
    index_cohort([root], work, CohortSection())
    return {case.patient_id: mask for case in _cases(work) if (mask := _loaded(case)) is not None}


def _cases(work: Path) -> list[Case]:
    path = work / "cases.csv"
    return list(read_cases(path)) if path.read_text(encoding="utf-8").count("\n") > 1 else []


def _loaded(case: Case) -> np.ndarray | None:
    try:
        roi = load_roi(case, ImageSection(), full=True)
    except CaseError:
        return None
    return np.asarray(sitk.GetArrayFromImage(roi.mask) > 0)


def _fuzz_dicom(base: str, victim: str, rng: Generator, work: Path, made: Bases) -> str:
    cohort = work / "cohort"
    shutil.copytree(made.cohorts[base], cohort)
    files = sorted((cohort / "P1").glob(victim))
    path = files[int(rng.integers(len(files)))]
    before = _geometry(path)
    if rng.integers(2):
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
    else:
        damage_element(path, rng)
    found = _masks(cohort, work / "index")
    truth = made.masks[base]
    assert np.array_equal(found.get("P2", []), truth["P2"]) or _joins(path), "the patient beside it changed"
    if "P1" not in found:
        return "refused"
    assert np.array_equal(found["P1"], truth["P1"]) or _geometry(path) != before, "another mask of the same geometry"
    if victim != "mask.dcm":
        _expect_pixels_of_gdcm(path, work)
    return "taken"


def _joins(path: Path) -> bool:
    """Whether the damaged file says that it belongs to the patient beside it."""
    with contextlib.suppress(Exception):
        return str(pydicom.dcmread(path, stop_before_pixels=True).get("PatientID", "")) == "P2"
    return False


def _geometry(path: Path) -> object:
    """Everything in a file that masks depend on, as pydicom reads it; None where it cannot."""
    keep = ("PatientID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient")
    keep += ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "Modality", "SOPClassUID", "NumberOfFrames")
    keep += ("StructureSetROISequence", "ROIContourSequence", "ReferencedFrameOfReferenceSequence", "SegmentSequence")
    keep += ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "ReferencedSeriesSequence")
    keep += ("SegmentationType", "BitsAllocated", "DimensionIndexSequence", "StudyInstanceUID", "SegmentsOverlap")
    try:
        dataset = pydicom.dcmread(path)
        parts = [dataset[name].to_json_dict(None, 0) if name in dataset else None for name in keep]
        return [*parts, dataset.PixelData if dataset.get("Modality") == "SEG" else b""]
    except Exception:
        return None


def _expect_pixels_of_gdcm(path: Path, work: Path) -> None:
    case = next(case for case in _cases(work / "index") if case.patient_id == "P1")
    image = load_roi(case, ImageSection(), full=True).image
    try:
        if not np.isfinite(np.array(pydicom.dcmread(path).ImagePositionPatient, dtype=float)).all():
            return
    except Exception:  # without a place it is none of the series' slices; GDCM puts it at the origin
        return
    try:
        there = sitk.ReadImage(str(path))
        index = image.TransformPhysicalPointToIndex(there.GetOrigin())
    except RuntimeError:
        return
    if not 0 <= index[2] < image.GetSize()[2]:
        return
    ours = sitk.GetArrayFromImage(image)[index[2]]
    # GDCM takes an empty intercept for a number near zero that it did not initialise
    assert np.allclose(ours, sitk.GetArrayFromImage(there)[0], atol=1e-300), "pixels differ from GDCM's"


def _fuzz_nifti(rng: Generator, work: Path, made: Bases) -> str:
    cohort = work / "cohort"
    shutil.copytree(made.nifti, cohort)
    path = cohort / "P1" / str(rng.choice(["ct.nii", "mask.nii"]))
    data = path.read_bytes()
    if rng.integers(2):  # the header is where it matters
        path.write_bytes(damage_bytes(data[:352], rng)[:352].ljust(352, b"\0") + data[352:])
    else:
        path.write_bytes(damage_bytes(data, rng))
    index_cohort([cohort], work / "index", CohortSection())
    cases = {case.patient_id: case for case in _cases(work / "index")}
    beside = _loaded(cases["P2"])
    assert beside is not None, "the patient beside it is lost"
    assert np.array_equal(beside, _ball()), "the patient beside it changed"
    if "P1" not in cases or (mask := _loaded(cases["P1"])) is None:
        return "refused"
    if path.name == "mask.nii":
        values = np.asarray(nibabel.load(path).dataobj)
        whole = np.rint(values)
        labels = whole if np.abs(values - whole).max() <= 1e-3 else values  # a scl_inter of 1e-29 is no label
        assert int(mask.sum()) == int((labels != 0).sum()), "another mask than nibabel's"
    else:
        image = sitk.GetArrayFromImage(load_roi(cases["P1"], ImageSection(), full=True).image)
        values = np.asarray(nibabel.load(path).dataobj)
        assert np.allclose(np.sort(image, axis=None), np.sort(values, axis=None), rtol=1e-5), "not nibabel's voxels"
    return "taken"


def _fuzz_table(suffix: str, rng: Generator, work: Path, made: Bases) -> str:
    rows = [list(row) for row in made.rows]
    at = int(rng.integers(len(rows)))
    if rng.integers(2):
        rows[at][int(rng.integers(len(TABLE)))] = EXTREMES[int(rng.integers(len(EXTREMES)))]
    path = work / f"table.{suffix}"
    if suffix == "xlsx":
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)
        if rng.integers(3) == 0:
            path.write_bytes(damage_bytes(path.read_bytes(), rng))
            at = -1
    else:
        delimiter = str(rng.choice([",", ";", "\t"]))
        text = "\n".join(delimiter.join(row) for row in rows) + "\n"
        data = text.encode(str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"])))
        if rng.integers(2):
            data, at = damage_bytes(data, rng), -1
        path.write_bytes(data)
    try:
        read = read_tables(find_tables([path], load_spec(None)))
    except PrognosisError:
        return "refused"
    if at > 0 and read.has_endpoint:
        right = {row[0]: (float(row[1]), int(row[2])) for i, row in enumerate(made.rows) if i not in (0, at)}
        times = {case: (days, int(event)) for case, days, event in _endpoints(read)}
        wrong = [name for name, end in times.items() if name in right and not np.allclose(right[name], end)]
        assert not wrong, f"other endpoints of {wrong[:3]}"
    return "taken"


def _endpoints(read: object) -> Iterator[tuple[str, float, bool]]:
    table = read.table  # type: ignore[attr-defined]
    if hasattr(table.endpoint, "time_days"):
        yield from zip(table.patient_ids, table.endpoint.time_days, table.endpoint.event, strict=True)


def _fuzz_settings(pattern: str, read: Callable[[Path], object], rng: Generator, work: Path, _: Bases) -> str:
    files = sorted(ROOT.glob(pattern))
    source = files[int(rng.integers(len(files)))]
    path = work / source.name
    path.write_text(damage_text(source.read_text(encoding="utf-8"), rng), encoding="utf-8", errors="replace")
    try:
        read(path)
    except PrognosisError as error:
        message = str(error)
    else:
        return "taken"
    assert len(message) < 1500, "a message of more than a few lines"
    return "refused"


Kind = Callable[[Generator, Path, Bases], str]
KINDS: Mapping[str, Kind] = {
    "CT slice": lambda rng, work, made: _fuzz_dicom("rtstruct", "ct/*", rng, work, made),
    "RTSTRUCT": lambda rng, work, made: _fuzz_dicom("rtstruct", "mask.dcm", rng, work, made),
    "SEG": lambda rng, work, made: _fuzz_dicom("seg", "mask.dcm", rng, work, made),
    "NIfTI": _fuzz_nifti,
    "CSV": lambda rng, work, made: _fuzz_table("csv", rng, work, made),
    "XLSX": lambda rng, work, made: _fuzz_table("xlsx", rng, work, made),
    "job": lambda rng, work, made: _fuzz_settings("jobs/*.toml", load_job, rng, work, made),
    "specification": lambda rng, work, made: _fuzz_settings("jobs/models/*.toml", load_spec, rng, work, made),
    "cluster file": lambda rng, work, made: _fuzz_settings(
        "cluster/*.toml", lambda path: read_cluster(str(path)), rng, work, made
    ),
    "YAML": lambda rng, work, made: _fuzz_settings(
        "jobs/params/*.yaml", lambda path: column_names(read_params(str(path))), rng, work, made
    ),
}


def main() -> None:
    """Print what came of the inputs, and every fault with the seed that makes it again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, faults = fuzz(arguments.inputs, Path(folder), arguments.seed)
    for name, number in sorted(outcomes.items()):
        print(f"{name:24} {number:6}")
    for fault in faults:
        print(f"FAULT {fault.kind}, --seed {fault.seed}: {fault.what}")
    print(f"{arguments.inputs} inputs, {len(faults)} faults, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
