"""What is said where a frozen model has little to say of a new case."""

from dataclasses import replace

import numpy as np
import pytest

from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import describe, out_of_range, tells_apart
from prognosis_dask.prediction.compose import row_warnings


def frozen(penalty: float):
    """A logistic model of a class that one of two features tells; and its table."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    label = (X[:, 0] > 0).astype(int)
    ids = tuple(map(str, range(40)))
    table = FeatureTable(X, ("a", "b"), ("size",) * 2, ("",) * 2, ids, ids, Classes(label, ("no", "yes")))
    procedure = Procedure(selector="", learner="logistic", n_features=(2,), penalty=(penalty,))
    encodings = [Encoding("a", "size"), Encoding("b", "size")]
    return describe(fit_procedure(procedure, table, 0), table, encodings, ()), table


def test_a_model_that_is_shrunk_to_nothing_says_so():
    model, table = frozen(1e9)
    probability = model.fitted.predict(table).probability
    assert np.ptp(probability[:, 1]) < 1e-3, "the penalty leaves nothing"
    assert not tells_apart(model)
    assert out_of_range(model, table.rows(np.array([0])))[0].startswith(
        "The model gives all its training cases the same"
    )


def test_what_lies_beyond_and_what_is_missing_is_named():
    model, table = frozen(0.1)
    assert tells_apart(model)
    one = table.rows(np.array([0]))
    assert out_of_range(model, one) == []
    assert row_warnings(model, one) == [
        "The model was fitted on this very scan: its prediction does not test the model."
    ]
    assert row_warnings(model, replace(one, X=one.X * 0.99)) == []
    far, bounded, missing = out_of_range(model, replace(one, X=np.array([[99.0, np.nan]])))
    assert far.startswith("Outside of what any training case had: 1 of the model's 2 features, a.")
    assert bounded.startswith("Some lie so far out that the model takes them as 1 SD beyond")
    assert missing == "Not known of this scan, taken as the training cases' median: b."


@pytest.mark.parametrize("quantiles", [np.zeros(0), np.linspace(-1, 1, 9)])
def test_of_more_than_two_classes_there_is_no_one_score(quantiles):
    model, _ = frozen(0.1)
    assert tells_apart(replace(model, risk_quantiles=quantiles))
