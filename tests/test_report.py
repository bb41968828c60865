"""The report: one file that tells what a run found, whatever is missing from the run."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.datasets import load_waltons
from matplotlib.figure import Figure
from matplotlib.text import Text

from prognosis_dask.cohort.case import Case, write_cases, write_problems
from prognosis_dask.errors import Code, Problem, StoreError
from prognosis_dask.modelling.folder import ModelFolder, read_models
from prognosis_dask.modelling.schema import TABLES
from prognosis_dask.report.canvas import time_axis
from prognosis_dask.report.page import write_report
from prognosis_dask.report.read import RunFolder, read_run
from prognosis_dask.report.sections.characteristics import characteristics, median_follow_up
from prognosis_dask.report.sections.cohort import flow, problem_groups
from prognosis_dask.report.sections.comparison import IN_SAMPLE_LABEL
from prognosis_dask.report.sections.curves import Curve
from prognosis_dask.report.sections.features import correlate
from prognosis_dask.report.sections.regions import Thumbnail, _volumes, outline
from prognosis_dask.report.sections.validation import calibration
from prognosis_dask.report.status import status
from prognosis_dask.storage.ledger import Ledger, TaskResult
from tests.report_models import PROCEDURES
from tests.report_run import UNTRAINED, make_run

#: Tables that the made models lack, or whose absence is said in other words.
_NOT_MADE = (
    *("predictions", "table1", "confusion", "roc", "bootstrap", "permutation", "bounded"),
    *("influence", "dfbeta", "follow_up", "incidence", "competing", "survival_grid"),
)
BANNER = "untrained weights; for demonstration only"


class Page(HTMLParser):
    """The text, the tags and the addresses of a page; fails where a tag is not closed."""

    VOID = ("meta", "img", "br", "link", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def images(self) -> list[str]:
        return [attrs["alt"] or "" for tag, attrs in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


#: Of each figure its texts, and how far its ink is from the edges, left and bottom, right and top.
Margins = list[tuple[list[str], np.ndarray]]


@contextmanager
def measured() -> Iterator[Margins]:
    """The margins of every figure that is saved meanwhile."""
    found: Margins = []
    save = Figure.savefig

    def checked(figure: Figure, *args: Any, **kwargs: Any) -> None:
        save(figure, *args, **kwargs)
        page, ink = figure.bbox_inches.extents, figure.get_tightbbox().extents
        found.append(([text.get_text() for text in figure.findobj(Text)], (ink - page) * [1, 1, -1, -1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", checked)
        yield found


@pytest.fixture(scope="module")
def drawn(made: Path) -> Margins:
    """The report is written, and its figures are measured."""
    with measured() as found:
        write_report(made)
    return found


@pytest.fixture(scope="module")
def html(made: Path, drawn: Margins) -> str:
    return (made / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture
def whole(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "whole", ignore=shutil.ignore_patterns("figures"))


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The run without its models: most of the page's figures, and of the time to draw them, are theirs."""
    return shutil.copytree(made, tmp_path / "copy", ignore=shutil.ignore_patterns("figures", "models"))


def written(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_report_loads_nothing_from_elsewhere(html: str, page: Page) -> None:
    addresses = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "data")]
    assert addresses
    assert all(str(address).startswith(("data:", "#")) for address in addresses)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "@import" not in html
    # within a drawing, its own clip paths
    assert set(re.findall(r"url\(.?", html)) <= {"url(%"}
    assert set(re.findall(r"url\(...", html)) <= {"url(%23"}
    assert "default-src 'none'" in html


def test_report_is_small_and_the_same_every_time(made: Path, html: str) -> None:
    assert len(html) < 3_000_000
    assert write_report(made).read_text(encoding="utf-8") == html
    assert not list(made.glob(".report*"))


def test_no_figure_is_cut_off(drawn: Margins) -> None:
    assert len(drawn) > 10
    for texts, margins in drawn:
        assert np.all(margins > -0.005), texts


@pytest.mark.parametrize("horizons", [1, 3])
def test_no_calibration_is_cut_off_whatever_the_number_of_horizons(horizons: int, whole: Path) -> None:
    table = pd.read_csv(whole / "models" / "calibration.csv")
    rows = table[table["horizon_days"] == table["horizon_days"].iloc[0]]
    every = [rows.assign(horizon_days=365.0 * year) for year in range(1, horizons + 1)]
    pd.concat(every).to_csv(whole / "models" / "calibration.csv", index=False)
    models = read_models(whole / "models")
    assert models is not None
    with measured() as found:
        assert calibration(models)
    ((texts, margins),) = found
    assert np.all(margins > -0.005), texts


