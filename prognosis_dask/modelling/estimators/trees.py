"""Ensembles of trees: a random survival forest, and gradient boosting (xgboost) for survival and for classes.

The forest is scikit-learn's trees, grown on log-rank scores, with Nelson-Aalen's estimate in the leaves. Ishwaran,
Kogalur, Blackstone & Lauer, Annals of Applied Statistics 2, 841 (2008), split every node by the log-rank test of its
own cases. Here the scores of that test (Hothorn & Lausen, Computational Statistics & Data Analysis 43, 121, 2003) are
taken once, among all training cases, and a split is the one that tells their means apart best.
``python -m benchmarks.learners`` has both on the same folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.estimators.prediction import (
    Baseline,
    Prediction,
    balanced_weights,
    breslow,
    class_prediction,
    martingale_residuals,
    prevalence,
)
from prognosis_dask.modelling.estimators.scores import row_sums

TREES = 200
#: Fewest cases in a leaf.
LEAF = 5
#: Fewest events that a case is expected to have, so that its logarithm is a number.
_FEWEST = 1e-3


@dataclass(frozen=True, eq=False)
class SurvivalForest:
    """Trees as arrays: the nodes of all trees, one after another.

    Attributes
    ----------
    roots
        The first node of each tree.
    feature
        What a node splits by; -1 in leaves.
    threshold
        Cases up to it go to ``left``, the others to ``right``.
    left, right
        Nodes; of leaves themselves.
    first
        Where the steps of each node begin, shape (nodes + 1,); only leaves have any.
    when, step
        The leaves' cumulative hazards: positions in ``times_days``, and by how much they rise there.
    times_days
        The training cases' distinct times of events, ascending.
    """

    roots: IntArray
    feature: IntArray
    threshold: FloatArray
    left: IntArray
    right: IntArray
    first: IntArray
    when: IntArray
    step: FloatArray
    times_days: FloatArray

    def predict(self, Z: FloatArray) -> Prediction:
        """Risk score and survival of cases, from prepared features of shape (cases, features).

        Survival is by the trees' mean cumulative hazard. The risk score is the logarithm of the ensemble mortality: of
        the events that would be expected if all training cases were like this one (Ishwaran et al., section 3.2).
        """
        leaves = self.leaves(Z)
        owner = np.repeat(np.arange(len(self.feature)), np.diff(self.first))
        counted = (len(self.times_days) - self.when) * self.step  # a step counts at its own time and at all later ones
        mortality = np.bincount(owner, counted, minlength=len(self.feature)).astype(np.float64)
        risk = np.log(np.maximum(row_sums(mortality[leaves]) / len(self.roots), _FEWEST))

        def survival(times_days: FloatArray) -> FloatArray:
            known = np.searchsorted(self.times_days, times_days, side="right")
            return np.asarray(np.exp(-self._hazard(leaves, owner, known)))

        return Prediction(risk, survival)

    def _hazard(self, leaves: IntArray, owner: IntArray, known: IntArray) -> FloatArray:
        """The trees' mean cumulative hazard after so many of the event times, shape (cases, len(known))."""
        total = np.zeros((len(leaves), len(known)))
        ends = np.append(self.roots[1:], len(self.feature))
        for tree, (root, end) in enumerate(zip(self.roots, ends, strict=True)):
            steps = slice(self.first[root], self.first[end])
            so_far = np.concatenate([[0.0], np.cumsum(self.step[steps])])
            # the steps of a leaf are in the order of time, so those that are known are its first ones
            place = (owner[steps] - root) * (len(self.times_days) + 1) + self.when[steps]
            wanted = (leaves[:, tree] - root)[:, None] * (len(self.times_days) + 1) + known
            begin = (self.first[leaves[:, tree]] - self.first[root])[:, None]
            total += so_far[np.searchsorted(place, wanted)] - so_far[begin]
        return np.asarray(np.maximum(total / len(self.roots), 0.0))

    def leaves(self, Z: FloatArray) -> IntArray:
        """The leaf of each case in each tree, shape (cases, trees)."""
        values = Z.astype(np.float32)  # as the thresholds were found
        at = np.broadcast_to(self.roots, (len(Z), len(self.roots)))
        rows = np.arange(len(Z))[:, None]
        while (split := self.feature[at] >= 0).any():
            goes_left = values[rows, np.maximum(self.feature[at], 0)] <= self.threshold[at]
            at = np.where(split, np.where(goes_left, self.left[at], self.right[at]), at)
        return np.asarray(at)


