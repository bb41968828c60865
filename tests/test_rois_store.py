"""The store of ROIs: exact, whole whatever is killed, and readable by others."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import xarray as xr
import zarr

from prognosis_dask.cohort.case import short_hash
from prognosis_dask.errors import CaseError, Code, StoreError
from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.storage.rois import MAX_SLICES, RoiStore
from prognosis_dask.storage.volumes import CubeStore
from prognosis_dask.volumes.grid import Grid
from tests.object_server import ObjectServer
from tests.store_workers import create_for_ever, make_frames, make_roi, write_for_ever, write_times

SPAWN = multiprocessing.get_context("spawn")
KINDS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    RoiStore.create(tmp_path / "rois.zarr", ["case-0", "case-1", "case-2"])
    return tmp_path / "rois.zarr"


def assert_same(found: Roi, expected: Roi) -> None:
    for one, other in ((found.image, expected.image), (found.mask, expected.mask)):
        assert one.GetPixelID() == other.GetPixelID()
        assert repr(grid_of(one)) == repr(grid_of(other))  # repr also tells -0.0 from 0.0
        one_pixels, other_pixels = sitk.GetArrayViewFromImage(one), sitk.GetArrayViewFromImage(other)
        assert one_pixels.tobytes() == other_pixels.tobytes()
    assert found.full == expected.full
    assert found.start == expected.start
    assert found.unit == expected.unit


@pytest.mark.parametrize("kind", KINDS)
def test_roi_comes_back_bit_for_bit(path: Path, kind: type) -> None:
    roi, frames = make_roi(7, kind=kind), np.random.default_rng(0).integers(0, 256, (33, 128, 128), dtype=np.uint8)
    RoiStore.open(path).write("case-1", roi, frames, {"cut": True, "window": [-1000.5, 1e-300], "text": "é"})

    store = RoiStore.open(path)
    found = store.read_roi("case-1")
    assert_same(found, roi)
    assert isinstance(found.full, Grid)
    np.testing.assert_array_equal(store.read_frames("case-1"), frames)
    assert store.attributes("case-1") == {"cut": True, "window": [-1000.5, 1e-300], "text": "é"}


def test_a_crop_of_a_run_of_before_whose_header_does_not_tell_of_its_arrays_is_read(path: Path) -> None:
    store = RoiStore.open(path)
    store.write("case-1", make_roi(7), make_frames(1), {})
    header = path / "crops" / short_hash("case-1") / "zarr.json"
    told = json.loads(header.read_text())
    del told["consolidated_metadata"]
    header.write_text(json.dumps(told))
    assert_same(store.read_roi("case-1"), make_roi(7))
    flip(header.parent / "image" / "zarr.json")
    with pytest.raises(CaseError) as caught:
        store.read_roi("case-1")
    assert caught.value.problem.code is Code.STORE_DAMAGED


def test_nan_pixels_come_back(path: Path) -> None:
    roi = make_roi(1, kind=np.float32)
    roi.image[0, 0, 0] = float("nan")
    RoiStore.open(path).write("case-0", roi, make_frames(0), {"a": float("nan")})
    assert_same(RoiStore.open(path).read_roi("case-0"), roi)


def test_shorter_rewrite_leaves_no_old_frames(path: Path) -> None:
    store = RoiStore.open(path)
    store.write("case-2", make_roi(9), make_frames(9, 90), {})
    store.write("case-2", make_roi(2), make_frames(2, 20), {})
    assert len(store.read_frames("case-2")) == 20
    assert not zarr.open_array(path / "frames", mode="r")[2, 20:].any()


def test_black_frames_are_frames(path: Path) -> None:
    store = RoiStore.open(path)
    store.write("case-2", make_roi(9), make_frames(0), {})
    assert store.read_frames("case-2").shape == make_frames(0).shape
    assert (path / "frames/c/2/0/0/0").is_file()


def test_rows_never_change_and_new_cases_come_last(path: Path) -> None:
    RoiStore.open(path).write("case-2", make_roi(2), make_frames(2), {})
    RoiStore.create(path, ["new-b", "case-2", "new-a", "new-b"])
    names = ["case-0", "case-1", "case-2", "new-b", "new-a"]
    assert list(zarr.open_array(path / "case_id", mode="r")[:]) == names
    assert (RoiStore.open(path).read_frames("case-2") == 2).all()


def test_longest_roi_fits_and_a_longer_one_is_a_case_problem(path: Path) -> None:
    store = RoiStore.open(path)
    store.write("case-0", make_roi(1), make_frames(1, MAX_SLICES), {})
    assert len(store.read_frames("case-0")) == MAX_SLICES
    with pytest.raises(CaseError, match="1025 slices, at most 1024") as caught:
        store.write("case-1", make_roi(1), make_frames(1, MAX_SLICES + 1), {})
    assert caught.value.problem.code is Code.MASK_TOO_LONG


def test_case_without_a_row_and_folder_without_a_store_are_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no row for case d9298a10d1b0"):
        RoiStore.open(path).write("other", make_roi(1), make_frames(1), {})
    with pytest.raises(StoreError, match="no store of ROIs at"):
        RoiStore.open(tmp_path / "nothing.zarr")
    zarr.create_group(store=tmp_path / "foreign.zarr")
    with pytest.raises(StoreError, match=r"expected .*prognosis_dask rois"):
        RoiStore.create(tmp_path / "foreign.zarr", [])


def test_case_that_was_not_written_is_store_damaged(path: Path) -> None:
    for read in (RoiStore.open(path).read_roi, RoiStore.open(path).read_frames, RoiStore.open(path).attributes):
        with pytest.raises(CaseError, match="run the same command again") as caught:
            read("case-1")
        assert caught.value.problem.code is Code.STORE_DAMAGED


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


@pytest.mark.parametrize("harm", [flip, truncate, empty, Path.unlink])
@pytest.mark.parametrize("part", ["image/c/0/0/0", "mask/c/0/0/0", "zarr.json", "frames"])
def test_damaged_part_is_detected(path: Path, part: str, harm) -> None:
    store = RoiStore.open(path)
    store.write("case-1", make_roi(1), np.random.default_rng(0).integers(0, 256, (40, 128, 128), dtype=np.uint8), {})
    crop = path / "crops" / short_hash("case-1")
    harm(path / "frames/c/1/0/0/0" if part == "frames" else crop / part)
    with pytest.raises(CaseError) as caught:
        store.read_frames("case-1") if part == "frames" else store.read_roi("case-1")
    assert caught.value.problem.code is Code.STORE_DAMAGED
    store.write("case-1", make_roi(2), make_frames(2), {})
    assert_same(store.read_roi("case-1"), make_roi(2))


def test_plain_zarr_and_xarray_read_the_store(path: Path) -> None:
    roi = make_roi(5)
    RoiStore.open(path).write("case-1", roi, make_frames(5, 30), {})
    dataset = xr.open_zarr(path, consolidated=False, chunks=None).set_coords("case_id").set_index(case="case_id")
    frames = dataset["frames"].sel(case="case-1")
    assert frames.dims == ("slice", "row", "column")
    assert (frames[:30] == 5).all()
    assert not frames[30:].any()
    crop = zarr.open_group(path, mode="r")["crops"][short_hash("case-1")]
    np.testing.assert_array_equal(crop["image"][:], sitk.GetArrayViewFromImage(roi.image))
    assert tuple(crop.attrs["spacing_mm"]) == roi.image.GetSpacing()


def test_cubes_come_back_from_folder_and_bucket_and_those_of_another_kind_are_removed(
    path: Path, object_server: ObjectServer
) -> None:
    object_server.make_bucket("results")
    black = np.zeros((1, 4, 5, 6), np.float32)
    cube = np.random.default_rng(2).normal(size=(2, 4, 5, 6)).astype(np.float32)
    for store in (CubeStore(path), CubeStore("s3://results/run/rois.zarr")):
        for key, values in (("old", black), ("new", black), ("new", cube)):
            store.write_cube("case-0", key, values, {"lesion_cut": 0.25})
        np.testing.assert_array_equal(store.read_cube("case-0", "old")[0], black)
        found, kept = store.read_cube("case-0", "new")
        np.testing.assert_array_equal(found, cube)
        assert kept == {"lesion_cut": 0.25}
        assert store.keep({"new", "never"}) == {"new"}
        store.read_cube("case-0", "new")
        with pytest.raises(CaseError) as caught:
            store.read_cube("case-0", "old")
        assert caught.value.problem.code is Code.STORE_DAMAGED
    held = path / "cubes" / "new" / short_hash("case-0")
    np.testing.assert_array_equal(zarr.open_array(held, mode="r")[...], cube)
    flip(held / "c" / "0" / "0" / "0" / "0")
    with pytest.raises(CaseError) as caught:
        CubeStore(path).read_cube("case-0", "new")
    assert caught.value.problem.code is Code.STORE_DAMAGED


def test_a_black_image_is_an_image(path: Path) -> None:
    roi = make_roi(3)
    black = Roi(roi.image * 0, roi.mask, roi.full, roi.start)
    RoiStore.open(path).write("case-0", black, make_frames(0), {})
    assert_same(RoiStore.open(path).read_roi("case-0"), black)


def read_if_done(path: Path, case_id: str, values: tuple[int, ...]) -> bool:
    """Whether the case reads as done; then it must be whole, all of one write."""
    store = RoiStore.open(path)
    try:
        roi, value, frames = store.read_roi(case_id), store.attributes(case_id)["value"], store.read_frames(case_id)
    except CaseError:
        return False
    assert value in values
    assert_same(roi, make_roi(value))
    np.testing.assert_array_equal(frames, make_frames(value, 10 * value))
    return True


def test_killed_writer_leaves_no_half_written_case(path: Path) -> None:
    """A writer of ever other values is killed at random moments."""
    chance = random.Random(0)
    values = (1, 2, 3)
    for _ in range(4):
        writer = SPAWN.Process(target=write_for_ever, args=(path, "case-1", values))
        writer.start()
        partial = path.parent / ".partial"
        before = set(partial.glob("*"))
        while not set(partial.glob("*")) - before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        writer.kill()
        writer.join()
        read_if_done(path, "case-1", values)
    RoiStore.open(path).write("case-1", make_roi(2), make_frames(2, 20), {"value": 2})
    assert read_if_done(path, "case-1", values)


def test_killed_writer_of_the_same_values_leaves_the_case_done_or_missing_never_other(path: Path) -> None:
    """A task that is redone after its worker was lost writes what it wrote before: the frames are never torn."""
    RoiStore.open(path).write("case-1", make_roi(3), make_frames(3, 30), {"value": 3})
    writer = SPAWN.Process(target=write_for_ever, args=(path, "case-1", (3,)))
    writer.start()
    store, end = RoiStore.open(path), time.monotonic() + 3
    while time.monotonic() < end:
        np.testing.assert_array_equal(store.read_frames("case-1"), make_frames(3, 30))
        assert_same(store.read_roi("case-1"), make_roi(3))
    writer.kill()
    writer.join()


def test_two_processes_write_the_same_case(path: Path) -> None:
    """The speculative twin of a task writes at the same time; neighbours in the same array are written meanwhile."""
    work = [("case-1", 4), ("case-1", 4), ("case-0", 1)]
    writers = [SPAWN.Process(target=write_times, args=(path, case_id, value, 6)) for case_id, value in work]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for case_id, value in work:
        assert read_if_done(path, case_id, (value,))
    assert not list((path.parent / ".partial").iterdir())


def test_killed_driver_leaves_a_store_that_can_be_extended(tmp_path: Path) -> None:
    path = tmp_path / "rois.zarr"
    chance = random.Random(1)
    rows: list[str] = []
    for attempt in range(3):
        driver = SPAWN.Process(target=create_for_ever, args=(path, 1 + attempt * 100))
        driver.start()
        while not path.exists():
            time.sleep(0.005)
        time.sleep(chance.uniform(0.5, 2.0))
        driver.kill()
        driver.join()
        RoiStore.create(path, ["another"])
        names = list(zarr.open_array(path / "case_id", mode="r")[:])
        assert all(now == then for now, then in zip(names, rows, strict=False) if then)
        assert len(set(filter(None, names))) == len([*filter(None, names)])
        rows = names
    RoiStore.create(path, [f"later-{i}" for i in range(20000)])
    names = list(zarr.open_array(path / "case_id", mode="r")[:])
    assert all(names)
    assert zarr.open_array(path / "frames", mode="r").shape[0] == len(names)


def test_abandoned_folders_are_removed_after_a_day_and_not_before(path: Path) -> None:
    young, old = path.parent / ".partial/rois.zarr-young", path.parent / ".partial/rois.zarr-old"
    for folder in (young, old):
        folder.mkdir(parents=True)
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    RoiStore.create(path, [])
    assert young.exists()
    assert not old.exists()


def test_a_command_ends_in_peace_though_the_machine_is_busy(tmp_path: Path) -> None:
    """What zarr waits for at exit is made to take longer than zarr waits."""
    code = f"""
import time, zarr, zarr.core.sync
from prognosis_dask.cli import main as cli
zarr.create_group(store={str(tmp_path / "group")!r})
zarr.core.sync.loop[0].call_soon_threadsafe(time.sleep, 1.0)
cli.main(["status", "/nowhere"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_opening_a_store_of_ten_thousand_cases_is_quick(tmp_path: Path) -> None:
    case_ids = [f"LUNG1-{i:05d}_CT_GTV-1" for i in range(10_000)]
    RoiStore.create(tmp_path / "rois.zarr", case_ids)
    assert sum(1 for _ in (tmp_path / "rois.zarr").rglob("*")) < 20
    seconds = []
    for case_id in case_ids[::1000]:
        start = time.process_time()
        RoiStore.open(tmp_path / "rois.zarr")._row(case_id)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05  # 4 ms