def test_report_is_readable_without_eyes(page: Page) -> None:
    assert ("html", {"lang": "en"}) in page.tags
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(len(alt) > 20 for alt in page.images())
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    anchors = {attrs["href"] for tag, attrs in page.tags if tag == "a" and "download" not in attrs}
    assert anchors <= {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}


def test_whole_run_has_every_figure(page: Page) -> None:
    starts = [
        "Flow diagram", "Image slices", "Histograms", "Heat map", "Harrell’s C of each procedure", "Differences",
        "Harrell’s concordance index", "Time-dependent AUC", "Calibration", "Kaplan-Meier", "Decision curves",
        "Share of the outer folds", "Hazard ratios", "Nomogram", "Pearson's correlation",
    ]  # fmt: skip
    assert [alt[: len(start)] for alt, start in zip(page.images(), starts, strict=True)] == starts
    assert "not a medical device" in page.text


def test_every_figure_lies_beside_the_page_and_in_it_with_its_data(made: Path, page: Page) -> None:
    names = {path.stem for path in (made / "figures").glob("*.svg")}
    assert len(names) == len(page.images())
    links = {str(a["download"]): str(a["href"]) for tag, a in page.tags if tag == "a" and "download" in a}
    assert set(links) == {f"{name}.{kind}" for name in names for kind in ("svg", "csv")}
    for name in names:
        ElementTree.parse(made / "figures" / f"{name}.svg")
        ElementTree.fromstring(unquote(links[f"{name}.svg"].partition(",")[2]))
        written = (made / "figures" / f"{name}.csv").read_text(encoding="utf-8")
        assert unquote(links[f"{name}.csv"].partition(",")[2]) == written
        assert len(pd.read_csv(io.StringIO(written))) > 0


def test_banner_stands_exactly_over_untrained_weights(made: Path, page: Page, copy: Path) -> None:
    assert BANNER not in page.text
    info = json.loads((copy / "run.json").read_text())
    info["deep"]["weights"] = UNTRAINED
    (copy / "run.json").write_text(json.dumps(info))
    assert BANNER in written(copy).text
    info["deep"] = None  # as in a run that was stopped
    info["job"]["deep"]["weights"] = UNTRAINED
    (copy / "run.json").write_text(json.dumps(info))
    assert BANNER in written(copy).text


def test_in_sample_figures_are_labelled_so_and_stand_beside_the_honest_ones(made: Path, page: Page) -> None:
    assert "optimistic" in IN_SAMPLE_LABEL
    measures = pd.read_csv(made / "models" / "measures.csv")
    own = measures[(measures["measure"] == "harrell_c") & (measures["procedure"] == PROCEDURES[-1])]
    honest, flattering = (own[own["in_sample"] == which]["value"].item() for which in (0, 1))
    assert f"the in-sample performance is Harrell’s C {flattering:.2f}" in page.text
    assert f"on held-out cases it is {honest:.2f}" in page.text
    assert "Harrell’s C, in-sample (optimistic)" in page.text
    # 0.66 at 100 features, random ones 0.65 to 0.67: nothing but size
    assert "features drawn at random give 0.660 (0.650 to 0.670)" in page.text
    assert "no more than chance gives at that size" in page.text


def test_every_problem_is_listed_with_its_code(copy: Path) -> None:
    cases = read_run(copy).cases
    index = [Problem(code, f"reason {i}: $1 & 2", patient_id=f"patient-{i}") for i, code in enumerate(Code)]
    write_problems(copy / "problems.csv", index)
    with Ledger.create(copy / "ledger.sqlite") as ledger:
        ledger.record([TaskResult(cases[0].case_id, "deep", "d", Problem(Code.CLIP_INVALID, "3 frames, expected 6"))])
    text = Page(write_report(copy, identifiers=True).read_text(encoding="utf-8")).text
    for i, code in enumerate(Code):
        assert code.value in text
        assert f"patient-{i}" in text
        assert f"reason {i}: $1 & 2" in text
    for case, reason in ((cases[-1], "0 voxels, expected at least 2"), (cases[0], "3 frames, expected 6")):
        assert case.case_id in text
        assert reason in text


def test_what_the_images_were_acquired_with_stands_in_the_table_of_each_modality(copy: Path) -> None:
    cases = read_run(copy).cases
    kernels = ["B30f", "B50f"]
    acquired = [
        replace(case, acquisition={"kernel": kernels[number % 2], "kvp": "120"} if number else {})
        for number, case in enumerate(cases)
    ]
    write_cases(copy / "cases.csv", acquired)
    rows = dict(characteristics(read_run(copy)))
    assert rows["CT: reconstruction kernel"] == "B50f: 15 (52 %), B30f: 14 (48 %); unknown 1"
    assert rows["CT: tube voltage (kV)"] == "120: 29 (100 %); unknown 1"
    assert not any("TE (ms)" in name for name in rows)


