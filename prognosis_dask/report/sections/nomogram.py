"""Final model: a linear model as a chart of points per feature, their sum, and what the sum predicts.

Harrell, Regression Modeling Strategies (2015), section 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import count
from prognosis_dask.modelling.saved import QUANTILES, Frozen
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Picture
from prognosis_dask.report.words import clipped, number, short_name, span, with_powers

#: Features with an axis of their own; the others share one.
MAX_TERMS = 10
_LEVELS = np.array([0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01])
#: The width of a letter, and the least gap between two labels, as shares of the scales' width.
_LETTER, _GAP = 0.0125, 0.015


#: The share of the training cases on each side that an axis leaves out before its ends are rounded.
_TAIL = 0.01


@dataclass(frozen=True)
class Term:
    """One feature of the linear predictor.

    Attributes
    ----------
    name
        Of the feature.
    coefficient
        Change of the linear predictor per unit of the feature.
    ticks
        Values on its axis, ascending; the first and the last are the axis' ends.
    log
        The values are natural logarithms, and the axis shows what they are of.
    levels
        What the values 0, 1, 2, ... of an ordered category are called; () for numbers.
    """

    name: str
    coefficient: float
    ticks: FloatArray
    log: bool = False
    levels: tuple[str, ...] = ()

    @property
    def range(self) -> float:
        """How far the feature moves the linear predictor from one end of its axis to the other."""
        return abs(self.coefficient) * float(self.ticks[-1] - self.ticks[0])

    @property
    def labels(self) -> list[str]:
        """What stands at the ticks."""
        if self.levels:
            return [self.levels[int(value)] for value in self.ticks]
        if self.log:
            return [f"{value:.0f}" if 1 <= value < 1e6 else f"{value:.3g}" for value in np.exp(self.ticks)]
        step = float(np.diff(self.ticks).min())
        digits = max(0, -int(np.floor(np.log10(step) + 1e-9)))
        return [number(value, digits) if step < 1e5 else f"{value:.3g}" for value in self.ticks]

    @property
    def lowest(self) -> float:
        """The feature's smallest contribution to the linear predictor."""
        return float(min(self.coefficient * self.ticks[0], self.coefficient * self.ticks[-1]))


@dataclass(frozen=True)
class OutcomeScale:
    """What is predicted, as a function of the linear predictor: probability ``levels`` lie at ``at``."""

    name: str
    levels: FloatArray
    at: FloatArray


@dataclass(frozen=True)
class Nomogram:
    """The chart: linear predictor = ``constant`` + sum of coefficient x value."""

    terms: tuple[Term, ...]
    constant: float
    outcomes: tuple[OutcomeScale, ...]

    @property
    def per_point(self) -> float:
        """Linear predictor per point: the widest feature has 100 points."""
        return max(term.range for term in self.terms) / 100

    @property
    def zero(self) -> float:
        """The linear predictor at no points."""
        return self.constant + sum(term.lowest for term in self.terms)

    def points(self, term: Term, values: FloatArray) -> FloatArray:
        """Points of the feature's values."""
        return np.asarray((term.coefficient * values - term.lowest) / self.per_point)

    @property
    def most(self) -> float:
        """The linear predictor at all points."""
        return self.zero + sum(term.range for term in self.terms)

    def total(self, linear_predictor: FloatArray) -> FloatArray:
        """Total points at values of the linear predictor."""
        return np.asarray((linear_predictor - self.zero) / self.per_point)


def nomogram_picture(frozen: Frozen) -> Picture | str:
    """The final model as a figure, or why there is none."""
    found = chart(frozen)
    if isinstance(found, str):
        return f"No nomogram: {found}"
    caption = (
        "Nomogram of the final model: read the points of each value on the top scale, add them up, and read the "
        "prediction under the total."
    )
    if len(found.terms) > MAX_TERMS:
        caption += (
            " Features that move the prediction less share one axis: their part of the linear predictor, which is "
            "zero for the average case."
        )
    if frozen.fitted.preparation.combat is not None:
        caption += " Values are those after harmonisation by site."
    return Picture(
        "nomogram",
        draw(found),
        _nomogram_data(found),
        f"Nomogram of {count(len(found.terms), 'term')}; the points of every tick are in the data.",
        f"{caption} It shows how the model works; it is not a decision tool.",
    )


def _nomogram_data(drawn: Nomogram) -> pd.DataFrame:
    rows: list[tuple[str, float, float]] = []
    for term in drawn.terms:
        values = np.exp(term.ticks) if term.log else term.ticks
        rows += [(term.name, float(v), float(p)) for v, p in zip(values, drawn.points(term, term.ticks), strict=True)]
    for outcome in drawn.outcomes:
        rows += [
            (outcome.name, float(v), float(p)) for v, p in zip(outcome.levels, drawn.total(outcome.at), strict=True)
        ]
    return pd.DataFrame(rows, columns=["scale", "value", "points"])


