"""The tables of a models folder and ``summary.json``: their columns, for writing, reading and the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.table_spec import Column, Of, TableSpec


def _table(name: str, meaning: str, *columns: Column) -> TableSpec:
    return TableSpec(name, meaning, columns)


def _text(name: str, meaning: str, of: Of = "") -> Column:
    return Column(name, "text", "", meaning, of)


def _count(name: str, meaning: str, of: Of = "", *, optional: bool = False) -> Column:
    return Column(name, "integer", "1", meaning, of, optional)


def _number(name: str, meaning: str, of: Of = "", *, unit: str = "1", optional: bool = False) -> Column:
    return Column(name, "number", unit, meaning, of, optional)


def _interval(what: str) -> tuple[Column, Column]:
    return _number("lower", f"lower bound of the 95 % interval of {what}"), _number("upper", "its upper bound")


_PROCEDURE = _text("procedure", "the procedure's name")
_HORIZON = _number("horizon_days", "time at which survival is predicted", "survival", unit="d")
_CLASS = _text("class", "the class, against all others", "classes")
_FEATURE = _text("feature", "the feature's name")
_FOLD = (_PROCEDURE, _count("repeat", "number of the repeat, from 0"), _count("fold", "number of the fold, from 0"))
_CASE = (_text("case_id", "the case"), _text("patient_id", "its patient"))
_NOTE = _text("note", "why a figure is empty, or what it leaves out; empty when fine")
_DRAWN = "bound of the percentile interval that draws the tested patients and keeps the models"

TABLES = (
    _table(
        "folds",
        "a held-out fold of a procedure",
        *_FOLD,
        _count("n_train", "training cases"),
        _count("events_train", "training cases with the event", "survival"),
        _count("train_*", "training cases of the class", "classes"),
        _count("n_test", "held-out cases"),
        _count("events_test", "held-out cases with the event", "survival"),
        _count("test_*", "held-out cases of the class", "classes"),
        _count("n_features", "features in the fold's model"),
        _number("penalty", "tuned weight of the penalty; empty where the learner has none"),
        _number("mixing", "tuned share of the absolute penalty; empty where the learner has none"),
        _number("depth", "tuned depth of trees; empty where the learner has none", optional=True),
        _number("rounds", "tuned number of boosted trees; empty where the learner has none", optional=True),
        _number(
            "cutoff",
            "the training cases' median score, above it the group is high",
            "survival",
            optional=True,
        ),
        _number("c_index", "Harrell's C in the fold", "survival"),
        _number("uno_c", "Uno's C in the fold", "survival"),
        _number("auc", "AUC in the fold; of more than two classes the mean of each against the rest", "classes"),
    ),
    _table(
        "predictions",
        "a held-out prediction of a case",
        *_FOLD,
        *_CASE,
        _number("risk_score", "the fold's model's score; higher is worse", "survival"),
        _text("group", "`low` or `high`: the score beside the median of the training cases", "survival"),
        _number("survival_*", "probability of survival to that many days", "survival"),
        _number("probability_*", "probability of the class", "classes"),
    ),
    _table(
        "survival_grid",
        "a held-out prediction at every time of AUC(t) and the integrated Brier score; up to a million figures",
        *_FOLD,
        _CASE[0],
        _number("survival_*", "probability of survival to that many days", "survival"),
    ),
    _table(
        "measures",
        "a measure of a procedure's predictions",
        _PROCEDURE,
        _text("measure", "its name, see [measures](measures.md)"),
        _number("horizon_days", "time that it is of; empty where it is of none", unit="d"),
        _number("value", "its value"),
        *_interval("the value"),
        _count("in_sample", "1 where models are measured on the cases that they were fitted on, else 0"),
        _NOTE,
        _number("lower_drawn", f"lower {_DRAWN}; there with `validation.halves`", optional=True),
        _number("upper_drawn", f"upper {_DRAWN}; there with `validation.halves`", optional=True),
    ),
    _table(
        "differences",
        "a measure of two procedures on the same folds",
        _text("a", "a procedure"),
        _text("b", "another one"),
        _text("measure", "the measure's name"),
        _number("difference", "of `a` less of `b`"),
        *_interval("the difference"),
        _number("p", "of no difference, two-sided"),
        _number("p_holm", "the same for all pairs of the measure at once (Holm)"),
        _number("p_corrected", "of the corrected resampled t-test (Nadeau and Bengio)"),
        _number("p_wilcoxon", "of Wilcoxon's signed rank test over the folds; too small"),
        _number("lower_drawn", f"lower {_DRAWN}"),
        _number("upper_drawn", f"upper {_DRAWN}"),
        _NOTE,
    ),
    _table(
        "selection",
        "a feature that a fold chose",
        _PROCEDURE,
        _FEATURE,
        _number("share", "share of the outer folds that chose it"),
    ),
    _table(
        "bounded",
        "a case so far outside its training range that features were capped",
        _PROCEDURE,
        *_CASE,
        _number("share", "share of the folds in which any were"),
        _number("features", "mean number of bounded features in these folds"),
    ),
    _table(
        "influence",
        "a figure of held-out cases without one of the, up to a hundred, patients with the most extreme predictions",
        _PROCEDURE,
        _text("measure", "as in measures.csv; `added_to_*`: χ² of what the procedure adds to volume and stage"),
        _number("horizon_days", "time that it is of; empty where it is of none", unit="d"),
        _text("patient_id", "the patient that is left out"),
        _number("value", "the figure of all patients"),
        _number("without", "the figure without this one, the predictions kept; empty where it has none"),
    ),
    _table(
        "dfbeta",
        "a patient and a coefficient of the final Cox model that it changes, the hundred greatest changes",
        _FEATURE,
        _text("patient_id", "the patient"),
        _number("dfbeta", "change in the coefficient when the patient is included, per standard deviation"),
        _number("dfbetas", "the same in standard errors of the coefficient"),
    ),
    _table(
        "auc_t",
        "a time",
        _PROCEDURE,
        _number("time_days", "the time", unit="d"),
        _number("auc", "AUC(t), mean over the folds"),
        *_interval("the AUC"),
    ),
    _table(
        "calibration",
        "a point of a calibration curve",
        _PROCEDURE,
        _HORIZON,
        _CLASS,
        _text("kind", "`group` (of rising prediction) or `smooth`"),
        _number("predicted", "predicted risk or probability"),
        _number("observed", "observed share"),
        *_interval("the observed share"),
    ),
    _table(
        "net_benefit",
        "a threshold of a decision curve",
        _PROCEDURE,
        _HORIZON,
        _CLASS,
        _number("threshold", "threshold probability"),
        _number("net_benefit", "true positives less weighted false ones, per case"),
        *_interval("the net benefit"),
        _number("treat_all", "net benefit of treating everybody"),
    ),
    _table(
        "kaplan_meier",
        "a step of a risk group's curve",
        _PROCEDURE,
        _text("group", "`low` or `high`"),
        _number("time_days", "time of the step", unit="d"),
        _number("survival", "Kaplan-Meier's estimate after it; where events compete one less Aalen and Johansen's"),
        *_interval("the estimate"),
        _count("at_risk", "cases followed up to the step or beyond that entered before"),
        _count("entered", "cases that enter at that time; where some enter late", optional=True),
        _count("events", "cases with the event at that time; where some enter late or events compete", optional=True),
        _count("competing", "cases with a competing event at that time; where events compete", optional=True),
    ),
    _table(
        "follow_up",
        "a horizon",
        _number("horizon_days", "the time", unit="d"),
        _count("events", "cases with the event by then"),
        _count("competing", "cases with a competing event by then; where events compete", optional=True),
        _count("censored", "cases censored by then"),
        _count("beyond", "cases followed beyond it that entered by then"),
        _number("survival", "Kaplan-Meier's estimate; where events compete one less the event's cumulative incidence"),
        *_interval("the estimate"),
    ),
    _table(
        "incidence",
        "a step of a cumulative incidence, where events compete",
        _text("cause", "`event` or `competing`"),
        _number("time_days", "time of the step", unit="d"),
        _number("incidence", "Aalen and Johansen's estimate after it"),
        *_interval("the estimate"),
    ),
    _table(
        "competing",
        "a feature of the final Cox model, where events compete; hazard ratios per standard deviation, by its penalty",
        _FEATURE,
        _number("subdistribution", "on the event's incidence, competing events at risk (Fine and Gray)"),
        _number("cause_specific", "of the event's hazard, competing events censored"),
        _number("of_competing", "of the competing events' hazard, the event censored"),
    ),
    _table(
        "added",
        "what one thing adds to another, each volume, stage, both, or a procedure's held-out score",
        _text("base", "what is known without it"),
        _text("added", "what is added"),
        _text("test", "which test; empty where there is none"),
        _number("statistic", "its chi-squared"),
        _number("df", "its degrees of freedom"),
        _number("p", "its p; one-sided where `test` says so"),
        _number("z", "signed root of the statistic, of one added column"),
        _number("delta_c", "change in Harrell's C"),
        *_interval("the change"),
        _NOTE,
    ),
    _table(
        "confusion",
        "a true and a predicted class",
        _PROCEDURE,
        _text("true", "the true class"),
        _text("predicted", "the most probable class"),
        _number("cases", "held-out cases, mean over the repeats"),
    ),
    _table(
        "roc",
        "a point of a ROC curve",
        _PROCEDURE,
        _text("class", "the positive class"),
        _number("false_positive_rate", "1 less the specificity"),
        _number("true_positive_rate", "sensitivity, mean over the folds"),
        *_interval("the sensitivity"),
    ),
    _table(
        "coefficients",
        "a feature of the final model, where it is linear",
        _FEATURE,
        _number("coef", "coefficient per standard deviation"),
        _number("se", "its standard error; empty where the penalty leaves none"),
        _number("hazard_ratio", "its exponential: hazard ratio, of two classes odds ratio"),
        _number("lower_95", "lower bound of the ratio's 95 % interval"),
        _number("upper_95", "its upper bound"),
        _number("p", "Wald's, two-sided"),
    ),
    _table(
        "ph",
        "a feature of the final model, where it is Cox's",
        _FEATURE,
        _number("statistic", "chi-squared of proportional hazards, 1 degree of freedom"),
        _number("p", "its p"),
    ),
    _table(
        "curve",
        "a number of features",
        _count("k", "number of features"),
        _number("c_index_in_sample", "in-sample C of a model of the first k of the ranking", "survival"),
        _number("auc_in_sample", "in-sample AUC of a model of the first k of the ranking", "classes"),
        _number("random_median", "median of the same of k features drawn at random"),
        _number("random_lower", "least of these draws"),
        _number("random_upper", "greatest of these draws"),
        _count("of", "features that are drawn from"),
    ),
    _table(
        "correlation",
        "a feature of the final model beside volume or stage",
        _FEATURE,
        _text("with", "the other variable"),
        _count("n", "cases that have both"),
        _number("pearson", "Pearson's r"),
        *_interval("r"),
        _number("p", "of no correlation, two-sided"),
    ),
    _table(
        "table1",
        "a variable of the cases, or one of its levels",
        _text("variable", "the variable, with its unit"),
        _text("level", "the level, or how numbers are summed up"),
        Column("overall", "cell", "", "all cases"),
        Column("*", "cell", "", "the outcome's groups: `censored` and `event`, or the classes"),
        _number("smd", "standardised difference between the groups, the greatest between any two"),
        _count("missing", "cases without the value"),
    ),
    _table(
        "bootstrap",
        "a procedure, validated by the bootstrap",
        _PROCEDURE,
        _number("apparent", "headline measure in-sample"),
        _number("out_of_bag", "of the cases that were not drawn"),
        _number("optimism_corrected", "in-sample less the optimism of models of drawn cases"),
        _number("optimism_corrected_lower", "lower bound of its 95 % interval"),
        _number("optimism_corrected_upper", "its upper bound"),
        _number("point632_plus", ".632+ mean of in-sample and out-of-bag"),
        _number("point632_plus_lower", "lower bound of its 95 % interval"),
        _number("point632_plus_upper", "its upper bound"),
        _count("redrawn", "samples that no model could be learnt from, drawn again"),
    ),
    _table(
        "permutation",
        "a procedure, tested against permuted endpoints",
        _PROCEDURE,
        _number("observed", "headline measure of held-out cases"),
        _number("permuted_median", "median of the same with permuted endpoints"),
        _number("permuted_greatest", "greatest of the same"),
        _number("p", "share at least as good, the observed one counted in"),
        _count("without_figure", "permutations that gave none"),
    ),
)
_BY_NAME = {spec.name: spec for spec in TABLES}


def table_spec(name: str) -> TableSpec:
    """The specification of a table.

    Raises
    ------
    StatisticsError
        When the schema has no such table.
    """
    if name not in _BY_NAME:
        raise StatisticsError(f"models folder: unknown table {name!r}, expected one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def documentation() -> str:
    """The page ``docs/models.md``."""
    parts = [_HEAD]
    for spec in TABLES:
        parts += [f"## {spec.name}.csv", "", f"One row: {spec.meaning}.", "", *_COLUMNS, *_rows(spec.columns), ""]
    return "\n".join(
        [*parts, "## summary.json", "", _COLUMNS[0].replace("column", "key"), _COLUMNS[1], *_rows(SUMMARY), ""]
    )


def _rows(columns: Sequence[Column]) -> list[str]:
    return [
        f"| `{column.name}` | {column.kind} | {column.unit} | {column.meaning}{_when(column)} |" for column in columns
    ]


def _when(column: Column) -> str:
    return f" ({column.of} only)" if column.of else ""


_COLUMNS = ("| column | type | unit | meaning |", "|---|---|---|---|")
_HEAD = """# The models folder