def fit_survival_forest(
    Z: FloatArray,
    endpoint: Endpoint,
    penalties: Sequence[float],
    l1_ratio: float,
    seed: list[int],
    shapes: Sequence[tuple[int, int]] = ((8, 0),),
) -> list[SurvivalForest]:
    """Fit one forest per shape: the same trees, cut at its depth. There is nothing to penalise.

    Each tree sees a bootstrap sample of the cases and, at each node, the square root of the number of features; its
    leaves have :data:`LEAF` cases at least.

    Raises
    ------
    StatisticsError
        When there is no event, or no feature.
    """
    from sklearn.tree import DecisionTreeRegressor

    assert isinstance(endpoint, Survival)
    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    if not Z.shape[1]:
        raise StatisticsError("learner 'survival-forest' needs at least one feature")
    rng = np.random.default_rng(seed)
    # the sum of a group is the log-rank statistic
    values, score = Z.astype(np.float32), martingale_residuals(endpoint)
    most = int(np.ceil(np.sqrt(Z.shape[1])))
    grown = []
    for _ in range(TREES):
        times_drawn = np.bincount(rng.integers(len(Z), size=len(Z)), minlength=len(Z)).astype(float)
        tree = DecisionTreeRegressor(
            min_samples_leaf=LEAF, max_features=most, random_state=int(rng.integers(2**31))
        ).fit(values, score, sample_weight=times_drawn)
        grown.append((tree.tree_, times_drawn))
    return [_forest([(_cut(tree, depth), drawn) for tree, drawn in grown], Z, endpoint) for depth, _ in shapes]


_Nodes = tuple[IntArray, FloatArray, IntArray, IntArray]


def _cut(tree: Any, depth: int) -> _Nodes:
    """Feature, threshold, left and right of the nodes down to a depth, level by level."""
    levels = [np.zeros(1, dtype=np.int64)]
    for _ in range(depth):
        inner = levels[-1][tree.children_left[levels[-1]] >= 0]
        if not len(inner):
            break
        levels.append(np.column_stack([tree.children_left[inner], tree.children_right[inner]]).ravel())
    kept = np.concatenate(levels)
    number = np.full(tree.node_count, -1)
    number[kept] = np.arange(len(kept))
    left, right = number[tree.children_left[kept]], number[tree.children_right[kept]]
    leaf = (tree.children_left[kept] < 0) | (left < 0)
    own = np.arange(len(kept))
    return (
        np.where(leaf, -1, tree.feature[kept]),
        np.where(leaf, 0.0, tree.threshold[kept]),
        np.where(leaf, own, left),
        np.where(leaf, own, right),
    )


def _forest(trees: Sequence[tuple[_Nodes, FloatArray]], Z: FloatArray, endpoint: Survival) -> SurvivalForest:
    """The trees with the cumulative hazards of their leaves."""
    sizes = [len(nodes[0]) for nodes, _ in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    feature, threshold, left, right = (
        np.concatenate([nodes[part] for nodes, _ in trees]) for part in range(len(trees[0][0]))
    )
    shift = np.repeat(roots, sizes)
    times = np.unique(endpoint.time_days[endpoint.event])
    bare = SurvivalForest(
        roots,
        feature.astype(np.int64),
        threshold,
        left + shift,
        right + shift,
        np.zeros(len(feature) + 1, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.zeros(0),
        times,
    )
    leaves = bare.leaves(Z)
    found = [_steps(leaves[:, tree], drawn, endpoint, times) for tree, (_, drawn) in enumerate(trees)]
    node, when, step = (np.concatenate(parts) for parts in zip(*found, strict=True))
    first = np.searchsorted(node, np.arange(len(feature) + 1))
    return replace(bare, first=first, when=when, step=step)


def _steps(
    leaf: IntArray, drawn: FloatArray, endpoint: Survival, times: FloatArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """Nelson and Aalen's estimate in each leaf of a tree: node, position in ``times`` and rise, in this order."""
    passed = np.searchsorted(times, endpoint.time_days, side="right")  # event times up to the case's own
    order = np.lexsort([passed, leaf])
    leaf, passed, drawn, event = leaf[order], passed[order], drawn[order], endpoint.event[order]
    behind = np.append(0.0, np.cumsum(drawn))
    starts = np.flatnonzero(np.append(True, (np.diff(leaf) != 0) | (np.diff(passed) != 0)))
    at_risk = behind[np.searchsorted(leaf, leaf[starts], side="right")] - behind[starts]
    events = np.add.reduceat(drawn * event, starts)
    held = events > 0
    return leaf[starts][held], passed[starts][held] - 1, events[held] / at_risk[held]


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