def chart(frozen: Frozen) -> Nomogram | str:
    """The nomogram of a model that is linear in its features, or why there is none."""
    fitted = frozen.fitted
    coefficient = np.array([float(row["coef"]) for row in fitted.coefficients()])
    if not coefficient.any():
        if len(coefficient):
            return "no coefficient of the final model differs from 0."
        if len(frozen.classes) > 2:
            return "a model of more than two classes has a score for each of them."
        return f"the final model ({fitted.procedure.learner}) gives no hazard or odds ratios of its features."
    mean, scale = (part[fitted.columns] for part in (fitted.preparation.mean, fitted.preparation.scale))
    places = [fitted.features.index(name) for name in fitted.chosen]
    low, high = (frozen.quantiles[QUANTILES.index(tail), places] for tail in (_TAIL, 1 - _TAIL))
    low, high = np.where(np.isfinite(low), low, mean - 2 * scale), np.where(np.isfinite(high), high, mean + 2 * scale)
    low, high = np.where(high > low, low, mean - 2 * scale), np.where(high > low, high, mean + 2 * scale)
    units = dict(zip(fitted.features, fitted.units, strict=True))
    levels = {name: known.levels for known in frozen.encodings if known.ordered for name in known.features}
    used = np.flatnonzero(coefficient)
    terms = []
    for i in used:
        name, slope = fitted.chosen[i], coefficient[i] / scale[i]
        if name in levels:
            terms.append(Term(name, slope, np.arange(len(levels[name]), dtype=float), levels=levels[name]))
        else:
            terms.append(_term(name, units[name], slope, float(low[i]), float(high[i])))
    # as if the others were independent of each other: the ends of an axis, which may be read beyond in proportion
    shown = with_the_rest(terms, 2 * float(np.sqrt(np.sort(coefficient[used] ** 2)[:-10].sum())))
    own = {id(term) for term in shown}
    constant = -sum(coefficient[i] / scale[i] * mean[i] for i, term in zip(used, terms, strict=True) if id(term) in own)
    empty = Nomogram(shown, float(constant) + _intercept(frozen), ())
    outcomes = _outcomes(frozen, empty.zero, empty.most)
    return replace(empty, outcomes=outcomes) if outcomes else "survival is 0 or 1 at every time that it predicts."


def _term(name: str, unit: str, slope: float, low: float, high: float) -> Term:
    if unit.startswith("ln(") and np.exp(high) < 1e12:
        inner = unit.removeprefix("ln(").removesuffix(")")
        title = name.removeprefix("ln_") + (f" ({with_powers(inner)})" if inner else "")
        return Term(title, slope, rounded_logarithms(low, high), log=True)
    return Term(f"{name} ({with_powers(unit)})" if unit and unit != "1" else name, slope, rounded(low, high))


def _outcomes(frozen: Frozen, lowest: float, highest: float) -> tuple[OutcomeScale, ...]:
    if frozen.classes:
        return (logistic_outcome(f"Probability of {frozen.classes[1]}", lowest, highest),)
    average = frozen.fitted.model.predict(np.zeros((1, len(frozen.fitted.columns))))
    if average.survival is None:
        return ()
    survival = average.survival(np.array(frozen.horizons_days))[0]
    return tuple(
        cox_outcome(f"Survival at {span(days)}", float(value), lowest, highest)
        for days, value in zip(frozen.horizons_days, survival, strict=True)
        if 0 < value < 1
    )


def _intercept(frozen: Frozen) -> float:
    """The linear predictor of a case at all means: log odds for classes, 0 on the baseline's own scale."""
    if not frozen.classes:
        return 0.0
    score = frozen.fitted.model.predict(np.zeros((1, len(frozen.fitted.columns)))).risk_score
    return 0.0 if score is None else float(score[0])


def rounded(low: float, high: float) -> FloatArray:
    """Round values from ``low`` to ``high`` or a little beyond, for the ticks of an axis.

    >>> rounded(43.2, 81.0).tolist(), rounded(0, 1).tolist()
    ([40.0, 50.0, 60.0, 70.0, 80.0, 90.0], [0.0, 1.0])
    """
    if (low, high) == (0, 1):  # no and yes
        return np.array([0.0, 1.0])
    return np.asarray(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high), dtype=float)


def rounded_logarithms(low: float, high: float) -> FloatArray:
    """Natural logarithms of 1, 2, 5, 10... from below ``low`` to above ``high``, which are logarithms too.

    >>> np.exp(rounded_logarithms(np.log(3.1), np.log(16.0))).round(6).tolist()
    [2.0, 5.0, 10.0, 20.0]
    """
    decades = np.arange(np.floor(low / np.log(10)), np.ceil(high / np.log(10)) + 1)
    ticks = np.log(np.outer(10.0**decades, [1, 2, 5]).ravel())
    first = max(0, int(np.searchsorted(ticks, low + 1e-9)) - 1)
    return np.asarray(ticks[first : int(np.searchsorted(ticks, high - 1e-9)) + 1])


