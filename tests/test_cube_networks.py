"""Networks that read cubes: from a job to features and model, and the published ones' own preprocessing."""

from __future__ import annotations

import csv
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from distributed import Client
from scipy import ndimage

import prognosis_dask
from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import DeepSection, ImageSection, Job, SynthSection, load_job
from prognosis_dask.errors import CaseError, Code, JobError, WeightsError
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.execution.record import load_stages
from prognosis_dask.features.deep import _cut, read_cube
from prognosis_dask.features.registry import CUBE
from prognosis_dask.features.stage import StageContext
from prognosis_dask.imaging.cube import cut_cube
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi, crop_roi, grid_of
from prognosis_dask.modelling.data.reading import find_tables, read_tables
from prognosis_dask.modelling.saved import load_frozen
from prognosis_dask.modelling.spec import default_procedures, load_spec
from prognosis_dask.networks.catalogue import CUBE_NETWORKS, cube_network
from prognosis_dask.networks.engine import describe_engine, load_engine
from prognosis_dask.networks.file_network import build_architecture
from prognosis_dask.radiomics.parameter_file import job_params
from prognosis_dask.report.read import read_run
from prognosis_dask.report.sections.tripod import networks_of
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.storage.volumes import CubeStore
from prognosis_dask.synthetic import make_cohort
from tests.dask_processes import PATIENCE, wait_for
from tests.dicom_helpers import case_of
from tests.object_server import ObjectServer
from tests.onnx_file import write_mean_network

#: 48 mm around the lesion, grey levels as a share of -1000 to 400 HU, the mask beside them.
CARD = """
output = "pooled"
[cube]
voxels = [24, 32, 32]
spacing_mm = [2, 1.5, 1.5]
intensity = "window"
window = [-1000, 400]
outside = -1000
mask = "channel"
"""


@pytest.fixture
def mean_network(tmp_path: Path) -> Path:
    """A network that gives the mean of grey levels and mask over the cube, with its description."""
    pytest.importorskip("onnxruntime")
    write_mean_network(tmp_path / "net.onnx", (1, 2, 24, 32, 32))
    (tmp_path / "net.toml").write_text(CARD)
    return tmp_path / "net.onnx"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        yield client


def job_file(folder: Path, network: Path, cohort: str, model: str) -> Path:
    job = folder / "job.toml"
    job.write_text(
        f"""
        cohort = {{ {cohort} }}
        radiomics = {{ enabled = false }}
        deep = {{ network = "file:{network}" }}
        model = {{ {model} }}
        """
    )
    return job


def never() -> Roi:
    raise AssertionError("the full image was asked for")


