"""A scan's result for DICOM viewers and archives: the mask as SEG, measurements and prediction as SR (TID 1500)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pydicom
import SimpleITK as sitk

from prognosis_dask import __version__
from prognosis_dask.arrays import BoolArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.series import SUFFIX, SeriesListing, read_listing
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.features.dataset import read_features
from prognosis_dask.features.guard import Stopwatch, guarded
from prognosis_dask.features.registry import NETWORKS, families_in
from prognosis_dask.imaging.load import load_roi, unit_of
from prognosis_dask.imaging.roi import grid_of
from prognosis_dask.imaging.series import series_grid
from prognosis_dask.objects.address import join
from prognosis_dask.prediction.result import NOTICE, without_identifiers
from prognosis_dask.publish import publish_folder, staging
from prognosis_dask.radiomics.codes import ibsi_code
from prognosis_dask.storage.brains import BrainStore, MaskStore
from prognosis_dask.storage.ledger import TaskResult, Values
from prognosis_dask.volumes.grid import Grid

if TYPE_CHECKING:
    import highdicom
    from highdicom.sr import AlgorithmIdentification, Measurement
    from pydicom.dataset import Dataset

#: The files: the mask as a segmentation, and the measurements.
FILES: Final = ("mask.seg.dcm", "measurements.sr.dcm")
#: The scheme of what no standard names: features by their names, and a prediction's parts (docs/prediction.md).
SCHEME: Final = "99PROGNOSIS"
#: Characters of a code value; of longer ones, which DICOM has too, readers know little.
_CODE: Final = 16
_RESEARCH: Final = "Research use only"
_PROGRAM: Final = "prognosis_dask"
_NO_UNIT: Final = "1"
_ARBITRARY: Final = "[arb'U]"
#: LOINC's codes of procedures, by modality (CID 100).
_PROCEDURES: Final = {
    "CT": ("25045-6", "CT unspecified body region"),
    "MR": ("25056-3", "MRI unspecified body region"),
    "PT": ("44139-4", "PET unspecified body region"),
}


@dataclass(frozen=True)
class DicomTask:
    """What a case's DICOM objects are made of.

    Attributes
    ----------
    out
        The folder that is written.
    run
        The folder of the case's run, whose stages are done.
    image
        How its mask was read.
    brain
        Whether the mask used is that of its prepared brain.
    result
        The content of the prediction's JSON.
    """

    out: str
    run: str
    image: ImageSection
    brain: bool
    result: Mapping[str, Any]


def write_dicom(cases: tuple[Case, ...], digests: tuple[str, ...], context: DicomTask) -> list[TaskResult]:
    """Write :data:`FILES` of each case, which came as a DICOM series. They name the patient, as the series does."""
    return [
        guarded("dicom", case, digest, partial(_dicom, case, context))
        for case, digest in zip(cases, digests, strict=True)
    ]


def _dicom(case: Case, context: DicomTask, watch: Stopwatch) -> Values:
    if not case.image.endswith(SUFFIX):
        raise CaseError(Code.NO_IMAGES, "the image is no DICOM series, to which a SEG and an SR could refer")
    out = Path(context.out)
    with watch.step("read"):
        listing = read_listing(case.image)
        mask, grid = _mask(case, listing, context)
    with watch.step("write"), staging(out) as aside:
        staged = aside / out.name
        staged.mkdir()
        try:
            found_by = "" if case.mask else "search" if context.brain else "network"
            segmentation = mask_segmentation(case.roi, listing, grid, mask, found_by)
            segmentation.save_as(staged / FILES[0])
            _report(case, listing, segmentation, context).save_as(staged / FILES[1])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"the series' headers lack what a DICOM object must have: {error}"
            raise CaseError(Code.IMAGE_INVALID, reason) from error
        publish_folder(staged, out)
    return {}


def _mask(case: Case, listing: SeriesListing, context: DicomTask) -> tuple[BoolArray, Grid]:
    """The mask on the series' own slices, (slice, row, column), and their grid."""
    if not context.brain:
        with nullcontext(case) if case.mask else MaskStore(f"{context.run}/segment").with_mask(case) as outlined:
            roi = load_roi(outlined, context.image, full=True, one_slice=True)
        return sitk.GetArrayFromImage(roi.mask) > 0, roi.full
    stored = BrainStore(Path(context.run) / BrainStore.stage).read(case.case_id).tumour
    grid = series_grid(listing, context.image.gap_tolerance)
    on = sitk.Image(list(grid.size), sitk.sitkUInt8)
    on.SetSpacing(grid.spacing)
    on.SetOrigin(grid.origin)
    on.SetDirection(grid.direction)
    # the brain's axes are in another order and direction, and its voxels are the same
    mask = sitk.GetArrayFromImage(sitk.Resample(stored, on, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
    if mask.sum() != (sitk.GetArrayViewFromImage(stored) > 0).sum():
        raise CaseError(Code.MASK_OTHER_GRID, f"the prepared brain ({grid_of(stored).size}) is not on the series' grid")
    return mask, grid


def mask_segmentation(
    roi: str, listing: SeriesListing, grid: Grid, mask: BoolArray, found_by: str = ""
) -> highdicom.seg.Segmentation:
    """A mask as a SEG with one segment, whose frames refer to the slices of its series.

    Parameters
    ----------
    roi
        The structure's name.
    listing, grid
        The series, and the grid of the mask: of the series, or of an evenly spaced part of it.
    mask
        bool, (slice, row, column).
    found_by
        Where nobody outlined it: ``search`` (the brain stage's), or ``network``.

    Raises
    ------
    AttributeError, ValueError
        When the series' headers lack what a SEG must have.
    """
    import highdicom

    slices = listing.slices
    first = next(i for i, one in enumerate(slices) if np.allclose(one.position, grid.origin, rtol=0, atol=1e-6))
    part = slices[first : first + len(mask)]
    files = list(dict.fromkeys(one.file for one in part))
    headers = [pydicom.dcmread(join(listing.root, name), stop_before_pixels=True, force=True) for name in files]
    if part[0].frame:
        if len(files) > 1:
            raise ValueError(f"its frames lie in {len(files)} files")
        frames = np.zeros((int(headers[0].NumberOfFrames), *mask.shape[1:]), dtype=bool)
        frames[[one.frame - 1 for one in part]] = mask
        mask = frames
    with _quiet():
        return highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=mask,
            segmentation_type="BINARY",
            segment_descriptions=[_segment(roi, found_by)],
            series_number=_series_number(headers[0], 1),
            sop_instance_uid=highdicom.UID(),
            series_instance_uid=highdicom.UID(),
            pixel_measures=highdicom.PixelMeasuresSequence(
                pixel_spacing=part[0].pixel_spacing,
                slice_thickness=grid.spacing[2],
                spacing_between_slices=grid.spacing[2],
            ),
            content_label="MASK",
            content_description=f"{_RESEARCH}: mask that was measured",
            series_description=f"{_RESEARCH}: mask",
            **_equipment(),
        )


def _segment(roi: str, found_by: str) -> highdicom.seg.SegmentDescription:
    import highdicom
    from pydicom.sr.codedict import codes

    how, family = {
        "": ("structure as given, on the image's voxels", codes.DCM.ManualProcessing),
        "search": ("tumour candidate", codes.DCM.MorphologicalOperations),
        "network": ("region outlined by a network", codes.DCM.ArtificialIntelligence),
    }[found_by]
    return highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=roi[:64] or "structure",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC" if found_by else "SEMIAUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=f"{_PROGRAM}: {how}", version=__version__, family=family
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=roi[:64] or "structure",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without highdicom's warnings of a patient's name as the scanner wrote it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _equipment() -> dict[str, Any]:
    return {
        "instance_number": 1,
        "manufacturer": _PROGRAM,
        "manufacturer_model_name": _PROGRAM,
        "software_versions": __version__,
        "device_serial_number": "0",
    }


def _series_number(header: Dataset, step: int) -> int:
    return 1000 + 10 * (int(header.get("SeriesNumber") or 0) % 1000) + step


def _report(
    case: Case, listing: SeriesListing, segmentation: highdicom.seg.Segmentation, context: DicomTask
) -> highdicom.sr.Comprehensive3DSR:
    """Two groups of measurements of the one segment: what was measured, and what the model says."""
    import highdicom
    from highdicom import sr

    headers = [
        pydicom.dcmread(join(listing.root, name), stop_before_pixels=True, force=True)
        for name in dict.fromkeys(one.file for one in listing.slices)
    ]
    value, meaning = _PROCEDURES.get(case.modality, _PROCEDURES["CT"])
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=_dcm("121007", "Device"),
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=highdicom.UID(), name=_PROGRAM, manufacturer_name=_PROGRAM, model_name=__version__
                ),
            )
        ),
        procedure_reported=sr.CodedConcept(value, "LN", meaning),
        imaging_measurements=_measurement_groups(listing, segmentation, context),
    )
    with _quiet():
        return sr.Comprehensive3DSR(
            evidence=[segmentation, *headers],
            content=content,
            series_number=_series_number(headers[0], 2),
            sop_instance_uid=highdicom.UID(),
            series_instance_uid=highdicom.UID(),
            is_complete=True,
            series_description=f"{_RESEARCH}: measurements",
            coding_schemes=[
                highdicom.coding_schemes.CodingSchemeIdentificationItem(
                    SCHEME, name="Features and predictions of prognosis_dask by their names", version=__version__
                )
            ],
            **{name: value for name, value in _equipment().items() if not name.startswith("device")},
        )


