"""What a PET image's header says that its SUVs depend on."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from prognosis_dask.cohort.headers import PetHeader

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PHILIPS = (0x7053, "Philips PET Private Group")
_GE = (0x0009, "GEMS_PETD_01")
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(\.\d+)?")


def pet_header(dataset: Dataset) -> PetHeader:
    """Of a PET image's header, read up to its pixels."""
    drug = _drug(dataset)
    date = _text(dataset, "SeriesDate") or _text(dataset, "StudyDate")
    own_date = _text(dataset, "AcquisitionDate")
    return PetHeader(
        units=_text(dataset, "Units").upper(),
        suv_type=_text(dataset, "SUVType").upper(),
        corrected=tuple(str(value).strip().upper() for value in _values(dataset, "CorrectedImage")),
        decay=_text(dataset, "DecayCorrection").upper(),
        weight_kg=_number(dataset, "PatientWeight"),
        dose_bq=_number(drug, "RadionuclideTotalDose"),
        half_life_s=_number(drug, "RadionuclideHalfLife"),
        is_f18=_is_f18(drug),
        start_time=seconds_of_day(_text(drug, "RadiopharmaceuticalStartTime")),
        start_datetime=date_time(_text(drug, "RadiopharmaceuticalStartDateTime")),
        series=_joined(date, _text(dataset, "SeriesTime")),
        acquired=_joined(own_date or date, _text(dataset, "AcquisitionTime")),
        has_acquisition_date=bool(own_date),
        ge_scan=date_time(str(_private(dataset, *_GE, 0x0D) or "")),
        frame_reference_ms=_number(dataset, "FrameReferenceTime"),
        frame_duration_ms=_number(dataset, "ActualFrameDuration"),
        decay_factor=_number(dataset, "DecayFactor"),
        suv_scale=_positive(_private(dataset, *_PHILIPS, 0x00)),
        activity_scale=_positive(_private(dataset, *_PHILIPS, 0x09)),
    )


def _drug(dataset: Dataset) -> Dataset:
    """The one radiopharmaceutical; an empty dataset where there is none, or more than one."""
    from pydicom.dataset import Dataset

    items = _values(dataset, "RadiopharmaceuticalInformationSequence")
    only: Dataset = items[0] if len(items) == 1 else Dataset()
    return only


def _is_f18(drug: Dataset) -> bool:
    named = [_text(drug, "Radiopharmaceutical")]
    named += [_text(item, "CodeMeaning") for item in _values(drug, "RadionuclideCodeSequence")]
    return any(re.search(r"FDG|fluorodeoxy|F\W?18|18\W?F|fluorine", name, re.IGNORECASE) for name in named)


def _private(dataset: Dataset, group: int, creator: str, element: int) -> object:
    """The value of a private element; also where only its creator's element was removed with the names."""
    with suppress(KeyError):
        return dataset.private_block(group, creator)[element].value
    bare = (group, 0x1000 | element)
    return None if (group, 0x0010) in dataset or bare not in dataset else dataset[bare].value


def _positive(value: object) -> float | None:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    with suppress(ValueError):
        number = float(text.strip(" \0"))
        return number if math.isfinite(number) and number > 0 else None
    return None


def _text(dataset: Dataset, name: str) -> str:
    return str(_value(dataset, name) or "").strip()


def _number(dataset: Dataset, name: str) -> float | None:
    return _positive(_value(dataset, name) or "")


def _value(dataset: Dataset, name: str) -> Any:
    """What an element holds; nothing where that cannot be read."""
    with suppress(ValueError, TypeError, OverflowError):
        return dataset.get(name)
    return None


def _values(dataset: Dataset, name: str) -> list[Any]:
    value = _value(dataset, name)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)


def seconds_of_day(text: str) -> float | None:
    """A DICOM time (TM) as seconds from midnight; None where it is none.

    >>> seconds_of_day("101530.5"), seconds_of_day("10:15"), seconds_of_day("")
    (36930.5, 36900.0, None)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds, fraction = found.groups()
    return int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(fraction or 0)


def date_time(text: str) -> datetime | None:
    """A DICOM date and time (DT), in its own time zone; None where it is none, or names no time of day.

    >>> date_time("20200131101530.5+0100")
    datetime.datetime(2020, 1, 31, 10, 15, 30, 500000)
    """
    digits = re.split(r"[+-]", text.strip(), maxsplit=1)[0]
    return _joined(digits[:8], digits[8:]) if len(digits) >= 10 else None


def _joined(date: str, time: str) -> datetime | None:
    seconds, digits = seconds_of_day(time), re.sub(r"\D", "", date)
    if seconds is None or seconds >= 86400 or len(digits) != 8:
        return None
    with suppress(ValueError):
        day = datetime(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
        return day + timedelta(seconds=seconds)
    return None
