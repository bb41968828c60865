"""A frozen model on a folder of new patients: their features as the model's own cases', then its predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.cohort.sources import expect_source
from prognosis_dask.config.fields import Location
from prognosis_dask.config.job import RunSection
from prognosis_dask.execution.cluster import LocalSpec, Workers, connect, joined
from prognosis_dask.execution.record import check_folder
from prognosis_dask.prediction.model import cohort_rules, load_model
from prognosis_dask.workflows.models import Say, predict
from prognosis_dask.workflows.run import run_features

if TYPE_CHECKING:
    import pandas as pd


def predict_cohort(
    model: Path | str,
    source: Path | str,
    out: Path | str,
    *,
    clinical: Path | str = "",
    client: Workers | None = None,
    say: Say = print,
) -> pd.DataFrame:
    """Index a folder of new patients, compute the model's features of them, and predict each case.

    Parameters
    ----------
    model
        The folder of a run, or of its models with the job beside them.
    source
        The patients' folder, or what else a job's ``cohort.sources`` may hold.
    out
        The folder for the new patients' features, as of a run, and ``predictions.csv``. The same command resumes.
    clinical
        A table with the clinical columns of the model, if it has any.
    client
        As :func:`prognosis_dask.workflows.run.run` takes it.
    say
        Takes the lines that tell what is being done.

    Returns
    -------
    pandas.DataFrame
        As :func:`prognosis_dask.workflows.models.predict` gives it.

    Raises
    ------
    PrognosisError
        When there is no such model or folder, or the features are not the model's.
    """
    expect_source(str(source), "FOLDER")
    loaded, folder = load_model(Path(model)), Path(out).absolute()
    rules = replace(
        cohort_rules(loaded),
        sources=(Location().seen_from(Path.cwd(), str(source)),),
        clinical=str(clinical),
        time_column="",  # new patients have no outcome yet
        event_column="",
    )
    job = replace(loaded.job, name=f"{loaded.job.name}-predicted", cohort=rules, run=RunSection())
    check_folder(folder, job.name)
    with joined(connect(LocalSpec()) if client is None else client) as cluster:
        run_features(job, cluster, folder, say=say)
    return predict(model, folder, folder / "predictions.csv", say=say)
