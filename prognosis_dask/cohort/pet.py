"""PET: read what SUVs depend on from the headers, and compute the factors to SUV by body weight."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from prognosis_dask.cohort.headers import PetHeader
from prognosis_dask.errors import CaseError, Code

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_PHILIPS = (0x7053, "Philips PET Private Group")
_GE = (0x0009, "GEMS_PETD_01")
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(\.\d+)?")

#: Doses (Bq) and weights (kg) outside these ranges are in other units (MBq, g), or wrong.
DOSE_BQ = (1e5, 1e11)
WEIGHT_KG = (0.005, 500.0)
#: Doses per weight (Bq/kg): a tenth of the least that people are given, and ten times what mice are.
DOSE_PER_KG = (3e4, 1e10)
#: Half-lives after injection beyond which no PET is acquired: one twenty-third of the dose is left.
LONGEST = 4.5
#: Longest half-life (s) for which the day of the injection can be inferred from its time of day.
LONGEST_WITHOUT_DATE = 6 * 3600.0
#: Relative difference of SUVs between two estimates of the reference time beyond which a warning is due.
SAME_SUV = 0.05
#: Half-lives in seconds of what PET is acquired with, and how its names are written; and the tolerance of a written
#: half-life, which of some is known to half a per cent.
_NUCLIDES = {
    "fluorine-18": (6586.2, r"FDG|fluorodeoxy|F\W?18|18\W?F|fluorine"),
    "gallium-68": (4062.6, r"Ga\W?68|68\W?Ga|gallium"),
    "carbon-11": (1221.8, r"\bC\W?11\b|\b11\W?C\b|\b11\W?carbon|carbon\W?11"),
    "nitrogen-13": (597.9, r"\bN\W?13\b|\b13\W?N\b|nitrogen"),
    "oxygen-15": (122.24, r"\bO\W?15\b|\b15\W?O\b|oxygen"),
    "copper-64": (45722.0, r"Cu\W?64|64\W?Cu|64\W?copper|copper\W?64"),
    "zirconium-89": (282276.0, r"Zr\W?89|89\W?Zr|zirconium"),
    "iodine-124": (360806.0, r"\bI\W?124|124\W?I\b|124\W?iodine|iodine\W?124"),
    "rubidium-82": (75.9, r"Rb\W?82|82\W?Rb|rubidium"),
}
HALF_LIFE_TOLERANCE = 0.01

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)

T = TypeVar("T")


def pet_header(dataset: Dataset) -> PetHeader:
    """Read what SUVs depend on from a PET header that was read up to its pixels."""
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
        nuclides=_nuclides(drug),
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
        is_rescaled=_value(dataset, "RescaleSlope") is not None,
    )


def _drug(dataset: Dataset) -> Dataset:
    """The one radiopharmaceutical; an empty dataset if there is none or more than one."""
    from pydicom.dataset import Dataset

    items = _values(dataset, "RadiopharmaceuticalInformationSequence")
    only: Dataset = items[0] if len(items) == 1 else Dataset()
    return only


def _nuclides(drug: Dataset) -> tuple[str, ...]:
    named = [_text(drug, "Radiopharmaceutical")]
    named += [_text(item, "CodeMeaning") for item in _values(drug, "RadionuclideCodeSequence")]
    said = " ".join(named)
    return tuple(name for name, (_, written) in _NUCLIDES.items() if re.search(written, said, re.IGNORECASE))


def _private(dataset: Dataset, group: int, creator: str, element: int) -> object:
    """The value of a private element, even if de-identification removed its creator element."""
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
    """The value of an element; None if it cannot be read."""
    with suppress(ValueError, TypeError, OverflowError):
        return dataset.get(name)
    return None


def _values(dataset: Dataset, name: str) -> list[Any]:
    value = _value(dataset, name)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)


def seconds_of_day(text: str) -> float | None:
    """A DICOM time (TM) as seconds from midnight; None if it is not one.

    >>> seconds_of_day("101530.5"), seconds_of_day("10:15"), seconds_of_day("")
    (36930.5, 36900.0, None)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds, fraction = found.groups()
    return int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(fraction or 0)


def date_time(text: str) -> datetime | None:
    """A DICOM date and time (DT), in its own time zone; None if it is not one or has no time of day.

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


@dataclass(frozen=True)
class Suv:
    """The factor from each image's rescaled value to SUVbw (g/mL), and a remark on it."""

    factors: tuple[float, ...]
    note: str = ""


