"""Which features carry the endpoint: the selectors that a procedure can name.

A selector takes prepared training features (complete, standardised) and gives their positions, best first; it may
leave features out. How many of them enter the model is tuned by the procedure.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.estimators.partial_likelihood import first_price, likelihood_of, maximise_elastic_net
from prognosis_dask.modelling.estimators.prediction import balanced_weights, martingale_residuals
from prognosis_dask.modelling.selectors.svm_rfe import rank_svm_rfe, rank_svm_rfe_rbf

#: A redundancy below this is chance.
_LEAST_REDUNDANCY = 1e-3
#: Expected share of false discoveries among the features that Cox's score test keeps.
FALSE_DISCOVERY_RATE = 0.05


def rank_mutual_information(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by Ross's nearest-neighbour estimate (PLoS ONE 9, e87357, 2014), of scikit-learn."""
    from sklearn.feature_selection import mutual_info_classif

    assert isinstance(endpoint, Classes)
    start = int(np.random.default_rng(seed).integers(2**31))
    return np.argsort(-mutual_info_classif(Z, endpoint.label, random_state=start, n_jobs=1), kind="stable")


def rank_mrmr(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank greedily by relevance over mean redundancy with those taken before (Ding & Peng, JBCB 3, 185, 2005).

    Redundancy is the absolute correlation. Relevance is the absolute correlation with the null model's martingale
    residuals (survival), or the square root of the variance's share that the classes explain.
    """
    relevance = _relevance(Z, endpoint)
    cases = len(Z)
    unit = (Z - Z.mean(axis=0)) / np.sqrt(cases * Z.var(axis=0))
    left = np.ones(Z.shape[1], dtype=bool)
    redundancy = np.zeros(Z.shape[1])
    ranking: list[int] = []
    for taken in range(Z.shape[1]):
        score = relevance / np.maximum(redundancy / taken, _LEAST_REDUNDANCY) if taken else relevance
        best = int(np.where(left, score, -np.inf).argmax())
        ranking.append(best)
        left[best] = False
        redundancy += np.abs(unit.T @ unit[:, best])
    return np.array(ranking, dtype=np.int64)


def _relevance(Z: FloatArray, endpoint: Endpoint) -> FloatArray:
    spread = Z.std(axis=0)
    if isinstance(endpoint, Survival):
        residual = martingale_residuals(endpoint)
        if not residual.std():
            return np.zeros(Z.shape[1])
        return np.asarray(np.abs(((Z - Z.mean(axis=0)).T @ residual) / (len(Z) * spread * residual.std())))
    assert isinstance(endpoint, Classes)
    indicator = (endpoint.label[:, None] == np.arange(len(endpoint.names))).astype(float)
    size = np.maximum(indicator.sum(axis=0), 1.0)
    means = indicator.T @ Z / size[:, None]
    return np.asarray(np.sqrt(size @ (means - Z.mean(axis=0)) ** 2 / len(Z)) / spread)


def rank_score_test(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by the p-value of Cox's score test; keep those with a false discovery rate of at most 5 %.

    Where none passes, the best alone is kept: the held-out figures tell what it is worth.
    """
    assert isinstance(endpoint, Survival)
    p = score_test(Z, endpoint)
    kept = max(1, int((false_discovery(p) <= FALSE_DISCOVERY_RATE).sum()))
    return np.argsort(p, kind="stable")[:kept]


def score_test(Z: FloatArray, endpoint: Survival) -> FloatArray:
    """P-value per column of the univariate Cox model's score test (Efron's ties); shape (features,).

    Without ties and for two groups this is the log-rank test.

    Raises
    ------
    StatisticsError
        When there is no event.
    """
    from scipy.stats import chi2

    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    gradient, information = likelihood_of(Z, endpoint).score(np.arange(Z.shape[1]))
    statistic = np.divide(gradient**2, information, out=np.zeros(Z.shape[1]), where=information > 0)
    return np.asarray(chi2.sf(statistic, 1))


def false_discovery(p: FloatArray) -> FloatArray:
    """Benjamini & Hochberg's adjusted p-values (Journal of the Royal Statistical Society B 57, 289, 1995).

    >>> false_discovery(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    raised = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted[order] = np.minimum.accumulate(raised[::-1])[::-1]
    return adjusted


def rank_anova(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by the F statistic of the one-way analysis of variance over the classes."""
    from sklearn.feature_selection import f_classif

    assert isinstance(endpoint, Classes)
    return np.argsort(-f_classif(Z, endpoint.label)[0], kind="stable")


#: The share of the penalty that is absolute, and how far and in how many steps the penalty falls from where the first
#: feature enters. Well-nigh a lasso; the squared rest lets correlated features enter together.
L1_RATIO, FALL, STEPS = 0.9, 0.05, 25
#: Pairs of halves, the share of halves that has to take a feature, and the false selections that are expected at most.
PAIRS, THRESHOLD, FALSE_SELECTIONS = 25, 0.6, 1.0
#: The order of entry needs no more (violation of optimality, per case).
_TOLERANCE = 1e-5


def rank_elastic_net(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by entry into the path of Cox's elastic net; those that never enter are left out."""
    assert isinstance(endpoint, Survival)
    return cox_entries(Z, endpoint, Z.shape[1])


def cox_entries(Z: FloatArray, endpoint: Survival, enough: int) -> IntArray:
    """The features in the order in which they enter the path, until at least ``enough`` have; of one step, by size."""
    if not endpoint.event.any():
        raise StatisticsError(f"all {len(endpoint)} training cases are censored: without events nothing can be learnt")
    likelihood = likelihood_of(Z, endpoint)
    first = first_price(likelihood)
    coefficient = np.zeros(Z.shape[1])
    entered: list[int] = []
    for price in first * np.geomspace(1.0, FALL, STEPS)[1:]:
        likelihood.penalty = price * (1 - L1_RATIO) / L1_RATIO * len(Z)
        coefficient = maximise_elastic_net(likelihood, price, coefficient, _TOLERANCE)
        _enter(entered, np.abs(coefficient))
        if len(entered) >= enough:
            break
    return np.array(entered, dtype=np.int64)


def rank_lasso(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by entry into the path of the logistic lasso, all classes weighing the same; the rest is left out."""
    assert isinstance(endpoint, Classes)
    return logistic_entries(Z, endpoint, Z.shape[1])


def logistic_entries(Z: FloatArray, endpoint: Classes, enough: int) -> IntArray:
    """As :func:`cox_entries`, of logistic regression (multinomial for more than two classes)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weights = balanced_weights(endpoint)
    indicator = endpoint.label[:, None] == np.arange(len(endpoint.names))
    share = weights @ indicator / len(Z)
    first = float(np.abs(Z.T @ (weights[:, None] * (indicator - share))).max()) / len(Z)
    if first == 0:
        raise StatisticsError(f"none of {Z.shape[1]} features differs between the classes {endpoint.names}")
    machine = LogisticRegression(
        penalty="elasticnet", l1_ratio=1.0, solver="saga", tol=1e-3, max_iter=1000, warm_start=True, random_state=0
    )
    entered: list[int] = []
    for price in first * np.geomspace(1.0, FALL, STEPS)[1:]:
        machine.C = 1.0 / (len(Z) * price)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "penalty" is named otherwise from scikit-learn 1.8 on
            warnings.simplefilter("ignore", ConvergenceWarning)  # the order of entry needs no more
            machine.fit(Z, endpoint.label, sample_weight=weights)
        _enter(entered, np.abs(machine.coef_).max(axis=0))
        if len(entered) >= enough:
            break
    return np.array(entered, dtype=np.int64)


def _enter(entered: list[int], size: FloatArray) -> None:
    new = np.setdiff1d(np.flatnonzero(size), entered)
    entered.extend(new[np.argsort(-size[new], kind="stable")].tolist())


def rank_stability(Z: FloatArray, endpoint: Endpoint, label_days: float, seed: list[int]) -> IntArray:
    """Rank by the share of halves that take the feature; keep those above the threshold.

    Complementary pairs (Shah & Samworth, JRSS B 75, 55, 2013). From each half a lasso takes so many features that at
    most one false selection is expected at the threshold (Meinshausen & Bühlmann, JRSS B 72, 417, 2010, theorem 1).
    Where none is stable, the most frequent alone is kept.
    """
    share = selection_share(Z, endpoint, seed)
    kept = max(1, int((share >= THRESHOLD).sum()))
    return np.argsort(-share, kind="stable")[:kept]


def selection_share(Z: FloatArray, endpoint: Endpoint, seed: list[int]) -> FloatArray:
    """The share of halves that take each feature, shape (features,)."""
    take = max(1, round(np.sqrt((2 * THRESHOLD - 1) * Z.shape[1] * FALSE_SELECTIONS)))
    rng = np.random.default_rng(seed)
    count = np.zeros(Z.shape[1])
    for _ in range(PAIRS):
        for half in _halves(endpoint, rng):
            part = endpoint.rows(half)
            if isinstance(part, Survival):
                chosen = cox_entries(Z[half], part, take)
            else:
                chosen = logistic_entries(Z[half], part, take)
            count[chosen[:take]] += 1
    return count / (2 * PAIRS)


def _halves(endpoint: Endpoint, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Two halves, each with its share of every stratum of the endpoint."""
    shuffled = rng.permutation(len(endpoint))
    dealt = shuffled[np.argsort(endpoint.strata()[shuffled], kind="stable")]
    return np.sort(dealt[::2]), np.sort(dealt[1::2])


@dataclass(frozen=True)
class Selector:
    """How features are ranked.

    Attributes
    ----------
    rank
        Called with ``(Z, endpoint, label_days, seed)``; positions of columns, best first.
    endpoints
        The kinds of endpoint that it takes.
    """

    rank: Callable[[FloatArray, Endpoint, float, list[int]], IntArray]
    endpoints: tuple[type, ...]


SELECTORS: Mapping[str, Selector] = MappingProxyType(
    {
        "svm-rfe": Selector(rank_svm_rfe, (Survival, Classes)),
        "svm-rfe-rbf": Selector(rank_svm_rfe_rbf, (Survival, Classes)),
        "cox-univariate": Selector(rank_score_test, (Survival,)),
        "cox-elastic-net": Selector(rank_elastic_net, (Survival,)),
        "anova": Selector(rank_anova, (Classes,)),
        "mutual-information": Selector(rank_mutual_information, (Classes,)),
        "logistic-l1": Selector(rank_lasso, (Classes,)),
        "mrmr": Selector(rank_mrmr, (Survival, Classes)),
        "stability": Selector(rank_stability, (Survival, Classes)),
    }
)
#: Those that of survival see "alive after label_days".
NEED_LABEL = ("svm-rfe", "svm-rfe-rbf")


def selector_for(name: str, endpoint: Endpoint) -> Selector:
    """The selector of that name.

    Raises
    ------
    StatisticsError
        When there is none, or it does not take such endpoints.
    """
    fitting = [known for known, selector in SELECTORS.items() if isinstance(endpoint, selector.endpoints)]
    if name not in fitting:
        kind = "survival" if isinstance(endpoint, Survival) else "classes"
        raise StatisticsError(f"selector {name!r} does not select for {kind}; those that do: {', '.join(fitting)}")
    return SELECTORS[name]
