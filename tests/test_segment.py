"""Regions that a network outlines: the geometry of its masks, a run from job to report, and other programs."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import xarray as xr
from distributed import Client

import prognosis_dask
from prognosis_dask.config.job import Job, SegmentSection, load_job
from prognosis_dask.errors import CaseError, Code, JobError, MissingExtraError
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.features.registry import SEGMENT
from prognosis_dask.features.segment import (
    SegmentDescription,
    Segmenter,
    SegmentNetwork,
    SegmentWork,
    describe_segmenter,
    load_segmenter,
)
from prognosis_dask.features.stage import StageContext
from prognosis_dask.imaging.cube import VolumeRule
from prognosis_dask.prediction.scan import predict_scan
from prognosis_dask.radiomics.parameter_file import job_params
from prognosis_dask.report.status import status
from prognosis_dask.storage.brains import MaskStore
from prognosis_dask.storage.place import local_copy
from tests.dicom_helpers import refer_to, write_rtstruct, write_series
from tests.object_server import ObjectServer
from tests.served_models import make_survival_run
from tests.test_cube import FLIPPED, OBLIQUE, distances, grown

#: Grey levels from 0 to 200 as 0 to 1; what is above half of the ball's 100 is inside.
CARD = """
output = "sigmoid"
threshold = 0.25
[labels]
ball = 1
[input]
voxels = [32, 40, 36]
spacing_mm = [1.5, 1.0, 1.2]
intensity = "window"
window = [0, 200]
outside = 0
orientation = "{orientation}"
axes = "{axes}"
"""
#: Networks of one convolution: one gives its input, one what lies 3, -4 and 2 voxels further along its axes; one has
#: channels for a background of 30, for the input, and for what is brighter than 80.
MAKE = """
import sys, torch
def save(name, kernel, weight, bias):
    network = torch.nn.Conv3d(1, len(weight), kernel, padding=kernel // 2)
    with torch.no_grad():
        network.weight[:], network.bias[:] = weight, torch.tensor(bias)
    torch.jit.save(torch.jit.script(network), f"{sys.argv[1]}/{name}.pt")
further = torch.zeros(1, 1, 9, 9, 9)
further[0, 0, 4 + 3, 4 - 4, 4 + 2] = 1
save("plain", 1, torch.ones(1, 1, 1, 1, 1), [0.])
save("further", 9, further, [0.])
save("three", 1, torch.tensor([0., 1., 2.]).view(3, 1, 1, 1, 1), [.15, 0., -.4])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in a process of its own: exporting warns."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("networks")
    subprocess.run([sys.executable, "-c", MAKE, folder], check=True, capture_output=True)
    return folder


def describe(made: Path, name: str, orientation: str = "SPL", axes: str = "patient") -> Path:
    path = made / f"{name}.pt"
    path.with_suffix(".toml").write_text(CARD.format(orientation=orientation, axes=axes))
    return path


@pytest.fixture
def network(made: Path) -> Path:
    return describe(made, "plain")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        yield client


def ball(image: sitk.Image, centre_mm: np.ndarray, radius: float) -> sitk.Image:
    """A ball of 100 whose edge is as blurred as a scanner's."""
    made = sitk.GetImageFromArray((100 * np.clip((radius - distances(image, centre_mm)) / 3 + 0.5, 0, 1)).astype("f4"))
    made.CopyInformation(image)
    return made


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


IMAGES = {
    "anisotropic": ((1, 0, 0, 0, 1, 0, 0, 0, 1), (0.8, 0.8, 3.0), (90, 80, 30), (0.4, 0.6, 0.55)),
    "oblique": (OBLIQUE, (0.7, 1.1, 2.5), (110, 80, 40), (0.48, 0.55, 0.4)),
    "flipped": (FLIPPED, (1.0, 1.0, 2.0), (80, 80, 40), (0.4, 0.5, 0.45)),
}


@pytest.mark.parametrize("which", IMAGES)
def test_a_planted_ball_is_outlined_where_it_is(network: Path, which: str) -> None:
    direction, spacing, size, at = IMAGES[which]
    image = grown(direction, spacing, size)
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint([a * n for a, n in zip(at, size, strict=True)]))
    mask = load_segmenter(SegmentSection(network=f"file:{network}")).mask(ball(image, middle, 14.0))
    assert mask.GetOrigin() == image.GetOrigin()
    assert dice(sitk.GetArrayFromImage(mask) > 0, distances(image, middle) <= 14.0) >= 0.97