def test_an_age_is_summarised_by_quartiles_in_a_cohort_of_few_patients_too(copy: Path) -> None:
    cases = read_run(copy).cases[:8]
    ages = ["57", "85.5", "74", "56", "71", "67", "57", "74"]
    write_cases(copy / "cases.csv", [replace(c, covariates={"age": age}) for c, age in zip(cases, ages, strict=True)])
    assert dict(characteristics(read_run(copy)))["age"] == "69 (57 to 74)"


def test_no_identifier_and_no_whole_path_is_in_the_report_unless_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path, n=12, patient="Quast^Rosi{:02d}")
    info = json.loads((run / "run.json").read_text())
    info["job"]["cohort"] = {"sources": ["/home/clinic/Ana Quast/scans"], "clinical": "~/outcomes of us.csv"}
    info["deep"] |= dict.fromkeys(("network", "weights"), "file:/home/clinic/M2D2.onnx")
    info["cluster"] = {"address": "local", "folder": "/home/clinic/scratch"}
    (run / "run.json").write_text(json.dumps(info))
    told = "Quast^Rosi03 has two series, /home/clinic/Quast^Rosi03/1.dcm and Quast^Rosi03_a.nrrd"
    problem = Problem(Code.SERIES_AMBIGUOUS, told, patient_id="Quast^Rosi03", where="/home/clinic/Quast^Rosi03")
    index = [problem, Problem(Code.UNEXPECTED, "as in patient Quast^Rosi04", patient_id="Q-9")]
    index.append(Problem(Code.NO_CLINICAL_ROW, "the table's first is 'Q-9'", patient_id="Quast^Rosi05"))
    write_problems(run / "problems.csv", index)
    brief = {name: file.read_text(encoding="utf-8") for name, file in everything(run).items()}
    assert [name for name, text in brief.items() if re.search("Quast|Q-9|clinic/|%5ERosi", text)] == []
    assert "outcomes of us.csv" in brief["report.html"]
    assert brief["report.html"].count("the network .../M2D2.onnx") == 1, "CLEAR's item 25, spelt as it is"
    write_report(run, identifiers=True)
    whole = everything(run)["report.html"].read_text(encoding="utf-8")
    assert "Quast^Rosi03 has two series, /home/clinic/Quast^Rosi03/1.dcm" in whole
    assert "/home/clinic/scratch" in whole


def everything(run: Path) -> dict[str, Path]:
    """The page and the files of its figures, written anew."""
    if not (run / "report.html").exists():
        write_report(run)
    return {file.name: file for file in [run / "report.html", *(run / "figures").iterdir()]}


def test_problem_told_twice_is_listed_once(copy: Path) -> None:
    run = read_run(copy)
    failure = next(iter(run.failed.values()))[0].problem
    assert failure is not None
    write_problems(copy / "problems.csv", [*run.problems, failure])
    groups = {group.code: group.problems for group in problem_groups(read_run(copy))}
    assert [stage for stage, _ in groups["mask-empty"]] == ["roi"]
    assert [stage for stage, _ in groups["patient-without-mask"]] == ["index"]


def test_what_is_used_with_a_warning_stands_apart_from_what_could_not_be_used(copy: Path) -> None:
    run = read_run(copy)
    of_case = Problem(Code.CONTOURS_DROPPED, "1 of 7 contours", case_id=run.cases[0].case_id, severity="warning")
    of_mask = Problem(Code.MASK_ITEM_INVALID, "an item has no number", patient_id="P", severity="warning")
    write_problems(copy / "problems.csv", [*run.problems, of_case, of_mask])
    with Ledger.create(copy / "ledger.sqlite") as ledger:
        ledger.record([replace(run.results["roi"][of_case.case_id], warnings=(of_case,))])
    again = read_run(copy)
    found = {group.code: [stage for stage, _ in group.problems] for group in problem_groups(again, "warning")}
    assert found == {"contours-dropped": ["roi"], "mask-item-invalid": ["index"]}
    assert not found.keys() & {group.code for group in problem_groups(again)}
    assert "What is used with a warning" in written(copy).text


def test_outcomes_of_an_earlier_job_in_the_folder_are_left_out(copy: Path) -> None:
    failed_roi = read_run(copy).cases[-1].case_id
    problem = Problem(Code.RADIOMICS_FAILED, "of an earlier job")
    with Ledger.create(copy / "ledger.sqlite") as ledger:
        ledger.record([TaskResult(name, "radiomics", "d", problem) for name in ("no-case-any-more", failed_roi)])
    assert "of an earlier job" not in written(copy).text