def test_a_cube_network_goes_from_dicom_to_a_cox_model_in_one_command(
    mean_network: Path, client: Client, tmp_path: Path
) -> None:
    cohort = make_cohort(tmp_path / "cohort", SynthSection(patients=10, seed=3, bad_cases=False))
    source = f'sources = ["{cohort.images}"], clinical = "{cohort.clinical}", roi = ["GTV-1"]'
    model = 'folds = 2, repeats = 1, halves = 0, selector = ""'
    job, out = job_file(tmp_path, mean_network, source, model), tmp_path / "run"

    prognosis_dask.run(load_job(job), client=client, out=out)

    dataset = prognosis_dask.read_features(out)
    assert list(dataset["deep_feature"].values) == ["pooled_0", "pooled_1"]
    assert len(dataset["case"]) == 10
    rule = cube_network(DeepSection(network=f"file:{mean_network}")).cube
    for number, case_id in enumerate(map(str, dataset["case"].values[:3])):
        cube = cut_cube(RoiStore.open(out / "rois.zarr").read_roi(case_id), rule, never)
        np.testing.assert_allclose(dataset["deep"].values[number], cube.values.mean(axis=(1, 2, 3)), rtol=1e-4)
    saved = load_frozen(out)
    assert set(saved.fitted.features) <= {"pooled_0", "pooled_1"}

    def reused(*keys: str) -> list[int]:
        again = prognosis_dask.run(load_job(job, ["model.enabled=false", *keys]), client=client, out=out).stages
        return [again[stage]["reused"] for stage in ("roi", "cube", "deep")]

    assert reused() == [10, 10, 10]
    (held,) = (out / "rois.zarr" / "cubes").iterdir()
    # a second network on the same cubes cuts none
    for suffix in (".onnx", ".toml"):
        (tmp_path / f"other{suffix}").write_bytes(mean_network.with_suffix(suffix).read_bytes())
    assert reused("deep_2.enabled=true", f"deep_2.network=file:{tmp_path / 'other.onnx'}") == [10, 10, 10]
    both = prognosis_dask.read_features(out)
    np.testing.assert_array_equal(both["deep_2"].values, dataset["deep"].values)
    # killed between writing and recording: cut once more; damaged, with a network that reads them: mended
    with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger, ledger:
        five = "SELECT rowid FROM outcome WHERE stage = 'cube' ORDER BY rowid LIMIT 5"
        ledger.execute(f"DELETE FROM outcome WHERE rowid IN ({five})")
        ledger.execute("DELETE FROM outcome WHERE stage = 'deep'")
    cubes = sorted(held.iterdir())
    (cubes[0] / "c" / "0" / "0" / "0" / "0").write_bytes(b"")
    shutil.rmtree(cubes[1])
    assert reused() == [10, 5, 0]
    np.testing.assert_array_equal(prognosis_dask.read_features(out)["deep"].values, dataset["deep"].values)
    # another rule: no cube of the old one is served, or kept
    mean_network.with_suffix(".toml").write_text(CARD.replace("400", "300"))
    assert reused() == [10, 0, 0]
    assert [path for path in held.parent.iterdir() if path != held] == list(held.parent.iterdir())
    assert not np.array_equal(prognosis_dask.read_features(out)["deep"].values[:, 0], dataset["deep"].values[:, 0])


def test_a_real_lesion_is_seen_as_simpleitk_resamples_it_and_what_is_cut_is_told(
    mean_network: Path, client: Client, shared_data: Path, tmp_path: Path
) -> None:
    job = job_file(
        tmp_path, mean_network, f"sources = ['{shared_data / 'lung1_002'}'], collection = 'lung1'", "enabled = false"
    )
    prognosis_dask.run(load_job(job), client=client, out=tmp_path / "run")

    files = shared_data / "lung1_002"
    (tmp_path / "lung").mkdir()
    lung = load_roi(
        case_of(files / "ct", next((files / "rtstruct").iterdir()), (2,), tmp_path / "lung"), ImageSection()
    )
    held = np.argwhere(sitk.GetArrayViewFromImage(lung.mask))[:, ::-1]
    middle = np.array(lung.mask.TransformContinuousIndexToPhysicalPoint(held.mean(axis=0).tolist()))
    rule = cube_network(DeepSection(network=f"file:{mean_network}")).cube
    size, spacing = np.array(rule.voxels[::-1]), np.array(rule.spacing_mm[::-1])
    first = (middle - spacing * (size - 1) / 2).tolist()
    seen = [
        sitk.GetArrayFromImage(
            sitk.Resample(
                sitk.Cast(image, sitk.sitkFloat64),
                size.tolist(),
                sitk.Transform(),
                how,
                first,
                spacing.tolist(),
                np.eye(3).ravel().tolist(),
                outside,
            )
        )
        for image, how, outside in [(lung.image, sitk.sitkLinear, -1000), (lung.mask, sitk.sitkNearestNeighbor, 0)]
    ]
    expected = [((seen[0].clip(-1000, 400) + 1000) / 1400).mean(), seen[1].mean()]
    values = prognosis_dask.read_features(tmp_path / "run")["deep"].values[0]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    with (tmp_path / "run" / "problems.csv").open() as table:
        told = [row for row in csv.DictReader(table) if row["code"] == "lesion-cut"]
    share = 1 - seen[1].sum() * spacing.prod() / (len(held) * np.prod(lung.mask.GetSpacing()))
    assert float(told[0]["reason"].partition("%")[0]) / 100 == pytest.approx(share, abs=0.02)
    assert told[0]["severity"] == "warning"


