"""Collection presets: what is particular about each cohort, as data. A job can override each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from prognosis_dask.cohort.endpoints import EVENT_CODES, Unit, unit_of
from prognosis_dask.cohort.headers import IMAGE_MODALITIES
from prognosis_dask.cohort.rois import Policy, check_rules
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import JobError


@dataclass(frozen=True)
class Collection:
    """What is particular about a collection.

    Attributes
    ----------
    roi, policy, modalities
        See :mod:`prognosis_dask.cohort.rois`; no rule means every ROI.
    exclude
        Patients without a usable case, with the reason; a job's ``exclude`` replaces these.
    cautions
        Patients that some studies exclude, with the reason. They are kept unless the job excludes them.
    id_columns, time_columns, event_columns
        Spellings that the clinical table may use, the first one found counts. Compared by letters and digits only:
        ``Survival.time`` is ``survivaltime``.
    time_unit, unit_assumed
        Unit of the time column, and whether days are assumed because no unit is given.
    event_codes
        Codes of the event column for 1 (observed) and 0 (censored).
    given_codes
        Codes of the event given by the job; they replace all others.
    given_columns
        Columns that the job names, by its key: a table without one is refused.
    sequences
        Whether the MR sequences of a session are one case.
    by_sequence
        Whether each MR sequence is a case of its own for the same mask, its ROI named after it: ``core T1c``.
    regions, region_files
        Names of unions of a label map's labels, for maps that name none; only of masks whose file has one of these
        words beside the patient's name, or none.
    either
        Two labels for one thing in different years: a map that has both means another by one of them.
    id_part
        Pattern whose groups are the part of a patient's ID, in lower case, that table and images have in common.
    levels
        Clinical columns whose spellings are read as :mod:`prognosis_dask.tables.values` has it.
    """

    roi: tuple[str, ...] = ()
    policy: Policy = "one"
    modalities: tuple[str, ...] = IMAGE_MODALITIES
    exclude: Mapping[str, str] = field(default_factory=dict)
    cautions: Mapping[str, str] = field(default_factory=dict)
    id_columns: tuple[str, ...] = ("PatientID", "Patient", "ID", "SubjectID", "dicom_patient_id")
    time_columns: tuple[str, ...] = ("time_days",)
    event_columns: tuple[str, ...] = ("event",)
    time_unit: Unit = "days"
    unit_assumed: bool = False
    event_codes: Mapping[str, int] = field(default_factory=lambda: EVENT_CODES)
    given_codes: Mapping[str, int] = field(default_factory=dict)
    given_columns: Mapping[str, str] = field(default_factory=dict)
    sequences: bool = False
    by_sequence: bool = False
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    region_files: tuple[str, ...] = ()
    either: tuple[int, ...] = ()
    id_part: str = ""
    levels: tuple[str, ...] = ()


#: BraTS: 1 necrosis and what does not enhance, 2 oedema, 4 the enhancing part; 3 from 2023 on. With 3 beside it 4 is
#: the cavity of an operation (2024), or oedema (children); until 2015 3 was what does not enhance.
_BRATS = {"whole tumour": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (3, 4), "oedema": (2,)}
_BRATS_FILES = ("tumor", "tumour", "manuallycorrected", "manually-corrected")
_LUNG1_TIME = ("Survival.time", "survival_time")
_LUNG1_EVENT = ("deadstatus.event", "dead_status_event")
_HN1_TIME = ("overall_survival_in_days",)
_HN1_EVENT = ("event_overall_survival",)
_IN_DOUBT = "left out by several published analyses of this collection"

COLLECTIONS: Mapping[str, Collection] = {
    "generic": Collection(),
    # NSCLC-Radiomics. An RTSTRUCT and a SEG of the same ROIs for each patient; the SEG's SegmentLabel is
    # "Neoplasm, Primary", its SegmentDescription the ROI's name.
    "lung1": Collection(
        roi=("GTV-1",),
        modalities=("CT",),
        exclude={"LUNG1-128": "post-operative, the structure set has no GTV"},
        cautions={
            "LUNG1-014": f"{_IN_DOUBT}; 16 slices are missing from its CT",
            **dict.fromkeys(("LUNG1-021", "LUNG1-085", "LUNG1-095", "LUNG1-194"), _IN_DOUBT),
        },
        time_columns=_LUNG1_TIME,
        event_columns=_LUNG1_EVENT,
    ),
    # Its table is not public; its columns are taken to be named as in the sister collections. The ROI is written
    # GTV-1 or gtv-1.
    "lung4": Collection(
        roi=("GTV-1",),
        modalities=("CT",),
        time_columns=(*_LUNG1_TIME, *_HN1_TIME, "time_days"),
        event_columns=(*_LUNG1_EVENT, *_HN1_EVENT, "event"),
    ),
    # OPC-Radiomics. HTV where the patient has no GTV. Column names by way of IDC's copy of the table, which keeps
    # letters and digits only; the shorter spellings are those of RADCURE, which the collection became part of.
    "opc": Collection(
        roi=("GTV", "HTV"),
        modalities=("CT",),
        id_columns=("TRIAL PatientID", "dicom_patient_id", "PatientID", "patient_id"),
        time_columns=(
            "Time Interval from the Date of Diagnosis to the Date of Last FU (days)",
            "overall_survival_days",
        ),
        event_columns=("Status", "Vital Status"),
    ),
    # HEAD-NECK-RADIOMICS-HN1: id, overall_survival_in_days and event_overall_survival are its data dictionary's.
    "hn1": Collection(
        roi=("GTV-1",),
        modalities=("CT",),
        id_columns=("id", "PatientID", "dicom_patient_id"),
        time_columns=_HN1_TIME,
        event_columns=_HN1_EVENT,
    ),
    # RIDER Lung CT: two scans of each patient within minutes, no outcome. The names carry the scan (test, retest) and
    # the method (manual or automatic: the manual one counts). Their exact spelling is not certain, hence the second
    # rule. Some masks have more frames than the CT.
    "rider": Collection(
        roi=("re:gtvp?_(re)?test_man", r"re:gtv.*(?<!auto)"),
        modalities=("CT",),
        time_columns=(),
        event_columns=(),
    ),
    # ABCs (anatomical brain barriers, MICCAI 2020): co-registered CT and MR of each patient, no outcome. Its ROI
    # names are not certain, so every ROI is taken.
    "abcs": Collection(policy="each", modalities=("CT", "MR"), time_columns=(), event_columns=()),
    # LGG-1p19qDeletion: T1 and T2 in DICOM; the segmentations, on T2, in NIfTI, with both images converted beside them
    # (LGG-104/LGG-104_T2.nii.gz, LGG-104-Segmentation.nii.gz). A class, Grade (2, 3) or 1p/19q (n/n, d/d), takes the
    # outcome's place; its spreadsheet, TCIA_LGG_cases_159.xlsx, has the patient in Filename, histology in Type.
    "lgg_1p19q": Collection(
        modalities=("MR",),
        sequences=True,
        id_columns=("Filename", "File name", "PatientID", "Patient ID", "patient_id"),
        cautions={"LGG-223": "users found its T2 and segmentation under each other's file name: look, then rename"},
        time_columns=(),
        event_columns=(),
    ),
    # BraTS' layout, also of the TCGA patients whose masks were published with it (BraTS-TCGA-GBM and -LGG): per patient
    # a folder with four stripped sequences on one grid and a map of labels. Radiomics per sequence and region.
    "brats": Collection(
        roi=("whole tumour", "core", "enhancing"),
        policy="each",
        modalities=("MR",),
        id_columns=("PatientID", "Patient ID", "ID", "bcr_patient_barcode", "BraTS21ID", "BraTS_2020_subject_ID"),
        time_columns=("OS", "Survival_days", "OS (days)"),
        event_columns=("event", "1-dead 0-alive"),
        by_sequence=True,
        regions=_BRATS,
        region_files=_BRATS_FILES,
        either=(3, 4),
        id_part=r"(tcga-\w\w-\w{4}).*",
        levels=("IDH", "IDH status"),
    ),
    # UCSF-PDGM: the same, with UCSF-PDGM-0004_T1gad.nii.gz and _tumor_segmentation.nii.gz among others. Its table
    # writes UCSF-PDGM-004, and the IDH mutations by their proteins.
    "ucsf_pdgm": Collection(
        roi=("whole tumour", "core", "enhancing"),
        policy="each",
        modalities=("MR",),
        id_columns=("ID", "PatientID", "Patient ID"),
        time_columns=("OS",),
        event_columns=("1-dead 0-alive",),
        by_sequence=True,
        regions=_BRATS,
        region_files=_BRATS_FILES,
        either=(3, 4),
        id_part=r"ucsf-pdgm-0*(\d.*)",
        levels=("IDH",),
    ),
    # Soft-tissue-Sarcoma. GTV_Mass on every modality, GTV_Edema on MR; some exports append the modality to the name.
    # The event is death: status is NED (no evidence of disease), AWD (alive with disease) or D (dead).
    "sts": Collection(
        roi=("re:GTV_Mass(_.*)?",),
        id_columns=("Patient ID", "dicom_patient_id"),
        time_columns=("Time - diagnosis to last follow-up (days)",),
        event_columns=("Status (NED, AWD, D)", "Status"),
        event_codes={**EVENT_CODES, "ned": 0, "awd": 0, "d": 1},
    ),
}


@dataclass(frozen=True)
class Rules:
    """A preset with a job's overrides: the rules of the index."""

    collection: Collection
    roi: tuple[str, ...]
    policy: Policy
    modalities: tuple[str, ...]
    exclude: Mapping[str, str]
    sequences: bool = False
    automatic: bool = False
    unmasked: bool = False


