"""Reading DICOM image series. The witness is SimpleITK's own reader (GDCM)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from prognosis_dask.cohort.crawl import read_headers
from prognosis_dask.errors import Code
from prognosis_dask.imaging.series import read_slices, series_grid
from tests.dicom_helpers import list_series, problem_of, write_series

OBLIQUE = (0.9541666, -0.2080757, 0.2151061, 0.2785886, 0.880128, -0.3843997)
RAMP = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7) - 30


def assert_equals_simpleitk(folder: Path) -> None:
    listing = list_series(folder)
    grid, pixels = series_grid(listing, 0.01), read_slices(listing, 0, len(listing.slices))
    expected = sitk.ReadImage([str(folder / s.file) for s in listing.slices])
    assert grid.size == expected.GetSize()
    np.testing.assert_allclose(grid.spacing, expected.GetSpacing(), rtol=1e-9)
    np.testing.assert_allclose(grid.origin, expected.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(grid.direction, expected.GetDirection(), atol=1e-7)
    values = sitk.GetArrayViewFromImage(expected)
    assert pixels.dtype == values.dtype
    np.testing.assert_array_equal(pixels, values)


@pytest.mark.parametrize(
    "folder",
    [
        "lung1_002/ct",
        "ibsi/ct_phantom/dicom/image",
        "sts/STS_002/CT/image",
        "sts/STS_002/MR_T1/image",
        "sts/STS_008/PET/image",
        "qin_prostate/ADC",
        "dcmqi/ct-3slice",
        "rt_utils/oriented_data",
    ],
)
def test_real_series_equal_simpleitk(shared_data: Path, folder: str) -> None:
    assert_equals_simpleitk(shared_data / folder)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("rescale", [None, (1, 0), (1, -1024), (2, -1), (0.5, 0.25), (1, 0.5)])
@pytest.mark.parametrize(("kind", "bits"), [("int16", 16), ("int16", 12), ("uint16", 12), ("uint16", 16), ("uint8", 8)])
def test_pixel_type_and_values_equal_simpleitk(
    tmp_path: Path, kind: str, bits: int, rescale: tuple[float, float] | None, modality: str
) -> None:
    stored = (RAMP if kind == "int16" else RAMP + 30).astype(kind)
    assert_equals_simpleitk(
        write_series(tmp_path / "s", stored, bits=bits, rescale=rescale, orientation=OBLIQUE, modality=modality)
    )


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_series_equal_simpleitk(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    stored = np.arange(3 * 64 * 48, dtype=np.int16).reshape(3, 64, 48) - 100
    folder = write_series(tmp_path / "s", stored, rescale=(1, -1024))
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.compress(syntax)
        slice_.save_as(path)
    assert_equals_simpleitk(folder)
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, 3), stored - 1024)


@pytest.mark.parametrize("implicit", [True, False])
def test_bare_datasets_of_old_exports_equal_simpleitk(tmp_path: Path, implicit: bool) -> None:
    folder = write_series(tmp_path / "s", RAMP, rescale=(1, -1024))
    listing = list_series(folder)
    for path in folder.iterdir():
        bare = pydicom.Dataset(pydicom.dcmread(path))
        bare.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    expected = sitk.GetArrayFromImage(sitk.ReadImage([str(folder / one.file) for one in listing.slices]))
    np.testing.assert_array_equal(read_slices(listing, 0, 5), expected)


def test_the_codec_of_most_compressed_ct_is_installed() -> None:
    # no program here writes it; libjpeg's own tests hold its values
    assert get_decoder(JPEGLosslessSV1).is_available


def test_slopes_that_differ_between_slices_are_applied_to_each(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP, rescale=[(0.5 * k, k) for k in range(1, 6)])
    expected = RAMP * (0.5 * np.arange(1, 6))[:, None, None] + np.arange(1, 6)[:, None, None]
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, 5), expected)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"RescaleSlope": 0},
        {"BitsStored": 12, "HighBit": 15},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"Columns": 6},
    ],
)
def test_values_that_would_come_out_wrong_are_not_read(tmp_path: Path, spoilt: dict[str, object]) -> None:
    folder = write_series(tmp_path / "s", RAMP, rescale=(1, 0))
    change(folder / "002.dcm", **spoilt)
    assert problem_of(lambda: read_slices(list_series(folder), 0, 5)) is Code.PIXELS_UNREADABLE


def test_bits_beyond_those_stored_do_not_count(tmp_path: Path) -> None:
    # overlays of old in the upper four bits; the sign that was not extended into them
    stored = np.arange(2 * 4 * 5, dtype=np.uint16).reshape(2, 4, 5) * 100
    folder = write_series(tmp_path / "overlay", stored | 0x8000, bits=12, rescale=(1, -1024))
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, 2), stored.astype(int) - 1024)
    signed = stored.astype(np.int16) - 2000
    folder = write_series(tmp_path / "sign", (signed & 0x0FFF).astype(np.int16), bits=12)
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, 2), signed)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_bits_beyond_those_stored_do_not_count_and_are_refused_where_programs_differ(
    tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    stored = np.arange(3 * 64 * 48, dtype=np.uint16).reshape(3, 64, 48) % 4096
    folder = write_series(tmp_path / "s", stored | 0xA000, rescale=(1, -1024))
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.compress(syntax)
        slice_.BitsStored, slice_.HighBit = 12, 11
        slice_.save_as(path)
    if syntax == RLELossless:
        assert_equals_simpleitk(folder)
        np.testing.assert_array_equal(read_slices(list_series(folder), 0, 3), stored.astype(int) - 1024)
    else:  # pydicom takes all 16 bits, GDCM those of JPEG 2000 and 12 of JPEG-LS
        assert problem_of(lambda: read_slices(list_series(folder), 0, 3)) is Code.PIXELS_UNREADABLE


@pytest.mark.parametrize(
    ("kind", "said"),
    [("HU", ""), ("US", "ModalityLUTType is US: it is not stated that these CT values are Hounsfield units (HU)")],
)
def test_a_table_of_values_takes_the_place_of_the_slope(kind: str, said: str, tmp_path: Path) -> None:
    stored = np.arange(2 * 4 * 5, dtype=np.uint16).reshape(2, 4, 5)
    folder = write_series(tmp_path / "s", stored)
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        table = pydicom.Dataset()
        table.add_new(0x00283002, "US", [40, 0, 16])
        table.ModalityLUTType = kind
        table.add_new(0x00283006, "US", [3 * value for value in range(40)])
        slice_.ModalityLUTSequence = [table]
        slice_.save_as(path)
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, 2), stored * 3)
    told = [(header.units, header.note) for header in read_headers(list(map(str, folder.iterdir())))]  # type: ignore[union-attr]
    assert told == [(kind, said)] * 2


def test_pixels_as_floating_point_numbers_are_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP, rescale=(2, -5))
    values = np.linspace(-1000, 1000, RAMP.size, dtype=np.float32).reshape(RAMP.shape)
    for path, plane in zip(sorted(folder.iterdir()), values, strict=True):
        slice_ = pydicom.dcmread(path)
        slice_.FloatPixelData, slice_.BitsAllocated = plane.tobytes(), 32
        for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(slice_, keyword)
        slice_.save_as(path)
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, len(values)), values.astype(np.float64) * 2 - 5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1: the values are used as they are, but ITK inverts"),
        ({"LossyImageCompression": "01"}, "compressed with loss"),
        ({"RescaleIntercept": None}, "no RescaleIntercept: taken as 0"),
    ],
)
def test_what_makes_values_doubtful_is_noted(values: dict[str, object], said: str, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP, rescale=(1, -24))
    for path in folder.iterdir():
        change(path, **values)
    expected = RAMP if "RescaleIntercept" in values else RAMP.astype(int) - 24
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, len(RAMP)), expected)
    assert all(said in header.note for header in read_headers(list(map(str, folder.iterdir()))))  # type: ignore[union-attr]


def test_jpeg_2000_that_may_have_lost_something_is_noted(tmp_path: Path) -> None:
    """Its transfer syntax is that of both kinds; only LossyImageCompression 00 says that nothing was lost."""
    folder = write_series(tmp_path / "s", np.tile(RAMP, (1, 8, 8)))
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        image.compress(JPEG2000, j2k_cr=[4])
        image.save_as(path)

    def notes() -> set[str]:
        return {header.note for header in read_headers(list(map(str, folder.iterdir())))}  # type: ignore[union-attr]

    assert all("may have been compressed with loss" in note for note in notes())
    for path in folder.iterdir():
        change(path, LossyImageCompression="00")
    assert not any("with loss" in note for note in notes())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0.0871557, 0.9961947, 0]}, "no right angle"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, "no right angle"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "no right angle"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no right angle"),
        ({"ImageOrientationPatient": [1, 0, 0, 1e-3, 1, 0]}, ""),
        ({"ImageOrientationPatient": [0.97, 0.22, -0.09, -0.23, 0.96, -0.14]}, ""),  # of a right angle, two decimals
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "numbers of colours"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
    ],
)
def test_an_image_whose_geometry_or_pixels_mean_nothing_is_refused(
    values: dict[str, object], said: str, tmp_path: Path
) -> None:
    """GDCM straightens rows and columns that are five degrees from a right angle, and says nothing."""
    folder = write_series(tmp_path / "s", RAMP)
    for path in folder.iterdir():
        change(path, **values)
    faults = [header.fault for header in read_headers(list(map(str, folder.iterdir())))]  # type: ignore[union-attr]
    assert all(said in fault and bool(fault) == bool(said) for fault in faults)


def test_only_the_slices_asked_for_are_opened(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP)
    listing = list_series(folder)
    for number in (0, 4):
        (folder / f"{number:03}.dcm").unlink()
    np.testing.assert_array_equal(read_slices(listing, 1, 4), RAMP[1:4])


def test_the_file_names_do_not_matter(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP)
    for number, name in enumerate("cabed"):
        (folder / f"{number:03}.dcm").rename(folder / name)
    np.testing.assert_array_equal(read_slices(list_series(folder), 0, 5), RAMP)


def change(path: Path, **values: object) -> None:
    slice_ = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(slice_, keyword, value)
    slice_.save_as(path)


def grid_code(folder: Path, tolerance: float = 0.01) -> Code:
    return problem_of(lambda: series_grid(list_series(folder), tolerance))


def test_missing_slice_is_found_that_simpleitk_averages_away(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", np.zeros((9, 4, 4), np.int16))
    (folder / "005.dcm").unlink()
    assert grid_code(folder) is Code.SLICE_GAP


def test_gap_tolerance_decides_what_is_a_gap(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP)
    change(folder / "004.dcm", ImagePositionPatient=[0, 0, 8.05])
    assert grid_code(folder) is Code.SLICE_GAP
    assert series_grid(list_series(folder), 0.03).spacing[2] == pytest.approx(8.05 / 4)


def test_two_slices_at_one_place_are_found(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP)
    shutil.copy(folder / "002.dcm", folder / "copy.dcm")
    change(folder / "copy.dcm", SOPInstanceUID="1.2.3")
    assert grid_code(folder) is Code.SLICE_DUPLICATE


@pytest.mark.parametrize(
    "values",
    [
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]},
        {"PixelSpacing": [1.0, 1.1]},
        {"Rows": 7, "Columns": 6},
    ],
)
def test_slices_of_another_kind_are_found(tmp_path: Path, values: dict[str, object]) -> None:
    folder = write_series(tmp_path / "s", RAMP)
    change(folder / "003.dcm", **values)
    assert grid_code(folder) is Code.SERIES_MIXED


def test_gantry_tilt_is_found(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP)
    for number in range(5):
        change(folder / f"{number:03}.dcm", ImagePositionPatient=[0, 2 * number * np.tan(np.radians(10)), 2 * number])
    assert grid_code(folder) is Code.GANTRY_TILT


def test_a_single_slice_is_no_volume(shared_data: Path) -> None:
    assert grid_code(shared_data / "rt_utils" / "one_slice_data") is Code.SERIES_TOO_SHORT


def test_files_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", RAMP)
    listing = list_series(folder)
    whole = (folder / "002.dcm").read_bytes()

    def code() -> Code:
        return problem_of(lambda: read_slices(listing, 0, 5))

    (folder / "002.dcm").write_bytes(whole[:-10])
    assert code() is Code.PIXELS_UNREADABLE
    (folder / "002.dcm").write_bytes(b"not DICOM")
    assert code() is Code.PIXELS_UNREADABLE
    (folder / "002.dcm").unlink()
    assert code() is Code.PIXELS_UNREADABLE
    shutil.copy(folder / "001.dcm", folder / "002.dcm")
    assert code() is Code.PIXELS_UNREADABLE, "another instance than the one that was indexed"


def test_a_multi_frame_file_is_refused_by_name(shared_data: Path, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", np.zeros((2, 38, 24), np.int16))
    listing = list_series(folder)
    many = pydicom.dcmread(shared_data / "dcmqi" / "24x38x3" / "multiframe" / "mf.dcm")
    many.SOPInstanceUID = listing.slices[0].sop_uid
    many.save_as(folder / "000.dcm")
    assert problem_of(lambda: read_slices(listing, 0, 2)) is Code.PIXELS_UNREADABLE