@pytest.mark.parametrize("which", IMAGES)
@pytest.mark.parametrize("orientation", ["SPL", "RAI"])
def test_the_networks_axes_are_the_patients_whatever_the_images(made: Path, which: str, orientation: str) -> None:
    section = SegmentSection(network=f"file:{describe(made, 'further', orientation)}")
    direction, spacing, size, at = IMAGES[which]
    image = grown(direction, spacing, size)
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint([a * n for a, n in zip(at, size, strict=True)]))
    # what lies further along an axis appears nearer
    along = {"S": (0, 0, 1), "I": (0, 0, -1), "P": (0, 1, 0), "A": (0, -1, 0), "L": (1, 0, 0), "R": (-1, 0, 0)}
    moved = sum(
        -voxels * mm * np.array(along[letter])
        for voxels, mm, letter in zip((3, -4, 2), (1.5, 1.0, 1.2), orientation, strict=True)
    )
    found = sitk.GetArrayFromImage(load_segmenter(section).mask(ball(image, middle, 14.0))) > 0
    assert dice(found, distances(image, middle + moved) <= 14.0) >= 0.97
    assert dice(found, distances(image, middle) <= 14.0) < 0.8


def test_of_exclusive_channels_the_largest_decides_and_regions_are_chosen_by_name(made: Path) -> None:
    path = describe(made, "three", axes="image")
    card = path.with_suffix(".toml").read_text().replace("sigmoid", "softmax").replace("ball = 1", "rim = 1\ncore = 2")
    path.with_suffix(".toml").write_text(card)
    section = SegmentSection(network=f"file:{path}")
    image = grown((1, 0, 0, 0, 1, 0, 0, 0, 1), (1.0, 1.0, 1.5), (60, 50, 40))
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint((29.3, 24.7, 19.2)))
    values = sitk.Cast(ball(image, middle, 12.0), sitk.sitkInt16)
    array = sitk.GetArrayFromImage(values)
    masks = {
        regions: sitk.GetArrayFromImage(load_segmenter(replace(section, regions=regions)).mask(values)) > 0
        for regions in ((), ("rim",), ("core",))
    }
    assert dice(masks[()], array > 30) > 0.97
    assert dice(masks["core",], array > 80) > 0.97
    assert not (masks["rim",] & masks["core",]).any()
    assert describe_segmenter(section).provenance["regions"] == "rim+core"
    with pytest.raises(JobError, match=r"segment.regions has 'edge', expected labels of .*: rim, core"):
        load_segmenter(replace(section, regions=("edge",)))
    path.with_suffix(".toml").write_text(card.replace("core = 2", "core = 3"))
    with pytest.raises(JobError, match=r"segment.network .* expected 4 or more for each voxel"):
        load_segmenter(section)
    path.with_suffix(".toml").unlink()
    with pytest.raises(JobError, match=r"three.pt needs its description"):
        load_segmenter(section)


def test_values_that_are_no_numbers_and_a_threshold_that_all_voxels_pass_are_no_regions() -> None:
    network = SegmentNetwork(VolumeRule((8, 8, 8), (1.0, 1.0, 1.0), "keep", outside=0.0), {"lesion": 1}, "sigmoid")
    image = ball(grown((1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 1, 1), (12, 11, 10)), np.array((-26.0, 17.0, 106.0)), 4.0)

    def outlined_by(found: np.ndarray) -> None:
        Segmenter(lambda patch: (0 * patch + found).astype(np.float32), network, (1,)).mask(image)

    one_bad = np.zeros((8, 8, 8))
    one_bad[3, 4, 5] = np.nan
    for found, says in ((one_bad, "not finite"), (np.full((8, 8, 8), 0.2), "outlines the whole image")):
        with pytest.raises(CaseError, match=says) as caught:
            outlined_by(found)
        assert caught.value.problem.code is Code.SEGMENT_FAILED


# --- in a run --------------------------------------------------------------------------------------------------------

TURNED = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


