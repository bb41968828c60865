"""A DICOM Segmentation of the lesion, labelled as in NSCLC-Radiomics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from prognosis_dask.arrays import BoolArray
from prognosis_dask.synthetic.dicom import (
    CREATED_TIME,
    MANUFACTURER,
    Person,
    series_folder,
    synthetic_uid,
    write_instance,
)


def write_seg(root: Path, patient: Person, name: str, mask: BoolArray, images: Sequence[Dataset]) -> Path:
    """Write ``mask`` (slice, row, column) as the segment ``name`` of ``images`` (datasets from foot to head)."""
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Neoplasm, Primary",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.NeoplasmPrimary,
        algorithm_type="MANUAL",
    )
    segment.SegmentDescription = name
    ds = Segmentation(
        source_images=list(images),
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        series_instance_uid=synthetic_uid(patient, "seg"),
        series_number=300,
        sop_instance_uid=synthetic_uid(patient, "seg", 1),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions="1",
        device_serial_number="0",
        series_description="Segmentation",
    )
    _make_repeatable(ds, patient)
    path = series_folder(root, patient, 300, "Segmentation", ds.SeriesInstanceUID) / "1-1.dcm"
    write_instance(path, ds)
    return path


def _make_repeatable(ds: Segmentation, patient: Person) -> None:
    """Replace the present time and the random identifiers that highdicom writes."""
    fixed = {
        "InstanceCreationDate": ds.StudyDate,
        "InstanceCreationTime": CREATED_TIME,
        "ContentDate": ds.StudyDate,
        "ContentTime": CREATED_TIME,
        "ContributionDateTime": ds.StudyDate + CREATED_TIME,
        "DimensionOrganizationUID": synthetic_uid(patient, "dimensions"),
    }

    def replace(_: Dataset, element: DataElement) -> None:
        if element.keyword in fixed:
            element.value = fixed[element.keyword]

    ds.walk(replace)