def test_what_is_said_of_a_cube_has_to_fit_the_file_and_the_job(mean_network: Path) -> None:
    section = DeepSection(network=f"file:{mean_network}")
    assert load_engine(section).feature_names == describe_engine(section).feature_names == ("pooled_0", "pooled_1")
    with pytest.raises(JobError, match=r"deep.input_shape is .*the TOML file beside it says"):
        describe_engine(replace(section, input_shape=(3, 8, 64, 64)))
    card = mean_network.with_suffix(".toml")
    card.write_text(CARD.replace("[24,", "[20,"))
    with pytest.raises(JobError, match=r"does not take the cube that is described for it, float32 of shape \(1, 2, 20"):
        load_engine(section)
    card.write_text("values = 3" + CARD)
    with pytest.raises(WeightsError, match="gives 2 values, expected 3"):
        load_engine(section)
    card.write_text(CARD.replace("outside", "beyond"))
    with pytest.raises(JobError, match=r"net\.toml: unknown key cube\.beyond"):
        load_engine(section)
    with pytest.raises(JobError, match=r"expected 'file:PATH' of fmcib as a TorchScript .* nothing is downloaded"):
        describe_engine(DeepSection(network="fmcib"))


ARCHITECTURE = """
architecture = "monai.networks.nets.resnet10"
[arguments]
spatial_dims = 3
n_input_channels = 2
num_classes = 3
"""


def test_safetensors_are_the_weights_of_the_architecture_that_is_named_for_them(tmp_path: Path) -> None:
    torch, nets = pytest.importorskip("torch"), pytest.importorskip("monai.networks.nets")
    from safetensors.torch import save_file

    torch.manual_seed(5)
    network = nets.resnet10(spatial_dims=3, n_input_channels=2, num_classes=3).eval()
    path, card = tmp_path / "net.safetensors", tmp_path / "net.toml"
    save_file(network.state_dict(), str(path))
    card.write_text('output = "logits"' + ARCHITECTURE + CARD.partition('"pooled"')[2])
    section = DeepSection(network=f"file:{path}")
    cubes = np.random.default_rng(3).random((2, 2, 24, 32, 32), np.float32)
    with torch.inference_mode():
        expected = np.concatenate([network(torch.from_numpy(cube[None])).numpy() for cube in cubes])
    np.testing.assert_allclose(load_engine(section).features(cubes), expected, rtol=1e-4, atol=1e-5)
    known = describe_engine(section).provenance
    assert known["architecture"].startswith("monai.networks.nets.resnet10 {")
    assert {"monai", "torch"} <= set(known)

    text = card.read_text()
    card.write_text(text.replace("num_classes = 3", "num_classes = 4"))
    with pytest.raises(WeightsError, match=r"does not hold the weights of monai\.networks\.nets\.resnet10"):
        load_engine(section)
    card.write_text(text.replace("num_classes = 3", "colours = 3"))
    with pytest.raises(JobError, match=r"resnet10 does not take .*colours"):
        load_engine(section)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("os.system", "expected a name in torchvision.models or monai.networks"),
        ("torchvision.models.video", "arguments.weights would fetch weights"),
    ],
)
def test_no_other_architecture_is_built_and_no_weights_are_fetched(tmp_path: Path, named: str, says: str) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"")
    card = ARCHITECTURE.replace("monai.networks.nets.resnet10", named) + 'weights = "DEFAULT"\n'
    (tmp_path / "net.toml").write_text('output = "logits"' + card + CARD.partition('"pooled"')[2])
    with pytest.raises(JobError, match=says):
        build_architecture(tmp_path / "net.safetensors")


