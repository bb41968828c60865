"""A listing of a folder of DICOM slices, made the slow and obvious way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.listing import SeriesListing, SliceFile, write_listing


def list_series(folder: Path) -> SeriesListing:
    """The listing of all image instances in a folder."""
    headers = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())}
    headers = {path: header for path, header in headers.items() if "ImagePositionPatient" in header}
    first = next(iter(headers.values()))
    cosines = np.array(first.ImageOrientationPatient, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    in_order = sorted(headers.items(), key=lambda item: float(normal @ np.array(item[1].ImagePositionPatient, float)))
    return SeriesListing(
        series_uid=str(first.SeriesInstanceUID),
        study_uid=str(first.StudyInstanceUID),
        patient_id=str(first.PatientID),
        modality=str(first.Modality),
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID", "")),
        description="",
        root=str(folder),
        slices=tuple(_slice(path, header) for path, header in in_order),
    )


def _slice(path: Path, header: pydicom.Dataset) -> SliceFile:
    x, y, z = map(float, header.ImagePositionPatient)
    between_rows, between_columns = map(float, header.PixelSpacing)
    return SliceFile(
        file=path.name,
        sop_uid=str(header.SOPInstanceUID),
        position=(x, y, z),
        orientation=tuple(map(float, header.ImageOrientationPatient)),
        pixel_spacing=(between_rows, between_columns),
        size=(int(header.Rows), int(header.Columns)),
        bytes=path.stat().st_size,
        modified_ns=path.stat().st_mtime_ns,
    )


def case_of(image: Path, mask: Path, labels: tuple[int, ...], work: Path, modality: str = "CT") -> Case:
    """A case of an image file, or of a folder of slices whose listing is written to ``work``."""
    listed = write_listing(work, list_series(image)) if image.is_dir() else image
    return Case("case", "patient", modality, "roi", str(listed), str(mask), labels)