def test_names_and_reasons_are_text_and_never_markup(tmp_path: Path) -> None:
    make_run(tmp_path, n=3, patient="<script>alert({})</script>")
    info = json.loads((tmp_path / "run.json").read_text())
    info["title"] = "</title><script>alert(1)</script>"
    (tmp_path / "run.json").write_text(json.dumps(info))
    problem = Problem(Code.UNEXPECTED, "<script>alert(2)</script>", patient_id="<b onclick=x>", where="<i>")
    write_problems(tmp_path / "problems.csv", [problem])
    page = written(tmp_path)
    assert not {"script", "i"} & {tag for tag, _ in page.tags}
    assert "<script>alert(2)</script>" in page.text
    assert "</title><script>alert(1)</script>" in page.text


@pytest.mark.parametrize(
    "missing",
    [
        {"models": "This run holds no model.", "problems.csv": "mask-empty"},
        {
            "rois.zarr": "No region of interest was stored",
            "features.zarr": "This run holds no features.",
            "models/arrays.npz": "models/model.json was not written",
            "models/table1.csv": "Standardised differences are not shown",
            **{
                f"models/{table.name}.csv": f"models/{table.name}.csv was not written"
                for table in TABLES
                if table.name not in _NOT_MADE
            },
        },
        {
            "cases.csv": "No case was found",
            "problems.csv": "no file, patient or case had a problem",
            "ledger.sqlite": "The regions’ volumes are not known.",
            "features.zarr": "This run holds no features.",
            "rois.zarr": "No region of interest was stored",
            "models": "This run holds no model.",
        },
    ],
    ids=["models", "tables", "all"],
)
def test_what_is_missing_is_said_in_its_place(whole: Path, missing: dict[str, str]) -> None:
    for name in missing:
        path = whole / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    text = written(whole).text
    for said in missing.values():
        assert said in text


def test_run_without_a_network_has_no_deep_part(copy: Path) -> None:
    info = json.loads((copy / "run.json").read_text())
    info["deep"] = None
    info["job"]["deep"]["enabled"] = False
    (copy / "run.json").write_text(json.dumps(info))
    text = written(copy).text
    assert "The job has deep features switched off." in text
    assert BANNER not in text


def test_model_that_could_not_be_fitted_says_why(copy: Path) -> None:
    (copy / "models").mkdir()
    (copy / "models" / "summary.json").write_text(json.dumps({"not_fitted": "2 events, at least 5 are needed"}))
    assert "No model was fitted: 2 events, at least 5 are needed" in written(copy).text


@pytest.mark.parametrize(
    ("n", "said"), [(0, "This run holds no model."), (1, "No model was fitted: "), (3, "No model was fitted: ")]
)
def test_tiny_cohorts_have_a_report(tmp_path: Path, n: int, said: str) -> None:
    make_run(tmp_path, n=n)
    assert said in written(tmp_path).text


def test_impossible_follow_up_does_not_stop_the_report(copy: Path) -> None:
    first, second, *others = read_run(copy).cases
    write_cases(copy / "cases.csv", [replace(first, time_days=-3.0), replace(second, time_days=float("nan")), *others])
    assert "Median follow-up" in written(copy).text


def test_damaged_roi_is_left_out_of_the_pictures(copy: Path) -> None:
    shutil.rmtree(copy / "rois.zarr" / "crops")
    assert "No region of interest was stored" in written(copy).text


def test_a_class_needs_no_time_and_no_event(tmp_path: Path) -> None:
    off = {"enabled": False}
    job = {"radiomics": off, "deep": off, "model": {"label": "grade"}}
    cases = tuple(Case(f"c{n}", f"P{n}", "MR", "tumour", "i", "m", covariates={"grade": "2"}) for n in range(5))
    outcomes = {"roi": {case.case_id: TaskResult(case.case_id, "roi", "d") for case in cases}}
    model = ModelFolder({"n_cases": 4, "n_patients": 4})
    run = RunFolder(tmp_path, {"job": job}, cases, results=outcomes, model=model)
    assert [(step.title, step.cases, step.left_out) for step in flow(run)] == [
        ("Cases found", 5, ()),
        ("With features", 5, ()),
        ("In the model", 4, (("no class", 1),)),
    ]
    assert "Events" not in dict(characteristics(run))


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no run\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "models/summary.json"])
def test_damaged_json_names_the_file(whole: Path, name: str) -> None:
    (whole / name).write_text("{")
    with pytest.raises(StoreError, match=re.escape(name)):
        write_report(whole)


