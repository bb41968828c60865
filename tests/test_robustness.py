"""``prognosis robustness``: perturbed regions, their ICC per feature, and the negative controls."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.cli.main import main
from prognosis_dask.cohort.case import read_cases
from prognosis_dask.config.job import SynthSection
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.errors import StatisticsError
from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.radiomics import ibsi
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.parameter_file import read_params
from prognosis_dask.radiomics.perturbation import CONTROLS, Extent, control, noise_level, of_volume, perturbed
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.workflows.robustness import robustness

IBSI = IbsiSection(spacing_mm=3.0)
NOTHING = Extent(degrees=0, voxels=0, noise=0, volume=0, contour=False)


def ball(spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> Roi:
    """A bright ellipsoid of 100 on noise around 0, in slices that are twice as thick as their pixels."""
    z, y, x = np.indices((30, 50, 50))
    mask = ((z - 15) * 2.0) ** 2 + (y - 25) ** 2 + ((x - 25) / 1.3) ** 2 < 12**2
    voxels = np.rint(mask * 100 + np.random.default_rng(0).normal(0, 5, mask.shape))
    image, label = sitk.GetImageFromArray(voxels.astype(np.int16)), sitk.GetImageFromArray(mask.astype(np.uint8))
    for one in (image, label):
        one.SetSpacing(spacing)
        one.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    return Roi(image, label, grid_of(image), (0, 0, 0))


def arrays(roi: Roi) -> tuple[np.ndarray, np.ndarray]:
    return sitk.GetArrayFromImage(roi.image), sitk.GetArrayFromImage(roi.mask) == 1


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_noise_is_measured_whatever_lies_under_it() -> None:
    z, y, x = np.indices((20, 80, 80))
    noise = np.random.default_rng(1).normal(0, 12, z.shape)
    assert noise_level(noise) == pytest.approx(12, rel=0.02)
    assert noise_level(3.0 * x - 2 * y + 50 * z + noise) == pytest.approx(12, rel=0.02)
    assert noise_level(3.0 * x - 2 * y) == pytest.approx(0, abs=1e-9)


def test_without_any_extent_nothing_changes() -> None:
    roi = ball()
    for one, other in zip(arrays(perturbed(roi, NOTHING, np.random.default_rng(0))), arrays(roi), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(3))
def test_image_and_mask_move_together(seed: int) -> None:
    """The bright voxels stay those of the mask, which turns about its centre and keeps its volume."""
    roi = ball()
    _, before = arrays(roi)
    turned = perturbed(
        roi, Extent(degrees=40, voxels=0.5, noise=0, volume=0, contour=False), np.random.default_rng(seed)
    )
    image, mask = arrays(turned)
    assert image.dtype == np.int16
    assert dice(mask, image > 50) > 0.96 > dice(before, image > 50)
    assert mask.sum() == pytest.approx(before.sum(), rel=0.02)
    shift = np.argwhere(mask).mean(axis=0) - np.argwhere(before).mean(axis=0)
    assert np.all(np.abs(shift) < 0.6)
    assert 0.8 < dice(mask, before) < 0.999


def test_noise_is_added_in_proportion_to_the_images_own() -> None:
    roi = ball()
    noisy = perturbed(roi, Extent(degrees=0, voxels=0, noise=2, volume=0, contour=False), np.random.default_rng(9))
    (image, mask), (before, _) = arrays(noisy), arrays(roi)
    added = (image - before)[mask & (before < 100)]
    assert added.std() == pytest.approx(2 * noise_level(before), rel=0.15)


def test_a_mask_gains_and_loses_volume_at_its_surface() -> None:
    _, mask = arrays(ball())
    for share in (0.8, 1.25):
        wanted = round(mask.sum() * share)
        changed = of_volume(mask, wanted, (2.0, 1.0, 1.0))
        assert changed.sum() == wanted
        assert (changed & mask).sum() == min(wanted, mask.sum())
    thicker = of_volume(mask, 2 * mask.sum(), (2.0, 1.0, 1.0))
    z, y = (np.ptp(np.flatnonzero(thicker.any(axis=axes))) for axes in ((1, 2), (0, 2)))
    assert z * 2.0 == pytest.approx(y, abs=2.1)  # the same distance in mm along both


def test_a_contour_drawn_anew_follows_the_image() -> None:
    roi = ball()
    _, mask = arrays(roi)
    rough = mask & (np.random.default_rng(3).random(mask.shape) < 0.9)
    rough_roi = Roi(roi.image, sitk.GetImageFromArray(rough.astype(np.uint8)), roi.full, roi.start)
    rough_roi.mask.CopyInformation(roi.image)
    contour = Extent(degrees=0, voxels=0, noise=0, volume=0)
    drawn = [arrays(perturbed(rough_roi, contour, np.random.default_rng(seed)))[1] for seed in range(4)]
    assert all(dice(one, mask) > 0.85 for one in drawn)
    assert any((one != drawn[0]).any() for one in drawn[1:])


def test_controls_keep_what_they_say() -> None:
    roi = ball()
    image, mask = arrays(roi)
    shuffled, same = arrays(control(roi, "shuffled_voxels", np.random.default_rng(0)))
    np.testing.assert_array_equal(same, mask)
    np.testing.assert_array_equal(shuffled[~mask], image[~mask])
    np.testing.assert_array_equal(np.sort(shuffled[mask]), np.sort(image[mask]))
    assert (shuffled[mask] != image[mask]).mean() > 0.5
    untouched, scattered = arrays(control(roi, "shuffled_mask", np.random.default_rng(0)))
    np.testing.assert_array_equal(untouched, image)
    assert scattered.sum() == mask.sum()
    assert dice(scattered, mask) < 0.8
    assert not scattered[~mask.any(axis=(1, 2))].any()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    job = folder / "job.toml"
    cohort = make_cohort(folder / "cohort", SynthSection(patients=8, seed=2, bad_cases=False))
    job.write_text(
        f'''
        name = "robust"
        cohort = {{ sources = ["{cohort.images}"], clinical = "{cohort.clinical}", roi = ["GTV-1"] }}
        deep = {{ enabled = false }}
        ibsi = {{ enabled = true, spacing_mm = 3.0 }}
        model = {{ features = "radiomics", repeats = 1, folds = 2, halves = 0 }}
        run = {{ out = "{folder / "out"}" }}
        '''
    )
    main(["run", str(job)])
    main(["robustness", str(folder / "out"), "--repeats", "3"])
    return folder / "out"


@pytest.mark.slow
def test_the_filter_holds_the_features_whose_icc_reaches_the_threshold(measured: Path) -> None:
    with (measured / "robustness" / "agreement.csv").open() as stream:
        rows = {row["feature"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 107 + len(ibsi.names(IBSI))
    values = []
    for case in read_cases(measured / "cases.csv"):
        roi = RoiStore.open(measured / "rois.zarr").read_roi(case.case_id)
        rng = np.random.default_rng([0, int(case.short_hash, 16)])
        made = [perturbed(roi, Extent(), rng) for _ in range(3)]
        values.append([extract(one, read_params("")) | ibsi.measure(one, IBSI, whole=True) for one in made])
    for name in (
        "original_shape_MeshVolume",
        "original_firstorder_Mean",
        "original_glcm_Contrast",
        "morph_volume",
        "stat_mean",
    ):
        expected = slow_icc([[one[name] for one in of_case] for of_case in values])
        assert float(rows[name]["icc_1_1"]) == pytest.approx(expected, rel=1e-9)
    with (measured / "robustness" / "reproducible.csv").open() as stream:
        robust = {row["feature"] for row in csv.DictReader(stream)}
    assert robust == {name for name, row in rows.items() if row["icc_1_1"] and float(row["icc_1_1"]) >= 0.9}


def slow_icc(values: list[list[float]]) -> float:
    """ICC(1,1) of Shrout and Fleiss, by the sums of a one-way analysis of variance."""
    n, k = len(values), len(values[0])
    grand = sum(sum(row) for row in values) / (n * k)
    between = sum(k * (sum(row) / k - grand) ** 2 for row in values) / (n - 1)
    within = sum((value - sum(row) / k) ** 2 for row in values for value in row) / (n * (k - 1))
    return (between - within) / (between + (k - 1) * within)


@pytest.mark.slow
def test_controls_are_modelled_and_said_in_the_report(measured: Path) -> None:
    summary = json.loads((measured / "robustness" / "summary.json").read_text())
    assert set(summary["controls"]) == set(CONTROLS)
    page = (measured / "report.html").read_text()
    assert f"{summary['cases']} cases were perturbed 3 times each" in page
    assert "Negative control, shuffled voxels: " in page


@pytest.mark.slow
def test_what_cannot_be_compared_is_said(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StatisticsError, match="1 perturbation of each case, expected two or more"):
        robustness(measured, repeats=1)
    with pytest.raises(SystemExit):
        main(["robustness", str(measured), "--volume", "1"])
    assert "--volume 1, expected zero or more, of the volume below one" in capsys.readouterr().err