def test_cubes_of_a_run_between_buckets_are_stored_there_and_give_the_folders_features(
    mean_network: Path, object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGNOSIS_CACHE", str(tmp_path / "cache"))
    cohort = make_cohort(tmp_path / "cohort", SynthSection(patients=3, seed=3, bad_cases=False))
    for bucket in ("cohort", "results"):
        object_server.make_bucket(bucket)
    object_server.fill("cohort", "images/", cohort.images)
    in_folder = job_file(tmp_path, mean_network, f'sources = ["{cohort.images}"]', "enabled = false")
    stored, rule = CubeStore("s3://results/run/rois.zarr"), mean_network.with_suffix(".toml")
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:  # knows the server's address
        expected = run_of(in_folder, client, tmp_path / "run")
        job = job_file(tmp_path, mean_network, 'sources = ["s3://cohort/images"]', "enabled = false")
        np.testing.assert_array_equal(run_of(job, client, "s3://results/run"), expected)
        key = next((tmp_path / "run" / "rois.zarr" / "cubes").iterdir()).name
        assert stored.keep({key}) == {key}
        rule.write_text(CARD.replace("400", "300"))
        assert not np.array_equal(run_of(job, client, "s3://results/run"), expected)
    assert stored.keep({key}) == set(), "cubes of the old rule are removed"


def run_of(job: Path, client: Client, out: Path | str) -> np.ndarray:
    result = prognosis_dask.run(load_job(job, ['cohort.roi=["GTV-1"]']), client=client, out=out)
    return result.features["deep"].values


# --- published networks: their preprocessing step by step, on the same array -----------------------------------------


def spaced(image: sitk.Image, axes: str, pixdim: tuple[float, ...]) -> np.ndarray:
    """MONAI's Orientation and Spacing (bilinear): along the image's axes in that order, from the first voxel on."""
    turned = sitk.DICOMOrient(image, axes)
    array, spacing = sitk.GetArrayFromImage(turned).T.astype(float), turned.GetSpacing()
    counts = [int(np.round((n - 1) * mm / new) + 1) for n, mm, new in zip(array.shape, spacing, pixdim, strict=True)]
    at = [np.arange(count) * new / mm for count, mm, new in zip(counts, spacing, pixdim, strict=True)]
    return ndimage.map_coordinates(array, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")


def index_in(image: sitk.Image, axes: str, pixdim: tuple[float, ...], point_mm: np.ndarray) -> np.ndarray:
    """Where a point lies among the voxels of :func:`spaced`, cut to whole ones."""
    turned = sitk.DICOMOrient(image, axes)
    at = np.array(turned.TransformPhysicalPointToContinuousIndex(point_mm.tolist()))
    return (at * turned.GetSpacing() / pixdim).astype(int)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values.clip(low, high) - low) / (high - low)


@pytest.fixture
def chest() -> tuple[Roi, np.ndarray]:
    """A scan of 0.9 x 0.9 x 2.5 mm with unusual axes, a lesion near its upper end, and the middle of it."""
    rng = np.random.default_rng(4)
    coarse = rng.normal(-300, 500, (15, 23, 21))
    array = ndimage.zoom(coarse, (6, 6, 6), order=1).clip(-1100, 3200).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.9, 2.5, 0.9))
    image.SetDirection((-1, 0, 0, 0, 0, -1, 0, -1, 0))
    image.SetOrigin((103.3, 87.1, 40.7))
    marks = np.zeros(array.shape, np.uint8)
    marks[40:52, 4:11, 55:75] = 1
    mask = sitk.GetImageFromArray(marks)
    mask.CopyInformation(image)
    middle = np.argwhere(marks)[:, ::-1].mean(axis=0).tolist()
    return Roi(image, mask, grid_of(image), (0, 0, 0)), np.array(image.TransformContinuousIndexToPhysicalPoint(middle))


