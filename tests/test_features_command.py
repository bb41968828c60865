"""One image and one mask to features, without a job: pyradiomics' own values, and one line for what cannot be used."""

from __future__ import annotations

import copy
import csv
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from radiomics.featureextractor import RadiomicsFeatureExtractor

import prognosis_dask
from prognosis_dask.cli.main import main
from prognosis_dask.config.job import SynthSection
from prognosis_dask.imaging.geometry import one_thread
from prognosis_dask.synthetic import make_cohort
from tests.dicom_helpers import write_seg, write_series

FILTERS = """
imageType: {Original: {}, LoG: {sigma: [2.0]}, Wavelet: {}}
featureClass: {shape: [], firstorder: [], glcm: [], glrlm: []}
setting: {binWidth: 20, resampledPixelSpacing: [2, 2, 2], interpolator: sitkBSpline}
"""


def executed(image: object, mask: object, params: str = "", label: int | None = None) -> dict[str, object]:
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = RadiomicsFeatureExtractor(params) if params else RadiomicsFeatureExtractor(binWidth=25)
        extractor.addProvenance()
        return dict(extractor.execute(image, mask, label=label))


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, str]]:
    main(["features", *map(str, arguments)])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.mark.parametrize("params", ["", FILTERS])
@pytest.mark.parametrize("name", ["brain1", "breast1"])
def test_the_values_are_those_of_execute_to_the_last_bit(
    name: str, params: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(params)
    image, mask = (str(shared_data / "pyradiomics" / f"{name}_{kind}.nrrd") for kind in ("image", "label"))
    expected = executed(image, mask, str(file) if params else "")
    [row] = printed(capsys, image, mask, "--diagnostics", *(["--params", file] if params else []))
    features = [key for key in expected if not key.startswith("diagnostics")]
    assert len(features) > 100
    assert [key for key in row if key in expected] == list(expected)  # in pyradiomics' order, its diagnostics first
    assert {key: float(row[key]) for key in features} == {key: float(expected[key]) for key in features}  # type: ignore[arg-type]
    said = {key: str(value) for key, value in expected.items() if key.startswith("diagnostics")}
    assert {key: row[key] for key in said} == said


def test_a_dicom_folder_is_one_command_too(shared_data: Path, tmp_path: Path) -> None:
    main(["features", str(shared_data / "lung1_002"), "--roi", "gtv-1", "-o", str(tmp_path / "out.json")])
    [row] = json.loads((tmp_path / "out.json").read_text())
    assert (row["patient_id"], row["modality"], row["roi"]) == ("LUNG1-002", "CT", "GTV-1")
    [case] = prognosis_dask.read_cases(_indexed(shared_data / "lung1_002", tmp_path) / "cases.csv")
    series = sitk.ImageSeriesReader()
    series.SetFileNames(series.GetGDCMSeriesFileNames(str(shared_data / "lung1_002" / "ct")))
    whole = series.Execute()
    _, mask = prognosis_dask.load_case(case)
    full = sitk.Resample(mask, whole, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    expected = {k: float(v) for k, v in executed(whole, full).items() if not k.startswith("diag")}  # type: ignore[arg-type]
    assert {key: row[key] for key in expected} == expected


def _indexed(folder: Path, out: Path) -> Path:
    from prognosis_dask.cohort.index import index_cohort
    from prognosis_dask.config.job import CohortSection

    index_cohort([folder], out / "index", CohortSection())
    return out / "index"


def test_each_label_that_is_named_is_a_row(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edge = shared_data / "nifti_edge"
    image, mask = edge / "img.nii.gz", edge / "seg_two_labels.nii.gz"
    rows = printed(capsys, image, mask, "--label", 2, "--label", 1)
    for label, row in zip((2, 1), rows, strict=True):
        found = executed(str(image), str(mask), label=label)
        assert float(row["original_firstorder_Mean"]) == found["original_firstorder_Mean"]
        assert row["label"] == str(label)


def test_a_batch_table_gives_a_row_for_each_of_its_own(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shared_data / "pyradiomics"
    batch = tmp_path / "batch.csv"
    rows = [f"{name},{data}/{name}_image.nrrd,{data}/{mask}_label.nrrd,{label},x" for name, mask, label in CASES]
    batch.write_text("\n".join(["ID,Image,Mask,Label,site", *rows]))
    out = tmp_path / "new" / "features.csv"
    with pytest.raises(SystemExit) as ended:
        main(["features", str(batch), "-o", str(out)])
    said = capsys.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (2, 2)
    assert "breast1_label.nrrd: mask-other-grid" in said
    assert "no voxel holds [5]" in said
    table = pd.read_csv(out)
    assert table["patient_id"].tolist() == [name for name, _, _ in CASES]
    assert table["original_firstorder_Mean"].notna().tolist() == [True, False, False]
    assert table["site"].tolist() == ["x"] * 3


CASES = [("brain1", "brain1", ""), ("brain1", "breast1", ""), ("breast1", "breast1", "5")]


BATCH = """ID,Image,Mask,Label,Label_channel,site
p1,sub/brain.nrrd,sub/mask.nrrd,1,0,x
p2,sub/absent.nrrd,sub/mask.nrrd,1,0,"of ""b"", c"
p3,"a b,c.nrrd",breast.nrrd,1,0,"of ""b"", c"
p4,four.nii.gz,sub/mask.nrrd,1,0,x
p1,sub/brain.nrrd,layers.nrrd,1,1,again
p6,sub/brain.nrrd,layers.nrrd,1,0,x
p7,sub/brain.nrrd,,1,0,x
"""


def test_a_batch_table_has_the_values_the_failures_and_the_order_of_pyradiomics_own_command(
    shared_data: Path, tmp_path: Path
) -> None:
    """Relative paths, quotes, an absent file, an image of four dimensions, a mask's second layer, one ID twice."""
    read = {name: sitk.ReadImage(str(shared_data / "pyradiomics" / f"{name}.nrrd")) for name in FILES}
    (tmp_path / "sub").mkdir()
    for name, file in FILES.items():
        sitk.WriteImage(read[name], str(tmp_path / file))
    brain, mask = read["brain1_image"], read["brain1_label"]
    sitk.WriteImage(sitk.JoinSeries([brain, brain]), str(tmp_path / "four.nii.gz"))
    opened = sitk.BinaryErode(sitk.Cast(mask, sitk.sitkUInt8))
    sitk.WriteImage(sitk.Compose([sitk.Cast(mask, sitk.sitkUInt8), opened]), str(tmp_path / "layers.nrrd"))
    (tmp_path / "batch.csv").write_text(BATCH)
    theirs = tmp_path / "theirs.csv"
    run = "import sys; from radiomics.scripts import parse_args; sys.exit(parse_args())"
    more = ["-f", "csv", "-o", str(theirs), "-s", "binWidth:25"]
    subprocess.run(
        [sys.executable, "-c", run, str(tmp_path / "batch.csv"), *more], check=True, capture_output=True, timeout=600
    )
    with pytest.raises(SystemExit):
        main(["features", str(tmp_path / "batch.csv"), "-o", str(tmp_path / "ours.csv")])
    with theirs.open() as one, (tmp_path / "ours.csv").open() as other:
        expected, found = list(csv.DictReader(one)), list(csv.DictReader(other))
    features = [name for name in expected[0] if name.startswith("original")]
    assert [name for name in found[0] if name.startswith("original")] == features
    for wanted, row in zip(expected, found, strict=True):
        assert (row["patient_id"], row["site"]) == (wanted["ID"], wanted["site"])
        assert [row[name] for name in features] == [wanted[name] for name in features]
        assert bool(row["problem"]) == (not wanted[features[0]])
    assert [row["patient_id"] for row in found if row["problem"]] == ["p2", "p4", "p7"]
    assert "absent.nrrd: batch.csv names a file" in found[1]["problem"]
    assert "four.nii.gz: the image has 4 dimensions" in found[3]["problem"]
    assert found[4]["original_shape_VoxelVolume"] != found[5]["original_shape_VoxelVolume"]


FILES = {
    "brain1_image": "sub/brain.nrrd",
    "brain1_label": "sub/mask.nrrd",
    "breast1_image": "a b,c.nrrd",
    "breast1_label": "breast.nrrd",
}


@pytest.mark.parametrize(
    ("mask", "more", "said"),
    [
        ("seg_two_labels.nii.gz", [], "2 structures: 'label 1', 'label 2'; choose with --label N"),
        ("seg_two_labels.nii.gz", ["--label", 7], "no voxel holds [7]; the label map has 1, 2"),
        ("seg_empty.nii.gz", [], "mask-empty: the label map contains only zeros"),
        ("seg_single_slice.nii.gz", [], "mask-one-slice"),
        ("../pyradiomics/brain1_label.nrrd", [], "mask-other-grid"),
        ("../README.md", [], "README.md is no image"),
        ("absent.nii.gz", [], "no file at"),
        ("seg_one_label.nii.gz", ["--params", "absent.yaml"], "no file at absent.yaml"),
        ("seg_one_label.nii.gz", ["--set", "radiomics.enabled=true"], "only the keys of image act here"),
        ("seg_one_label.nii.gz", ["-o", "features.xls"], "expected a name that ends in .csv or .json"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(mask, more, said, shared_data, refused) -> None:
    edge = shared_data / "nifti_edge"
    assert said in refused("features", edge / "img.nii.gz", edge / mask, *more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["B34_two_rtstructs/in"], "a_final.dcm, 'GTV-1' in"),
        (["B34_two_rtstructs/in", "--roi", "GTV-1"], "rs.dcm; name one image and its mask"),
        (["B03_btcv_names/in"], "label0002.nii.gz; name one image and its mask"),
        (["B03_btcv_names/in", "--label", "1"], "2 masks that may hold such a label: 'mask' in"),
        (["B08_dup_contour/in/ct"], "no mask on any; name the mask's file after the image"),
        (["B26_latin1_name/in"], "M\\xfcller_RS.dcm: its name is not UTF-8"),
    ],
)
def test_a_folder_that_leaves_the_structure_open_is_refused_with_the_file(given, said, shared_data, refused) -> None:
    assert said in refused("features", shared_data / "reported" / given[0], *given[1:])


def test_what_the_mask_holds_beside_the_structure_and_cannot_be_used_is_said(
    shared_data: Path, capsys, refused
) -> None:
    main(["features", str(shared_data / "reported" / "B35_one_bad_item" / "in")])
    found = capsys.readouterr()
    assert [row["roi"] for row in csv.DictReader(io.StringIO(found.out))] == ["GTV-1"]
    assert "1 of ROIContourSequence's items without a usable ReferencedROINumber" in found.err
    empty = refused("features", shared_data / "reported" / "B19_empty_roi" / "in", "--label", 1)
    assert "'Breast Left' (ROI 1) is named in the mask, but has no contour" in empty
    assert empty.splitlines()[-1] == "prognosis: roi-not-found: no structure is called or numbered 1; seen: 'GTV-1'"


def test_structures_that_have_names_are_chosen_by_name(shared_data: Path, refused) -> None:
    folder = shared_data / "reported" / "B07_multilabel_rule" / "in" / "A"
    told = refused("features", folder / "ct.nii.gz", folder / "Segmentation.seg.nrrd")
    assert "2 structures: 'GTV', 'Lung'; choose with --roi NAME" in told


def test_a_segment_is_found_by_any_of_its_names(tmp_path: Path) -> None:
    made = make_cohort(tmp_path / "made", SynthSection(patients=2, bad_cases=False)).images
    for name in ("GTV-1", "Neoplasm, Primary"):  # the segment's label, and its coded type
        assert len(prognosis_dask.extract_features(made / "MADE-0002", roi=name)) == 1


def test_a_segment_without_label_is_called_what_its_code_says(tmp_path: Path) -> None:
    ball = (((np.mgrid[:6, :12, :14] - 3) ** 2).sum(axis=0) < 8).astype(np.uint8)
    write_series(tmp_path / "in" / "mr", np.arange(ball.size, dtype=np.uint16).reshape(ball.shape), modality="MR")
    write_seg(tmp_path / "in" / "seg.dcm", tmp_path / "in" / "mr", ball, [1])
    segmentation = pydicom.dcmread(tmp_path / "in" / "seg.dcm")
    del segmentation.SegmentSequence[0].SegmentLabel
    segmentation.save_as(tmp_path / "in" / "seg.dcm")
    [row] = prognosis_dask.extract_features(tmp_path / "in", roi="Neoplasm, Primary").to_dict("records")
    assert row["roi"] == "Neoplasm, Primary"
    assert row["original_shape_VoxelVolume"] == pytest.approx(2.0 * ball.sum())


def test_an_rtstruct_is_measured_on_an_image_file_as_on_its_series(
    shared_data: Path, tmp_path: Path, capsys, refused
) -> None:
    """The published label map of the phantom is the witness."""
    phantom = shared_data / "ibsi" / "ct_phantom"
    image, label_map = (next((phantom / "nifti" / kind).iterdir()) for kind in ("image", "mask"))
    structures = next((phantom / "dicom" / "mask").iterdir())
    [on_file], [expected] = printed(capsys, image, structures), printed(capsys, image, label_map)
    assert on_file["roi"] == "GTV-1"
    features = [key for key in expected if key.startswith("original_")]
    assert {key: on_file[key] for key in features} == {key: expected[key] for key in features}
    assert "no ROI called 'GTV-2'; seen: 'GTV-1'" in refused("features", image, structures, "--roi", "GTV-2")
    told = refused("features", image, next((phantom / "dicom" / "image").iterdir()))
    assert "is no label map, RTSTRUCT or SEG" in told
    bare = tmp_path / "rs"  # as old exports write it: without the preamble and what follows it
    pydicom.Dataset(pydicom.dcmread(structures)).save_as(bare, implicit_vr=True, little_endian=True)
    [of_bare] = printed(capsys, image, bare)
    assert {key: of_bare[key] for key in features} == {key: expected[key] for key in features}


def test_two_structures_of_one_name_in_a_file_are_chosen_by_number(shared_data: Path, tmp_path: Path, refused) -> None:
    phantom = shared_data / "ibsi" / "ct_phantom" / "dicom"
    structures = pydicom.dcmread(next((phantom / "mask").iterdir()))
    roi, contours = (
        copy.deepcopy(one[0]) for one in (structures.StructureSetROISequence, structures.ROIContourSequence)
    )
    roi.ROINumber = contours.ReferencedROINumber = 99
    structures.StructureSetROISequence.append(roi)
    structures.ROIContourSequence.append(contours)
    structures.save_as(tmp_path / "rs.dcm")
    told = refused("features", phantom / "image", tmp_path / "rs.dcm", "--roi", "GTV-1")
    assert "choose with --label N by number (1, 99)" in told


def test_problems_name_the_files_that_were_given(shared_data: Path, tmp_path: Path, refused) -> None:
    phantom = shared_data / "ibsi" / "ct_phantom" / "dicom"
    structures = pydicom.dcmread(next((phantom / "mask").iterdir()))
    for contour in structures.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "OPEN_PLANAR"
    structures.save_as(tmp_path / "rs.dcm")
    assert f"{tmp_path / 'rs.dcm'}: 'GTV-1'" in refused("features", phantom / "image", tmp_path / "rs.dcm")
    (tmp_path / "pair.hdr").write_bytes(b"\x5c\x01\x00\x00")
    assert "write both into one file, as .nii" in refused("features", tmp_path / "pair.hdr", tmp_path / "rs.dcm")


def test_of_a_folder_with_several_structures_one_is_to_be_named(shared_data: Path, refused) -> None:
    told = refused("features", shared_data / "lung1_002", "--roi", "GTV-2")
    assert "no structure is called or numbered 'GTV-2'; seen: 'GTV-1'" in told
    assert "name the file of its mask too" in refused("features", shared_data / "nifti_edge" / "img.nii.gz")


def test_a_folder_without_images_is_named_with_what_was_expected(tmp_path: Path, refused) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    told = f"prognosis: no-images: {tmp_path}: no series of CT, MR or PET is among the files; expected a DICOM series"
    assert refused("features", tmp_path).startswith(told)