def _measurement_groups(
    listing: SeriesListing, segmentation: highdicom.seg.Segmentation, context: DicomTask
) -> list[highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    from highdicom import sr

    segment = sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=1,
        source_series=sr.SourceSeriesForSegmentation(listing.series_uid),
    )
    described = segmentation.SegmentSequence[0]
    use = sr.QualitativeEvaluation(_own("permitted use"), _own(_RESEARCH))
    return [
        sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=described.TrackingUID, identifier=described.TrackingID),
            referenced_segment=segment,
            algorithm_id=algorithm,
            measurements=measurements,
            qualitative_evaluations=evaluations,
        )
        for algorithm, measurements, evaluations in (
            (_measuring(context), list(_measurements(listing, context)), [use]),
            (_model(context.result), list(_prediction(context.result)), [use, *_group(context.result)]),
        )
        if measurements
    ]


def _measuring(context: DicomTask) -> AlgorithmIdentification:
    from highdicom import sr

    settings = read_features(context.run).attrs.get("settings") or {}
    parameters = [without_identifiers(f"{name}: {value}") for name, value in dict(settings).items()]
    what = f"{_PROGRAM}: features as pyradiomics {version('pyradiomics-bhklab')} and IBSI define them"
    return sr.AlgorithmIdentification(what, __version__, [NOTICE, *parameters])


