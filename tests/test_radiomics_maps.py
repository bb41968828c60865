"""Feature maps are those of pyradiomics' own voxel mode, and lie over the scan that they are of."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import zarr
from radiomics.featureextractor import RadiomicsFeatureExtractor

import prognosis_dask
from prognosis_dask.cli.main import main
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.config.job import CohortSection, DeepSection, Job, ModelSection
from prognosis_dask.config.radiomics import MapsSection, RadiomicsSection
from prognosis_dask.errors import CaseError, JobError
from prognosis_dask.execution.cluster import connect
from prognosis_dask.execution.clusters import LocalSpec
from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.objects.address import is_address, join, parse_address
from prognosis_dask.objects.bucket import bucket_of
from prognosis_dask.objects.files import fetch_folder, files_below
from prognosis_dask.radiomics.maps import feature_maps, write_maps
from prognosis_dask.radiomics.params import RadiomicsParams
from prognosis_dask.storage.ledger import Ledger
from prognosis_dask.workflows.run import check_inputs
from tests.object_server import ObjectServer

CONTENT = {
    "imageType": {"Original": {}, "Gradient": {}},
    "featureClass": {"shape": [], "firstorder": ["Mean", "Entropy"], "glcm": ["Contrast"], "glszm": ["ZoneEntropy"]},
    "setting": {"binWidth": 25},
    "voxelSetting": {"kernelRadius": 2, "initValue": -1.0, "voxelBatch": 100},
}
PARAMS = RadiomicsParams(json.dumps(CONTENT))


@pytest.fixture(scope="module")
def breast(shared_data: Path) -> Roi:
    image = sitk.ReadImage(str(shared_data / "pyradiomics" / "breast1_image.nrrd"))
    label = sitk.ReadImage(str(shared_data / "pyradiomics" / "breast1_label.nrrd"))
    return Roi(image, sitk.Cast(label == 1, sitk.sitkUInt8), grid_of(image), (0, 0, 0))


@pytest.fixture
def table(shared_data: Path, tmp_path: Path) -> Path:
    image, label = (shared_data / "pyradiomics" / f"breast1_{kind}.nrrd" for kind in ("image", "label"))
    path = tmp_path / "cases.csv"
    path.write_text(f"case_id,patient_id,modality,roi,image,mask\nP 1/a,P1,MR,GTV,{image},{label}\n", encoding="utf-8")
    return path


def test_maps_are_those_of_pyradiomics_voxel_mode(breast: Roi) -> None:
    maps = feature_maps(breast, PARAMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor = RadiomicsFeatureExtractor(CONTENT)
        extractor.addProvenance(False)
        expected = extractor.execute(breast.image, breast.mask, voxelBased=True)
    assert list(maps) == list(expected)
    assert len(maps) == 8
    for name, image in maps.items():
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected[name]))
        assert grid_of(image) == grid_of(expected[name])


def test_a_mean_is_that_of_the_masks_voxels_around(breast: Roi) -> None:
    mean = feature_maps(breast, PARAMS, radius=1)["original_firstorder_Mean"]
    image, mask = (sitk.GetArrayFromImage(one) for one in (breast.image, breast.mask))
    z, y, x = np.argwhere(mask)[40]
    around = tuple(slice(at - 1, at + 2) for at in (z, y, x))
    voxel = mean.TransformPhysicalPointToIndex(breast.image.TransformIndexToPhysicalPoint([int(x), int(y), int(z)]))
    assert mean[voxel] == pytest.approx(image[around][mask[around] == 1].mean())


def test_a_case_has_a_folder_of_maps_or_a_zarr_group(table: Path, tmp_path: Path) -> None:
    ((case_id, folder),) = write_maps(table, tmp_path / "nrrd", PARAMS)
    ((_, group),) = write_maps(table, tmp_path / "zarr", PARAMS, zarr=True)
    assert case_id == "P 1/a"
    assert isinstance(folder, Path)
    image = sitk.ReadImage(str(folder / "gradient_glcm_Contrast.nrrd"))
    stored = zarr.open_group(group, mode="r")
    np.testing.assert_array_equal(stored["gradient_glcm_Contrast"][:], sitk.GetArrayFromImage(image))
    assert stored.attrs["spacing"] == pytest.approx(image.GetSpacing())
    assert len(list(folder.iterdir())) == len(list(stored)) == 8


def test_what_cannot_be_mapped_is_said(table: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="has no case P9; it has P 1/a"):
        list(write_maps(table, tmp_path, PARAMS, cases=["P9"]))
    shape = RadiomicsParams(json.dumps({"featureClass": {"shape": []}}))
    with pytest.raises(JobError, match="shape only"):
        list(write_maps(table, tmp_path, shape))
    few = RadiomicsParams(json.dumps({**CONTENT, "setting": {"minimumROISize": 1000}}))
    ((_, problem),) = write_maps(table, tmp_path, few)
    assert isinstance(problem, CaseError)


def test_the_command_writes_maps(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("featureClass: {firstorder: [Mean]}\n", encoding="utf-8")
    main(["maps", str(table), "-o", str(tmp_path / "out"), "--params", str(params), "--radius", "1"])
    assert (Path(capsys.readouterr().out.partition(": ")[2].strip()) / "original_firstorder_Mean.nrrd").is_file()


def maps_job(table: Path, params: Path) -> Job:
    """A job of feature maps alone."""
    return Job(
        "maps",
        cohort=CohortSection(cases=str(table)),
        radiomics=RadiomicsSection(enabled=False),
        maps=MapsSection(enabled=True, params=str(params)),
        deep=DeepSection(enabled=False),
        model=ModelSection(enabled=False),
    )


def test_a_run_keeps_the_maps_of_each_case_and_makes_those_again_that_are_gone(
    breast: Roi, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it take maps for its own that a run with another radius has begun to write over."""

    def killed(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    params = tmp_path / "maps.yaml"
    params.write_text(json.dumps(CONTENT), encoding="utf-8")
    job = maps_job(table, params)
    folder = tmp_path / "run" / "maps" / short_hash("P 1/a")
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        runs = [prognosis_dask.run(job, client=client, out=tmp_path / "run")]
        expected = feature_maps(breast, PARAMS)
        for name, image in expected.items():
            written = sitk.ReadImage(str(folder / f"{name}.nrrd"))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(image))
        shutil.rmtree(folder)
        runs.append(prognosis_dask.run(job, client=client, out=tmp_path / "run"))
        monkeypatch.setattr("prognosis_dask.workflows.run.run_plan", killed)
        with pytest.raises(KeyboardInterrupt):
            prognosis_dask.run(replace(job, maps=replace(job.maps, radius=3)), client=client, out=tmp_path / "run")
    with Ledger.read(tmp_path / "run" / "ledger.sqlite") as ledger:
        assert not ledger.results("maps")
    header = json.loads((folder / "case.json").read_text())
    assert (header["case_id"], header["maps"]) == ("P 1/a", list(expected))
    assert set(header["sha256"]) == {f"{name}.nrrd" for name in expected}
    assert [run.stages["maps"]["done"] for run in runs] == [1, 1]
    assert runs[1].stages["roi"]["done"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_maps_that_another_jobs_worker_wrote_late_are_made_again(
    object_server: ObjectServer, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Nor are maps left beside others that are none of the job's."""
    monkeypatch.setenv("PROGNOSIS_CACHE", str(tmp_path / "cache"))
    object_server.make_bucket("results")
    out = str(tmp_path / "run") if place == "folder" else "s3://results/run"
    case = join(out, f"maps/{short_hash('P 1/a')}")

    def job(number: int, *features: str) -> Job:
        params = tmp_path / f"{number}.json"
        params.write_text(json.dumps({"featureClass": {"firstorder": features}, "voxelSetting": {"kernelRadius": 1}}))
        return maps_job(table, params)

    def held() -> dict[str, bytes]:
        folder = Path(case)
        if is_address(case):
            folder = tmp_path / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            fetch_folder(parse_address(case), folder)
        return {name: path.read_bytes() for name, path in files_below(folder).items()}

    def put(files: dict[str, bytes]) -> None:
        for name, content in files.items():
            if is_address(case):
                address = parse_address(join(case, name))
                bucket_of(address).put(address.key, content)
            else:
                (Path(case) / name).write_bytes(content)

    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        prognosis_dask.run(job(1, "Mean", "Energy"), client=client, out=out)
        of_another = held()
        prognosis_dask.run(job(2, "Mean"), client=client, out=out)
        own = held()
        assert set(own) == {"original_firstorder_Mean.nrrd", "case.json"}
        put(of_another)
        again = [prognosis_dask.run(job(2, "Mean"), client=client, out=out) for _ in range(2)]
    assert [run.stages["maps"]["done"] for run in again] == [1, 0]
    assert held() == own


def test_maps_of_shape_only_are_refused_before_the_run(table: Path, tmp_path: Path) -> None:
    params = tmp_path / "shape.yaml"
    params.write_text("featureClass: {shape: }\n", encoding="utf-8")
    job = Job("maps", cohort=CohortSection(cases=str(table)), maps=MapsSection(enabled=True, params=str(params)))
    with pytest.raises(JobError, match="request shape only, which has no maps"):
        check_inputs(job)
