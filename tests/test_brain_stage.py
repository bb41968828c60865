"""The brain stage in a run: what it stores, what it says of bad cases, and how it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import prognosis_dask
from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import BrainSection, CohortSection, Job, SynthSection
from prognosis_dask.features.registry import BRAIN
from prognosis_dask.features.stage import StageContext
from prognosis_dask.radiomics.parameter_file import job_params
from prognosis_dask.storage.brains import BrainStore
from prognosis_dask.storage.ledger import TaskResult
from prognosis_dask.synthetic import make_cohort

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic patients: NIfTI, RTSTRUCT, SEG, and NIfTI with three slices outlined."""
    folder = tmp_path_factory.mktemp("brains")
    made = make_cohort(folder / "cohort", SynthSection(4, study="brain", matrix=64, bad_cases=False))
    rules = CohortSection("lgg_1p19q", clinical=str(made.clinical))
    index_cohort([made.images], folder / "index", rules)
    return folder


@pytest.fixture(scope="module")
def cases(cohort: Path) -> list[Case]:
    return read_cases(cohort / "index" / "cases.csv")


def context(folder: Path, **brain: object) -> StageContext:
    store = BrainStore(folder / "brain")
    store.create()
    section = BrainSection(enabled=True, **brain)  # type: ignore[arg-type]
    return StageContext(str(folder), Job("brains", brain=section), job_params(""))


def outcome(case: Case, where: StageContext) -> TaskResult:
    (found,) = BRAIN.load().run((case,), ("digest",), where)
    return found


def test_a_patient_is_one_case_whatever_the_format_of_the_mask(cases):
    assert [case.patient_id for case in cases] == [f"MADE-B000{n}" for n in range(1, 5)]
    assert all(list(case.sequences) == ["T1", "T1c", "T2", "FLAIR"] for case in cases)


def test_three_outlined_slices_are_completed_and_said_to_be(cohort, cases, tmp_path):
    found = outcome(cases[3], context(tmp_path, sequences=("T1",)))
    assert found.problem is None
    assert found.values["tumour_source"] == "interpolated"
    stored = BrainStore(tmp_path / "brain").read(cases[3].case_id)
    assert stored.attributes["sequences"] == ["T2", "T1"]
    truth = sitk.ReadImage(str(cohort / "cohort" / "truth" / "MADE-B0004" / "lesion.nii.gz")) > 0
    drawn, whole = (sitk.GetArrayFromImage(mask) > 0 for mask in (stored.tumour, truth))
    assert 2 * np.count_nonzero(drawn & whole) / (drawn.sum() + whole.sum()) > 0.9
    for picture in ("quality.png", "epitome.png"):
        assert (Path(BrainStore(tmp_path / "brain").folder(cases[3].case_id)) / picture).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda image: image[:, :, 10], "image-invalid"),
        (lambda image: sitk.JoinSeries([image, image]), "image-invalid"),
        (lambda image: image * 0, "image-empty"),
        (lambda image: with_nan(image), "image-invalid"),
        (lambda image: with_spacing(image, 40.0), "voxel-size"),
        (lambda image: with_spacing(image, 0.01), "voxel-size"),
    ],
    ids=["2D", "4D", "empty", "NaN", "huge voxels", "tiny voxels"],
)
def test_a_sequence_that_is_none_ends_its_case_with_a_code(cases, tmp_path, spoil, code):
    image = spoil(sitk.ReadImage(cases[0].sequences["T1"]))
    sitk.WriteImage(image, str(tmp_path / "t1.nii.gz"))
    spoilt = Case("a_MR", "a", "MR", "mask", cases[0].image, cases[0].mask, sequences={
        "T2": cases[0].image, "T1": str(tmp_path / "t1.nii.gz")})  # fmt: skip
    found = outcome(spoilt, context(tmp_path))
    assert found.problem is not None
    assert found.problem.code == code
    assert found.problem.case_id == "a_MR"


def with_nan(image: sitk.Image) -> sitk.Image:
    image = sitk.Cast(image, sitk.sitkFloat32)
    image[5, 5, 5] = float("nan")
    return image


def with_spacing(image: sitk.Image, spacing: float) -> sitk.Image:
    image.SetSpacing((spacing,) * 3)
    return image


def test_a_mask_on_another_grid_has_its_code(cases, tmp_path):
    mask = sitk.ReadImage(cases[0].mask)
    mask.SetOrigin(np.add(mask.GetOrigin(), 1.3).tolist())
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    found = outcome(Case("a", "a", "MR", "m", cases[0].image, str(tmp_path / "mask.nii.gz")), context(tmp_path))
    assert found.problem is not None
    assert found.problem.code == "mask-other-grid"


def test_a_run_prepares_each_brain_once_and_again_where_it_is_lost(cohort, tmp_path, workers):
    table = (cohort / "index" / "cases.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "cases.csv").write_text("\n".join(table[:2]) + "\n", encoding="utf-8")
    (tmp_path / "job.toml").write_text(
        'name = "made"\ncohort = { cases = "cases.csv" }\nbrain = { enabled = true, sequences = ["T1"] }\n'
        'deep = { enabled = false }\nmodel = { features = "radiomics" }\n',
        encoding="utf-8",
    )
    job = prognosis_dask.load_job(tmp_path / "job.toml")
    out = tmp_path / "run"

    def run() -> dict[str, dict[str, float]]:
        return dict(prognosis_dask.run(job, client=workers, out=out, say=lambda line: None).stages)

    assert run()["brain"]["done"] == 1
    told = json.loads((out / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert {name: stage["done"] for name, stage in told["stages"].items()} == {"brain": 1, "roi": 1, "radiomics": 1}
    features = prognosis_dask.read_features(out)
    truth = json.loads((cohort / "cohort" / "truth" / "MADE-B0001" / "truth.json").read_text(encoding="utf-8"))
    size = dict(zip(features["size_feature"].values, features["size"].values[0], strict=True))
    assert size["size_volume"] == pytest.approx(truth["volume_ml"], rel=0.1)  # of voxels of 3.75 mm
    place = np.array(truth["centre_template_mm"])
    assert abs(size["place_template_side"] - abs(place[0])) < 4.0
    assert np.isfinite(features["radiomics"].values).all()
    assert (out / "report.html").is_file()

    assert run()["brain"] == {"done": 0, "failed": 0, "reused": 1, "seconds": 0.0}
    shutil.rmtree(next((out / "brain").glob("[0-9a-f]*")))
    again = run()
    assert (again["brain"]["done"], again["radiomics"]["reused"]) == (1, 1)
    assert features.identical(prognosis_dask.read_features(out))