def _model(result: Mapping[str, Any]) -> AlgorithmIdentification:
    from highdicom import sr

    told = [f"{name}: {value}" for name, value in result["model"].items() if name != "title"]
    said = [result["worth"]["sentence"], *result["warnings"]]
    return sr.AlgorithmIdentification(result["model"]["title"], __version__, [NOTICE, *filter(None, said), *told])


def _measurements(listing: SeriesListing, context: DicomTask) -> Iterator[Measurement]:
    dataset = read_features(context.run)
    own = "" if context.brain else unit_of(listing, context.image)
    for family in families_in(dataset):
        if family.name in NETWORKS:  # a network's features have no meaning of their own
            continue
        names = dataset[str(dataset[family.name].dims[1])].values
        held = family.units.name if family.units else ""
        units = dataset[held].values if held in dataset.variables else [_NO_UNIT] * len(names)
        for name, unit, value in zip(map(str, names), map(str, units), dataset[family.name].values[0], strict=True):
            code, aggregation = ibsi_code(name)
            yield _number(_ibsi(code, name) if code else _own(name), float(value), _ucum(unit, own), aggregation)


def _prediction(result: Mapping[str, Any]) -> Iterator[Measurement]:
    told = result["prediction"]
    for name in ("risk_score", "percentile"):
        if told[name] is not None:
            yield _number(_own(name), told[name], "%" if name == "percentile" else _NO_UNIT)
    for days, share in told["survival"].items():
        yield _number(_own(f"survival at {days} days"), share, _NO_UNIT)
    for name, share in told["probability"].items():
        yield _number(_own(f"probability of {name}"), share, _NO_UNIT)