def write_patient(folder: Path, patient: str, centre: tuple[float, float, float] | None) -> Path:
    """A CT series of 1.2 x 1.2 x 2.5 mm, turned about the body's axis, with a ball of 100 HU or nothing in air of 0."""
    slices, rows, columns = np.indices((24, 60, 60))
    places = np.stack([1.2 * columns, 1.2 * rows, 2.5 * slices], axis=-1)
    away = np.linalg.norm(places - (centre or (0, 0, 0)), axis=-1) if centre else np.full(slices.shape, 99.0)
    noise = np.random.default_rng(len(patient)).normal(0, 4, slices.shape)
    stored = (100 * np.clip((11 - away) / 3 + 0.5, 0, 1) + noise).round().astype(np.int16)
    series = write_series(folder / patient / "ct", stored, spacing=(1.2, 1.2, 2.5), orientation=TURNED)
    for path in series.iterdir():
        header = pydicom.dcmread(path)
        header.PatientID = patient
        header.save_as(path)
    return series


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with a ball, one with nothing to outline, and one whose ball somebody outlined."""
    folder = tmp_path_factory.mktemp("cohort")
    for patient, centre in [("A", (30, 40, 28)), ("B", (42, 30, 34)), ("C", (36, 36, 25)), ("EMPTY", None)]:
        write_patient(folder, patient, centre)
    drawn = write_patient(folder, "DRAWN", (36, 36, 30))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    contours = []
    for path in sorted(drawn.iterdir()):
        header = pydicom.dcmread(path)
        inside = 11**2 - (float(header.ImagePositionPatient[2]) - 30) ** 2
        if inside > 1:
            x = 36 + np.sqrt(inside) * np.cos(angle)
            y = 36 + np.sqrt(inside) * np.sin(angle)
            first = np.array(header.ImagePositionPatient, float)
            contours.append(first + np.outer(x, TURNED[:3]) + np.outer(y, TURNED[3:]))
    write_rtstruct(folder / "DRAWN" / "rs.dcm", contours, name="ball")
    refer_to(folder / "DRAWN" / "rs.dcm", drawn)
    return folder


def job_of(folder: Path, cohort: Path | str, network: Path | str) -> Job:
    path = folder / "job.toml"
    path.write_text(
        f"""
        cohort = {{ sources = ["{cohort}"], unmasked = true }}
        segment = {{ enabled = true, network = "{network}" }}
        deep = {{ enabled = false }}
        model = {{ enabled = false }}
        """
    )
    return load_job(path)


def test_a_cohort_without_masks_goes_from_dicom_to_features_and_report(
    network: Path, client: Client, cohort: Path, tmp_path: Path
) -> None:
    card = network.with_suffix(".toml")
    job, out = job_of(tmp_path, cohort, f"file:{network}"), tmp_path / "run"
    done = prognosis_dask.run(job, client=client, out=out)

    assert (done.stages["segment"]["done"], done.stages["segment"]["failed"]) == (4, 1)
    with (out / "cases.csv").open() as table:
        rois = {row["patient_id"]: row["roi"] for row in csv.DictReader(table)}
    assert rois == {"A": "automatic", "B": "automatic", "C": "automatic", "EMPTY": "automatic", "DRAWN": "ball"}
    dataset = prognosis_dask.read_features(out)
    sources = dict(zip(dataset["patient_id"].values, dataset["mask_source"].values, strict=True))
    assert sources == {"A": "automatic", "B": "automatic", "C": "automatic", "EMPTY": "", "DRAWN": "drawn"}
    assert dataset.attrs["segment"]["network"] == f"file:{network}"
    problems = dict(zip(dataset["patient_id"].values, dataset["problem"].values, strict=True))
    assert problems["EMPTY"] == "segment: no-candidate"
    assert not any(problems[name] for name in ("A", "B", "C", "DRAWN"))
    volume = dict(zip(dataset["patient_id"].values, dataset["volume_ml"].values, strict=True))
    whole = 4 / 3 * np.pi * 11**3 / 1000
    assert all(abs(volume[name] / whole - 1) < 0.04 for name in ("A", "B", "C", "DRAWN"))
    values = dataset["radiomics"].values[[name != "EMPTY" for name in dataset["patient_id"].values]]
    assert np.isfinite(values).all()

    a = next(name for name in map(str, dataset["case"].values) if name.startswith("A_"))
    with MaskStore(out / "segment").checked(a) as (folder, attributes):
        assert attributes["mask_source"] == "automatic"
        mask = sitk.ReadImage(str(folder / "mask.nii.gz"))
        assert (folder / "quality.png").read_bytes()[:4] == b"\x89PNG"
    first = np.array(30 * np.array(TURNED[:3]) + 40 * np.array(TURNED[3:]) + (0, 0, 28))
    assert dice(sitk.GetArrayFromImage(mask) > 0, distances(mask, first) <= 11) >= 0.97
    page = done.report.read_text(encoding="utf-8")
    assert "3 of 4 regions were outlined by a network" in page
    assert "4 cases without a mask: their region is automatic" in status(out)

    # resumed by itself: what is lost or damaged is made again, equal
    again = prognosis_dask.run(job, client=client, out=out)
    assert {stage: counts["reused"] for stage, counts in again.stages.items()} == {
        "segment": 5,
        "roi": 4,
        "radiomics": 4,
    }
    (Path(MaskStore(out / "segment").folder(a)) / "case.json").unlink()
    again = prognosis_dask.run(job, client=client, out=out)
    assert again.stages["segment"]["done"] == 1
    assert dataset.identical(prognosis_dask.read_features(out))

    # another threshold: the drawn case stays, the others are outlined and measured anew
    before = card.read_text()
    card.write_text(before.replace("threshold = 0.25", "threshold = 0.4"))
    try:
        other = prognosis_dask.run(job, client=client, out=out)
    finally:
        card.write_text(before)
    assert [other.stages[stage]["reused"] for stage in ("segment", "roi", "radiomics")] == [1, 1, 1]
    smaller = prognosis_dask.read_features(out)["volume_ml"].values
    assert np.nansum(smaller) < 0.95 * np.nansum(dataset["volume_ml"].values)


@pytest.mark.engines
@pytest.mark.slow
def test_between_buckets_regions_and_features_are_the_folders(
    network: Path, cohort: Path, object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGNOSIS_CACHE", str(tmp_path / "cache"))
    for name in ("cohort", "results"):
        object_server.make_bucket(name)
    for patient in ("A", "DRAWN"):
        object_server.fill("cohort", f"images/{patient}/", cohort / patient)
    job = job_of(tmp_path, "s3://cohort/images", f"file:{network}")
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        done = prognosis_dask.run(job, client=client, out="s3://results/run")
        prognosis_dask.run(job, client=client, out=tmp_path / "folder")
        moved = tmp_path / "elsewhere.pt"
        for suffix in (".pt", ".toml"):
            moved.with_suffix(suffix).write_bytes(network.with_suffix(suffix).read_bytes())
        again = prognosis_dask.run(
            replace(job, segment=replace(job.segment, network=f"file:{moved}")), client=client, out=tmp_path / "folder"
        )
    assert done.stages["segment"]["done"] == 2
    found, expected = (
        prognosis_dask.read_features(folder) for folder in (local_copy(done.folder), tmp_path / "folder")
    )
    assert sorted(expected["mask_source"].values) == ["automatic", "drawn"]
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert [again.stages[stage]["reused"] for stage in ("segment", "roi", "radiomics")] == [2, 2, 2]


def test_a_scan_without_a_mask_is_outlined_and_predicted_and_says_so(
    network: Path, client: Client, cohort: Path, tmp_path: Path
) -> None:
    run = make_survival_run(tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["job"]["segment"] |= {"enabled": True, "network": f"file:{network}"}
    record["job"]["cohort"]["unmasked"] = True
    (run / "run.json").write_text(json.dumps(record))

    found = predict_scan(run, cohort / "A", tmp_path / "scan", client=client, dicom=True)

    assert any("outlined by a network, not drawn" in warning for warning in found.warnings)
    assert found.quality["volume"].value == pytest.approx(4 / 3 * np.pi * 11**3 / 1000, rel=0.04)
    segmentation = pydicom.dcmread(next((tmp_path / "scan").rglob("mask.seg.dcm")))
    assert segmentation.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert segmentation.pixel_array.sum() == found.quality["voxels in the ROI"].value
    # the slice that is shown first is the one on which the ball is largest, 28 mm up at 2.5 mm a slice
    assert found.view.slice == round(28 / 2.5)


def test_what_does_not_go_together_is_refused(network: Path, cohort: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, cohort, "net.pt")
    with pytest.raises(JobError, match=r"segment.network is 'net.pt', expected 'file:PATH'"):
        prognosis_dask.run(job, out=tmp_path / "run")
    text = (tmp_path / "job.toml").read_text()
    (tmp_path / "job.toml").write_text(text.replace("segment = { enabled = true", "segment = { enabled = false"))
    with pytest.raises(JobError, match=r"cohort.unmasked is True, expected false, unless segment.enabled"):
        load_job(tmp_path / "job.toml")
    (tmp_path / "job.toml").write_text(text + "brain = { enabled = true }\n")
    with pytest.raises(JobError, match=r"segment.enabled is True, expected false with brain.enabled"):
        load_job(tmp_path / "job.toml")
    section = SegmentSection(network=f"file:{network}", weights_sha256="0" * 64)
    with pytest.raises(prognosis_dask.errors.WeightsError, match=r"expected 0+ \(segment.weights_sha256\)"):
        describe_segmenter(section)


def test_a_network_is_the_same_wherever_its_file_lies() -> None:
    def made(place: str, sha256: str) -> str:
        work = SegmentWork(SEGMENT)
        work._described = SegmentDescription({"network": place, "weights": place, "weights_sha256": sha256})
        return work.meaning(StageContext("", Job("a"), job_params("")))["segment.network"]

    assert made("file:/a/net.pt", "1f") == made("file:/b/net.pt", "1f") != made("file:/a/net.pt", "2e")


# --- other programs: stubs that take the arguments as the real ones' help describes them, with a threshold for a method

TOTAL = """#!{python}
import pathlib, sys, SimpleITK as sitk
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert (given["--task"], given["--device"]) == ("total", "cpu") and sys.argv[-3:] == ["--roi_subset", "liver", "spleen"]
out = pathlib.Path(given["-o"]); out.mkdir()
image = sitk.ReadImage(given["-i"])
sitk.WriteImage(image > 100, str(out / "liver.nii.gz"))
sitk.WriteImage(image < -100, str(out / "spleen.nii.gz"))
"""
NNUNET = """#!{python}
import pathlib, sys, SimpleITK as sitk
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert given["-d"] == "Dataset007_Ball" and given["-device"] == "cpu"
assert (given["-tr"], given["-p"], given["-c"]) == ("nnUNetTrainer", "nnUNetResEncUNetLPlans", "3d_fullres")
out = pathlib.Path(given["-o"]); out.mkdir()
(image,) = pathlib.Path(given["-i"]).iterdir()
assert image.name == "case_0000.nii.gz"
image = sitk.ReadImage(str(image))
sitk.WriteImage(sitk.Cast((image > 100) * 1 + (image < -100) * 2, sitk.sitkUInt8), str(out / "case.nii.gz"))
"""
DATASET = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "ball": 1, "hole": 2}, "file_ending": ".nii.gz"}'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("TotalSegmentator", TOTAL), ("nnUNetv2_predict", NNUNET)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("{python}", sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    model = tmp_path / "results" / "Dataset007_Ball" / "nnUNetTrainer__nnUNetResEncUNetLPlans__3d_fullres"
    model.mkdir(parents=True)
    (model / "dataset.json").write_text(DATASET)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return tmp_path


@pytest.mark.parametrize(
    ("network", "regions", "expected"),
    [
        ("totalsegmentator:total", ("liver", "spleen"), lambda values: np.abs(values) > 100),
        ("nnunet:Dataset007_Ball", ("ball",), lambda values: values > 100),
        ("nnunet:Dataset007_Ball", (), lambda values: np.abs(values) > 100),
    ],
)
def test_another_programs_regions_are_taken_on_the_images_grid(programs, network, regions, expected) -> None:
    image = grown(OBLIQUE, (0.7, 1.1, 2.5), (30, 25, 20))
    values = np.random.default_rng(2).normal(0, 100, (20, 25, 30)).astype(np.float32)
    noise = sitk.GetImageFromArray(values)
    noise.CopyInformation(image)
    section = SegmentSection(network=network, regions=regions)
    mask = load_segmenter(section).mask(noise)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) > 0, expected(values))
    assert mask.GetDirection() == noise.GetDirection()
    known = describe_segmenter(section).provenance
    assert known["regions"] == ("+".join(regions) or "ball+hole")
    for program in (programs / "bin").iterdir():
        program.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    with pytest.raises(CaseError, match=r"segment-failed: .* ended with status 3: no licence"):
        load_segmenter(section).mask(noise)


def test_a_program_or_a_model_that_is_not_there_is_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match=r"segment.regions is empty, expected the names of TotalSegmentator"):
        describe_segmenter(SegmentSection(network="totalsegmentator:total"))
    with pytest.raises(JobError, match=r"segment.regions has 'lung', expected labels of .*: ball, hole"):
        describe_segmenter(SegmentSection(network="nnunet:Dataset007_Ball", regions=("lung",)))
    with pytest.raises(JobError, match=r"nnUNet_results .* holds no trained model"):
        describe_segmenter(SegmentSection(network="nnunet:Dataset008_None"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtraError, match=r"no program 'TotalSegmentator' on the PATH"):
        describe_segmenter(SegmentSection(network="totalsegmentator:total"))