def test_flow_adds_up(made: Path) -> None:
    steps = flow(read_run(made))
    for before, after in itertools.pairwise(steps):
        assert before.cases == after.cases + sum(count for _, count in after.left_out)
    assert [step.cases for step in steps] == [30, 29, 28, 28]


def test_stage_that_the_model_does_not_need_leaves_no_case_out(copy: Path) -> None:
    first = read_run(copy).cases[0].case_id
    with Ledger.create(copy / "ledger.sqlite") as ledger:
        ledger.record([TaskResult(first, "radiomics", "d", Problem(Code.RADIOMICS_FAILED, "x"))])
    assert flow(read_run(copy))[1].cases == 28
    info = json.loads((copy / "run.json").read_text())
    info["job"]["model"]["features"] = "deep"
    (copy / "run.json").write_text(json.dumps(info))
    assert flow(read_run(copy))[1].cases == 29


def test_a_run_of_before_a_stage_was_lacks_nothing_of_it(copy: Path) -> None:
    info = json.loads((copy / "run.json").read_text())
    info["job"]["deep"]["network"] = "fmcib"  # cubes have a stage of their own now
    (copy / "run.json").write_text(json.dumps(info))
    assert flow(read_run(copy))[1].cases == len(read_run(copy).results["deep"]) == 29
    assert "cube" not in status(copy)


def test_numbers_at_risk_events_and_censored_are_read_off_the_curve() -> None:
    table = load_waltons()
    at = np.arange(0.0, 80.0, 7.0)
    for name, arm in table.groupby("group"):
        km = KaplanMeierFitter().fit(arm["T"], arm["E"])
        steps = pd.DataFrame({"time_days": km.timeline, "survival": km.survival_function_.iloc[:, 0].to_numpy()})
        curve = Curve(str(name), steps.assign(at_risk=km.event_table["at_risk"].to_numpy()))
        assert curve.at_risk(at).tolist() == [(arm["T"] >= t).sum() for t in at]
        assert (curve.cases, curve.events) == (len(arm), arm["E"].sum())
        assert curve.censored()["time_days"].tolist() == sorted(set(arm["T"][arm["E"] == 0]))


def test_follow_up_counts_events_as_censored() -> None:
    # all five followed to the end of the study at 100 days except for one event: the median follow-up is the study's
    assert median_follow_up([(100.0, 0)] * 4 + [(3.0, 1)]) == "100 days"


@pytest.mark.parametrize(
    ("volumes", "shown"),
    [((10.8, 98.0), ["10.8", "98.0"]), ((0.004, 1.0), ["0.004", "1.000"]), ((123.0, 987.6), ["123", "988"])],
)
def test_volumes_in_a_figure_have_the_same_number_of_decimals(volumes: tuple[float, ...], shown: list[str]) -> None:
    pixels = np.zeros((1, 1), np.uint8)
    thumbnails = [Thumbnail("", volume, pixels, pixels > 0, 1.0) for volume in volumes]
    assert _volumes(thumbnails) == [f"{text} mL" for text in shown]


def test_outline_runs_along_the_pixels_edges() -> None:
    mask = np.zeros((5, 6), bool)
    mask[0:3, 2:4] = True
    segments = outline(mask)
    assert len(segments) == 2 * (3 + 2)
    assert segments[..., 0].min() == 1.5
    assert segments[..., 0].max() == 3.5
    assert segments[..., 1].min() == -0.5
    assert segments[..., 1].max() == 2.5


def test_correlations_are_those_of_scipy() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    values = rng.normal(size=(30, 5)).round(1)
    values[:, 2] = 4.0
    volume = values[:, 0] ** 3 + rng.normal(size=30)
    found = correlate(values, list("abcde"), volume)
    assert found is not None
    assert sorted(found.names) == ["a", "b", "d", "e"]
    columns = ["abcde".index(name) for name in found.names]
    expected = spearmanr(values[:, columns], axis=0).statistic
    np.testing.assert_allclose(found.between, expected, atol=1e-12)
    for column, rho in zip(columns, found.with_volume, strict=True):
        assert rho == pytest.approx(spearmanr(values[:, column], volume).statistic)


def test_time_axis_takes_the_unit_that_gives_a_few_ticks() -> None:
    for days, unit in [(30, "days"), (80, "days"), (400, "months"), (1200, "years"), (9000, "years")]:
        axis = time_axis(days)
        assert axis.unit == unit
        assert 3 <= len(axis.ticks) <= 9
        assert axis.ticks[-1] * axis.days <= days
