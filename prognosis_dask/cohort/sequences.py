"""Combine the MR sequences of a session into one case, and find the one that the tumour is drawn on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.cohort.case import SEQUENCES
from prognosis_dask.cohort.clinical import patient_key
from prognosis_dask.cohort.sequence_names import SaidSequence, said_sequence, sequence_of
from prognosis_dask.cohort.series import SUFFIX, SeriesListing, read_listing
from prognosis_dask.errors import Code, Problem
from prognosis_dask.objects.address import is_address
from prognosis_dask.volumes.files import VOLUME_SUFFIXES

if TYPE_CHECKING:
    from prognosis_dask.cohort.gather import Image

#: The sequences on which gliomas are outlined, the likeliest first.
DRAWN_ON = ("T2", "FLAIR", "T1c", "T1")
#: A name that numbers the subjects of a study, whatever that is called: ``MRA_001``, ``sub_A``; b is of diffusion.
_SUBJECT = re.compile(r"[^\W\d_]+[-_ ]+([^\W\d_]|(?!b)[^\W\d_]{0,2}\d+)", re.IGNORECASE)
_NAME_THEM = "name the images in a table of cases"


def is_scan(path: Path | str) -> bool:
    """Whether a path is an image file or a folder of images, rather than a run, its address or a folder of tables."""
    if is_address(path):
        return False
    path = Path(path)
    if not path.is_dir():
        return str(path).lower().endswith(VOLUME_SUFFIXES)
    return not any(path.joinpath(name).exists() for name in ("run.json", "features.zarr")) and not any(
        entry.suffix.lower() in (".csv", ".xlsx") for entry in path.iterdir()
    )


def name_sequences(images: Iterable[Image]) -> None:
    """Say of each image which sequence it is: by its name or SeriesDescription, and by its header.

    What the description says is not taken against the header: a T2 by words with the echo time of proton density, a
    map, a subtraction, a picture of the screen. A series whose description says nothing goes by its header, and a T1
    that does not say whether it is before or after contrast by the agent in it. What is so decided is in ``doubt``.
    """
    for group in _grouped(images).values():
        said = {image.key: _said_sequence(image) for image in group}
        for image in group:
            image.sequence, image.doubt = _by_name_and_header(image, said[image.key])
        dicom = [image for image in group if image.listing is not None and image.modality == "MR"]
        silent = [image for image in dicom if image.sequence == "T1" and not said[image.key].native]
        agents = {image.key: _acquired(image, "contrast_agent") for image in dicom}
        denied = any(agents[image.key] and said[image.key].native for image in dicom)
        lacking = any(not agents[image.key] or agents[image.key].startswith("before ") for image in dicom)
        for image in silent:
            _by_agent(image, agents[image.key], informative=lacking and not denied)


def _by_agent(image: Image, agent: str, *, informative: bool) -> None:
    if not agent or agent.startswith("before ") or agent == "varies":
        return
    named = (
        f"{_description(image)}: no word says contrast, and its header names an agent ({agent.removeprefix('after ')})"
    )
    if agent.startswith("after ") or informative:
        image.sequence, image.doubt = "T1c", f"{named}: taken as T1c"
        return
    image.doubt = (
        f"{named}, as those of all series of the session or of one before contrast do: that does not tell T1c from T1; "
        f"taken as T1: {_NAME_THEM}"
    )


def doubts(images: Iterable[Image]) -> Iterator[Problem]:
    """A warning for each image whose name and header do not say alike which sequence it is."""
    for image in images:
        if image.doubt:
            yield Problem(Code.SERIES_AMBIGUOUS, image.doubt, patient_id=image.patient_id, severity="warning")


def _said_sequence(image: Image) -> SaidSequence:
    if image.listing is not None:
        return said_sequence(image.listing.description)
    return said_sequence(Path(image.path).name) if image.file is not None else SaidSequence()


#: Values of ImageType of what is computed of images, and is none of the sequences.
_COMPUTED = frozenset((
    "ADC", "EADC", "FA", "TRACE", "TRACEW", "DIFFUSION", "PERFUSION", "RCBV", "RELCBV", "CBV", "RCBF", "RELCBF", "CBF",
    "MTT", "RELMTT", "TTP", "SUBTRACT", "SUBTRACTION", "SUB", "MIP", "MNIP", "MINIP", "MAX_IP", "MIN_IP",
    "PROJECTION IMAGE", "LOCALIZER", "SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "T1 MAP", "T1_MAP", "T2 MAP",
    "T2_MAP", "T2_STAR MAP", "PHASE MAP", "PHASE", "P", "VELOCITY", "FMRI", "REPORT",
))  # fmt: skip
#: Fewest slices of a series that is taken for a sequence by its header alone: fewer are those of a localizer.
_FEWEST_SLICES = 10


def _by_name_and_header(image: Image, said: SaidSequence) -> tuple[str, str]:
    """The sequence, and why that is in doubt."""
    if image.listing is None or image.modality != "MR":
        return said.sequence, ""
    computed = _computed(image.listing)
    if said.unclear and not computed and _slices(image) >= _FEWEST_SLICES:
        return "", f"{_description(image)}: its description says more than one sequence: left out; {_NAME_THEM}"
    if said.other:
        return "", ""
    if said.sequence:
        against = f"ImageType {computed[0]}" if computed else _against(said.sequence, image)
        if not against:
            return said.sequence, ""
        return (
            "",
            f"{_description(image)}: its description says {said.sequence}, its header does not ({against}): "
            "not used as such",
        )
    found = "" if computed or _slices(image) < _FEWEST_SLICES else _by_header(image)
    return (
        found,
        f"{_description(image)}: no word says which sequence it is; taken as {found} by its header" if found else "",
    )


def is_other(image: str) -> bool:
    """Whether a case's image says by its file's name, description or header that it is none of the four sequences."""
    if not image.endswith(SUFFIX):
        stem = Path(image).name.partition(".")[0]
        return not _SUBJECT.fullmatch(stem) and said_sequence(stem).other
    listing = read_listing(image)
    return said_sequence(listing.description).other or bool(_computed(listing))


def _computed(listing: SeriesListing) -> list[str]:
    return sorted(_COMPUTED & {kind.strip().upper() for kind in listing.acquisition.get("image_type", "").split("\\")})


def _against(sequence: str, image: Image) -> str:
    """What in a header shows that a series is not the sequence that its description says; generous bounds, in ms."""
    echo, inversion = _number(image, "echo_time_ms"), _number(image, "inversion_time_ms")
    kinds = set(_acquired(image, "scanning_sequence").split("\\"))
    if sequence == "T2":
        wrong = 0 < echo < 40 or "EP" in kinds or kinds == {"GR"} or (inversion > 1500 and echo > 60)
    elif sequence == "FLAIR":
        wrong = 0 < echo < 60 or 0 < inversion < 1300
    else:
        wrong = echo > 60 or "EP" in kinds
    told = {
        "ScanningSequence": "\\".join(sorted(kinds - {""})),
        "EchoTime": f"{echo:g} ms" if echo else "",
        "InversionTime": f"{inversion:g} ms" if inversion else "",
    }
    return ", ".join(f"{name} {value}" for name, value in told.items() if value) if wrong else ""


def _by_header(image: Image) -> str:
    """``T1``, ``T2`` or ``FLAIR`` where times (ms) and pulses allow one alone; plain gradient echoes do not."""
    echo, repetition = _number(image, "echo_time_ms"), _number(image, "repetition_time_ms")
    inversion, kinds = _number(image, "inversion_time_ms"), set(_acquired(image, "scanning_sequence").split("\\"))
    if kinds & {"EP", "RM"} or not echo or not repetition:
        return ""
    if 1500 <= inversion <= 3000 and echo >= 60:
        return "FLAIR"
    if 500 <= inversion <= 1300 and echo <= 6 and "GR" in kinds and 1000 <= repetition <= 3500:
        return "T1"
    if kinds != {"SE"} or inversion:
        return ""
    if echo >= 70 and repetition >= 1800:
        return "T2"
    return "T1" if echo <= 30 and 250 <= repetition <= 1000 else ""


def _acquired(image: Image, name: str) -> str:
    return image.listing.acquisition.get(name, "") if image.listing is not None else ""


def _number(image: Image, name: str) -> float:
    """What a header says of a time; 0 where it does not, or several."""
    try:
        return float(_acquired(image, name))
    except ValueError:
        return 0.0


def sessions(images: Iterable[Image]) -> dict[str, dict[str, Image]]:
    """Per image (its key), the sequences of its session, itself included.

    A session is a patient's series of one study, or files of one folder. Of repeated sequences one that is not in doubt
    counts, then the one with most slices, of T2 the latest echo, the first by name; but an image is always part of its
    own session.
    """
    return {own.key: _chosen(group, own) for group in _by_session(images) for own in group}


def whole_sessions(images: Iterable[Image]) -> list[dict[str, Image]]:
    """The sequences of each session, chosen as by :func:`sessions` without an image that has to be there."""
    return [_chosen(group) for group in _by_session(images)]


def _chosen(group: Sequence[Image], own: Image | None = None) -> dict[str, Image]:
    taken: dict[str, Image] = {}
    for image in sorted(
        group, key=lambda image: (image is not own, bool(image.doubt), -_slices(image), -_echo_ms(image), image.key)
    ):
        taken.setdefault(image.sequence, image)
    return {name: taken[name] for name in SEQUENCES if name in taken}


def repeated(images: Iterable[Image], used: Container[str]) -> Iterator[Problem]:
    """A warning for each session and sequence of which one image is used (its key) and another is not.

    None where the other is made of that by its name: ``P1_T1_bias`` of ``P1_T1``.
    """
    for group in _by_session(images):
        alike: dict[str, list[Image]] = defaultdict(list)
        for image in group:
            alike[image.sequence].append(image)
        for name, own in alike.items():
            taken = sorted(_description(image) for image in own if image.key in used)
            left = sorted(
                _description(image)
                for image in own
                if image.key not in used and not any(_is_made_of(_description(image), other) for other in taken)
            )
            if taken and left:
                reason = (
                    f"by their names {len(own)} images of this session are {name}: {', '.join(taken)} was taken, not "
                    f"{', '.join(left[:3])}; leave out what is not meant, or name the files in a table of cases"
                )
                yield Problem(Code.SERIES_AMBIGUOUS, reason, patient_id=group[0].patient_id, severity="warning")


def _by_session(images: Iterable[Image]) -> Iterable[list[Image]]:
    """The images of known sequences, of a session each."""
    return _grouped(image for image in images if image.sequence).values()


def _grouped(images: Iterable[Image]) -> dict[tuple[str, str], list[Image]]:
    groups: dict[tuple[str, str], list[Image]] = defaultdict(list)
    for image in images:
        groups[patient_key(image.patient_id), _session(image)].append(image)
    return groups


def _echo_ms(image: Image) -> float:
    """The echo time of a T2-weighted series, whose first echo of several is weighted by proton density; else 0."""
    return _number(image, "echo_time_ms") if image.sequence == "T2" else 0.0


def _description(image: Image) -> str:
    if image.listing is None:
        return Path(image.path).name
    return ", ".join(filter(None, (image.listing.description, image.listing.stack, f"{_slices(image)} slices")))


def _is_made_of(name: str, other: str) -> bool:
    stem = next((other[: -len(suffix)] for suffix in VOLUME_SUFFIXES if other.lower().endswith(suffix)), "")
    return bool(stem) and name.startswith(stem) and name[len(stem)] in "_-"


def _session(image: Image) -> str:
    return image.listing.study_uid if image.listing is not None else str(Path(image.path).parent)


def _slices(image: Image) -> int:
    return len(image.listing.slices) if image.listing is not None else 0


def drawn_on(mask: str, images: Sequence[Image]) -> Image:
    """Which of a session's sequences a mask was drawn on: the one that the mask's name says, else by its grid.

    Of several on the mask's own grid, or on none, it is the likeliest: T2, FLAIR, T1c, T1.
    """
    by_name = {image.sequence: image for image in reversed(images)}
    named = sequence_of(Path(mask).name)
    if named and named in by_name:
        return by_name[named]
    ordered = [by_name[name] for name in DRAWN_ON if name in by_name] or list(images)
    grid = _grid(mask)
    return next((image for image in ordered if grid and _grid(image.path) == grid), ordered[0])


def _grid(path: str) -> tuple[object, ...]:
    """Size, spacing, origin and direction of an image file, rounded; empty if it is not one."""
    if not path.lower().endswith(VOLUME_SUFFIXES):
        return ()
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return ()
    numbers = (*reader.GetSpacing(), *reader.GetOrigin(), *reader.GetDirection())
    return (*reader.GetSize(), *(round(number, 2) + 0.0 for number in numbers))
