"""The closed list of what can go wrong, and the exceptions that carry it.

Two kinds are kept apart:

* a **case problem** (:class:`CaseError`, recorded as :class:`Problem`) belongs to one patient, series or
  mask. The run goes on; the problem is listed with the case. What leaves the case usable, but has to be known, is a
  warning (:func:`warn`): a :class:`Problem` of that severity.
* a **user error** (any other :class:`PrognosisError`) stops the command. The command line prints its
  message, without a traceback, and exits with status 2.

Every message says what was seen, what was expected and what to do.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from types import ModuleType, UnionType
from typing import Literal


class Code(StrEnum):
    """Why a file, a patient or a case could not be used. Closed: a new failure needs a new code."""

    # reading the folders
    UNREADABLE_FILE = "unreadable-file"
    DUPLICATE_INSTANCE = "duplicate-instance"
    MASK_WITHOUT_SERIES = "mask-without-series"
    SERIES_AMBIGUOUS = "series-ambiguous"
    PATIENT_WITHOUT_MASK = "patient-without-mask"
    PATIENTS_MIXED = "patients-mixed"
    OBJECT_MISSING = "object-missing"
    OBJECT_FORBIDDEN = "object-forbidden"
    OBJECT_CHANGED = "object-changed"
    OBJECT_UNREADABLE = "object-unreadable"
    # choosing regions of interest
    ROI_NOT_FOUND = "roi-not-found"
    ROI_AMBIGUOUS = "roi-ambiguous"
    ROI_WITHOUT_CONTOUR = "roi-without-contour"
    EXCLUDED = "excluded"
    # clinical table
    NO_CLINICAL_ROW = "no-clinical-row"
    NO_ENDPOINT = "no-endpoint"
    NO_IMAGES = "no-images"
    CLINICAL_TABLE = "clinical-table"
    # the image series
    SLICE_GAP = "slice-gap"
    SLICE_DUPLICATE = "slice-duplicate"
    SERIES_MIXED = "series-mixed"
    GANTRY_TILT = "gantry-tilt"
    SERIES_TOO_SHORT = "series-too-short"
    PIXELS_UNREADABLE = "pixels-unreadable"
    IMAGE_INVALID = "image-invalid"
    IMAGE_UNITS = "image-units"
    PET_UNITS = "pet-units"
    # MR of the head
    IMAGE_EMPTY = "image-empty"
    VOXEL_SIZE = "voxel-size"
    ORIENTATION = "orientation"
    BRAIN_NOT_FOUND = "brain-not-found"
    SEQUENCES_APART = "sequences-apart"
    # the mask
    MASK_UNREADABLE = "mask-unreadable"
    MASK_EMPTY = "mask-empty"
    MASK_OUTSIDE = "mask-outside"
    MASK_ONE_VOXEL = "mask-one-voxel"
    MASK_ONE_SLICE = "mask-one-slice"
    MASK_OTHER_GRID = "mask-other-grid"
    MASK_TOO_LONG = "mask-too-long"
    CONTOUR_OFF_PLANE = "contour-off-plane"
    CONTOURS_DROPPED = "contours-dropped"
    CONTOURS_AMBIGUOUS = "contours-ambiguous"
    MASK_GAPS = "mask-gaps"
    MASK_LABELS_MERGED = "mask-labels-merged"
    MASK_ITEM_INVALID = "mask-item-invalid"
    NO_CANDIDATE = "no-candidate"
    SEGMENT_FAILED = "segment-failed"
    # features
    RADIOMICS_FAILED = "radiomics-failed"
    FEW_GREY_LEVELS = "few-grey-levels"
    FEATURES_CONSTANT = "features-constant"
    WINDOW_UNFIT = "window-unfit"
    LESION_CUT = "lesion-cut"
    CLIP_INVALID = "clip-invalid"
    FEATURES_NOT_FINITE = "features-not-finite"
    GPU_MEMORY = "gpu-memory"
    # running
    STORE_DAMAGED = "store-damaged"
    TIME_LIMIT = "time-limit"
    MEMORY_LIMIT = "memory-limit"
    WORKER_LOST = "worker-lost"
    STOPPED = "stopped"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True)
class Problem:
    """One thing that could not be used: which code, whose, where, and the values seen and expected.

    ``severity``: what a ``problem`` belongs to is left out; what a ``warning`` belongs to is used.
    """

    code: Code
    reason: str
    patient_id: str = ""
    case_id: str = ""
    where: str = ""
    severity: Literal["problem", "warning"] = "problem"

    def of(self, *, patient_id: str = "", case_id: str = "", where: str = "") -> Problem:
        """The same problem with the missing parts of its address filled in."""
        return replace(
            self,
            patient_id=self.patient_id or patient_id,
            case_id=self.case_id or case_id,
            where=self.where or where,
        )


_noticed: ContextVar[list[Problem] | None] = ContextVar("noticed", default=None)


def warn(code: Code, reason: str, *, where: str = "") -> None:
    """Say something that has to be known of a case that is used all the same.

    In a stage it is filed with the case's outcome, in ``problems.csv`` and in the report; anywhere else, as in a
    notebook, it is a :class:`UserWarning`.

    >>> with collected_warnings() as found:
    ...     warn(Code.MASK_GAPS, "slice 4 of 9 is empty; image.fill_gaps was set")
    >>> [(str(warning.code), warning.severity) for warning in found]
    [('mask-gaps', 'warning')]
    """
    found = _noticed.get()
    if found is None:
        warnings.warn(f"{code}: {reason}{f' ({where})' if where else ''}", stacklevel=2)
    else:
        found.append(Problem(code, reason, where=where, severity="warning"))


@contextmanager
def collected_warnings() -> Iterator[list[Problem]]:
    """Gather what :func:`warn` says inside, in this thread; the same thing said twice is kept once."""
    found: list[Problem] = []
    token = _noticed.set(found)
    try:
        yield found
    finally:
        _noticed.reset(token)
        found[:] = dict.fromkeys(found)


class PrognosisError(Exception):
    """A mistake the user can correct: wrong path, wrong job, missing extra, no cluster."""


class CaseError(PrognosisError):
    """One case cannot be used. Carries the :class:`Problem`; never stops a run."""

    def __init__(self, code: Code, reason: str, *, where: str = "") -> None:
        super().__init__(code, reason, where)
        self.problem = Problem(code=code, reason=reason, where=where)

    def __str__(self) -> str:
        return f"{self.problem.code}: {self.problem.reason}"


class JobError(PrognosisError):
    """The job file, or an option on the command line, says something that cannot be done."""


def expect_kind(value: object, kinds: type | UnionType, what: str, expected: str) -> None:
    """Refuse a value of a type that only a call in Python can give.

    Raises
    ------
    JobError
        Naming the type that was seen.
    """
    if not isinstance(value, kinds):
        raise JobError(f"{what} is {type(value).__name__}, expected {expected}")


class StoreError(PrognosisError):
    """A run's folder cannot be used: missing, of another kind, locked or not writable."""