def test_fmcibs_cube_is_that_of_its_own_preprocessing(chest: tuple[Roi, np.ndarray]) -> None:
    """Spacing (along the patient's axes), intensity, orientation LPS, crop at the seed, slices first, padding."""
    roi, middle = chest
    cube = cut_cube(roi, CUBE_NETWORKS["fmcib"].cube, never)
    array = scaled(np.flip(spaced(roi.image, "RAS", (1, 1, 1)), axis=(0, 1)), -1024, 3072)
    # of the flipped array the last voxels are the first ones in RAS
    ras = sitk.DICOMOrient(roi.image, "RAS")
    corner = np.array(ras.GetOrigin())
    first = corner - (np.array(array.shape) - 1) * (1, 1, 0)
    seed = (middle - first).astype(int)
    low, high = np.maximum(seed - 25, 0), np.minimum(seed + 25, array.shape)
    patch = array[tuple(map(slice, low, high))].transpose(2, 1, 0)
    kept = tuple(map(slice, (low - seed + 25)[::-1], (high - seed + 25)[::-1]))
    assert patch.shape < (50, 50, 50), "the lesion is near an end"
    np.testing.assert_allclose(cube.values[0][kept], patch, atol=1e-5)
    beyond = np.ones(cube.values[0].shape, bool)
    beyond[kept] = False
    assert not cube.values[0][beyond].any(), "padded with zeros, which are -1024 HU"


def test_ct_fms_cube_is_that_of_its_own_preprocessing(chest: tuple[Roi, np.ndarray]) -> None:
    """Orientation SPL, spacing, crop of the padded array around the lesion (zeros, before the intensity is scaled)."""
    roi, middle = chest
    cube = cut_cube(roi, CUBE_NETWORKS["ct_fm"].cube, never)
    array = spaced(roi.image, "SPL", (1, 1, 1))
    at = index_in(roi.image, "SPL", (1, 1, 1), middle)
    padded = np.pad(array, 160)[tuple(slice(i + 80, i + 240) for i in at)]
    np.testing.assert_allclose(cube.values[0], scaled(padded, -1024, 2048), atol=1e-5)


