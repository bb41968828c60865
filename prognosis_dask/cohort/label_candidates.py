"""The structures of a label map: its named labels, its unnamed ones where a rule asks for names, or the file as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prognosis_dask.cohort.files import FileStamp
from prognosis_dask.cohort.headers import Structure, VolumeFile
from prognosis_dask.cohort.rois import Candidate
from prognosis_dask.errors import CaseError
from prognosis_dask.volumes.files import volume_voxels
from prognosis_dask.volumes.labels import labels_in


def short_path(path: str) -> str:
    """File and folder, without what lies above.

    >>> short_path("/data/P1/mask.nii.gz")
    'P1/mask.nii.gz'
    """
    return "/".join(Path(path).parts[-2:])


def label_candidates(file: VolumeFile, roi: str, *, asked: bool) -> list[Candidate]:
    """What a label map offers to the rules.

    Parameters
    ----------
    file
        The mask, with the names of its labels where they were found.
    roi
        What its own name says beside whose it is.
    asked
        Whether rules ask for ROIs by name. A file without any name then passes as the ROI only with a single label.
    """
    if file.present:
        return list(_named(file, roi))
    labels = _labels(file.file) if asked and not roi else ()
    if len(labels) > 1:
        return [_of_label(file, label) for label in labels]
    return [candidate(file.file, Structure(0, (roi or "mask",)), (), named=bool(roi))]


def candidate(
    file: FileStamp,
    structure: Structure,
    labels: tuple[int, ...],
    *,
    named: bool = True,
    names_from: FileStamp | None = None,
) -> Candidate:
    """A structure of a label map."""
    return Candidate(file, short_path(file.path), "label map", structure, labels, named, names_from=names_from)


def _named(file: VolumeFile, roi: str) -> Iterator[Candidate]:
    """The named labels, those among them that a table lists for other files left out, and the others by number."""
    for segment in file.segments:
        empty = not set(segment.labels) & set(file.present)
        if empty and file.names_from is not None:
            continue
        names = (segment.name, roi) if roi and len(file.segments) == 1 else (segment.name,)
        structure = Structure(segment.labels[0], names, empty=empty)
        yield candidate(file.file, structure, segment.labels, names_from=file.names_from)
    known = {label for segment in file.segments for label in segment.labels}
    yield from (_of_label(file, label) for label in file.present if label not in known)


def _of_label(file: VolumeFile, label: int) -> Candidate:
    return candidate(file.file, Structure(label, (f"label-{label}",)), (label,), names_from=file.names_from)


def _labels(file: FileStamp) -> tuple[int, ...]:
    try:
        return labels_in(volume_voxels(Path(file.path)))
    except CaseError:  # what is wrong with it is told when the case is read
        return ()
