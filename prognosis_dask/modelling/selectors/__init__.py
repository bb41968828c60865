"""Which features carry the endpoint: the selectors that a procedure can name.

A selector takes prepared training features (complete, standardised) and gives their positions, best first; it may
leave features out. How many of them enter the model is tuned by the procedure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.endpoint import Classes, Endpoint, Survival
from prognosis_dask.modelling.selectors.rankings import (
    rank_anova,
    rank_elastic_net,
    rank_lasso,
    rank_mrmr,
    rank_mutual_information,
    rank_score_test,
    rank_stability,
)
from prognosis_dask.modelling.selectors.svm_rfe import rank_svm_rfe, rank_svm_rfe_rbf


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