def suv_of(headers: Sequence[PetHeader]) -> Suv:
    """The factors from rescaled values to SUVbw for the images of a series.

    ``GML`` with no other SUV type than body weight stays as it is. ``CNTS`` takes Philips' SUV factor, or its activity
    factor and what follows. ``BQML`` is divided by the dose per gram, decayed to the time that the pixels are corrected
    to: that of the injection (``ADMIN``), the start of the scan (``START``), or of each image's mean count (``NONE``).

    Raises
    ------
    CaseError
        ``PET_UNITS`` if the headers are insufficient or contradictory.
    """
    units = _same("Units", [header.units for header in headers])
    _check_corrections(headers)
    if not all(header.is_rescaled for header in headers):
        raise _problem("images have no RescaleSlope: their stored values are in no unit")
    note = "" if headers[0].corrected else "CorrectedImage is empty: attenuation correction is not stated"
    if units == "GML":
        kind = _same("SUVType", [header.suv_type for header in headers])
        if kind not in ("", "BW"):
            raise _problem(f"the values are SUVs of the type {kind}, not by body weight (BW)")
        return Suv((1.0,) * len(headers), note)
    if units == "CNTS":
        direct = [header.suv_scale for header in headers]
        if all(direct):
            return Suv(tuple(map(float, filter(None, direct))), note)
        activity = [header.activity_scale or 0.0 for header in headers]
        if not all(activity):
            raise _problem("Units is CNTS, without Philips' factors (7053,1000) or (7053,1009) in every image")
        found = _per_activity(headers)
        return Suv(tuple(a * b for a, b in zip(activity, found.factors, strict=True)), _notes(note, found.note))
    if units == "BQML":
        found = _per_activity(headers)
        return Suv(found.factors, _notes(note, found.note))
    raise _problem(f"Units is {units or 'missing'}; BQML, GML and Philips' CNTS can be converted")


