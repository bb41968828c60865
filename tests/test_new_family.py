"""A new feature family is a module of its own and an entry in the list of stages: all else follows from the list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import prognosis_dask
from prognosis_dask.cli.main import main
from prognosis_dask.config.job import CohortSection, DeepSection, Job, ModelSection
from prognosis_dask.config.job import SynthSection as Synth
from prognosis_dask.config.radiomics import RadiomicsSection
from prognosis_dask.errors import JobError
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.features import registry
from prognosis_dask.features.registry import documentation
from prognosis_dask.modelling.data.families import kind_of
from prognosis_dask.modelling.data.pairing import read_measurement
from prognosis_dask.report.read import read_run
from prognosis_dask.report.sections.features import families
from prognosis_dask.workflows.run import check_inputs
from tests.extent_family import EXTENT

JOB = Job(
    "extents",
    cohort=CohortSection(roi=("GTV-1",)),
    synth=Synth(patients=2, seed=3, bad_cases=True),
    radiomics=RadiomicsSection(enabled=False),
    deep=DeepSection(enabled=False),
    model=ModelSection(enabled=False),
)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "STAGES", (*registry.STAGES, EXTENT))


@pytest.mark.usefixtures("registered")
def test_an_entry_in_the_list_brings_a_family_into_dataset_status_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) as client:
        result = prognosis_dask.run(JOB, client=client, out=tmp_path)

    dataset = prognosis_dask.read_features(tmp_path)
    done = np.isfinite(dataset["volume_ml"].values)
    assert 0 < done.sum() == result.stages["extent"]["done"]
    extent = dataset["extent"].values
    assert np.isfinite(extent).all(axis=1).tolist() == done.tolist()
    assert (np.prod(extent[done], axis=1) / 1000 >= dataset["volume_ml"].values[done]).all()
    assert (extent[done, 2] / dataset["n_slices"].values[done] > 0).all()
    assert dict(zip(dataset["axis"].values, dataset["axis_units"].values, strict=True)) == dict.fromkeys(
        ("extent_x", "extent_y", "extent_z"), "mm"
    )
    table = pd.read_csv(tmp_path / "features.csv", float_precision="round_trip")
    np.testing.assert_array_equal(table[["extent_x", "extent_y", "extent_z"]].to_numpy(), extent)

    main(["status", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["extent", str(done.sum())] for line in lines)

    assert [(family.name, family.features) for family in families(read_run(tmp_path))] == [("extent", 3)]
    page = result.report.read_text(encoding="utf-8")
    assert '<th scope="row" class="l">extent</th><td class="n">3</td>' in page
    assert "`extent` | case, axis | float64" in documentation()

    pairs = read_measurement(tmp_path)
    assert [name for name, family in zip(pairs.features, pairs.families, strict=True) if family == "extent"] == [
        "extent_x", "extent_y", "extent_z",
    ]  # fmt: skip


@pytest.mark.usefixtures("registered")
def test_a_job_s_model_may_have_a_new_family_and_no_unknown_one() -> None:
    check_inputs(replace(JOB, model=ModelSection(features="extent", selector="")), model=True)
    assert kind_of("extent CT") == "extent"
    with pytest.raises(JobError, match=r"model.features is 'extents', expected one of 'radiomics', .*'extent', 'both'"):
        check_inputs(replace(JOB, model=ModelSection(features="extents")), model=True)
