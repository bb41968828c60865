"""The tables of one survival procedure, in parts, and the AUC at a time that they hold.

See :mod:`modelling.validation.evaluate` for how folds become one. Each part is a task of its own: of 10,000 cases in 20
repeats all of them take most of a minute. AUC(t) sets who has the event by a time against who is still without
(cumulative cases, dynamic controls).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Survival, several_cases
from prognosis_dask.modelling.metrics.brier import Censoring, fit_censoring, integrated, inverse, squared_errors
from prognosis_dask.modelling.metrics.calibration import (
    CALIBRATION,
    THRESHOLDS,
    Calibration,
    add_calibration,
    benefit_rows,
    calibration_groups,
    calibration_points,
    calibration_rows,
    extended_calibration,
    net_benefit_survival,
    rising_groups,
    survival_calibration,
)
from prognosis_dask.modelling.metrics.classes import auc_between
from prognosis_dask.modelling.metrics.competing import freedom, gray_test
from prognosis_dask.modelling.metrics.concordance import (
    bootstrap_concordance,
    bootstrap_concordances,
    competing_uno,
    uno_weight,
)
from prognosis_dask.modelling.metrics.cox_tests import clustered_log_rank
from prognosis_dask.modelling.metrics.intervals import interval
from prognosis_dask.modelling.metrics.kaplan_meier import LogRank, bootstrap_survival, kaplan_meier, log_rank
from prognosis_dask.modelling.metrics.measured import (
    CURVE_DRAWS,
    Measured,
    MeasuredCases,
    ProcedureResults,
    Sheet,
    bootstrap_mean,
    bootstrap_repeats,
    case_means,
    extended,
    figures_of_folds,
    held_survival,
    over_folds,
    pooled,
    repeats,
    survival_at,
)
from prognosis_dask.modelling.metrics.regression import bootstrap_cox
from prognosis_dask.modelling.table_spec import Row
from prognosis_dask.modelling.validation.nested import FoldResult


def auc_t(endpoint: Survival, risk: FloatArray, horizon: float, censoring: Censoring) -> float:
    """AUC at a horizon, with inverse probability of censoring weights.

    Cases had the event up to the horizon, controls were followed beyond it (Uno et al., J Am Stat Assoc 102, 2007;
    Hung & Chiang, Can J Stat 38, 2010). Who had a competing event is a control, for it never has the event (Blanche et
    al., Stat Med 32, 2013).

    Parameters
    ----------
    risk
        Shape (cases,).
    horizon
        In days.
    censoring
        That of the cohort: :func:`prognosis_dask.modelling.metrics.brier.fit_censoring`.

    Raises
    ------
    StatisticsError
        When there is no case or no control.
    """
    value = float(bootstrap_auc_t(endpoint, risk, horizon, censoring, np.ones((1, len(risk))))[0])
    if np.isnan(value):
        beyond, competing = endpoint.observed_days > horizon, endpoint.competing
        free = beyond if competing is None else beyond | competing
        cases, controls = int((endpoint.event & ~beyond).sum()), int(free.sum())
        raise StatisticsError(f"AUC at {horizon:g} days: {cases} cases and {controls} controls; both are needed")
    return value


def bootstrap_auc_t(
    endpoint: Survival, risk: FloatArray, horizon: float, censoring: Censoring, bootstrap_weights: FloatArray
) -> FloatArray:
    """:func:`auc_t` for many weightings of the cases, shape (draws, cases); NaN without a case or a control."""
    time, competing = endpoint.observed_days, endpoint.competing
    weight = inverse(censoring.seen(time), endpoint.event & (time <= horizon))
    cases, controls = np.flatnonzero(weight), np.flatnonzero(time > horizon)
    of_controls = bootstrap_weights[:, controls]
    if competing is not None:  # those followed beyond the horizon all have the same weight, here 1
        free = inverse(censoring.seen(time), competing & (time <= horizon)) * censoring.uncensored(np.array([horizon]))
        free[controls] = 1.0
        controls = np.flatnonzero(free)
        of_controls = bootstrap_weights[:, controls] * free[controls]
    return auc_between(risk[cases], bootstrap_weights[:, cases] * weight[cases], risk[controls], of_controls)


def mean_auc(endpoint: Survival, times_days: FloatArray, auc: FloatArray) -> FloatArray:
    """Mean of AUC(t), each time counting by the drop of the survival curve up to it from the time before.

    Where events compete, times count by the rise of the cumulative incidence.

    Parameters
    ----------
    times_days
        Ascending, shape (times,).
    auc
        At these times, shape (times,) or (times, draws); times without one (NaN, in the first draw) are left out.

    Raises
    ------
    StatisticsError
        When nobody has the event up to the last time.
    """
    held = np.flatnonzero(np.isfinite(auc.reshape(len(times_days), -1)[:, 0])) if len(times_days) else np.arange(0)
    if endpoint.competing is None:
        survival = kaplan_meier(endpoint).at(times_days[held])
    else:
        once = np.ones((1, len(endpoint)))
        survival = np.array([bootstrap_survival(endpoint, days, once)[0] for days in times_days[held]])
    drop = -np.diff(np.append(1.0, survival))
    if not drop.sum() > 0:
        raise StatisticsError("mean AUC: no event up to the last time that has an AUC")
    return np.asarray(np.tensordot(drop, auc[held], axes=1) / drop.sum())


SURVIVAL_TABLES = ("measures", "auc_t", "calibration", "net_benefit", "kaplan_meier")
_PAIR, _TAIL = "a comparable pair", 0.025
#: What stands in place of figures that late entry leaves without a meaning.
_ENTRY = (
    "cases enter late (entry): who died before entering was never seen, and the weights of this figure count only who "
    "was lost"
)
#: What is measured at each horizon.
_AT_HORIZON = ("auc_t", "brier", "brier_scaled", *CALIBRATION)


def survival_parts(cases: MeasuredCases, results: Sequence[FoldResult]) -> list[Callable[[], Measured]]:
    """What all tables of one procedure's held-out predictions are joined from, in this order.

    A part raises StatisticsError when the results hold no survival, or none at a horizon.
    """
    view = _View(cases, results)
    if view.endpoint.entry_days is not None:
        sound = (partial(_entered_calibration, view, days) for days in cases.horizons)
        return [partial(_entered_discrimination, view), *sound, partial(_groups, view)]
    parts = [partial(part, view) for part in (_discrimination, _auc_curve, _integrated_brier)]
    for horizon in cases.horizons:
        try:
            view.censoring.expect_within(horizon, "measures of predicted survival")
        except StatisticsError as error:
            parts.append(partial(_unknown, view, horizon, str(error)))
        else:
            curves = (_net_benefit,) if cases.draws else ()  # of halves nobody reads it
            parts += [partial(part, view, horizon) for part in (_brier, _calibration, *curves)]
    return [*parts, partial(_groups, view)]


@dataclass(frozen=True, eq=False)
class _View(ProcedureResults):
    """With what is particular to survival."""

    @property
    def endpoint(self) -> Survival:
        assert isinstance(self.cases.endpoint, Survival)
        return self.cases.endpoint

    @cached_property
    def censoring(self) -> Censoring:
        return fit_censoring(self.endpoint)

    @property
    def bootstrap_repeats(self) -> int:
        """How many of the repeats are measured in every draw."""
        return bootstrap_repeats(len(self.endpoint))

    def curve_draws(self, repeat: int) -> FloatArray:
        """The draws that a repeat's curves are measured in, with the cases as they are first."""
        return self.bootstrap_weights[: 1 + CURVE_DRAWS if repeat < self.bootstrap_repeats else 1]

    def fold(self, result: FoldResult) -> tuple[Survival, FloatArray]:
        """Endpoint and risk scores of a held-out fold."""
        held_survival(result)
        assert result.risk_score is not None
        return self.endpoint.rows(result.test), result.risk_score

    def repeats(self, horizon: float) -> Iterator[tuple[Survival, FloatArray, FloatArray]]:
        """Of each repeat: endpoint, predicted risk up to a horizon, and the draws that its curves are measured in."""
        for folds in repeats(self.results):
            rows, risk = pooled(folds, lambda result: 1 - survival_at(result, horizon))
            yield self.endpoint.rows(rows), risk, self.curve_draws(folds[0].repeat)[:, rows]


