"""Cohorts of the Imaging Data Commons: the real catalogue, read where they lie, with the values of the folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import prognosis_dask
from prognosis_dask.cohort.idc import select_series
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.sources import expect_source, listed_series, sort_sources
from prognosis_dask.config.job import CohortSection, IdcSection
from prognosis_dask.errors import CaseError, Code, JobError
from prognosis_dask.imaging.load import load_case
from tests.object_server import ObjectServer
from tests.test_pipeline import prognosis

JOBS = Path(__file__).parents[1] / "jobs"
BUCKET = "idc-open-data-cr"
CT, RTSTRUCT = "6e0f8b4e-a116-477d-822b-5adc13b764ae", "2a137aef-46ae-4e8a-8c63-9a5be4569f9a"
#: The collection's own CT and RTSTRUCT: what the local bucket has.
OWN = IdcSection(modalities=("CT", "RTSTRUCT"))


@pytest.fixture
def idc(object_server: ObjectServer, shared_data: Path) -> ObjectServer:
    object_server.make_bucket(BUCKET, public=True)
    assert object_server.fill(BUCKET, "", shared_data / "idc" / BUCKET) == 112
    object_server.traffic.clear()
    return object_server


def _index(source: str, out: Path, idc: IdcSection = OWN) -> list[prognosis_dask.Case]:
    index_cohort([source], out, CohortSection(collection="lung1"), idc=idc)
    return prognosis_dask.read_cases(out / "cases.csv")


def test_the_catalogue_names_a_patients_series_with_size_and_licence() -> None:
    found = sort_sources(["idc:nsclc_radiomics/LUNG1-002"], IdcSection(), ["CT"]).idc
    assert {one.uuid for one in found.series} >= {CT, RTSTRUCT}
    own = [one for one in found.series if not one.result]
    assert {one.licence for one in own} == {"CC BY-NC 3.0"}
    assert [one.instances for one in own if one.modality == "CT"] == [111]
    assert "CC BY-NC 3.0 (no commercial use)" in str(found)


def test_filters_leave_what_was_asked_for() -> None:
    everything = select_series(["idc:nsclc_radiomics"], [], OWN, ["CT"])
    assert len({one.patient_id for one in everything.series}) == 422
    few = select_series(["idc:nsclc_radiomics"], [], IdcSection(limit=5, seed=3), ["CT"])
    again = select_series(["idc:nsclc_radiomics"], [], IdcSection(limit=5, seed=3), ["CT"])
    assert few == again
    assert len({one.patient_id for one in few.series}) == 5
    assert few != select_series(["idc:nsclc_radiomics"], [], IdcSection(limit=5, seed=4), ["CT"])
    with pytest.raises(JobError, match="no image is"):  # the CT may not be used commercially, nnU-Net's masks may
        select_series(["idc:nsclc_radiomics"], [], IdcSection(licence="commercial"), ["CT"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("idc:nsclc_radiomic", "nearest are nsclc_radiomics"),
        ("idc:nsclc_radiomics/LUNG1-02", r"no patient 'LUNG1-02'; it has 422 patients, such as LUNG1-\d02"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(source: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        sort_sources([source], IdcSection(), ["CT"])


def test_manifests_and_lists_name_series_and_those_that_are_unknown_are_problems(tmp_path: Path) -> None:
    [ct] = [one for one in select_series(["idc:nsclc_radiomics/LUNG1-002"], [], OWN, ["CT"]).series if one.uuid == CT]
    lines = [ct.series_uid, "1.2.3.4.5.6.7.8.9"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (tmp_path / "m.tcia").write_text("downloadServerUrl=x\nListOfSeriesToDownload=\n" + "\n".join(lines))
    (tmp_path / "m.s5cmd").write_text(f"# portal\ncp s3://{BUCKET}/{CT}/* .\n")
    for name, unknown in (("list.txt", 1), ("m.tcia", 1), ("m.s5cmd", 0)):
        found = sort_sources([tmp_path / name], IdcSection(), ["CT"]).idc
        assert [one.uuid for one in found.series] == [CT], name
        assert [problem.code for problem in found.problems] == [Code.OBJECT_MISSING] * unknown, name
    written = ("{}\r\n{}\r\n", '"{}",\n"{}"\n', "SeriesInstanceUID\n{}\n{}\n", "{}\n\n# a remark\n{}")
    for text in written:
        for encoding in ("utf-8-sig", "utf-16"):
            (tmp_path / "list.txt").write_text(text.format(*lines), encoding=encoding)
            assert listed_series(tmp_path / "list.txt") == lines, text
    (tmp_path / "cart.csv").write_text(
        '\ufeff"Patient ID","Series Instance UID"\r\n"a, b","{}"\r\n,"{}"\r\n'.format(*lines)
    )
    assert [one.uuid for one in sort_sources([tmp_path / "cart.csv"], IdcSection(), ["CT"]).idc.series] == [CT]
    (tmp_path / "batch.csv").write_text(f"Image,Mask,SeriesInstanceUID\nct.nii,mask.nii,{lines[0]}\n")
    assert sort_sources([tmp_path / "batch.csv"], IdcSection(), ["CT"]).tables == (tmp_path / "batch.csv",)
    (tmp_path / "list.txt").write_text(f"{lines[0]}\nLUNG1-002\n")
    with pytest.raises(JobError, match="'LUNG1-002' is no SeriesInstanceUID"):
        listed_series(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("notes.txt", "LUNG1-002 was read twice\n", "names no series; expected a SeriesInstanceUID"),
        ("empty.txt", "\n\n", "names no series"),
        ("empty.tcia", "downloadServerUrl=x\n", "names no series"),
        ("empty.s5cmd", "# portal\n", "names no series; .* a line of s5cmd"),
        ("cart.csv", "SeriesInstanceUID,PatientID\n,P1\n", "its column 'SeriesInstanceUID' is empty"),
    ],
)
def test_a_list_that_names_no_series_is_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(JobError, match=said):
        sort_sources([tmp_path / name], IdcSection(), ["CT"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x.tcia", "no file at x.tcia"),
        ("nowhere", "no folder at nowhere"),
        ("s3:bucket", "'s3:bucket' is no source; .*s3://BUCKET/PREFIX"),
    ],
)
def test_a_source_that_is_not_there_is_called_what_it_would_be(source: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        expect_source(source, "SOURCE")


def test_a_patient_read_in_the_bucket_has_the_bits_of_the_folder(
    idc: ObjectServer, shared_data: Path, tmp_path: Path
) -> None:
    (near,) = _index(str(shared_data / "idc"), tmp_path / "near")
    (far,) = _index("idc:nsclc_radiomics/LUNG1-002", tmp_path / "far")
    headers = idc.traffic.bytes
    assert (far.patient_id, far.roi, far.modality) == (near.patient_id, near.roi, near.modality)
    idc.traffic.clear()
    for ours, theirs in zip(load_case(far), load_case(near), strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
        assert (ours.GetSpacing(), ours.GetOrigin()) == (theirs.GetSpacing(), theirs.GetOrigin())
    assert headers < 5e6
    whole = sum(path.stat().st_size for path in (shared_data / "idc").rglob("*.dcm"))
    assert idc.traffic.bytes < whole


def test_what_was_used_is_written_down_ready_to_cite(idc: ObjectServer, tmp_path: Path) -> None:
    _index("idc:nsclc_radiomics/LUNG1-002", tmp_path)
    with (tmp_path / "data.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["uuid"] for row in rows} == {CT, RTSTRUCT}
    assert {row["licence"] for row in rows} == {"CC BY-NC 3.0"}
    assert all(row["doi"].startswith("10.7937/") for row in rows)


def test_throttling_and_cut_bodies_change_nothing(idc: ObjectServer, shared_data: Path, tmp_path: Path) -> None:
    (near,) = _index(str(shared_data / "idc"), tmp_path / "near")
    idc.weather.throttled, idc.weather.cut = 0.05, 0.01
    (far,) = _index("idc:nsclc_radiomics/LUNG1-002", tmp_path / "far")
    for ours, theirs in zip(load_case(far), load_case(near), strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    assert idc.traffic.faults > 0


def test_an_object_that_is_gone_or_forbidden_is_a_problem_of_its_case(idc: ObjectServer, tmp_path: Path) -> None:
    (case,) = _index("idc:nsclc_radiomics/LUNG1-002", tmp_path)
    idc.weather.refuse = lambda method, path: (403, "AccessDenied") if RTSTRUCT in path else None
    with pytest.raises(CaseError) as refused:
        load_case(case)
    assert refused.value.problem.code is Code.OBJECT_FORBIDDEN
    idc.weather.refuse = lambda method, path: (404, "NoSuchKey") if CT in path else None
    with pytest.raises(CaseError) as gone:
        load_case(case)
    assert gone.value.problem.code is Code.OBJECT_MISSING


@pytest.mark.slow
def test_a_run_on_the_collection_has_the_folders_radiomics_and_cites_the_data(
    idc: ObjectServer, shared_data: Path, tmp_path: Path
) -> None:
    clinical = shared_data / "lung1_tables" / "nsclc-radiomics_clinical.csv"
    for out, source in (("near", shared_data / "idc"), ("far", "idc:nsclc_radiomics/LUNG1-002")):
        prognosis(
            "run", JOBS / "lung1.toml", "--out", tmp_path / out, "--set", f"cohort.sources=['{source}']",
            "--set", f"cohort.clinical='{clinical}'", "--set", "radiomics.params=''", "--set", "deep.enabled=false",
            "--set", "idc.modalities=['CT', 'RTSTRUCT']", "--set", "model.enabled=false",
        )  # fmt: skip
    near, far = (prognosis_dask.read_features(tmp_path / out) for out in ("near", "far"))
    assert far.sizes == {"case": 1, "radiomic": 107}
    assert np.array_equal(far.radiomics, near.radiomics)
    data = json.loads((tmp_path / "far" / "run.json").read_text())["data"]
    assert (data["crdc_series_uuids"], data["commercial_use"]) == (sorted([CT, RTSTRUCT]), False)
    assert far.attrs["data"] is not None
    assert "CC BY-NC 3.0 (no commercial use)" in (tmp_path / "far" / "report.html").read_text()
    assert "data" not in json.loads((tmp_path / "near" / "run.json").read_text())


@pytest.mark.parametrize("option", [["--dry-run"], ["--limit", "3"], ["--set", "idc.seed=1"]])
def test_what_is_chosen_of_the_idc_is_refused_for_a_folder(
    option: list[str], tmp_path: Path, refused: Callable[..., str]
) -> None:
    told = refused("index", tmp_path, "-o", tmp_path / "out", *option)
    assert "no SOURCE is of these" in told
    assert not (tmp_path / "out").exists()
