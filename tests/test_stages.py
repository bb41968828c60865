"""The list of stages: what each needs and depends on, which cases reach it, and which results are computed anew."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import (
    BrainSection,
    CohortSection,
    DeepSection,
    FramesSection,
    ImageSection,
    Job,
    SynthSection,
)
from prognosis_dask.config.radiomics import RadiomicsSection
from prognosis_dask.errors import Code, Problem, StatisticsError
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.record import LoadedStages, load_stages
from prognosis_dask.features.dataset import build_features
from prognosis_dask.features.registry import BRAIN, DEEP, RADIOMICS, ROI, came_through, stages, stages_of
from prognosis_dask.features.stage import Work
from prognosis_dask.prediction.model import load_model
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.synthetic import make_cohort
from tests.served_models import make_survival_run

CASE = Case("A", "A", "CT", "r", "i", "m", source="s")
UNTRAINED = DeepSection(weights="untrained:1")
REFERENCE = FramesSection(placement="reference")


def loaded(folder: Path | str = "", **sections: Any) -> LoadedStages:
    return load_stages(Job("stages", **{"deep": UNTRAINED} | sections), str(folder))


def digests(**sections: Any) -> dict[str, str]:
    return {stage: rows["A"] for stage, rows in loaded(**sections).digests([CASE]).items()}


def test_every_stage_comes_after_those_that_it_needs_and_its_work_loads() -> None:
    names = ["brain", "segment", "roi", "radiomics", "ibsi", "maps", "cube", "deep", "deep_2"]
    assert [stage.name for stage in stages()] == names
    assert all(isinstance(stage.load(), Work) for stage in stages())


def test_of_a_stage_that_a_run_has_not_its_cases_lack_nothing() -> None:
    results = {"roi": {CASE.case_id: TaskResult(CASE.case_id, "roi", "", None, {}, {"voxels": 8})}}
    assert build_features([CASE], {}, results, {})["problem"].values.tolist() == [""]


def test_a_workers_child_imports_neither_statistics_nor_drawing_nor_dask_for_radiomics() -> None:
    """Each child of each worker pays for what it imports, once more whenever it is replaced."""
    heavy = {"scipy.stats", "scipy.interpolate", "scipy.optimize", "sklearn", "matplotlib", "distributed", "mxnet"}
    said = f"import sys, prognosis_dask.features.roi; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_jobs_stages_are_those_it_has_switched_on_also_as_run_json_holds_it() -> None:
    job = Job("job", radiomics=RadiomicsSection(enabled=False))
    assert stages_of(job) == stages_of({"radiomics": {"enabled": False}}) == [ROI, DEEP]
    assert stages_of({"brain": {"enabled": True}, "deep": {"enabled": False}}) == [BRAIN, ROI, RADIOMICS]


def test_runs_of_before_the_list_of_stages_are_found_by_their_digests() -> None:
    """As the program computed them since version 2 of radiomics, 6 of reading, and 11 of heads."""
    chest = digests()
    assert (chest["roi"], chest["radiomics"]) == ("9347aa767792da53", "bc01865536f7b109")
    heads = digests(brain=BrainSection(enabled=True, skull_strip="template"))
    assert (heads["brain"], heads["roi"]) == ("b98c0f8564d5259c", "b5117d59d04d828d")
    assert heads["radiomics"] == "b0e9f5d274fdcb44"
    assert digests(image=ImageSection(margin_mm=5.0), frames=REFERENCE)["roi"] == "7b6e64d52f3f5edd"
    settings = loaded().settings()
    assert (settings["radiomics.image"], settings["deep.frames"]) == ("dbddbe4ef84e8e10", "16251e2f3f63003c")


def test_files_that_are_read_otherwise_change_the_digest_of_all_that_is_made_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = digests()
    monkeypatch.setattr("prognosis_dask.execution.record.READING", -1)
    assert changed(before, digests()) == set(before) == {"roi", "radiomics", "deep"}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_the_margin_changes_what_is_stored_and_no_value_but_those_of_the_reference_grey_levels() -> None:
    wider = ImageSection(margin_mm=21.0)
    assert changed(digests(), digests(image=wider)) == {"roi"}
    assert loaded().settings() == loaded(image=wider).settings()
    assert changed(digests(frames=REFERENCE), digests(frames=REFERENCE, image=wider)) == {"roi", "deep"}
    assert changed(loaded(frames=REFERENCE).settings(), loaded(frames=REFERENCE, image=wider).settings()) == {
        "deep.frames",
        "deep.frames.told",
    }


def test_a_setting_changes_the_digests_of_what_depends_on_it_alone() -> None:
    assert changed(digests(), digests(frames=FramesSection(window=(-100.0, 200.0)))) == {"roi", "deep"}
    assert changed(digests(), digests(image=ImageSection(fill_gaps=True))) == {"roi", "radiomics", "deep"}
    assert changed(digests(), digests(deep=replace(UNTRAINED, weights="untrained:2"))) == {"deep"}
    heads = BrainSection(enabled=True, skull_strip="template")
    smooth = replace(heads, smooth_fwhm_mm=2.0)
    assert changed(digests(brain=heads), digests(brain=smooth)) == {"brain", "roi", "radiomics", "deep"}


def test_radiomics_of_a_run_with_another_margin_are_found_in_its_ledger(tmp_path: Path) -> None:
    def finished(**sections: Any) -> set[str]:
        wanted = loaded(**sections).digests([CASE])
        return {stage for stage, of_cases in wanted.items() if ledger.finished(stage, of_cases)}

    with Ledger.create(tmp_path / "ledger.sqlite") as ledger:
        ledger.record(TaskResult("A", stage, digest) for stage, digest in digests().items())
        assert finished() == {"roi", "radiomics", "deep"}
        assert finished(image=ImageSection(margin_mm=21.0)) == {"radiomics", "deep"}
        assert finished(image=ImageSection(margin_mm=21.0), frames=REFERENCE) == {"radiomics"}
        assert finished(image=ImageSection(fill_gaps=True)) == set()


def test_a_frozen_model_takes_features_made_with_another_margin_and_none_with_other_settings(tmp_path: Path) -> None:
    run = make_survival_run(tmp_path, source=loaded(deep=DeepSection(enabled=False)).settings())
    kept = json.loads((run / "run.json").read_text())

    def load(section: str, **settings: object) -> object:
        job = kept["job"] | {section: kept["job"][section] | settings}
        (run / "run.json").write_text(json.dumps(kept | {"job": job}))
        return load_model(run)

    assert load("image")
    assert load("image", margin_mm=21.0)
    with pytest.raises(StatisticsError, match=r"other image settings than .*: image.resample_mask true instead of fal"):
        load("image", resample_mask=True)
    params = tmp_path / "other.yaml"
    params.write_text("imageType: {Original: {}, LoG: {sigma: [2]}}\nsetting: {binWidth: 10}\n")
    told = (
        r"other radiomics parameters than .*: imageType.LoG .* instead of not set, .*setting.binWidth 10 instead of 25"
    )
    with pytest.raises(StatisticsError, match=told):
        load("radiomics", params=str(params))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("cohort")
    made = make_cohort(folder / "images", SynthSection(patients=1, seed=5, bad_cases=False))
    index_cohort([made.images], folder, CohortSection(roi=("GTV-1",)))
    (found,) = read_cases(folder / "cases.csv")
    return found


def test_radiomics_and_frames_are_the_same_with_every_margin(case: Case, tmp_path: Path) -> None:
    values, frames, sizes = [], [], []
    for margin in (0.0, 10.0, 21.0):
        folder = tmp_path / f"{margin}"
        folder.mkdir()
        nothing = DeepSection(enabled=False)
        job = loaded(folder, image=ImageSection(margin_mm=margin), deep=nothing)
        job.prepare([case])
        results = {}
        for name, work in job.works.items():
            (results[name],) = work.run((case,), ("",), job.context)
            assert results[name].problem is None
        values.append(results["radiomics"].values["values"])
        store = RoiStore.open(job.context.rois)
        frames.append(store.read_frames(case.case_id))
        sizes.append(store.read_roi(case.case_id).image.GetSize())
    assert values[0] == values[1] == values[2]
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[1], frames[2])
    assert len(set(sizes)) == 3


# --- The graph that a run goes through.

CASES = [Case(name, name, "MR", "r", "i", "m") for name in "abc"]
NEEDS = {"brain": (), "roi": ("brain",), "radiomics": ("roi",), "deep": ("roi",)}
GAP = Problem(Code.SLICE_GAP, "3 mm, 6 mm")
DAMAGED = Problem(Code.STORE_DAMAGED, "checksum")


def nothing(*_: object) -> list[TaskResult]:
    return []


def plan_of(known: Mapping[str, Mapping[str, TaskResult]] | None = None) -> CohortPlan:
    once = {case.case_id: "d" for case in CASES}
    planned = [PlannedStage(name, nothing, once, needs, batch_size=1) for name, needs in NEEDS.items()]
    return CohortPlan(CASES, planned, None, {name: {} for name in NEEDS} | dict(known or {}))


def visited(plan: CohortPlan, problems: Mapping[tuple[str, str], list[Problem | None]]) -> list[str]:
    """The stages and cases in the order in which the plan hands them out; each has the next of its problems."""
    seen = []
    while task := plan.take():
        case_id = task.cases[0].case_id
        seen.append(f"{task.stage} {case_id}")
        left = problems.get((task.stage, case_id), [])
        plan.accept([TaskResult(case_id, task.stage, "d", left.pop(0) if left else None)])
    return seen


def test_each_case_goes_through_the_stages_by_itself_the_latest_first() -> None:
    seen = visited(plan_of(), {})
    assert seen[:5] == ["brain a", "roi a", "radiomics a", "deep a", "brain b"]
    assert len(seen) == len(set(seen)) == 12


def test_whatever_stores_of_a_case_is_told_the_digest_that_its_row_will_have() -> None:
    task = plan_of().take()
    assert task is not None
    assert task.cases[0].stored == dict.fromkeys(NEEDS, "d"), "also where no stage of this run reads it"


def test_a_case_that_fails_goes_no_further_and_the_others_do() -> None:
    seen = visited(plan_of(), {("brain", "a"): [GAP], ("roi", "b"): [GAP], ("radiomics", "c"): [GAP]})
    assert seen == ["brain a", "brain b", "roi b", "brain c", "roi c", "radiomics c", "deep c"]


def test_what_is_known_is_not_run_again_and_what_failed_stops_what_needs_it() -> None:
    def row(stage: str, case_id: str, problem: Problem | None = None) -> dict[str, TaskResult]:
        return {case_id: TaskResult(case_id, stage, "d", problem)}

    known = {
        "brain": row("brain", "a") | row("brain", "b", GAP),
        "roi": row("roi", "a"),
        "deep": row("deep", "a") | row("deep", "c"),
    }
    assert visited(plan_of(known), {}) == ["radiomics a", "brain c", "roi c", "radiomics c"]


def test_damaged_data_are_made_once_more_by_the_stage_that_made_them() -> None:
    plan = plan_of()
    seen = visited(plan, {("roi", "a"): [DAMAGED], ("deep", "a"): [DAMAGED, DAMAGED]})
    of_a = [entry for entry in seen if entry.endswith(" a")]
    assert of_a == ["brain a", "roi a", "brain a", "roi a", "radiomics a", "deep a", "roi a", "deep a"]


def test_an_outcome_counts_only_where_the_case_came_through_what_the_stage_needs() -> None:
    outcomes = {
        "roi": {"a": TaskResult("a", "roi", "d"), "b": TaskResult("b", "roi", "d", GAP)},
        "radiomics": {name: TaskResult(name, "radiomics", "d") for name in "abc"},
    }
    kept = came_through([ROI, RADIOMICS], outcomes)
    assert {stage: list(rows) for stage, rows in kept.items()} == {"roi": ["a", "b"], "radiomics": ["a"]}