<!-- made from prognosis_dask/modelling/schema.py:
python -c "from prognosis_dask.modelling.schema import documentation as d; print(d(), end='')" > docs/models.md -->

`models/` in a run's folder, or in that of `prognosis fit`, `compare` and `validate -o`, holds the tables below as CSV,
each where it has a row. An empty cell is a figure that the data do not hold; numbers are written so that reading gives
the same value. [Measures](measures.md) says what each figure is. A name that ends in `*` stands for all columns that
begin so. Units are in UCUM's notation. A table with an unknown column, or without one of these, is refused.

`model.json` and `arrays.npz` hold the frozen model, `procedures.json` what was compared, by name.
"""


#: What ``summary.json`` may hold.
SUMMARY = (
    _text("title", "the specification's"),
    _count("n_cases", "cases in the analysis"),
    _count("n_patients", "their patients"),
    _count("n_events", "patients with the event", "survival"),
    _count("n_competing", "patients with a competing event, where events compete"),
    _count("n_entered_late", "cases that were followed from later than day 0 on, where there are any"),
    _number("median_follow_up_days", "by the reverse Kaplan-Meier estimate", "survival", unit="d"),
    Column("classes", "object", "", "cases by class", "classes"),
    Column("left_out", "object", "", "rows that are not in the analysis, by reason"),
    _text("rows", "what a row is: `patient` or `case`"),
    _text("not_fitted", "why there is no model; then little else is there"),
    _text("procedure", "the final procedure, or the folder of another cohort's model"),
    Column("validation", "object", "", "how it was validated"),
    _number("c_index_cv", "Harrell's C of the final procedure on held-out cases", "survival"),
    _number("c_index_cv_lower", "lower bound of its 95 % interval"),
    _number("c_index_cv_upper", "its upper bound"),
    _number("c_index_in_sample", "the same of the cases that it was fitted on"),
    _number("logrank_p", "of the held-out risk groups", "survival"),
    _number("auc_cv", "AUC of the final procedure on held-out cases", "classes"),
    _number("auc_cv_lower", "lower bound of its 95 % interval"),
    _number("auc_cv_upper", "its upper bound"),
    _number("auc_in_sample", "the same of the cases that it was fitted on"),
    _text("interval", "how intervals came about"),
    Column("versions", "object", "", "of the program and what it requires, by name"),
    _text("curve", "the procedure whose ranking curve.csv follows"),
    Column(
        "spread",
        "list",
        "",
        "5th and 95th percentile of what the final model predicts its own cases, by horizon or class",
    ),
    _count("k_final", "features in the final model"),
    Column("features", "list", "", "their families"),
    Column("rows_said", "list", "", "notes on what a row is"),
    Column("label", "list", "", "notes on what selection learns from"),
    Column("notes", "list", "", "all notes"),
    Column("external", "bool", "", "true where another cohort's model was validated"),
    _count("met_before", "cases that such a model was fitted on"),
    _text("met_by", "by what these are known"),
)


def check_summary(summary: Mapping[str, Any]) -> None:
    """Check that a summary has no key that the schema does not know, and no value of another kind.

    Raises
    ------
    StatisticsError
        Names the key.
    """
    known = {column.name: column for column in SUMMARY}
    for key, value in summary.items():
        if key not in known:
            raise StatisticsError(f"summary.json: unknown key {key!r}, expected one of {', '.join(known)}")
        known[key].check(value, "summary.json")