def _discrimination(view: _View) -> Measured:
    sheet, tau = Sheet(view.name), max(view.cases.horizons, default=np.inf)
    seen, before_tau = view.censoring.seen(view.endpoint.observed_days), view.endpoint.observed_days < tau
    weight = uno_weight(view.endpoint.event, seen, before_tau)
    harrell, uno = [], []
    for result in view.results:
        rows, (endpoint, risk) = result.test, view.fold(result)
        drawn = view.bootstrap_weights[:, rows]
        if endpoint.competing is None:
            both = bootstrap_concordances(endpoint, risk, drawn, (None, weight[rows]))
        else:
            both = [
                bootstrap_concordance(endpoint, risk, drawn),
                competing_uno(endpoint, risk, seen[rows], before_tau[rows], drawn),
            ]
        harrell.append(both[0])
        uno.append(both[1])
    values = {"harrell_c": np.array(harrell), "uno_c": np.array(uno)}
    sheet.add("harrell_c", None, *over_folds(values["harrell_c"], _PAIR))
    sheet.add("uno_c", tau if np.isfinite(tau) else None, *over_folds(values["uno_c"], _PAIR))
    by_fold = figures_of_folds(view.results, c_index=values["harrell_c"], uno_c=values["uno_c"])
    return Measured({"measures": sheet.rows}, by_fold, values)


