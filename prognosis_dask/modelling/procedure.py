"""A whole modelling procedure as plain data, from the columns of a table to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from prognosis_dask.config.fields import Above, AtLeast, AtMost, NotEmpty, OneOf, Unit, expect_fields
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators import LEARNERS
from prognosis_dask.modelling.selectors import SELECTORS

#: What tuning of survival can be judged by, in words; :mod:`prognosis_dask.modelling.tuning` does it.
TUNED_BY: Mapping[str, str] = MappingProxyType(
    {
        "likelihood": "the partial likelihood",
        "brier": "the integrated Brier score",
        "concordance": "the concordance",
    }
)


@dataclass(frozen=True)
class Procedure:
    """What is done with a table of training cases.

    Missing values become the training cases' median, or what the other columns let expect; columns are standardised.

    ``balance_families``: standardised columns are divided by the square root of how many of their family are left (the
    blocks of multi-block methods: Westerhuis, Kourti & MacGregor, Journal of Chemometrics 12, 301, 1998), so that a
    penalty does not bear on volume as on one of 400 deep features. ``tune_by``: the concordance cannot see a penalty
    that changes no order, and leaves probabilities uncalibrated; classes go by the log loss whatever it says. One value
    each of ``n_features`` and of what the learner takes (``penalty``, ``mixing``, ``depth``, ``rounds``): no tuning.

    Raises
    ------
    StatisticsError
        When a value is none of what its field allows.
    """

    families: Annotated[tuple[str, ...], "Families of features that it may see; empty: all."] = ()
    forced: Annotated[tuple[str, ...], "Families that enter the model as they are, past pruning and selection."] = ()
    imputations: Annotated[
        int,
        AtLeast(2, or_zero=True),
        "Completed tables of the training cases, each with its own model, that are averaged; 0: missing values become "
        "the training cases' median.",
    ] = 0
    variance: Annotated[float, AtLeast(0), "Columns whose variance, scaled to 0 to 1, is below it are dropped."] = 0.0
    correlation: Annotated[
        float,
        Above(0),
        AtMost(1),
        "Of two columns whose absolute Spearman correlation is above it, the later one is dropped; 1 keeps all.",
    ] = 1.0
    balance_families: Annotated[bool, "Families share the variance evenly, however many columns they have."] = False
    bound: Annotated[bool, "A predicted case's features are bounded at the training cases' range and a margin."] = True
    bound_margin: Annotated[
        float, AtLeast(0), Unit("standard deviations"), "The margin, in the training cases' standard deviations."
    ] = 1.0
    harmonise: Annotated[
        Literal["", "combat", "longitudinal-combat"],
        "ComBat by the table's sites, learnt on the training cases; its longitudinal form where patients have several "
        "scans; empty: none.",
    ] = ""
    reference_site: Annotated[
        str, "The site whose values ComBat leaves as they are, and that the others are brought to; empty: none."
    ] = ""
    selector: Annotated[str, OneOf("", *SELECTORS), "Ranking of the features; empty: all columns enter."] = "svm-rfe"
    learner: Annotated[str, OneOf(*LEARNERS), "The model."] = "cox"
    n_features: Annotated[
        tuple[Annotated[int, AtLeast(1)], ...],
        NotEmpty(),
        "Numbers of selected features that are tried by inner cross-validation.",
    ] = (1, 2, 5, 10, 20, 50, 100)
    penalty: Annotated[
        tuple[Annotated[float, AtLeast(0)], ...], NotEmpty(), "Strengths of the penalty that are tried."
    ] = (0.01, 0.1, 1.0, 10.0, 100.0)
    mixing: Annotated[
        tuple[Annotated[float, AtLeast(0), AtMost(1)], ...],
        NotEmpty(),
        "Shares of the penalty that are absolute (lasso) instead of squared (ridge) that are tried.",
    ] = (0.0,)
    depth: Annotated[
        tuple[Annotated[int, AtLeast(1)], ...],
        "Depths of trees that are tried; empty: 1, 2, 3 of 'xgboost', 2, 4, 8 of 'survival-forest'.",
    ] = ()
    rounds: Annotated[
        tuple[Annotated[int, AtLeast(1)], ...],
        "Numbers of boosted trees that 'xgboost' tries; empty: 50, 100, 200.",
    ] = ()
    inner_folds: Annotated[int, AtLeast(2), "Folds within the training cases that tuning uses."] = 3
    tune_by: Annotated[str, OneOf(*TUNED_BY), "What tuning of survival is judged by."] = "likelihood"
    label_days: Annotated[
        float, Above(0), Unit("days"), "Selectors of classes take survival beyond this time as the label of survival."
    ] = 365.0
    reproducible: Annotated[
        tuple[str, ...],
        "Of the features that are not forced only these are kept; empty: all. In a file also one CSV file, as "
        "`prognosis reproducibility` writes it.",
    ] = ()

    def __post_init__(self) -> None:
        expect_fields(self, StatisticsError)
        for name in ("depth", "rounds"):
            if getattr(self, name) and name not in LEARNERS[self.learner].takes:
                takes = ", ".join(known for known, learner in LEARNERS.items() if name in learner.takes)
                raise StatisticsError(
                    f"{name} has no effect on learner {self.learner!r}: leave it out, or take {takes}"
                )
        if self.imputations and LEARNERS[self.learner].average is None:
            able = ", ".join(known for known, learner in LEARNERS.items() if learner.average is not None)
            raise StatisticsError(
                f"imputations is {self.imputations}, and models of learner {self.learner!r} have no average: leave it "
                f"out, or take {able}"
            )
        if self.reference_site and self.harmonise != "combat":
            how = f"harmonise = {self.harmonise!r}" if self.harmonise else "without harmonisation"
            raise StatisticsError(
                f"reference_site is {self.reference_site!r} {how}, and only harmonise = 'combat' has one: set that, or "
                "leave it out"
            )


def visible(procedure: Procedure, table: FeatureTable) -> FeatureTable:
    """The columns that the procedure may see.

    Raises
    ------
    StatisticsError
        When a family that it names has no column.
    """
    named = table.columns((*procedure.families, *procedure.forced))
    return named if procedure.families else table
