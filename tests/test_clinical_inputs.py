"""What a frozen model asks of a new patient that no image tells."""

import numpy as np
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.fitted import fit_procedure
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.saved import describe
from prognosis_dask.prediction.clinical_inputs import ClinicalInput, clinical_inputs, read_clinical


@pytest.fixture(scope="module")
def frozen():
    """Texture, age, the logarithm of a marker, and a constant column that every fit drops."""
    rng = np.random.default_rng(0)
    n = 60
    age, marker = np.linspace(40, 80, n), np.geomspace(0.5, 50, n)
    X = np.column_stack([rng.normal(size=n), age, rng.permutation(np.log(marker)), np.ones(n)])
    names = ("texture", "age", "ln_marker", "ward")
    encodings = [
        Encoding("texture", "radiomics"),
        Encoding("age", "clinical", unit="years"),
        Encoding("marker", "clinical", log=True),
        Encoding("ward", "clinical"),
    ]
    families = tuple(encoding.family for encoding in encodings)
    ids = tuple(map(str, range(n)))
    endpoint = Survival(rng.exponential(500, n) + 1, rng.random(n) < 0.7)
    table = FeatureTable(X, names, families, ("", "years", "", ""), ids, ids, endpoint)
    procedure = Procedure(selector="", n_features=(3,), penalty=(0.1,))
    return describe(fit_procedure(procedure, table, 0), table, encodings, (365.0,))


def test_what_the_images_tell_is_not_asked_and_what_was_left_out_is_said(frozen):
    asked = {column.column: column for column in clinical_inputs(frozen)}
    assert list(asked) == ["age", "marker", "ward"]
    assert [column.used for column in asked.values()] == [True, True, False]
    assert (asked["age"].unit, asked["age"].training) == ("years", pytest.approx((40, 60, 80)))
    # of a logarithm the number itself is asked
    least, median, most = asked["marker"].training
    assert (least, most) == pytest.approx((0.5, 50))
    assert median == pytest.approx(5, rel=0.01)  # the middle of a geometric row


def test_values_are_read_under_the_columns_own_names(frozen):
    assert read_clinical(frozen, {"Age": " 63,5 ", "marker": ""}) == {"age": "63.5"}
    with pytest.raises(StatisticsError, match=r"takes no column 'shoe'.*age, marker, ward"):
        read_clinical(frozen, {"shoe": "44"})


@pytest.mark.parametrize("text", ["old", "nan1", "inf", "1e300", "6_3", "63 years"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(StatisticsError, match=r"age is .*, expected a number such as 60, or nothing"):
        ClinicalInput("age", training=(40.0, 60.0, 80.0)).read(text)


@pytest.mark.parametrize("text", ["0", "-1"])
def test_what_has_no_logarithm_is_refused(text):
    with pytest.raises(StatisticsError, match="expected a number above zero"):
        ClinicalInput("marker", above_zero=True).read(text)


def test_levels_are_told_apart_as_tables_tell_them():
    column = ClinicalInput("stage", levels=("IIIa", "2", "large cell"))
    assert [column.read(text) for text in ("iiiA", "2.0", " Large  Cell", "", "n/a")] == [
        "IIIa",
        "2",
        "large cell",
        "",
        "",
    ]
    with pytest.raises(StatisticsError, match=r"stage is 'IV', expected one of IIIa, 2, large cell, or nothing"):
        column.read("IV")