def _notes(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _problem(reason: str) -> CaseError:
    return CaseError(Code.PET_UNITS, f'no SUV: {reason}; correct the headers, or set image.pet = "stored"')


def _same(name: str, values: Sequence[T]) -> T:
    different = list(dict.fromkeys(values))
    if len(different) > 1:
        raise _problem(f"{name} differs between the images: {', '.join(map(str, different[:3]))}")
    return different[0]


def _check_corrections(headers: Sequence[PetHeader]) -> None:
    corrected = _same("CorrectedImage", [header.corrected for header in headers])
    if corrected and "ATTN" not in corrected:
        raise _problem(f"the images are not corrected for attenuation (CorrectedImage {', '.join(corrected)})")


def _per_activity(headers: Sequence[PetHeader]) -> Suv:
    """Body weight (g) per dose (Bq) at the time that each image's pixels are corrected to."""
    first = headers[0]
    _same("PatientWeight", [header.weight_kg for header in headers])
    _same("RadionuclideTotalDose", [header.dose_bq for header in headers])
    _same("RadionuclideHalfLife", [header.half_life_s for header in headers])
    _same("the time of injection", [(header.start_datetime, header.start_time) for header in headers])
    grams = 1000 * _within("PatientWeight", first.weight_kg, WEIGHT_KG, "kg")
    dose = _within("RadionuclideTotalDose", first.dose_bq, DOSE_BQ, "Bq")
    _within(f"the dose per weight ({dose:g} Bq, {grams / 1000:g} kg)", 1000 * dose / grams, DOSE_PER_KG, "Bq/kg")
    decay = _same("DecayCorrection", [header.decay for header in headers])
    _check_decay(decay, first.corrected)
    if decay == "ADMIN":
        return Suv((grams / dose,) * len(headers))
    half_life = _half_life(first)
    if decay == "START":
        reference, note = _start_of_scan(headers, half_life)
        left = dose * 2 ** (-_since_injection(first, reference, half_life) / half_life)
        return Suv((grams / left,) * len(headers), note)
    times = [_mean_count_time(header, half_life) for header in headers]
    return Suv(tuple(grams / dose * 2 ** (_since_injection(first, time, half_life) / half_life) for time in times))


def _within(name: str, value: float | None, limits: tuple[float, float], unit: str) -> float:
    if not value:
        raise _problem(f"{name} is missing or zero")
    if not limits[0] <= value <= limits[1]:
        raise _problem(f"{name} is {value:g} {unit}, expected {limits[0]:g} to {limits[1]:g}: is it in another unit?")
    return value


def _check_decay(decay: str, corrected: Sequence[str]) -> None:
    if decay not in ("START", "ADMIN", "NONE"):
        raise _problem(f"DecayCorrection is {decay or 'missing'}, expected START, ADMIN or NONE")
    if corrected and (decay == "NONE") == ("DECY" in corrected):
        raise _problem(f"DecayCorrection is {decay}, but CorrectedImage {', '.join(corrected)}")


def _half_life(header: PetHeader) -> float:
    if not header.half_life_s:
        raise _problem("RadionuclideHalfLife is missing or zero")
    known = {name: _NUCLIDES[name][0] for name in header.nuclides}
    if known and all(abs(header.half_life_s / half_life - 1) > HALF_LIFE_TOLERANCE for half_life in known.values()):
        listed = " and ".join(f"{name}'s is {half_life:g} s" for name, half_life in known.items())
        raise _problem(f"RadionuclideHalfLife is {header.half_life_s:g} s, but {listed}")
    return header.half_life_s


def _start_of_scan(headers: Sequence[PetHeader], half_life: float) -> tuple[datetime, str]:
    """The time that images with ``START`` are corrected to, and evidence against it.

    It is the series' time, unless that comes after the first acquisition (a series made afterwards): then GE's own
    scan time, else the time from which the frames' reference times count, else the first acquisition.
    """
    series = _same("SeriesDate and SeriesTime", [header.series for header in headers])
    acquired = [time for time in map(_acquired, headers) if time is not None]
    first = min(acquired) if len(acquired) == len(headers) else None
    counted = _reference_by_frames(headers, half_life)
    if first is not None and counted is not None and counted > first + 60 * _SECOND:
        counted = None  # images cannot be corrected to a time after their start: these are not decay factors
    begins = [time for time in (headers[0].ge_scan, series) if time and (first is None or time <= first + _SECOND)]
    chosen = next(filter(None, [*begins, counted, first]), None)
    if chosen is None:
        raise _problem("neither SeriesTime nor AcquisitionTime gives the start of the scan")
    return chosen, _doubt(chosen, counted or first or chosen, half_life)


def _doubt(chosen: datetime, other: datetime, half_life: float) -> str:
    apart = abs(2 ** ((other - chosen).total_seconds() / half_life) - 1)
    if apart <= SAME_SUV:
        return ""
    return (
        f"by its headers' dates and times the scan began at {chosen:%H:%M:%S}, by its images at {other:%H:%M:%S}: SUVs "
        f"would differ by {apart:.0%}"
    )


def _reference_by_frames(headers: Sequence[PetHeader], half_life: float) -> datetime | None:
    """The time that the pixels are corrected to, from the decay factors, else from the frame reference times."""
    found = []
    for header in headers:
        acquired = _acquired(header)
        if acquired is None or not header.frame_duration_ms:
            return None
        if header.decay_factor and header.decay_factor > 1:
            offset = half_life * math.log2(header.decay_factor)
        elif header.frame_reference_ms:
            offset = header.frame_reference_ms / 1000
        else:
            return None
        into = _until_mean_count(header.frame_duration_ms / 1000, half_life)
        found.append(acquired + timedelta(seconds=into - offset))
    zero = found[0]
    return zero + timedelta(seconds=median((time - zero).total_seconds() for time in found))


def _until_mean_count(frame_s: float, half_life: float) -> float:
    """Seconds from the start of a frame to the time of its mean activity."""
    decays = math.log(2) / half_life * frame_s
    return half_life / math.log(2) * math.log(decays / -math.expm1(-decays))


def _mean_count_time(header: PetHeader, half_life: float) -> datetime:
    acquired = _acquired(header)
    if acquired is None or not header.frame_duration_ms:
        raise _problem("DecayCorrection is NONE, and AcquisitionTime or ActualFrameDuration is missing")
    return acquired + timedelta(seconds=_until_mean_count(header.frame_duration_ms / 1000, half_life))


def _acquired(header: PetHeader) -> datetime | None:
    """The start of an image's acquisition; without AcquisitionDate, within half a day of the series' time."""
    if header.acquired is None or header.has_acquisition_date or header.series is None:
        return header.acquired
    apart = header.acquired - header.series
    if apart < -_DAY / 2:
        return header.acquired + _DAY
    return header.acquired - _DAY if apart > _DAY / 2 else header.acquired


def _since_injection(header: PetHeader, reference: datetime, half_life: float) -> float:
    """Seconds from the injection to ``reference``.

    A full date and time counts if it is shortly before. Otherwise, since de-identification shifts dates, the latest
    earlier occurrence of the time of day counts.
    """
    exact = header.start_datetime
    if exact is not None and 0 <= (reference - exact).total_seconds() <= LONGEST * half_life:
        _check_times_of_day(header)
        return (reference - exact).total_seconds()
    day = header.start_time
    if day is None and exact is not None:
        day = (exact - _midnight(exact)).total_seconds()
    if day is None:
        raise _problem("the radiopharmaceutical's start time is missing")
    if half_life > LONGEST_WITHOUT_DATE:
        raise _problem(f"the day of the injection is not known, and the half-life is {half_life / 3600:.1f} h")
    seconds = ((reference - _midnight(reference)).total_seconds() - day) % _DAY.total_seconds()
    if seconds > LONGEST * half_life:
        raise _problem(
            f"the injection at {timedelta(seconds=day)} is not shortly before the time of reference, "
            f"{reference:%H:%M:%S}"
        )
    return seconds


def _check_times_of_day(header: PetHeader) -> None:
    exact, day = header.start_datetime, header.start_time
    if exact is not None and day is not None and abs((exact - _midnight(exact)).total_seconds() - day) > 60:
        raise _problem(
            f"RadiopharmaceuticalStartDateTime says {exact:%H:%M:%S}, RadiopharmaceuticalStartTime "
            f"{timedelta(seconds=day)}"
        )


def _midnight(time: datetime) -> datetime:
    return time.replace(hour=0, minute=0, second=0, microsecond=0)