def _entered_discrimination(view: _View) -> Measured:
    """Harrell's C over the pairs of which both were at risk, as R's survival has it; no other figure holds then."""
    sheet = Sheet(view.name)
    found = [
        bootstrap_concordance(*view.fold(result), view.bootstrap_weights[:, result.test]) for result in view.results
    ]
    harrell = np.array(found)
    sheet.add("harrell_c", None, *over_folds(harrell, _PAIR))
    sheet.add_unknown(("uno_c", "mean_auc", "ibs"), None, _ENTRY)
    by_fold = figures_of_folds(view.results, c_index=harrell, uno_c=np.full_like(harrell, np.nan))
    return Measured({"measures": sheet.rows}, by_fold, {"harrell_c": harrell})


def _entered_calibration(view: _View, horizon: float) -> Measured:
    """Slope and smooth curve of Cox models of the prediction with entry, and what lies between curve and prediction."""
    sheet, followed = Sheet(view.name), view.endpoint.observed_days.max()
    if not horizon < followed:
        return _unknown(view, horizon, f"follow-up ends at {followed:g} days; choose an earlier horizon")
    part = _calibration(view, horizon)
    sheet.add_unknown(("auc_t", "brier", "brier_scaled"), horizon, _ENTRY)
    for row in part.tables["measures"]:
        if row["measure"] == "observed_expected":
            sheet.add_unknown(
                ("observed_expected",), horizon, "cases enter late (entry): they are not who was there at 0"
            )
        else:
            sheet.rows.append(row)
    smooth = [row for row in part.tables["calibration"] if row["kind"] == "smooth"]
    return Measured({"measures": sheet.rows, "calibration": smooth})


def _auc_curve(view: _View) -> Measured:
    """Rows of AUC(t); the horizons' and the mean go to the measures."""
    sheet, horizons = Sheet(view.name), view.cases.horizons
    rows: list[Row] = []
    curve = []
    grid = np.array(sorted({*view.results[0].horizons_days, *horizons}))
    grid = grid[grid < view.censoring.last_days]
    of_folds: list[list[FloatArray]] = [[] for _ in grid]
    for result in view.results:
        bootstrap_weights = view.bootstrap_weights[
            : len(view.bootstrap_weights) if result.repeat < view.bootstrap_repeats else 1, result.test
        ]
        for days, found in zip(grid.tolist(), of_folds, strict=True):
            weight = bootstrap_weights if days in horizons else bootstrap_weights[: 1 + CURVE_DRAWS]
            found.append(bootstrap_auc_t(*view.fold(result), days, view.censoring, weight))
    for days, found in zip(grid.tolist(), of_folds, strict=True):
        values, note = over_folds(
            np.array(extended(found)), "both an event up to the horizon and a case followed beyond it"
        )
        curve.append(values[: 1 + CURVE_DRAWS])
        lower, upper = interval(values[1:])
        rows.append(
            {"procedure": view.name, "time_days": days, "auc": float(values[0]), "lower": lower, "upper": upper}
        )
        if days in horizons:
            sheet.add("auc_t", days, values, note)
    try:
        sheet.add("mean_auc", None, mean_auc(view.endpoint, grid, np.array(curve)))
    except StatisticsError as error:
        sheet.add_unknown(("mean_auc",), None, error)
    return Measured({"measures": sheet.rows, "auc_t": rows})


