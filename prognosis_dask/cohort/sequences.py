"""Combine the MR sequences of a session into one case, and find the one that the tumour is drawn on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from prognosis_dask.cohort.case import SEQUENCES
from prognosis_dask.cohort.clinical import patient_key
from prognosis_dask.cohort.gather import Image
from prognosis_dask.cohort.names import sequence_of
from prognosis_dask.errors import Code, Problem
from prognosis_dask.objects.address import is_address
from prognosis_dask.volumes.files import VOLUME_SUFFIXES

#: The sequences on which gliomas are outlined, the likeliest first.
DRAWN_ON = ("T2", "FLAIR", "T1c", "T1")


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


def image_sequence(image: Image) -> str:
    """The sequence of an image by its SeriesDescription or file name; empty if unknown."""
    if image.listing is not None:
        return sequence_of(image.listing.description)
    return sequence_of(Path(image.path).name) if image.file is not None else ""


def sessions(images: Iterable[Image]) -> dict[str, dict[str, Image]]:
    """Per image (its key), the sequences of its session, itself included.

    A session is a patient's series of one study, or files of one folder. Of repeated sequences the one with most
    slices counts, then of T2 the latest echo, then the first by name; but an image is always part of its own session.
    """
    return {own.key: _chosen(group, own) for group in _by_session(images) for own in group}


def whole_sessions(images: Iterable[Image]) -> list[dict[str, Image]]:
    """The sequences of each session, chosen as by :func:`sessions` without an image that has to be there."""
    return [_chosen(group) for group in _by_session(images)]


def _chosen(group: Sequence[Image], own: Image | None = None) -> dict[str, Image]:
    taken: dict[str, Image] = {}
    for image in sorted(group, key=lambda image: (image is not own, -_slices(image), -_echo_ms(image), image.key)):
        taken.setdefault(image_sequence(image), image)
    return {name: taken[name] for name in SEQUENCES if name in taken}


def repeated(images: Iterable[Image], used: Container[str]) -> Iterator[Problem]:
    """A warning for each session and sequence of which one image is used (its key) and another is not.

    None where the other is made of that by its name: ``P1_T1_bias`` of ``P1_T1``.
    """
    for group in _by_session(images):
        alike: dict[str, list[Image]] = defaultdict(list)
        for image in group:
            alike[image_sequence(image)].append(image)
        for name, own in alike.items():
            taken = sorted(_said(image) for image in own if image.key in used)
            left = sorted(
                _said(image)
                for image in own
                if image.key not in used and not any(_is_made_of(_said(image), other) for other in taken)
            )
            if taken and left:
                reason = (
                    f"by their names {len(own)} images of this session are {name}: {', '.join(taken)} was taken, not "
                    f"{', '.join(left[:3])}; leave out what is not meant, or name the files in a table of cases"
                )
                yield Problem(Code.SERIES_AMBIGUOUS, reason, patient_id=group[0].patient_id, severity="warning")


def _by_session(images: Iterable[Image]) -> Iterable[list[Image]]:
    """The images of known sequences, of a session each."""
    groups: dict[tuple[str, str], list[Image]] = defaultdict(list)
    for image in images:
        if image_sequence(image):
            groups[patient_key(image.patient_id), _session(image)].append(image)
    return groups.values()


def _echo_ms(image: Image) -> float:
    """The echo time of a T2-weighted series, whose first echo of several is weighted by proton density; else 0."""
    if image.listing is None or image_sequence(image) != "T2":
        return 0.0
    try:
        return float(image.listing.acquisition.get("echo_time_ms", ""))
    except ValueError:
        return 0.0


def _said(image: Image) -> str:
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
    by_name = {image_sequence(image): image for image in reversed(images)}
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