def test_merlins_cube_is_that_of_its_own_preprocessing(chest: tuple[Roi, np.ndarray]) -> None:
    """Orientation RAS, spacing, intensity, padding and a crop in the middle."""
    roi, _ = chest
    cube = cut_cube(roi, CUBE_NETWORKS["merlin"].cube, never)
    array = scaled(spaced(roi.image, "RAS", (1.5, 1.5, 3)), -1000, 1000)
    missing = np.maximum(np.array((224, 224, 160)) - array.shape, 0)
    padded = np.pad(array, [(n // 2, n - n // 2) for n in missing])
    start = [n // 2 - m // 2 for n, m in zip(padded.shape, (224, 224, 160), strict=True)]
    crop = padded[tuple(slice(first, first + n) for first, n in zip(start, (224, 224, 160), strict=True))]
    np.testing.assert_allclose(cube.values[0], crop, atol=1e-5)


def test_a_network_of_hounsfield_units_sees_no_mr(tmp_path: Path) -> None:
    case = Case("A", "A", "MR", "GTV", str(tmp_path), str(tmp_path))
    with pytest.raises(CaseError, match=r"the image is MR, the network takes CT") as caught:
        read_cube(case, StageContext("", Job("mr"), job_params("")), CUBE_NETWORKS["fmcib"])
    assert caught.value.problem.code is Code.IMAGE_UNITS


def test_cubes_that_are_cut_or_shown_otherwise_are_other_inputs(
    mean_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("A", "A", "CT", "GTV", "ct.nrrd", "gtv.nrrd")

    def digest() -> str:
        loaded = load_stages(Job("cubes", deep=DeepSection(network=f"file:{mean_network}")), "")
        return loaded.digests([case])["deep"][case.case_id]

    before = digest()
    with monkeypatch.context() as patched:
        patched.setattr("prognosis_dask.features.deep.CUBE", replace(CUBE, version=CUBE.version + 1))
        assert digest() != before
    mean_network.with_suffix(".toml").write_text('modalities = ["MR"]' + CARD)
    assert digest() != before


@pytest.mark.parametrize("code", [Code.OBJECT_FORBIDDEN, Code.STORE_DAMAGED])
def test_what_the_next_run_tries_again_is_not_kept_in_place_of_a_cube(
    chest: tuple[Roi, np.ndarray], code: Code
) -> None:
    roi, _ = chest
    _, kept = _cut(Roi(roi.image, roi.mask * 0, roi.full, roi.start), CUBE_NETWORKS["fmcib"].cube, never)
    assert kept["problem"]["code"] == Code.MASK_EMPTY

    def refused() -> Roi:
        raise CaseError(code, "the bucket refuses to give it")

    with pytest.raises(CaseError, match="the bucket refuses to give it"):
        _cut(crop_roi(roi, 0.0), CUBE_NETWORKS["fmcib"].cube, refused)


# --- two networks and radiomics in one job ---------------------------------------------------------------------------


def test_two_networks_and_radiomics_killed_and_resumed_give_the_same_features_and_their_own_models(
    mean_network: Path, client: Client, tmp_path: Path
) -> None:
    cohort = make_cohort(tmp_path / "cohort", SynthSection(patients=6, seed=5, bad_cases=False))
    write_mean_network(tmp_path / "clip.onnx", (1, 3, 8, 64, 48))
    job = tmp_path / "job.toml"
    job.write_text(
        f"""
        cohort = {{ sources = ["{cohort.images}"], clinical = "{cohort.clinical}", roi = ["GTV-1"] }}
        deep = {{ network = "file:{tmp_path / "clip.onnx"}", input_shape = [3, 8, 64, 48] }}
        deep_2 = {{ enabled = true, network = "file:{mean_network}" }}
        model = {{ enabled = false }}
        """
    )
    whole = prognosis_dask.run(load_job(job), client=client, out=tmp_path / "whole")
    assert {whole.stages[stage]["done"] for stage in ("radiomics", "deep", "deep_2")} == {6}
    said = networks_of(read_run(tmp_path / "whole").info)
    assert all(f"{name}, weights" in said for name in ("clip.onnx", "net.onnx")), "TRIPOD+AI's item 7 names both"

    ledger = tmp_path / "killed" / "ledger.sqlite"
    command = [sys.executable, "-m", "prognosis_dask", "run", job, "--out", ledger.parent]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: rows(ledger, "deep_2") > 0 or run.poll() is not None)
        run.kill()
    resumed = prognosis_dask.run(load_job(job), client=client, out=ledger.parent)
    assert all(resumed.stages[stage]["reused"] > 0 for stage in ("cube", "deep_2"))

    one, other = (prognosis_dask.read_features(tmp_path / name) for name in ("whole", "killed"))
    assert list(one["deep_2_feature"].values) == ["deep_2_pooled_0", "deep_2_pooled_1"]
    for name in ("radiomics", "deep", "deep_2"):
        np.testing.assert_array_equal(one[name].values, other[name].values)
        assert np.isfinite(one[name].values).all()

    # one network exchanged leaves the other as it is
    mean_network.with_suffix(".toml").write_text(CARD.replace("400", "300"))
    again = prognosis_dask.run(load_job(job), client=client, out=ledger.parent).stages
    assert [again[stage]["reused"] for stage in ("radiomics", "deep", "deep_2")] == [6, 6, 0]

    spec = load_spec(None)
    table = read_tables(find_tables([tmp_path / "whole"], spec), spec).table
    assert {"deep", "deep_2", "radiomics"} <= set(default_procedures(table)), "each family has a procedure of its own"
    wrong = replace(load_job(job), deep_2=replace(load_job(job).deep_2, input_shape=(3, 8, 64, 48)))
    with pytest.raises(JobError, match=r"deep_2\.input_shape is .*deep_2\.network"):
        prognosis_dask.run(wrong, client=client, out=tmp_path / "wrong")


def rows(ledger: Path, stage: str) -> int:
    """Finished cases of a stage, as another process sees them."""
    if not ledger.is_file():
        return 0
    with closing(sqlite3.connect(ledger, timeout=PATIENCE)) as found, suppress(sqlite3.OperationalError):
        return int(found.execute("SELECT count(*) FROM outcome WHERE stage = ?", [stage]).fetchone()[0])
    return 0
