"""From a frozen model to its nomogram."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from prognosis_dask.errors import count
from prognosis_dask.modelling.saved import QUANTILES, Frozen
from prognosis_dask.report.nomogram import (
    MAX_TERMS,
    Nomogram,
    Outcome,
    Term,
    cox_outcome,
    draw,
    logistic_outcome,
    rounded,
    rounded_logarithms,
    with_the_rest,
)
from prognosis_dask.report.picture import Picture
from prognosis_dask.report.words import span, with_powers

#: The share of the training cases on each side that an axis leaves out before its ends are rounded.
_TAIL = 0.01


def chart(frozen: Frozen) -> Nomogram | str:
    """The nomogram of a model that is linear in its features, or why there is none."""
    fitted = frozen.fitted
    coefficient = np.array([float(row["coef"]) for row in fitted.coefficients()])
    if not coefficient.any():
        if len(coefficient):
            return "no coefficient of the final model differs from 0."
        if len(frozen.classes) > 2:
            return "a model of more than two classes has a score for each of them."
        return f"the final model ({fitted.procedure.learner}) is no sum of its features."
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


def _outcomes(frozen: Frozen, lowest: float, highest: float) -> tuple[Outcome, ...]:
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
        f"{caption} It shows what the model does; it is no device for decisions.",
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
