"""Indexing folders of images and masks, mostly on real downloads."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import random
import shutil
import socket
import tarfile
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless

from prognosis_dask.cohort.case import Case, read_cases, read_problems, write_problems
from prognosis_dask.cohort.crawl import read_headers
from prognosis_dask.cohort.headers import Header
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.series import read_listing
from prognosis_dask.cohort.summary import IndexSummary
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import Code, JobError, Problem, StoreError
from prognosis_dask.objects.address import parse_address
from prognosis_dask.objects.bucket import bucket_of
from tests.dicom_helpers import refer_to, write_rtstruct, write_series
from tests.object_server import ObjectServer


class Indexed:
    def __init__(self, out: Path, summary: IndexSummary) -> None:
        self.summary = summary
        self.cases = read_cases(out / "cases.csv")
        self.problems = read_problems(out / "problems.csv")

    def of(self, code: Code) -> list[Problem]:
        return [problem for problem in self.problems if problem.code == code]


def index(out: Path, *sources: Path | str, **section: object) -> Indexed:
    return Indexed(out, index_cohort(sources, out, CohortSection(**section)))  # type: ignore[arg-type]


def series_folder(case: Case) -> Path:
    return Path(read_listing(case.image).root)


@pytest.fixture(scope="module")
def sts(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    return index(tmp_path_factory.mktemp("sts"), shared_data / "sts", collection="sts")


@pytest.fixture(scope="module")
def patient(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writable copy of one sarcoma patient: CT, MR and PET in one frame of reference, an RTSTRUCT each."""
    folder = tmp_path_factory.mktemp("patient") / "STS_002"
    shutil.copytree(shared_data / "sts" / "STS_002", folder, ignore=shutil.ignore_patterns("nifti"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def test_every_mask_is_linked_to_the_series_in_its_own_folder(sts: Indexed) -> None:
    # the folders are the witness: the index itself never looks at their names
    assert len(sts.cases) == 36
    assert Counter(case.modality for case in sts.cases) == {"CT": 12, "MR": 12, "PT": 12}
    for case in sts.cases:
        assert series_folder(case).parent == Path(case.mask).parents[1], case.case_id
        assert case.patient_id == Path(case.mask).parents[2].name
    assert sts.summary.by_geometry == 0


def test_label_maps_of_a_series_give_way_to_its_rtstruct(sts: Indexed) -> None:
    assert sts.problems == []
    assert sts.summary.masks == {"RTSTRUCT": 36, "label map": 36}


def test_label_maps_without_an_image_are_listed_not_dropped(shared_data: Path, tmp_path: Path) -> None:
    found = index(tmp_path, *(shared_data / "sts" / patient / "nifti" for patient in ("STS_002", "STS_003")))
    assert (found.cases, len(found.of(Code.MASK_WITHOUT_SERIES))) == ([], 6)
    assert {Path(problem.where).parent.name for problem in found.problems} == {"nifti"}


def test_slices_are_listed_in_the_order_that_gdcm_sorts_them(sts: Indexed) -> None:
    for case in sts.cases[:6]:
        listing = read_listing(case.image)
        listed = [str(Path(listing.root) / s.file) for s in listing.slices]
        by_gdcm = list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(listing.root))
        assert listed == by_gdcm
        heights = [s.position[2] for s in listing.slices]
        assert heights == sorted(heights)


def test_the_lung_patient_has_one_case_with_all_its_slices(shared_data: Path, tmp_path: Path) -> None:
    found = index(tmp_path, shared_data / "lung1_002", collection="lung1")
    [case] = found.cases
    assert (case.case_id, case.roi, case.labels) == ("LUNG1-002_CT_GTV-1", "GTV-1", (2,))
    assert Path(case.image).is_absolute()
    assert len(read_listing(case.image).slices) == 111
    assert found.problems == []


def test_segmentations_give_a_case_per_segment_found_by_label_or_description(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "qin_prostate"
    every = index(tmp_path / "every", source)
    assert {case.roi: case.labels for case in every.cases} == {
        "Normal": (1,),
        "Peripheral zone of the prostate": (2,),
        "Lesion": (3,),
        "Prostate": (4,),
    }
    assert [case.labels for case in index(tmp_path / "label", source, roi=("lesion",)).cases] == [(3,)]
    [by_description] = index(tmp_path / "description", source, roi=("re:tumor.*",)).cases
    assert (by_description.roi, by_description.labels) == ("TumorROI_PZ_1", (3,))


def test_the_whole_zoo_is_indexed_without_an_exception(shared_data: Path, tmp_path: Path) -> None:
    # the reported inputs have a test of their own, and patients whose names meet those of the others
    found = index(tmp_path, *(folder for folder in sorted(shared_data.iterdir()) if folder.name != "reported"))
    assert len({case.case_id for case in found.cases}) == len(found.cases) == found.summary.cases
    assert found.of(Code.IMAGE_INVALID) == []  # dcmqi's enhanced multi-frame images are read
    # the background of dcmqi's and highdicom's label maps is no structure
    assert not [case for case in found.cases if case.roi == "Background"]
    named = {case.case_id for case in found.cases}
    assert {"99000_CT_LIGHT-BLUE", "1CT1_CT_first-segment", "PHANTOM-EXAMPLE_CT_ROI-4"} <= named
    text = str(found.summary)
    assert f"{len(found.cases)}" in text
    assert len(text.splitlines()) < 40


def test_layout_names_and_order_of_the_files_do_not_matter(shared_data: Path, tmp_path: Path) -> None:
    sources = [shared_data / "sts" / "STS_002", shared_data / "qin_prostate", shared_data / "rt_utils" / "mock_data"]
    tree = index(tmp_path / "tree", *(file for source in sources for file in source.rglob("*.dcm")))
    flat = tmp_path / "flat"
    flat.mkdir()
    files = [file for source in sources for file in source.rglob("*.dcm") if "non_existent" not in file.name]
    random.Random(0).shuffle(files)
    for number, file in enumerate(files):
        (flat / f"{number:05d}").symlink_to(file)
    (flat / "notes.txt").write_text("not an image")
    (flat / "left.zip").write_bytes(b"PK\x03\x04")
    with tarfile.open(flat / "left.tar", "w") as packed:
        packed.add(flat / "notes.txt")
    (flat / "brain.mgz").write_bytes(b"\x1f\x8b")
    (flat / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (flat / "empty").touch()
    shuffled = index(tmp_path / "shuffled", flat)
    assert [case.case_id for case in shuffled.cases] == [case.case_id for case in tree.cases]
    assert shuffled.summary.other_files == {
        "not DICOM": 3,
        "zip files, to be unpacked": 1,
        "tar files, to be unpacked": 1,
        "images of FreeSurfer or MINC, to be written as .nii.gz": 1,
    }


def test_any_map_gives_the_same_tables(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prognosis_dask.cohort.crawl.BATCH", 37)
    source, section = shared_data / "lung1_002", CohortSection(collection="lung1")
    index_cohort([source], tmp_path / "here", section)
    with ProcessPoolExecutor(2) as pool:
        index_cohort([source], tmp_path / "pool", section, map=pool.map)
    here, there = (next((tmp_path / name / "series").iterdir()).read_text() for name in ("here", "pool"))
    assert here == there
    cases = [(tmp_path / name / "cases.csv").read_text().replace(name, "") for name in ("here", "pool")]
    assert cases[0] == cases[1]


def test_an_index_does_not_read_its_own_output(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "qin_prostate" / "seg" / "1-1.dcm", tmp_path)
    first = index(tmp_path / "out", tmp_path)
    again = index(tmp_path / "out", tmp_path)
    assert first.summary.files == again.summary.files == 1
    assert index(tmp_path, tmp_path).summary.masks["SEG"] == 1


def read_quietly(path: Path) -> pydicom.Dataset:
    """A real header, whose longer than allowed texts pydicom would warn about when they are written again."""
    dataset = pydicom.dcmread(path)
    for keyword in ("StudyID", "AccessionNumber"):
        if keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def strip_references(source: Path, target: Path) -> None:
    """What a careless export leaves of an RTSTRUCT: a frame of reference, and contours."""
    dataset = read_quietly(source)
    for reference in dataset.ReferencedFrameOfReferenceSequence:
        del reference.RTReferencedStudySequence
    for roi in dataset.ROIContourSequence:
        for contour in roi.ContourSequence:
            del contour.ContourImageSequence
    dataset.save_as(target)


def test_without_references_geometry_finds_the_series_or_says_that_it_cannot(patient: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stripped"
    shutil.copytree(patient, folder)
    for mask in folder.glob("*/mask"):
        shutil.rmtree(mask)
    strip_references(patient / "MR_T1" / "mask" / "RS.dcm", folder / "RS.dcm")
    alone = index(tmp_path / "mr", folder, collection="sts", modalities=("MR",))
    assert [series_folder(case).parent.name for case in alone.cases] == ["MR_T1"]
    assert alone.summary.by_geometry == 1
    # all three modalities were resampled to the same planes: nothing tells them apart
    among = index(tmp_path / "all", folder, collection="sts")
    assert among.cases == []
    [problem] = among.problems
    assert (problem.code, problem.patient_id) == (Code.SERIES_AMBIGUOUS, "STS_002")
    assert all(f"{modality} '" in problem.reason for modality in ("CT", "MR", "PT"))


def test_a_mask_whose_series_is_missing_names_it(patient: Path, tmp_path: Path) -> None:
    found = index(tmp_path, patient / "CT" / "mask")
    [problem] = found.problems
    assert problem.code == Code.MASK_WITHOUT_SERIES
    assert problem.patient_id == "STS_002"
    assert "1.3.6.1.4.1.14519.5.2.1.5168.1900.672471348177659964935135533244" in problem.reason


def test_copies_of_an_instance_are_kept_once_and_reported(patient: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(patient / "CT", folder)
    for file in sorted((folder / "image").iterdir())[:3]:
        shutil.copy(file, folder / f"copy-of-{file.name}")
    shutil.copy(folder / "mask" / "RS.dcm", folder / "RS2.dcm")
    found = index(tmp_path / "out", folder)
    [case] = found.cases
    assert len(read_listing(case.image).slices) == 48
    reasons = sorted(problem.reason for problem in found.of(Code.DUPLICATE_INSTANCE))
    assert reasons[0].startswith("duplicate instances: 3, 0 of them different")
    assert "the same RTSTRUCT" in reasons[1]
    assert "the same content" in reasons[1]


def test_copies_of_an_instance_with_other_pixels_are_not_used(patient: Path, tmp_path: Path) -> None:
    shutil.copytree(patient / "CT", tmp_path / "ct")
    processed = tmp_path / "ct" / "processed"
    processed.mkdir()
    for file in (tmp_path / "ct" / "image").iterdir():
        image = read_quietly(file)
        stored = image.pixel_array
        image.PixelData = (stored // 2).astype(stored.dtype).tobytes()
        image.save_as(processed / file.name)
    found = index(tmp_path / "out", tmp_path / "ct")
    assert not found.cases
    [problem] = found.of(Code.DUPLICATE_INSTANCE)
    assert "48, whose pixels differ" in problem.reason
    assert str(processed) in problem.where
    # as old exports are: without meta information, and with an element that is empty
    for path in sorted((tmp_path / "ct").rglob("*")):
        if path.parent.name in ("image", "processed"):
            image = read_quietly(path)
            image.RescaleSlope = None
            pydicom.Dataset(image).save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert "whose pixels differ" in index(tmp_path / "bare", tmp_path / "ct").of(Code.DUPLICATE_INSTANCE)[0].reason
    shutil.copytree(patient / "CT" / "image", tmp_path / "ct" / "image", dirs_exist_ok=True)
    # the same values, packed another way, are one image
    for file in (tmp_path / "ct" / "image").iterdir():
        image = read_quietly(file)
        image.compress(RLELossless, generate_instance_uid=False)
        image.save_as(processed / file.name)
    assert len(index(tmp_path / "again", tmp_path / "ct").cases) == 1


def test_images_of_the_same_values_at_one_place_count_once_under_whatever_uid(patient: Path, tmp_path: Path) -> None:
    """As of a slice that was sent twice; others at one place are time points or the like, and stay a problem."""
    shutil.copytree(patient / "CT", tmp_path / "ct")
    source = sorted((tmp_path / "ct" / "image").iterdir())[20]
    image = read_quietly(source)
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    doubled = tmp_path / "ct" / "image" / "zz.dcm"
    image.save_as(doubled)
    found = index(tmp_path / "out", tmp_path / "ct")
    [problem] = found.of(Code.DUPLICATE_INSTANCE)
    assert "1 image at the place of another, with its values, under other UIDs" in problem.reason
    assert problem.where == f"{source} and {doubled}"
    assert len(read_listing(found.cases[0].image).slices) == 48
    image.PixelData = (image.pixel_array + 1).astype(image.pixel_array.dtype).tobytes()
    image.save_as(doubled)
    assert index(tmp_path / "again", tmp_path / "ct").of(Code.SLICE_DUPLICATE)


def test_copies_of_a_mask_count_once_if_they_outline_the_same_and_else_not_at_all(
    patient: Path, tmp_path: Path
) -> None:
    shutil.copytree(patient / "CT", tmp_path / "ct")
    copy = tmp_path / "ct" / "copy.dcm"
    mask = read_quietly(tmp_path / "ct" / "mask" / "RS.dcm")
    mask.StationName = "elsewhere"
    mask.PatientID = "other"
    mask.save_as(copy)
    found = index(tmp_path / "out", tmp_path / "ct")
    assert len(found.cases) == 1
    told = [
        problem.severity for problem in found.of(Code.MASK_ITEM_INVALID) if "its PatientID is 'other'" in problem.reason
    ]
    assert told == ["warning"], "the copy comes first by path, with a patient who is not that of its images"
    contour = mask.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [value + 5 * (number % 3 == 0) for number, value in enumerate(contour.ContourData)]
    mask.save_as(copy)
    found = index(tmp_path / "again", tmp_path / "ct")
    assert not found.cases
    [problem] = found.of(Code.DUPLICATE_INSTANCE)
    assert "with different content; none is used" in problem.reason


def person(folder: Path, **values: str) -> Path:
    """A small series with a structure, of somebody."""
    write_series(folder / "mr", np.arange(4 * 8 * 9, dtype=np.uint16).reshape(4, 8, 9), modality="MR")
    for file in (folder / "mr").iterdir():
        dataset = pydicom.dcmread(file)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)
    square = np.array([[2.0, 2.0], [2.0, 6.0], [6.0, 6.0], [6.0, 2.0]])
    write_rtstruct(folder / "rs.dcm", [np.column_stack([square, np.full(4, z)]) for z in (2.0, 4.0)])
    refer_to(folder / "rs.dcm", folder / "mr")
    return folder


ANTON = {"PatientID": "P", "PatientName": "A^Anton", "PatientBirthDate": "19400101", "PatientSex": "M"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (ANTON | {"PatientName": "B^Berta"}, "another name"),
        (ANTON | {"PatientName": "A", "PatientBirthDate": "19500203"}, "another date of birth"),
        (ANTON | {"PatientName": "", "PatientSex": "F"}, "another sex"),
        (ANTON | {"PatientName": "ANTON A"}, ""),
    ],
)
def test_one_patient_id_of_two_people_is_told(tmp_path: Path, values: dict[str, str], said: str) -> None:
    sources = person(tmp_path / "north", **ANTON), person(tmp_path / "south", **values)
    found = index(tmp_path / "out", *sources, modalities=("MR",))
    assert [case.patient_id for case in found.cases] == ["P", "P"]
    told = [(problem.severity, said in problem.reason) for problem in found.of(Code.PATIENTS_MIXED)]
    assert told == ([("warning", True)] if said else [])


def test_an_id_that_deidentification_gives_to_everybody_is_told(tmp_path: Path) -> None:
    both = [person(tmp_path / site, PatientID="ANONYMOUS", PatientName="ANONYMOUS") for site in ("north", "south")]
    [problem] = index(tmp_path / "out", *both, modalities=("MR",)).of(Code.PATIENTS_MIXED)
    assert "a placeholder, in 2 studies" in problem.reason
    assert not index(tmp_path / "one", both[0], modalities=("MR",)).of(Code.PATIENTS_MIXED)


def test_image_files_of_one_name_in_several_places_are_told(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "pyradiomics"
    for place in ("north/001", "south/001", "south/002"):
        (tmp_path / "in" / place).mkdir(parents=True)
        for kind, name in (("image", "mr"), ("label", "mask")):
            (tmp_path / "in" / place / f"{name}.nrrd").symlink_to(source / f"brain1_{kind}.nrrd")
    found = index(tmp_path / "out", tmp_path / "in")
    assert len(found.cases) == 3
    [problem] = found.of(Code.PATIENTS_MIXED)
    assert (problem.patient_id, problem.severity) == ("001", "warning")
    assert str(tmp_path / "in" / "south" / "001") in problem.reason


def test_hidden_folders_are_passed_over_and_counted(shared_data: Path, tmp_path: Path) -> None:
    """Of git-annex, of a trash or of a file server's snapshots: they hold older or the same files."""
    source = shared_data / "pyradiomics"
    for place in ("P1", ".snapshot/hourly.0/P1"):
        (tmp_path / "in" / place).mkdir(parents=True)
        for kind, name in (("image", "mr"), ("label", "mask")):
            (tmp_path / "in" / place / f"{name}.nrrd").symlink_to(source / f"brain1_{kind}.nrrd")
    found = index(tmp_path / "out", tmp_path / "in")
    assert [case.mask for case in found.cases] == [str(tmp_path / "in" / "P1" / "mask.nrrd")]
    assert found.summary.other_files == {"hidden folders": 1}
    assert len(index(tmp_path / "named", tmp_path / "in" / ".snapshot").cases) == 1, "a source may be hidden itself"


def test_in_a_bucket_too_hidden_folders_are_passed_over_and_counted(
    object_server: ObjectServer, shared_data: Path, tmp_path: Path
) -> None:
    object_server.make_bucket("images")
    bucket = bucket_of(parse_address("s3://images"))
    for place in ("in/P1", "in/.snapshot/hourly.0/P1", "in/P1/.Trash"):
        for kind, name in (("image", "mr"), ("label", "mask")):
            content = (shared_data / "pyradiomics" / f"brain1_{kind}.nrrd").read_bytes()
            bucket.put(f"{place}/{name}.nrrd", content)
    found = index(tmp_path / "out", "s3://images/in")
    assert [case.mask for case in found.cases] == ["s3://images/in/P1/mask.nrrd"]
    assert found.summary.other_files == {"hidden folders": 2}
    assert len(index(tmp_path / "whole", "s3://images").cases) == 1
    assert len(index(tmp_path / "named", "s3://images/in/.snapshot").cases) == 1, "a source may be hidden itself"


def test_a_mask_in_another_frame_of_reference_than_its_images_is_told(tmp_path: Path) -> None:
    folder = person(tmp_path / "in")
    mask = pydicom.dcmread(folder / "rs.dcm")
    mask.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"
    mask.save_as(folder / "rs.dcm")
    found = index(tmp_path / "out", folder, modalities=("MR",))
    assert len(found.cases) == 1
    [problem] = found.of(Code.MASK_ITEM_INVALID)
    assert problem.severity == "warning"
    assert "its frame of reference is another one" in problem.reason


def test_one_roi_on_several_series_gets_suffixes_that_do_not_depend_on_the_order(patient: Path, tmp_path: Path) -> None:
    second = tmp_path / "retest"
    shutil.copytree(patient / "CT", second)
    for file in second.rglob("*.dcm"):
        dataset = read_quietly(file)
        for element in dataset.iterall():
            if element.keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
                element.value = pydicom.uid.generate_uid(entropy_srcs=[element.value])
        dataset.save_as(file)
    once = index(tmp_path / "a", patient / "CT", second).cases
    turned = index(tmp_path / "b", second, patient / "CT").cases
    assert [case.case_id for case in once] == [case.case_id for case in turned]
    assert len({case.case_id for case in once}) == 2
    for case in once:
        readable, suffix = case.case_id.rsplit("_", 1)
        assert readable == "STS-002_CT_GTV-Mass-CT"
        assert len(suffix) == 6
    assert {series_folder(case) for case in once} == {patient / "CT" / "image", second / "image"}


def test_a_changed_input_changes_the_source_digest(patient: Path, tmp_path: Path) -> None:
    folder = tmp_path / "CT"
    shutil.copytree(patient / "CT", folder)
    before = index(tmp_path / "a", folder).cases[0]
    assert index(tmp_path / "b", folder).cases[0].source == before.source
    os.utime(next((folder / "image").iterdir()), ns=(0, 0))
    image = index(tmp_path / "c", folder).cases[0].source
    dataset = read_quietly(folder / "mask" / "RS.dcm")
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData[0] += 1
    dataset.save_as(folder / "mask" / "RS.dcm")
    mask = index(tmp_path / "d", folder).cases[0].source
    assert len({before.source, image, mask}) == 3


def test_a_patient_without_mask_and_an_excluded_patient_are_listed(patient: Path, tmp_path: Path) -> None:
    bare = index(tmp_path / "bare", patient / "PET" / "image")
    assert [(p.code, p.patient_id, p.reason) for p in bare.problems] == [
        (Code.PATIENT_WITHOUT_MASK, "STS_002", "images (1 PT), but no mask on any")
    ]
    out = index(tmp_path / "out", patient, collection="sts", exclude=(" sts_002",))
    assert out.cases == []
    assert [(p.code, p.reason) for p in out.problems] == [(Code.EXCLUDED, "excluded by the job")]


@pytest.mark.parametrize("keep", [0, 100, 140, 300, 700, 1200, 2000, 3000])
def test_a_truncated_file_is_a_problem_and_never_an_exception(patient: Path, tmp_path: Path, keep: int) -> None:
    whole = next((patient / "CT" / "image").iterdir()).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:keep])
    [header] = read_headers([str(tmp_path / "cut.dcm")])
    assert isinstance(header, Problem) or getattr(header, "fault", "") or keep >= 1200, header
    rtstruct = (patient / "CT" / "mask" / "RS.dcm").read_bytes()
    (tmp_path / "rs.dcm").write_bytes(rtstruct[: keep * 3])
    index(tmp_path / "out", tmp_path)


def test_a_file_without_preamble_is_read_and_an_unreadable_one_is_listed(patient: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    dataset = read_quietly(next((patient / "CT" / "image").iterdir()))
    bare = pydicom.Dataset(dataset)
    bare.save_as(source / "old", implicit_vr=True, little_endian=True, enforce_file_format=False)
    (source / "dangling.dcm").symlink_to(tmp_path / "nowhere")
    (source / "random.dcm").write_bytes(random.Random(1).randbytes(5000))
    with zipfile.ZipFile(source / "more.zip", "w") as packed:
        packed.write(source / "old")
    (source / "new.gz").write_bytes(gzip.compress((source / "old").read_bytes()))
    pair = nibabel.Nifti1Pair(np.zeros((2, 2, 2), np.int16), np.eye(4))
    nibabel.save(pair, source / "brain.img")
    found = index(tmp_path / "out", source)
    assert found.summary.series == {"CT": 1}
    reasons = sorted(problem.reason for problem in found.of(Code.UNREADABLE_FILE))
    assert reasons[0].startswith("FileNotFoundError")
    assert reasons[1] == "named .dcm, but not DICOM (262 bytes read)"
    kinds = ["not DICOM", "zip files", "gzip files", "Analyze or NIfTI headers of .img files"]
    assert sorted(kind.partition(", to be")[0] for kind in found.summary.other_files) == sorted(kinds)


def test_folders_that_link_in_a_circle_are_walked_once(patient: Path, tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    shutil.copytree(patient / "CT", folder)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    found = index(tmp_path / "out", folder, folder / "image")
    assert found.summary.files == 49
    assert found.problems == []


def test_one_element_that_cannot_be_read_does_not_lose_the_image(patient: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(patient / "PET", folder)
    path = next((folder / "image").iterdir())
    dataset = read_quietly(path)
    dataset[0x00200012] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(0x00200012), "IS", 4, b"one ", 0, False, True, True
    )
    dataset.save_as(path)
    found = index(tmp_path / "out", folder)
    assert [len(read_listing(case.image).slices) for case in found.cases] == [48]
    assert found.problems == []


def test_pipes_sockets_and_dead_links_are_left_alone(patient: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(patient / "CT", folder)
    for name in ("pipe.dcm", "pipe_mask.nii.gz", "pipe"):
        os.mkfifo(folder / name)
    (folder / "link.dcm").symlink_to(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # the address of a socket may have 100 characters
        listener.bind("socket.dcm")
        os.chdir(tmp_path)
        (folder / "dead.dcm").symlink_to(tmp_path / "nowhere")
        found = index(tmp_path / "out", folder)
    assert [case.modality for case in found.cases] == ["CT"]
    assert found.summary.other_files["not a regular file"] == 5
    assert [(problem.code, Path(problem.where).name) for problem in found.problems] == [
        (Code.UNREADABLE_FILE, "dead.dcm")
    ]


def test_a_table_that_names_a_pipe_is_answered(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.nii.gz")
    (tmp_path / "table.csv").write_text("Image,Mask\nimage.nii.gz,image.nii.gz\n")
    [problem] = index(tmp_path / "out", tmp_path / "table.csv").problems
    assert "not a regular file" in problem.reason


def test_files_whose_names_are_not_utf8_are_a_problem_for_each_folder(patient: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(patient / "CT", folder)
    shutil.copytree(patient / "PET", folder / os.fsdecode(b"M\xfcller"))
    found = index(tmp_path / "out", folder)
    assert [case.modality for case in found.cases] == ["CT"]
    [image, mask] = found.problems
    assert image.code == mask.code == Code.UNREADABLE_FILE
    assert "M\\xfcller" in image.where
    assert "(and 47 more in this folder)" in image.reason


def test_mistakes_of_the_user_name_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match="abcs, brats, generic, hn1, lgg_1p19q, lung1, lung4, opc, rider, sts, ucsf_pdgm"
    ):
        index(tmp_path, tmp_path, collection="lung9")
    with pytest.raises(JobError, match="no folder or file at"):
        index(tmp_path, tmp_path / "nowhere")
    with pytest.raises(JobError, match="expected one of CT, MR, PT"):
        index(tmp_path, tmp_path, modalities=("US",))
    with pytest.raises(JobError, match="not a regular expression"):
        index(tmp_path, tmp_path, roi=("re:(",))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write in .*file.*; choose another folder"):
        index(tmp_path / "file", tmp_path)


def test_problems_come_back_as_they_were_written(tmp_path: Path) -> None:
    problems = [
        Problem(Code.SLICE_GAP, 'a gap of 6 mm, "expected" 3\nmm', case_id="b"),
        Problem(Code.EXCLUDED, "reason, with a comma", patient_id="P 1", where="/a/b"),
    ]
    write_problems(tmp_path / "problems.csv", [*problems, problems[0]])
    assert read_problems(tmp_path / "problems.csv") == sorted(problems, key=lambda problem: problem.code)
    assert list(tmp_path.iterdir()) == [tmp_path / "problems.csv"]


def test_headers_travel_as_plain_data(shared_data: Path) -> None:
    paths = sorted(str(path) for path in (shared_data / "lung1_002" / "ct").iterdir())
    headers: list[Header] = read_headers(paths)
    assert pickle.loads(pickle.dumps(headers)) == headers
    assert len(pickle.dumps(headers)) < 800 * len(headers)


def test_masks_are_stamped_with_the_checksum_of_their_content(patient: Path) -> None:
    [header] = read_headers([str(patient / "CT" / "mask" / "RS.dcm")])
    content = (patient / "CT" / "mask" / "RS.dcm").read_bytes()
    assert header.file.sha256 == hashlib.sha256(content).hexdigest()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("index", ["{data}/lung1_0"], "no folder at {data}/lung1_0; did you mean {data}/lung1_002?"),
        ("index", ["{data}/lung1_002", "--clinical", "absent.csv"], "no clinical table at absent.csv"),
        ("index", ["{data}/lung1_002", "--clinical", "{data}/lung1_tables/nsclc-radiomics_clinical.csv",
                   "--time-column", "Survival"], "has no such column; did you mean 'Survival.time'?"),
        ("run", ["jobs/lung1.toml", "--set", "cohort.sources={data}/lung1_0"],
         "cohort.sources: no folder at {data}/lung1_0; did you mean {data}/lung1_002?"),
        ("run", ["jobs/lung1.toml", "--set", "cohort.cases={data}/lung1_002/reference_radiomics.csv"],
         "reference_radiomics.csv lacks the columns ['case_id', 'patient_id', 'modality', 'roi', 'image', 'mask']"),
    ],
)  # fmt: skip
def test_a_typo_starts_no_cluster_and_leaves_no_folder(
    command: str,
    options: list[str],
    message: str,
    shared_data: Path,
    tmp_path: Path,
    refused: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prognosis_dask.execution.clusters.hosts.local", None)
    monkeypatch.chdir(Path(__file__).parents[1])
    told = refused(command, *(option.format(data=shared_data) for option in options), "-o", tmp_path / "out")
    assert message.format(data=shared_data) in told
    assert not (tmp_path / "out").exists()


def test_an_index_without_a_case_ends_with_what_was_found_in_its_place(
    shared_data: Path, tmp_path: Path, refused: Any
) -> None:
    (tmp_path / "empty").mkdir()
    told = refused("index", tmp_path / "empty", "-o", tmp_path / "out")
    assert f"no images in {tmp_path / 'empty'}; expected a folder of DICOM series" in told
    told = refused("index", shared_data / "lung1_002", "-o", tmp_path / "out", "--roi", "GTV-9")
    assert "but problems: 1 roi-not-found" in told
    assert "GTV-1" in told.partition("Most often:")[2]