class BucketError(PrognosisError):
    """A bucket cannot be used: its name, the credentials, the region or the network."""

    @classmethod
    def of(cls, error: CaseError) -> BucketError:
        """Of an object without which more than its case cannot be done."""
        return cls(f"{error.problem.where}: {error.problem.reason}")


class ClusterError(PrognosisError):
    """The Dask cluster cannot be reached, or lacks what the job needs."""


class WeightsError(PrognosisError):
    """Network weights are missing, or are not the ones that were asked for."""


class StatisticsError(PrognosisError):
    """The data cannot carry the model or the figure that was asked for."""


class TableError(JobError, StatisticsError):
    """A table cannot be read, whatever for."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"cannot read {path} as a table: {reason}")
        self.path, self.reason = path, reason


class MissingExtraError(PrognosisError):
    """An optional package is not installed."""


def import_extra(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import an optional ``module``, or say which extra installs it and which feature needs it.

    Raises
    ------
    MissingExtraError
        When the module cannot be imported.

    >>> import_extra("json", extra="none", feature="this example").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{feature} needs the package {module.split('.')[0]!r}, which is not installed ({error}); "
            f"install it with: pip install 'prognosis-dask[{extra}]'"
        ) from error


def system_reason(error: Exception) -> str:
    """What an error, of the system as a rule, says in a line: where it has no words, its number's, or its type.

    >>> system_reason(OSError(28, "No space left on device", "a.csv")), system_reason(OSError(28, ""))
    ("[Errno 28] No space left on device: 'a.csv'", 'No space left on device')
    >>> system_reason(OSError(28)), system_reason(TimeoutError())
    ('No space left on device', 'TimeoutError')
    """
    if isinstance(error, OSError) and not error.strerror:
        number = error.errno or next((one for one in error.args[:1] if isinstance(one, int)), None)
        if number is not None:
            return os.strerror(number)
    return next(iter(str(error).strip().splitlines()), type(error).__name__)  # pydicom's own goes on with a traceback


# Counts in sentences: one case, two cases.


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "case"), count(0, "case"), count(1200, "case")
    ('1 case', '0 cases', '1,200 cases')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