def _integrated_brier(view: _View) -> Measured:
    """The integrated Brier score, also in each fold."""
    sheet = Sheet(view.name)
    days = np.array(view.results[0].horizons_days)
    columns = np.flatnonzero((days > 0) & (days < view.censoring.last_days))
    columns = columns[np.argsort(days[columns])]

    def errors(result: FoldResult) -> FloatArray:
        """Each case's squared error, integrated over time; shape (cases, 1)."""
        endpoint, survival = view.endpoint.rows(result.test), held_survival(result)
        at = [squared_errors(endpoint, survival[:, k], days[k], view.censoring) for k in columns.tolist()]
        return integrated(days[columns], np.array(at))[:, None]

    try:
        score = bootstrap_mean(case_means(view.results, len(view.endpoint), errors), view.bootstrap_weights)[:, 0]
        sheet.add("ibs", None, score)
        of_folds = [
            bootstrap_mean(errors(result), view.bootstrap_weights[:, result.test])[:, 0] for result in view.results
        ]
    except StatisticsError as error:
        sheet.add_unknown(("ibs",), None, error)
        of_folds = [np.full(len(view.bootstrap_weights), np.nan)] * len(view.results)
    return Measured({"measures": sheet.rows}, fold_values={"ibs": np.array(of_folds)})


def _unknown(view: _View, horizon: float, reason: str) -> Measured:
    sheet = Sheet(view.name)
    sheet.add_unknown(_AT_HORIZON, horizon, reason)
    return Measured({"measures": sheet.rows})


def _brier(view: _View, horizon: float) -> Measured:
    sheet = Sheet(view.name)

    def errors(result: FoldResult) -> FloatArray:
        endpoint, survival = view.endpoint.rows(result.test), survival_at(result, horizon)
        return squared_errors(endpoint, survival, horizon, view.censoring)[:, None]

    score = bootstrap_mean(case_means(view.results, len(view.endpoint), errors), view.bootstrap_weights)[:, 0]
    sheet.add("brier", horizon, score)
    # the error of a prediction s, the same for all, is s² times the one of 1 plus (1 - s)² times the one of 0
    everyone = view.bootstrap_weights.sum(axis=1)
    ones, zeros = (
        view.bootstrap_weights
        @ squared_errors(view.endpoint, np.full(len(view.endpoint), s), horizon, view.censoring)
        / everyone
        for s in (1.0, 0.0)
    )
    survived = bootstrap_survival(view.endpoint, horizon, view.bootstrap_weights)
    reference = survived**2 * ones + (1 - survived) ** 2 * zeros
    gain = 1 - np.divide(score, reference, out=np.full(len(score), np.nan), where=reference > 0)
    perfect = "" if np.isfinite(gain[0]) else "Kaplan-Meier's prediction has no error"
    sheet.add("brier_scaled", horizon, np.asarray(gain), perfect)
    return Measured({"measures": sheet.rows})


def _calibration(view: _View, horizon: float) -> Measured:
    """Rows of the calibration plot, by groups of rising prediction and as a smooth curve; its figures are measures."""
    sheet = Sheet(view.name)
    everyone = np.concatenate([1 - survival_at(result, horizon) for result in view.results])
    points = calibration_points(everyone)
    found: list[Calibration] = []
    groups: list[tuple[FloatArray, FloatArray]] = []
    for endpoint, risk, weight in view.repeats(horizon):
        found.append(survival_calibration(endpoint, risk, horizon, weight, points, view.censoring))
        members = rising_groups(risk, calibration_groups(len(risk)))
        observed = [1 - bootstrap_survival(endpoint.rows(at), horizon, weight[:, at]) for at in members]
        groups.append((np.array([risk[at].mean() for at in members]), np.array(observed)))
    found = extended_calibration(found)
    observed_drawn = extended([seen.T for _, seen in groups])
    groups = [(predicted, seen.T) for (predicted, _), seen in zip(groups, observed_drawn, strict=True)]
    add_calibration(sheet, horizon, found)
    rows_of_plot = calibration_rows({"procedure": view.name, "horizon_days": horizon}, points, found, groups)
    return Measured({"measures": sheet.rows, "calibration": rows_of_plot})