def _group(result: Mapping[str, Any]) -> Sequence[highdicom.sr.QualitativeEvaluation]:
    from highdicom import sr

    told = result["prediction"]
    said = {"risk group": told["group"], "most probable class": told["class"]}
    return [sr.QualitativeEvaluation(_own(name), _own(value)) for name, value in said.items() if value]


def _number(name: highdicom.sr.CodedConcept, value: float, unit: str, aggregation: str = "") -> Measurement:
    """A measurement; a value that is not finite is said to be none (CID 42)."""
    from highdicom import sr

    ucum = sr.CodedConcept(unit, "UCUM", {_NO_UNIT: "no units", "%": "percent"}.get(unit, unit)[:64])
    method = _ibsi(aggregation, "aggregation") if aggregation else None
    finite = bool(np.isfinite(value))
    qualifier = None if finite else _dcm("114000", "Not a number")
    made = sr.Measurement(name, value if finite else 0.0, ucum, qualifier=qualifier, method=method)
    if not finite:
        made[0].MeasuredValueSequence = []
    return made


def _ibsi(code: str, name: str) -> highdicom.sr.CodedConcept:
    """A concept of IBSI; its meaning is DICOM's, where DICOM's context groups hold it."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    known = {one.value: one.meaning for one in (getattr(codes.IBSI, word) for word in codes.IBSI.dir())}
    return sr.CodedConcept(code, "IBSI", known.get(code, name)[:64])


def own_code(name: str) -> str:
    """The code of a name in :data:`SCHEME`: the name, or 16 hexadecimal digits of its SHA-256 where it is longer.

    >>> own_code("risk_score"), own_code("original_shape_LeastAxisLength")
    ('risk_score', '069b7145b2d496c1')
    """
    return name if len(name) <= _CODE else hashlib.sha256(name.encode()).hexdigest()[:_CODE]


def _own(name: str) -> highdicom.sr.CodedConcept:
    from highdicom import sr

    return sr.CodedConcept(own_code(name), SCHEME, name[:64], scheme_version=__version__)


def _dcm(value: str, meaning: str) -> highdicom.sr.CodedConcept:
    from highdicom import sr

    return sr.CodedConcept(value, "DCM", meaning)


def _ucum(unit: str, own: str) -> str:
    """A feature's unit in UCUM, ``u`` in that of the image (arbitrary where it has none).

    >>> _ucum("u^2 mm^3", "[hnsf'U]"), _ucum("mm^-1", ""), _ucum("u^2", "{SUVbw}g/mL"), _ucum("1", "[hnsf'U]")
    ("[hnsf'U]2.mm3", 'mm-1', '({SUVbw}g/mL)2', '1')
    """
    own = own or _ARBITRARY
    squared = f"({own})2" if "/" in own else f"{own}2"
    return ".".join({"u": own, "u^2": squared}.get(part, part.replace("^", "")) for part in unit.split())
