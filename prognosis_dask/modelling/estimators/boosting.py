"""Gradient-boosted trees (xgboost): the non-linear learner, for survival and for classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.estimators.baseline import Baseline, breslow
from prognosis_dask.modelling.estimators.prediction import (
    Prediction,
    balanced_weights,
    class_prediction,
    prevalence,
)

#: Many small steps; rows and, for each node, columns drawn: what small cohorts bear. The rest is tuned.
SETTINGS = {"learning_rate": 0.05, "subsample": 0.8, "colsample_bynode": 0.5, "min_child_weight": 1.0}


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """An ensemble of trees.

    Attributes
    ----------
    trees
        xgboost's own JSON.
    baseline
        Survival: Breslow's, of a case with risk score zero. Classes: None.
    share
        Classes: their prevalence among the training cases. Survival: None.
    """

    trees: str
    baseline: Baseline | None
    share: FloatArray | None

    def predict(self, Z: FloatArray) -> Prediction:
        """Predict cases from prepared features, shape (cases, features)."""
        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(self.trees.encode()))
        score = _margin(booster, Z)
        if self.baseline is not None:
            return Prediction(score, partial(self.baseline.survival, score))
        assert self.share is not None
        if len(self.share) == 2:
            score = np.column_stack([-_log1p_exp(score), -_log1p_exp(-score)])
        return class_prediction(score, self.share)


def fit_boosted_trees(
    Z: FloatArray,
    endpoint: Endpoint,
    penalties: Sequence[float],
    l1_ratio: float,
    seed: list[int],
    shapes: Sequence[tuple[int, int]] = ((2, 100),),
) -> list[BoostedTrees]:
    """Fit for each penalty an ensemble of each shape, depth and rounds; one thread, seeded.

    A leaf's value is penalised by ``penalty * ((1 - l1_ratio) / 2 * value² + l1_ratio * |value|)``. Survival: Cox's
    partial likelihood is boosted; classes: the log loss, all classes weighing the same.

    Raises
    ------
    StatisticsError
        When there is no event, or a class without cases.
    """
    import xgboost

    if not Z.shape[1]:
        raise StatisticsError("learner 'xgboost' needs at least one feature")
    data, settings = _survival(Z, endpoint) if isinstance(endpoint, Survival) else _classes(Z, endpoint)
    settings |= {**SETTINGS, "nthread": 1, "verbosity": 0, "seed": int(np.random.default_rng(seed).integers(2**31))}
    most = {depth: max(rounds for other, rounds in shapes if other == depth) for depth, _ in shapes}
    models = []
    for penalty in penalties:
        priced = {"reg_lambda": penalty * (1 - l1_ratio), "reg_alpha": penalty * l1_ratio}
        grown = {
            depth: xgboost.train({**settings, **priced, "max_depth": depth}, data, rounds)
            for depth, rounds in most.items()
        }
        models += [_model(grown[depth][:rounds], Z, endpoint) for depth, rounds in shapes]
    return models


def _model(booster: Any, Z: FloatArray, endpoint: Endpoint) -> BoostedTrees:
    trees = bytes(booster.save_raw(raw_format="json")).decode()
    if isinstance(endpoint, Survival):
        return BoostedTrees(trees, breslow(endpoint, _margin(booster, Z)), None)
    return BoostedTrees(trees, None, prevalence(endpoint))


def _survival(Z: FloatArray, endpoint: Survival) -> tuple[Any, dict[str, Any]]:
    import xgboost

    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    # xgboost's way to say that a time is one of censoring
    signed = np.where(endpoint.event, endpoint.time_days, -endpoint.time_days)
    return xgboost.DMatrix(Z, signed, nthread=1), {"objective": "survival:cox", "base_score": 1.0}


def _classes(Z: FloatArray, endpoint: Classes) -> tuple[Any, dict[str, Any]]:
    import xgboost

    data = xgboost.DMatrix(Z, endpoint.label, weight=balanced_weights(endpoint), nthread=1)
    if len(endpoint.names) > 2:
        return data, {"objective": "multi:softprob", "num_class": len(endpoint.names)}
    return data, {"objective": "binary:logistic", "base_score": 0.5}


def _margin(booster: Any, Z: FloatArray) -> FloatArray:
    import xgboost

    return np.asarray(booster.predict(xgboost.DMatrix(Z, nthread=1), output_margin=True), dtype=np.float64)


def _log1p_exp(x: FloatArray) -> FloatArray:
    return np.asarray(np.logaddexp(0.0, x))