def _net_benefit(view: _View, horizon: float) -> Measured:
    model, everybody = [], []
    for endpoint, risk, weight in view.repeats(horizon):
        model.append(net_benefit_survival(endpoint, risk, horizon, THRESHOLDS, weight))
        everybody.append(net_benefit_survival(endpoint, np.ones(len(risk)), horizon, THRESHOLDS, weight[:1]))
    key: Row = {"procedure": view.name, "horizon_days": horizon}
    curve = benefit_rows(key, np.mean(extended(model), axis=0), np.mean(everybody, axis=0))
    return Measured({"net_benefit": curve})


def _groups(view: _View) -> Measured:
    """Curves of the risk groups (:func:`freedom`); their log-rank test and hazard ratio are measures."""
    sheet = Sheet(view.name)

    def is_high(result: FoldResult) -> FloatArray:
        return (view.fold(result)[1] > result.cutoff).astype(np.float64)[:, None]

    share = case_means(view.results, len(view.endpoint), is_high)[:, 0]
    held = np.isfinite(share)
    endpoint, high = view.endpoint.rows(held), share[held] > 0.5
    patients = np.array(view.cases.patient_ids)[held]
    try:
        test, note = _group_test(endpoint, high, patients, view.censoring)
        sheet.add("log_rank_p", None, np.array([test.p]), note)
        bootstrap_weights = view.bootstrap_weights[: 1 + CURVE_DRAWS, held]
        ratio = np.exp(bootstrap_cox(high[:, None].astype(np.float64), endpoint, bootstrap_weights, view.censoring))
        infinite = bool(np.isfinite(ratio[0, 0])) and np.isnan(ratio).mean() > _TAIL
        note = "no interval: in over 2.5 % of the draws of the patients it is not finite" if infinite else ""
        sheet.add("hazard_ratio_high_low", None, ratio[: 1 if infinite else None, 0], note)
    except StatisticsError as error:
        sheet.add_unknown(("log_rank_p", "hazard_ratio_high_low"), None, error)
    rows: list[Row] = []
    for group, members in (("low", ~high), ("high", high)):
        if not members.any():
            continue
        cases = endpoint.rows(members)
        curve = freedom(cases, patients[members])
        columns = [curve.time_days, curve.survival, curve.lower, curve.upper, curve.at_risk]
        names = ["time_days", "survival", "lower", "upper", "at_risk"]
        counts = {"events": cases.event, "competing": cases.competing}
        if curve.entered is not None:
            columns, names = [*columns, curve.entered], [*names, "entered"]
        elif endpoint.competing is None:
            counts = {}  # they are the steps of Kaplan-Meier's curve
        for name, which in counts.items():
            if which is not None:
                seen = np.searchsorted(curve.time_days, cases.observed_days[which])
                columns, names = [*columns, np.bincount(seen, minlength=len(curve.time_days))], [*names, name]
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.append({"procedure": view.name, "group": group, **dict(zip(names, values, strict=True))})
    return Measured({"measures": sheet.rows, "kaplan_meier": rows})


def _group_test(
    endpoint: Survival, high: BoolArray, patients: Sequence[str], censoring: Censoring
) -> tuple[LogRank, str]:
    """The test of two groups' curves, and what is to be said of it."""
    note = "taken as if the groups had been fixed beforehand"
    if endpoint.competing is not None:
        note = f"Gray's test; {note}"
    if several_cases(patients):
        over = "; variance over patients, who have several cases"
        return clustered_log_rank(endpoint, high, patients, censoring), note.replace("Gray's", "score") + over
    if endpoint.competing is not None:
        return gray_test(endpoint, high), note
    return log_rank(endpoint, high.astype(np.int64)), note
