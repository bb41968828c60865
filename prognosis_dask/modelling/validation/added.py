"""What volume, stage and image features add to each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.scores import linear_score
from prognosis_dask.modelling.metrics.concordance import bootstrap_concordance
from prognosis_dask.modelling.metrics.cox_tests import cox_coefficient, nested_test
from prognosis_dask.modelling.metrics.intervals import interval
from prognosis_dask.modelling.metrics.measured import CURVE_DRAWS, MeasuredCases, case_means, held_survival
from prognosis_dask.modelling.metrics.regression import bootstrap_cox
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.nested import FoldResult

#: The families that are known before any image feature is computed, and that image features are often a proxy of.
_KNOWN = ("volume", "stage")


def added_rows(
    table: FeatureTable, results: Mapping[str, Sequence[FoldResult]], seed: int, draws: int = CURVE_DRAWS
) -> list[Row]:
    """The rows of ``added``, for each procedure both ways.

    Procedures that chose nothing but volume and stage are left out.

    A procedure stands for itself by its held-out risk score (less the training cases' median, averaged over the
    repeats), as in Tibshirani & Efron's pre-validation (2002): no score comes from a model that saw its case.
    Volume and stage, where the table has these families, enter as they are, missing values as the median. Both
    models are plain Cox models of these few columns on all cases, compared by the likelihood ratio; where patients
    have several cases by Wald's test with the variance over patients (:mod:`modelling.metrics.cox_tests`).
    ``delta_c`` is the difference of their Harrell's C, with an interval that draws patients and keeps the models;
    on so few columns its optimism is small, not zero. ``z``, of one added column, is the root of the statistic with
    the sign of the coefficient.

    A held-out score depends on the outcomes of others, and its statistic scatters more than chi-square says: under no
    effect these tests reject in 15 to 23 % of cohorts. :func:`modelling.validation.halves.widen` corrects that, with a
    one-sided test.

    Parameters
    ----------
    table
        The cases.
    results
        Folds by procedure.
    seed, draws
        Of the patients, for the intervals.
    """
    bootstrap_weights = MeasuredCases(table.endpoint, table.patient_ids, seed=seed, draws=draws).bootstrap_weights
    rows: list[Row] = []
    for base, added, base_columns, added_columns in added_pairs(table, results):
        rows.append({"base": base, "added": added, **_added(table, base_columns, added_columns, bootstrap_weights)})
    return rows


def added_pairs(
    table: FeatureTable, results: Mapping[str, Sequence[FoldResult]], *, both_ways: bool = True
) -> Iterator[tuple[str, str, FloatArray, FloatArray]]:
    """What is compared in ``added``: names of base and added, and their columns.

    Not ``both_ways``: only what procedures add to volume and stage.
    """
    known = {
        " + ".join(families): _columns(table, families)
        for families in (*((family,) for family in _KNOWN), _KNOWN)
        if set(families) <= set(table.families)
    }
    if len(known) == 3 and both_ways:
        yield "volume", "stage", known["volume"], known["stage"]
        yield "stage", "volume", known["stage"], known["volume"]
    names = {name for name, family in zip(table.features, table.families, strict=True) if family in _KNOWN}
    for procedure, folds in results.items():
        if all(names.issuperset(fold.features) for fold in folds):
            continue
        score = case_means(folds, len(table.case_ids), centred)
        for name, columns in known.items():
            yield name, procedure, columns, score
            if both_ways:
                yield procedure, name, score, columns


def centred(result: FoldResult) -> FloatArray:
    """Held-out risk scores less the training cases' median, shape (cases, 1)."""
    held_survival(result)
    assert result.risk_score is not None
    return (result.risk_score - result.cutoff)[:, None]


def _columns(table: FeatureTable, families: tuple[str, ...]) -> FloatArray:
    """The families' columns that vary; missing values as the median."""
    X = table.X[:, [i for i, family in enumerate(table.families) if family in families]]
    known = np.isfinite(X).any(axis=0)
    X = X[:, known]
    X = np.where(np.isfinite(X), X, np.nanmedian(X, axis=0)) if X.size else X
    return np.asarray(X[:, np.ptp(X, axis=0) > 0] if X.size else X)


def _added(table: FeatureTable, base: FloatArray, added: FloatArray, bootstrap_weights: FloatArray) -> Row:
    nothing = float("nan")
    row: Row = {"test": ""} | dict.fromkeys(("statistic", "df", "p", "z", "delta_c", "lower", "upper"), nothing)
    held = np.isfinite(base).all(axis=1) & np.isfinite(added).all(axis=1)
    end, base, added = table.survival.rows(held), base[held], added[held]
    try:
        test = nested_test(base, added, end, np.array(table.patient_ids)[held])
        columns = base, np.column_stack([base, added])
        coefficients = [_coefficient(X, end) for X in columns]
        smaller, larger = (
            bootstrap_concordance(end, linear_score(X, coefficient), bootstrap_weights[:, held])
            for X, coefficient in zip(columns, coefficients, strict=True)
        )
    except StatisticsError as error:
        return row | {"note": str(error)}
    lower, upper = interval((larger - smaller)[1:])
    change = float(larger[0] - smaller[0])
    row |= {"test": test.test, "statistic": test.statistic, "df": test.df, "p": test.p}
    if added.shape[1] == 1:
        row["z"] = float(np.sign(coefficients[1][-1]) * np.sqrt(test.statistic))
    return row | {"delta_c": change, "lower": lower, "upper": upper, "note": ""}


def _coefficient(X: FloatArray, end: Survival) -> FloatArray:
    """Of a model without a penalty: Cox's, or where events compete Fine and Gray's."""
    if end.competing is None:
        return cox_coefficient(X, end)
    if not X.shape[1]:
        return np.zeros(0)
    return np.asarray(bootstrap_cox(X, end, np.ones((1, len(end))))[0])