def _with_columns(preset: Collection, section: CohortSection) -> Collection:
    """The preset with the job's settings for the clinical table."""
    if section.id_column:
        preset = replace(preset, id_columns=(section.id_column,))
    if section.time_column:
        own = section.time_column in preset.time_columns
        unit = preset.time_unit if own else cast(Unit, unit_of(section.time_column) or "days")
        assumed = not own and not unit_of(section.time_column) and not section.time_unit
        preset = replace(preset, time_columns=(section.time_column,), time_unit=unit, unit_assumed=assumed)
    if section.event_column:
        preset = replace(preset, event_columns=(section.event_column,))
    if section.time_unit:
        preset = replace(preset, time_unit=section.time_unit)
    named = {name: getattr(section, name) for name in ("id_column", "time_column", "event_column")}
    given = {f"cohort.{name}": column for name, column in named.items() if column}
    return replace(preset, given_codes=section.event_codes, given_columns=given)


def resolve(section: CohortSection) -> Rules:
    """The preset that a job names, with the job's overrides.

    Raises
    ------
    JobError
        When the collection or a modality is not known, or a rule is not a regular expression.
    """
    if section.collection not in COLLECTIONS:
        known = ", ".join(sorted(COLLECTIONS))
        raise JobError(f"cohort.collection is {section.collection!r}, expected one of {known}")
    preset = _with_columns(COLLECTIONS[section.collection], section)
    roi = section.roi or preset.roi
    check_rules(roi)
    modalities = tuple(name.upper() for name in section.modalities) or preset.modalities
    for name in modalities:
        if name not in IMAGE_MODALITIES:
            raise JobError(f"cohort.modalities has {name!r}, expected one of {', '.join(IMAGE_MODALITIES)}")
    reasons = {**preset.exclude, **preset.cautions}
    exclude = {name: reasons.get(name, "excluded by the job") for name in section.exclude} or preset.exclude
    # without a rule there is no name to be ambiguous about
    policy: Policy = section.roi_policy or (preset.policy if roi else "each")
    sequences = preset.sequences or section.sequences
    return Rules(preset, roi, policy, modalities, exclude, sequences, section.automatic, section.unmasked)
