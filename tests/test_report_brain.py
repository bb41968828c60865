"""What the report says of how MR of the head was prepared."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.figure import Figure

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.errors import Code, Problem
from prognosis_dask.report.content import Picture, Table, Text
from prognosis_dask.report.read import RunFolder, read_run
from prognosis_dask.report.sections.features import correlation
from prognosis_dask.report.sections.radiomics_checklists import applying, clear_answers, score, verdicts
from prognosis_dask.report.sections.regions import brains
from prognosis_dask.report.sections.tripod import answers
from prognosis_dask.storage.brains import BrainStore, StoredBrain
from prognosis_dask.storage.ledger import TaskResult
from tests.report_run import make_run

FITS = {"a<b": 0.9, "P2": 0.5, "P3": 0.7, "P4": 0.8, "P5": None}
SOURCES = ("drawn", "interpolated", "drawn", "automatic", "drawn")


def png() -> bytes:
    stream = io.BytesIO()
    Figure(figsize=(2, 1), dpi=20).savefig(stream, format="png")
    return stream.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Five prepared brains, the last one of an image without skull, and one that was not found."""
    folder = tmp_path_factory.mktemp("run")
    store = BrainStore(folder / "brain")
    store.create()
    small = sitk.GetImageFromArray(np.ones((2, 2, 2), np.float32))
    outcomes, cases = {}, []
    for number, ((case_id, fit), source) in enumerate(zip(FITS.items(), SOURCES, strict=True)):
        figures = {"brain_volume_l": 1.2 + 0.1 * number, "coverage": 1.0, "template_overlap": fit or 0.95, "scale": 1.0}
        figures |= {"mutual_information": 0.4, "moved_mm_T1": 2.0 + number} | ({"boundary_fit": fit} if fit else {})
        result = {"values": [], "stripped_before": fit is None, "tumour_source": source, **figures}
        outcomes[case_id] = TaskResult(case_id, "brain", "d", None, {}, result)
        store.write(case_id, StoredBrain(small, small, small, {}), {"quality": png()})
        cases.append(Case(case_id, case_id, "MR", "mask", "i", "m", sequences={"T1": "t1", "T2": "i"}))
    outcomes["lost"] = TaskResult("lost", "brain", "d", Problem(Code.BRAIN_NOT_FOUND, "no"), {})
    return RunFolder(path=folder, info={"job": {}}, cases=tuple(cases), results={"brain": outcomes})


def test_the_figures_are_those_of_the_prepared_cases(run):
    (table,) = [block for block in brains(run).blocks if isinstance(block, Table)]
    rows = {row[0]: row[1:] for row in table.groups[0].rows}
    assert rows["brain volume (L)"] == ("1.40", "1.20", "1.60", "0.75 to 2.4, less where part is imaged")
    assert rows["contrast of the brain’s edge (−1 to 1)"][:3] == ("0.75", "0.50", "0.90")
    assert rows["shift of T1 by registration (mm)"] == ("4.00", "2.00", "6.00", "up to 40")


def test_tumours_that_nobody_outlined_are_told_apart_and_warned_of(run):
    texts = [block for block in brains(run).blocks if isinstance(block, Text)]
    assert "T1 in 5 and T2 in 5" in texts[0].text
    assert "1 case came without skull" in texts[0].text
    assert re.search(r"3 outlined on every slice, 1 outlined on some .* and 1 found automatically", texts[0].text)
    assert [text.role for text in texts] == ["plain", "warning"]
    assert texts[1].text.startswith("1 tumour found automatically")


def test_the_least_sure_are_shown_and_the_table_behind_holds_all(run):
    (picture,) = [block for block in brains(run).blocks if isinstance(block, Picture)]
    assert re.findall(r"<text[^>]*>([^<]*)<", picture.svg) == [short_hash(name) for name in ("P2", "P3", "P4")]
    shown = re.findall(r"base64,([^\"]+)\"", picture.svg)
    assert [base64.b64decode(one) for one in shown] == [png()] * 3
    assert 'viewBox="0 0 40 162"' in picture.svg  # three times a label and 20 pixels
    table = pd.read_csv(io.StringIO(picture.csv))
    assert table["case_id"].tolist() == [short_hash(name) for name in sorted(FITS)]
    assert table["boundary_fit"].isna().sum() == 1


def test_a_run_without_a_prepared_brain_says_so(tmp_path):
    section = brains(RunFolder(path=tmp_path, info={}, results={}))
    assert [(block.text, block.role) for block in section.blocks] == [("No brain was prepared.", "absent")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole run, whatever its images."""
    return make_run(tmp_path_factory.mktemp("whole"))


def test_where_selection_took_the_networks_features_the_runs_own_are_correlated(folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "run")
    table = folder / "models" / "selection.csv"
    selection = pd.read_csv(table)
    own = list(read_run(folder).values("radiomics").columns)
    selection["feature"] = [own[0], *[f"dense512_{number:03d}" for number in range(1, len(selection))]]
    selection.to_csv(table, index=False)
    picture = correlation(read_run(folder))
    assert picture is not None
    assert "first features" in picture.caption
    assert own[1] in list(picture.data["feature"])


def test_the_checklist_says_how_heads_were_prepared(folder):
    run = read_run(folder)
    assert answers(run, run.model)["7"].text.startswith("Masks were put")  # its images are CT
    brain = {"enabled": True, "skull_strip": "template", "bias_field": True, "normalise": "zscore"}
    told = answers(replace(run, info={**run.info, "job": {**run.job, "brain": brain}}), run.model)["7"].text
    assert told.startswith(
        "Heads: skull strip (template), N4 bias field correction, rigid registration between a session’s sequences and "
        "normalisation (zscore); see Preparation of the brains. Masks were put"
    )


def test_clear_and_metrics_say_what_the_run_shows_and_leave_the_rest_to_the_authors(folder):
    run = read_run(folder)
    params = {"version": 1, "imageType": {"Original": {}, "LoG": {"sigma": [2]}},
              "setting": {"binWidth": 10, "resampledPixelSpacing": [1, 1, 2.5]}}  # fmt: skip
    settings = {"radiomics.parameters": "01", "radiomics.parameters.told": json.dumps(params)}
    run = replace(run, info={**run.info, "settings": settings})
    tripod = answers(run, run.model)
    clear = clear_answers(run, tripod)
    assert clear["22"].text == "Resampled to 1 x 1 x 2.5 mm, interpolator sitkBSpline."
    assert clear["23"].text == "Fixed bin width: 10, edges at its multiples."
    assert clear["24"].text == 'Original and LoG ({"sigma": [2]}).'
    assert clear["15"] == tripod["12a"]
    assert not {"1", "8", "20", "49"} & clear.keys()  # the authors' alone
    compared = {"clinical": {"families": ["clinical"]}, "both": {"families": ["clinical", "radiomics"]}}
    run = replace(run, model=replace(run.model, procedures=compared))
    found = verdicts(run, tripod)
    assert {item for item, verdict in found.items() if verdict.met} == {"13", "18", "20", "22", "23", "24"}
    assert found["27"].met is None
    assert score(applying(run), found)[0] < score(applying(run), found)[1] < 1
    silent = verdicts(replace(run, info={**run.info, "settings": {}}), tripod)
    assert "13" not in silent  # a file's content that nobody told
    assert applying(replace(run, info={**run.info, "job": {**run.job, "grade": {"enabled": True}}}))[16] == "17"
