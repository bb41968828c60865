"""Image files as they come: what is read equals ITK's, and what ITK passes over in silence is a problem."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.headers import stamp
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import CaseError, Code, collected_warnings
from prognosis_dask.imaging.load import load_case, load_roi
from prognosis_dask.volumes.files import volume_grid, volume_voxels
from tests.dicom_helpers import case_of, problem_of

VALUES = np.random.default_rng(3).integers(1, 100, (6, 7, 8)).astype(np.int16)


def saved(path: Path, values: np.ndarray = VALUES) -> Path:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 2.5))
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def nifti(path: Path, values: np.ndarray = VALUES, affine: np.ndarray | None = None, **fields: Any) -> Path:
    """A file with header fields as given, whatever a writer would make of them."""
    default = np.diag([-0.7, -0.8, 2.5, 1.0])
    image = nibabel.Nifti1Image(values.T, default if affine is None else affine, dtype=values.dtype)
    nibabel.save(image, path.with_suffix(".nii"))
    raw = bytearray(path.with_suffix(".nii").read_bytes())
    header = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
    for key, value in {"scl_slope": 1, "scl_inter": 0, **fields}.items():
        header[key] = value
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    return path


@pytest.mark.parametrize("scaling", [(1, 0), (0, 0), (2, 0), (0.1, -5), (-1, 3), (1 / 255, 0)])
@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_nifti_voxels_are_itks_in_type_and_value(tmp_path: Path, kind: str, scaling: tuple[float, float]) -> None:
    path = nifti(tmp_path / "a.nii", VALUES.astype(kind), scl_slope=scaling[0], scl_inter=scaling[1])
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    found = volume_voxels(path)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(volume_voxels(path, 2, 5), expected[2:5])


def test_every_real_volume_is_read_as_itk_reads_it(shared_data: Path) -> None:
    files = [
        p for part in ("sts", "ibsi", "nifti_edge", "brain", "pyradiomics") for p in (shared_data / part).rglob("*")
    ]
    volumes = [path for path in files if path.name.endswith((".nii", ".nii.gz", ".nrrd"))]
    assert len(volumes) > 50
    for path in volumes:
        image, grid = sitk.ReadImage(str(path)), volume_grid(path)
        found = volume_voxels(path)
        assert (found.dtype, grid.size) == (sitk.GetArrayViewFromImage(image).dtype, image.GetSize())
        np.testing.assert_array_equal(found, sitk.GetArrayViewFromImage(image))
        here = (*grid.spacing, *grid.origin, *grid.direction)
        assert here == (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_are_read(tmp_path: Path, kind: type, order: str) -> None:
    header = kind.header_class(endianness=order)  # type: ignore[attr-defined]
    header.set_data_dtype(np.int16)
    nibabel.save(kind(VALUES.T, np.diag([-1, -1, 2, 1]), header), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume_voxels(tmp_path / "a.nii.gz"), VALUES)
    grid = volume_grid(tmp_path / "a.nii.gz")
    assert (grid.size, grid.spacing) == ((8, 7, 6), (1, 1, 2))
    assert (grid.origin, grid.direction) == ((0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_size_that_the_file_cannot_hold_asks_for_no_memory(tmp_path: Path, name: str) -> None:
    path = nifti(tmp_path / "b.nii", dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    data = path.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert problem_of(lambda: volume_voxels(tmp_path / name)) is Code.PIXELS_UNREADABLE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_what_is_no_number_stays_and_refuses_the_case(tmp_path: Path, name: str, bad: float) -> None:
    values = VALUES.astype(np.float32)
    values[2, 3, 4] = bad
    path = saved(tmp_path / name, values)
    np.testing.assert_array_equal(volume_voxels(path), values)
    mask = saved(tmp_path / f"mask_{name}", (VALUES > 50).astype(np.uint8))
    case = case_of(path, mask, (1,), tmp_path)
    assert problem_of(lambda: load_roi(case, ImageSection())) is Code.IMAGE_INVALID
    swapped = case_of(mask, path, (), tmp_path)
    assert problem_of(lambda: load_roi(swapped, ImageSection())) is Code.MASK_UNREADABLE


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("share", [0.6, 0.95, 0.999])
def test_a_file_that_was_cut_short_is_a_problem(tmp_path: Path, name: str, share: float) -> None:
    whole = saved(tmp_path / "whole" / name if (tmp_path / "whole").mkdir() is None else tmp_path)
    (tmp_path / name).write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    assert problem_of(lambda: volume_voxels(tmp_path / name)) is Code.PIXELS_UNREADABLE
    case = case_of(whole, tmp_path / name, (1,), tmp_path)
    assert problem_of(lambda: load_roi(case, ImageSection())) is Code.MASK_UNREADABLE


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.nhdr"])
def test_a_flipped_bit_in_compressed_data_is_noticed(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, np.random.default_rng(0).integers(0, 9999, (20, 30, 40)).astype(np.int16))
    (data,) = [file for file in tmp_path.iterdir() if file.stat().st_size > 9999]
    raw = bytearray(data.read_bytes())
    volume_voxels(path)
    raw[len(raw) // 2] ^= 0x55
    data.write_bytes(bytes(raw))
    assert problem_of(lambda: volume_voxels(path)) is Code.PIXELS_UNREADABLE


def test_a_packed_file_beside_an_unpacked_one_of_the_same_name_is_itself(tmp_path: Path) -> None:
    saved(tmp_path / "a.nii")
    packed = saved(tmp_path / "a.nii.gz", VALUES + 1)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(packed))), VALUES)  # the other one's
    np.testing.assert_array_equal(volume_voxels(packed), VALUES + 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"scl_slope": 0, "scl_inter": 5},
        {"scl_slope": np.nan, "scl_inter": 5},
        {"scl_slope": 2, "scl_inter": np.nan},
        {"vox_offset": 0},
        {"xyzt_units": 3},
        {"pixdim": [1, 0.7, 0.8, 5.0, 0, 0, 0, 0]},
        {"dim": [4, 8, 7, 3, 2, 1, 1, 1]},
        {"dim": [4, 8, 7, 1, 6, 1, 1, 1]},
        {"dim": [2, 8, 42, 1, 1, 1, 1, 1]},
        {"datatype": 128, "bitpix": 24},
        {"datatype": 32, "bitpix": 64},
        {"datatype": 77},
    ],
)
def test_headers_that_programs_read_differently_are_problems(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = nifti(tmp_path / "a.nii", **fields)
    if "pixdim" not in fields:  # which tells of the grid alone
        assert problem_of(lambda: volume_voxels(path)) is Code.IMAGE_INVALID
    assert problem_of(lambda: volume_grid(path)) is Code.IMAGE_INVALID


def test_a_header_without_magic_is_no_nifti(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", magic=b"ni1")
    assert problem_of(lambda: volume_grid(path)) is Code.UNREADABLE_FILE


def test_one_volume_of_a_time_series_is_a_volume(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", VALUES, dim=[5, 8, 7, 6, 1, 1, 1, 1])
    np.testing.assert_array_equal(volume_voxels(path), VALUES)
    assert volume_grid(path).size == (8, 7, 6)
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(VALUES)]), str(tmp_path / "b.nrrd"))
    np.testing.assert_array_equal(volume_voxels(tmp_path / "b.nrrd"), VALUES)
    assert volume_grid(tmp_path / "b.nrrd").size == (8, 7, 6)


def test_a_header_that_is_no_right_angle_by_a_hundredth_of_a_degree_is_read(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "reported" / "B11_sheared_nifti" / "in" / "A"
    image, mask = load_case(case_of(folder / "ct.nii.gz", folder / "mask.nii.gz", (), tmp_path))
    held = sitk.GetArrayFromImage(mask) == 1
    assert np.count_nonzero(held) == 654
    assert sitk.GetArrayFromImage(image)[held].mean() == pytest.approx(39.39, abs=0.005)
    axes = np.asarray(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)


def test_a_sheared_grid_is_a_problem_that_states_the_angle(tmp_path: Path) -> None:
    affine = np.diag([-0.7, -0.8, 2.5, 1.0])
    affine[0, 2] = 2.5 * np.tan(np.radians(12.0))
    path = nifti(tmp_path / "a.nii", affine=affine, sform_code=1, qform_code=0)
    with pytest.raises(Exception, match=r"12\.00 degrees off a right angle, which moves a voxel by \d\.\d+ voxels"):
        volume_grid(path)
    tilted = sitk.GetImageFromArray(VALUES)
    tilted.SetDirection([1, 0, np.sin(np.radians(12)), 0, 1, 0, 0, 0, np.cos(np.radians(12))])
    sitk.WriteImage(tilted, str(tmp_path / "b.nrrd"))
    assert problem_of(lambda: volume_grid(tmp_path / "b.nrrd")) is Code.GANTRY_TILT


def edited(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.nrrd", b"kinds:", b'space units: "cm" "cm" "cm"\nkinds:'),
        ("plain.nrrd", b"sizes:", b'units: "cm" "cm" "cm"\nsizes:'),
        ("a.mha", b"DimSize", b"DistanceUnits = um\nDimSize"),
        ("a.mha", b"DimSize", b"ElementToIntensityFunctionSlope = 2\nDimSize"),
        ("a.mhd", b"DimSize", b"ElementToIntensityFunctionOffset = x\nDimSize"),
        ("a.mhd", b"DimSize", b"ElementToIntensityFunctionOffset = nan\nDimSize"),
    ],
)
def test_units_and_scales_that_itk_passes_over_are_problems(tmp_path: Path, name: str, old: bytes, new: bytes) -> None:
    path = headed(tmp_path / name, "spacings: 1 1 1\n") if name.startswith("plain") else saved(tmp_path / name)
    volume_grid(path)
    assert problem_of(lambda: volume_grid(edited(path, old, new))) is Code.IMAGE_INVALID
    assert sitk.ReadImage(str(path)).GetSize() == (8, 7, 6)


@pytest.mark.parametrize("scale", ["Slope = 1.000000e+00", "Slope = 1.", "Offset = -0", "Offset = 0e0"])
def test_a_scale_that_changes_no_value_is_read_however_it_is_written(tmp_path: Path, scale: str) -> None:
    field = f"ElementToIntensityFunction{scale}\nDimSize".encode()
    path = edited(saved(tmp_path / "a.mha"), b"DimSize", field)
    volume_grid(path)
    np.testing.assert_array_equal(volume_voxels(path), VALUES)


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
def test_less_than_a_plane_behind_the_voxels_is_passed_over(tmp_path: Path, name: str) -> None:
    """A newline at the end, or padding to whole blocks: the size in the header is right."""
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(path), useCompression=False)
    data = path.with_suffix(".raw") if path.with_suffix(".raw").exists() else path
    padded = 50 if data == path else 14
    for more in (b"\n", bytes(padded)):
        data.write_bytes(data.read_bytes() + more)
        np.testing.assert_array_equal(volume_voxels(path), VALUES)
    data.write_bytes(data.read_bytes() + bytes(VALUES[0].nbytes - padded - 1))
    assert problem_of(lambda: volume_voxels(path)) is Code.PIXELS_UNREADABLE


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_a_header_before_the_voxels_that_nothing_tells_of_is_refused(tmp_path: Path, name: str) -> None:
    """The voxels would be read shifted by it."""
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(path), useCompression=False)
    data = path.with_suffix(".raw")
    data.write_bytes(bytes(50) + data.read_bytes())
    assert problem_of(lambda: volume_voxels(path)) is Code.PIXELS_UNREADABLE


def test_millimetres_in_a_header_are_read(tmp_path: Path) -> None:
    path = edited(saved(tmp_path / "a.nrrd"), b"kinds:", b'space units: "mm" "mm" "mm"\nkinds:')
    np.testing.assert_array_equal(volume_voxels(path), VALUES)
    path = edited(saved(tmp_path / "a.mha"), b"DimSize", b"DistanceUnits = mm\nDimSize")
    np.testing.assert_array_equal(volume_voxels(path), VALUES)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a.nrrd", b"type: short", b"type: signed char"),
        ("a.mha", b"MET_SHORT", b"MET_CHAR"),
        ("a.mhd", b"MET_SHORT", b"MET_CHAR"),
        ("a.mha", b"DimSize = 8 7 6", b"DimSize = 8 7 5"),
        ("a.nii", b"\x03\x00\x08\x00\x07\x00\x06\x00", b"\x03\x00\x08\x00\x07\x00\x05\x00"),
        ("a.nii", b"\x04\x00\x10\x00", b"\x02\x00\x08\x00"),  # int16 as uint8
    ],
)
def test_voxels_beyond_those_of_the_header_are_a_problem(
    tmp_path: Path, name: str, old: bytes, new: bytes, packed: bool
) -> None:
    """ITK and nibabel read the first part of them: other slices, or halves of numbers."""
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(path), useCompression=packed and name != "a.nii")
    np.testing.assert_array_equal(volume_voxels(path), VALUES)
    edited(path, old, new)
    if packed and name == "a.nii":
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert problem_of(lambda: volume_voxels(path)) is Code.PIXELS_UNREADABLE


@pytest.mark.parametrize(("length", "said"), [(None, "a.raw, is missing"), (100, "a.raw is cut short: 100 bytes")])
def test_a_detached_header_names_the_file_that_is_missing_or_short(
    tmp_path: Path, length: int | None, said: str
) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(tmp_path / "a.mhd"), useCompression=False)
    content = (tmp_path / "a.raw").read_bytes()
    (tmp_path / "a.raw").unlink()
    if length is not None:
        (tmp_path / "a.raw").write_bytes(content[:length])
    with pytest.raises(CaseError, match=re.escape(said)):
        volume_voxels(tmp_path / "a.mhd")


@pytest.mark.parametrize(("said", "fault"), [("", "is 0,"), ("CompressedDataSize = 9\n", "is 9,")])
def test_compressed_voxels_beyond_the_size_that_a_metaimage_says_are_a_problem(
    tmp_path: Path, said: str, fault: str
) -> None:
    """ITK leaves the others as its memory was, once right and once not; a file of their own has a size by itself."""
    path = saved(tmp_path / "a.mha")
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", said.encode(), path.read_bytes()))
    with pytest.raises(CaseError, match=fault):
        volume_voxels(path)
    path = saved(tmp_path / "b.mhd")
    path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", b"", path.read_bytes()))
    np.testing.assert_array_equal(volume_voxels(path), VALUES)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ("LIST\ns1\ns2\ns3\ns4\ns5\ns6", ""),
        ("LIST 2\ns1\ns2\ns3\ns4\ns5\ns6\nmore", ""),
        ("s%d 1 6 1", ""),
        ("s%d 1 9 1", ""),
        ("s%d 1", ""),
        ("s%d", ""),
        ("listing", ""),
        ("Liste", ""),
        ("LIST", "names 0 files"),
        ("LISTING", "names 0 files"),
        ("LIST%d 1 6 1", "names 0 files"),
        ("LIST 3\ns1\ns2\ns3\ns4\ns5\ns6", "names 0 files"),
        ("s%d 6 1 -1", "names 0 files"),
        ("s%d 1 6 1 2", "names 0 files"),
        ("LIST\ns1\ns2\ns3\ns4\ns5", "names 5 files of voxels that all programs find, expected 6"),
        ("s%d 1 5 1", "names 5 files"),
        ("s%d 1 6", "names 0 files"),
        ("LIST\ns1\ns2\ns3\ns4\ns5\nshort", "short is missing or cut short: 7 bytes"),
        ("LIST\ns1\ns2\ns3\ns4\ns5\nlong", "go on for 112 bytes"),
    ],
)
def test_a_metaimage_of_one_file_a_slice_has_all_of_them(tmp_path: Path, names: str, fault: str) -> None:
    """ITK leaves the slices undefined that a list lacks, drops others, and never ends a pattern with two numbers."""
    path = headed(tmp_path / "a.mha", "ElementSpacing = 1 1 1\n").rename(tmp_path / "a.mhd")
    header = path.read_bytes().partition(b"LOCAL\n")[0]
    path.write_bytes(header + f"{names}\n".encode())
    for number, values in enumerate(VALUES, 1):
        (tmp_path / f"s{number}").write_bytes(values.tobytes())
        (tmp_path / f"LIST{number}").write_bytes(values.tobytes())
    for whole in ("listing", "Liste", "LISTING"):
        (tmp_path / whole).write_bytes(VALUES.tobytes())
    (tmp_path / "short").write_bytes(bytes(7))
    (tmp_path / "long").write_bytes(bytes(2 * VALUES[0].nbytes))
    if fault:
        with pytest.raises(CaseError, match=fault):
            volume_voxels(path)
    else:
        np.testing.assert_array_equal(volume_voxels(path), VALUES)


def test_a_list_whose_last_line_does_not_end_lacks_a_slice_to_itk(tmp_path: Path) -> None:
    path = headed(tmp_path / "a.mha", "ElementSpacing = 1 1 1\n").rename(tmp_path / "a.mhd")
    header = path.read_bytes().partition(b"LOCAL\n")[0]
    (tmp_path / "s").write_bytes(VALUES[0].tobytes())
    path.write_bytes(header + b"LIST" + b"\ns" * 6)
    with pytest.raises(CaseError, match="names 5 files of voxels that all programs find, expected 6"):
        volume_voxels(path)
    path.write_bytes(header + b"LIST" + b"\ns" * 6 + b"\n")
    np.testing.assert_array_equal(volume_voxels(path), sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.parametrize("names", ["s%d 1 6 1", "r%d 6 1 -1", "LIST\ns1\ns2\ns3\ns4\ns5\ns6", "listing"])
def test_the_files_that_a_detached_nrrd_names_are_read(tmp_path: Path, names: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(tmp_path / "a.nhdr"), useCompression=False)
    header = re.sub(r"data file: .*\n\s*", "", (tmp_path / "a.nhdr").read_text())
    (tmp_path / "a.nhdr").write_text(f"{header}data file: {names}\n")
    (tmp_path / "listing").write_bytes(VALUES.tobytes())
    for number, values in enumerate(VALUES, 1):
        (tmp_path / f"s{number}").write_bytes(values.tobytes())
        (tmp_path / f"r{7 - number}").write_bytes(values.tobytes())
    np.testing.assert_array_equal(volume_voxels(tmp_path / "a.nhdr"), VALUES)


@pytest.mark.parametrize("names", ["voxels.bin", "LIST\nvoxels.bin"])
def test_a_detached_header_has_the_identity_of_its_voxels_whatever_their_file_is_called(
    tmp_path: Path, names: str
) -> None:
    path, data = tmp_path / "a.mhd", tmp_path / "voxels.bin"
    path.write_text(f"ObjectType = Image\nBinaryData = True\nElementDataFile = {names}\n")
    seen = set()
    for content in (b"1", b"2"):
        data.write_bytes(content)
        seen.add(stamp(str(path), checksum=True).sha256)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("name", "spacing", "said"),
    [
        ("ct.mha", "", [Code.VOXEL_SIZE]),
        ("ct.mha", "ElementSpacing = 1 1 1\n", []),
        ("ct.nrrd", "", [Code.VOXEL_SIZE]),
        ("ct.nrrd", "spacings: 1 1 nan\n", [Code.VOXEL_SIZE]),
        ("ct.nrrd", "spacings: 1 1 1\n", []),
    ],
)
def test_a_header_without_the_size_of_voxels_is_told(name: str, spacing: str, said: list[Code], tmp_path: Path) -> None:
    """ITK takes 1 mm without a word, as of what numpy arrays were written with."""
    path = headed(tmp_path / name, spacing)
    mask = np.zeros(VALUES.shape, np.uint8)
    mask[1:4, 2:5, 2:6] = 1
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "mask.nrrd"))
    assert sitk.ReadImage(str(path)).GetSpacing() == (1, 1, 1)
    with collected_warnings() as found:
        load_case(case_of(path, tmp_path / "mask.nrrd", (1,), tmp_path, modality="MR"))
    assert [warning.code for warning in found] == said


@pytest.mark.parametrize(("mm", "codes"), [(0.0007, [Code.VOXEL_SIZE]), (700.0, [Code.VOXEL_SIZE]), (0.7, [])])
def test_voxels_of_metres_or_micrometres_under_the_name_of_millimetres_are_told(
    tmp_path: Path, mm: float, codes: list[Code]
) -> None:
    inside = np.zeros(VALUES.shape, np.uint8)
    inside[1:4, 2:5, 2:6] = 1
    for name, values in (("ct.mha", VALUES), ("mask.mha", inside)):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((mm, mm, 2 * mm))
        sitk.WriteImage(image, str(tmp_path / name))
    with collected_warnings() as found:
        load_case(case_of(tmp_path / "ct.mha", tmp_path / "mask.mha", (1,), tmp_path, modality="MR"))
    assert [warning.code for warning in found] == codes


def headed(path: Path, spacing: str) -> Path:
    """VALUES under a header as it is given."""
    size = " ".join(map(str, VALUES.shape[::-1]))
    if path.suffix == ".mha":
        head = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{spacing}"
        head += f"DimSize = {size}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    else:
        head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {size}\nencoding: raw\nendian: little\n{spacing}\n"
    path.write_bytes(head.encode() + VALUES.tobytes())
    return path


def test_voxels_without_an_extent_are_a_problem(tmp_path: Path) -> None:
    path = headed(tmp_path / "ct.mha", "ElementSpacing = 1 1 0\n")
    assert problem_of(lambda: volume_grid(path)) is Code.IMAGE_INVALID


def test_a_mask_that_holds_every_corner_of_its_image_is_told(tmp_path: Path) -> None:
    """Structure and background were exchanged; a tumour never fills all corners."""
    inside = np.zeros(VALUES.shape, np.uint8)
    inside[1:4, 2:5, 2:6] = 1
    for mask, codes in ((inside, []), (1 - inside, [Code.MASK_ITEM_INVALID])):
        case = case_of(saved(tmp_path / "ct.nrrd"), saved(tmp_path / "mask.nrrd", mask), (1,), tmp_path, modality="MR")
        with collected_warnings() as found:
            load_case(case)
        assert [warning.code for warning in found] == codes