def cox_outcome(name: str, baseline_survival: float, lowest: float, highest: float) -> OutcomeScale:
    """Survival of a proportional hazards model, where its linear predictor runs from ``lowest`` to ``highest``.

    Parameters
    ----------
    baseline_survival
        Survival at linear predictor 0; 0 and 1 are excluded.
    """
    levels = levels_between(baseline_survival ** np.exp(highest), baseline_survival ** np.exp(lowest))
    return OutcomeScale(name, levels, np.log(np.log(levels) / np.log(baseline_survival)))


def logistic_outcome(name: str, lowest: float, highest: float) -> OutcomeScale:
    """Probability of the positive class of a logistic model, over the range of its log odds."""
    levels = levels_between(1 / (1 + np.exp(-lowest)), 1 / (1 + np.exp(-highest)))[::-1]
    return OutcomeScale(name, levels, np.log(levels / (1 - levels)))


def levels_between(low: float, high: float) -> FloatArray:
    """Round probabilities within a range, descending; closer ones where it is narrow.

    >>> levels_between(0.25, 0.97).tolist(), levels_between(0.42, 0.47).tolist()
    ([0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [0.47, 0.46, 0.45, 0.44, 0.43, 0.42])
    """
    within = np.logical_and(low <= _LEVELS, high >= _LEVELS)
    usual = _LEVELS[within]
    if len(usual) >= 4:
        return np.asarray(usual)
    close = np.asarray(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)).round(12)
    held = (close >= low - 1e-12) & (close <= high + 1e-12) & (close > 0) & (close < 1)
    return np.asarray(close[held][::-1], dtype=float)


def with_the_rest(terms: Sequence[Term], spread: float) -> tuple[Term, ...]:
    """The terms that move the predictor most, the widest first; where there are too many, the others in one.

    Parameters
    ----------
    terms
        One per feature.
    spread
        How far the others' sum is drawn to each side of zero, per root of their number of standard deviations.
    """
    ordered = sorted(terms, key=lambda term: -term.range)
    if len(ordered) <= MAX_TERMS + 1:
        return tuple(ordered)
    rest = ordered[MAX_TERMS:]
    return (*ordered[:MAX_TERMS], Term(f"{len(rest)} others together", 1.0, rounded(-spread, spread)))


@svg
def draw(nomogram: Nomogram) -> Figure:
    """The chart: points, a scale per feature, total points, and a scale per outcome."""
    count = len(nomogram.terms)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 0.4 + 0.4 * (3 + count + len(nomogram.outcomes)))
    axes = figure.subplots()
    _scale(axes, 0, "Points", np.arange(0, 101, 10) / 100, [str(v) for v in range(0, 101, 10)])
    for row, part in enumerate(nomogram.terms, start=1):
        at = nomogram.points(part, part.ticks) / 100
        _scale(axes, row, clipped(short_name(part.name), 40), at, part.labels)
    axes.axhline(count + 0.75, color=canvas.PALE, linewidth=0.8)
    most = sum(term.range for term in nomogram.terms) / nomogram.per_point
    total = np.asarray(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]).tick_values(0, most), dtype=float)
    widest, below = float(total[-1]), count + 1.6
    _scale(axes, below, "Total points", total / widest, [f"{v:g}" for v in total])
    for place, outcome in enumerate(nomogram.outcomes, start=1):
        at = nomogram.total(outcome.at) / widest
        inside = (at >= 0) & (at <= 1)
        _scale(axes, below + place, outcome.name, at[inside], [f"{v:g}" for v in outcome.levels[inside]])
    axes.set(xlim=(-0.02, 1.02), ylim=(below + len(nomogram.outcomes) + 0.5, -0.6))
    axes.set_axis_off()
    return figure


def _scale(axes: Axes, row: float, name: str, at: FloatArray, labels: Sequence[str]) -> None:
    """A line with labelled ticks at ``at``; those that would touch the one before are left out, the ends last."""
    axes.annotate(name, (0, row), xycoords=("axes fraction", "data"), xytext=(-6, 0), textcoords="offset points",
                  ha="right", va="center", fontsize=8, annotation_clip=False)  # fmt: skip
    if not len(at):
        return
    axes.plot([at.min(), at.max()], [row, row], color=canvas.INK, linewidth=0.8)
    shown: list[int] = []
    for i in [0, len(at) - 1, *range(1, len(at) - 1)]:
        if all(abs(at[i] - at[o]) >= _LETTER * (len(labels[i]) + len(labels[o])) / 2 + _GAP for o in shown):
            shown.append(i)
    axes.plot(at[shown], np.full(len(shown), row), "|", color=canvas.INK, markersize=6, markeredgewidth=0.8)
    for i in shown:
        axes.annotate(
            labels[i], (at[i], row), xytext=(0, -4.5), textcoords="offset points", ha="center", va="top", fontsize=7
        )
