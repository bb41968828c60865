"""Which procedures are compared where a class is learnt from images: each family of features alone, then all of them.

The brain study gave the network's features to an artificial neural network, and its conclusion asked for balanced
training and a selection of features. So the learner is a perceptron whose classes weigh the same, images' features are
selected, and how many, and how strongly the perceptron is penalised, is tuned within each training fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prognosis_dask.config.job import ModelSection
from prognosis_dask.modelling.data.endpoint import Classes
from prognosis_dask.modelling.data.families import NETWORKS
from prognosis_dask.modelling.data.network_features import FAMILY
from prognosis_dask.modelling.estimators import learner_for
from prognosis_dask.modelling.procedure import Procedure
from prognosis_dask.modelling.selectors import selector_for
from prognosis_dask.modelling.spec import EndpointRule, ModelSpec, ValidationRule

#: Families that are many and need a selection; the others enter a model as they are.
_SELECTED = ("radiomics", *NETWORKS, FAMILY)
_PENALTIES = (0.01, 0.1, 1.0)
_COUNTS = (2, 5, 10, 20, 50)
#: Of two features that correlate more than this one is left: a network's units say much the same, and many that say
#: nothing would crowd out the few that say something.
_CORRELATION = 0.9
#: What learners and selectors have to be for.
_TWO_CLASSES = Classes(np.arange(2), ("benign", "malignant"))


def grade_spec(section: ModelSection, families: Sequence[str]) -> ModelSpec:
    """The specification of a job whose ``[model]`` names a label.

    Parameters
    ----------
    section
        Its ``label``, ``classes``, ``learner`` (empty: the perceptron), ``selector``, ``folds``, ``repeats`` and
        ``seed`` are used.
    families
        The families of features that there are, in the order of the comparison.

    Raises
    ------
    StatisticsError
        When the learner or the selector is none, or not for classes.
    """
    counts = tuple(count for count in _COUNTS if count < section.max_features) or (section.max_features,)
    common = Procedure(
        learner=section.learner or "mlp",
        selector=section.selector,
        correlation=_CORRELATION,
        n_features=counts,
        penalty=_PENALTIES,
    )
    procedures = {family: _of(common, (family,)) for family in families}
    if len(families) > 1:
        procedures["all"] = _of(common, tuple(families))
    for procedure in procedures.values():
        learner_for(procedure.learner, _TWO_CLASSES)
        if procedure.selector:
            selector_for(procedure.selector, _TWO_CLASSES)
    return ModelSpec(
        endpoint=EndpointRule(label=section.label, classes=section.classes),
        rows=section.rows,
        procedure=procedures,
        final=list(procedures)[-1],
        validation=ValidationRule(
            folds=section.folds, repeats=section.repeats, halves=section.halves, seed=section.seed
        ),
    )


def _of(common: Procedure, families: tuple[str, ...]) -> Procedure:
    forced = tuple(family for family in families if family not in _SELECTED)
    if len(forced) == len(families):
        return replace(common, families=families, selector="")
    return replace(common, families=families, forced=forced)
