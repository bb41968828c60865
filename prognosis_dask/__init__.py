"""Cohort-scale imaging prognosis on Dask.

What a notebook needs is in ``__all__``: a job and its run, cases and their images, features of single images, models
and their predictions. Each is loaded at its first use, so that importing the package stays quick. Each has an
example in its docstring.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prognosis_dask.cohort.case import read_cases
    from prognosis_dask.config.job import load_job
    from prognosis_dask.features.dataset import read_features, read_images
    from prognosis_dask.imaging.load import load_case
    from prognosis_dask.prediction.extract import extract_features
    from prognosis_dask.prediction.page import show_case
    from prognosis_dask.prediction.scan import predict_cohort, predict_scan
    from prognosis_dask.workflows.models import compare, fit, predict, validate
    from prognosis_dask.workflows.reproducibility import reproducibility
    from prognosis_dask.workflows.run import run

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "compare",
    "extract_features",
    "fit",
    "load_case",
    "load_job",
    "predict",
    "predict_cohort",
    "predict_scan",
    "read_cases",
    "read_features",
    "read_images",
    "reproducibility",
    "run",
    "show_case",
    "validate",
]

_HOMES = {
    "compare": "prognosis_dask.workflows.models",
    "extract_features": "prognosis_dask.prediction.extract",
    "fit": "prognosis_dask.workflows.models",
    "load_case": "prognosis_dask.imaging.load",
    "load_job": "prognosis_dask.config.job",
    "predict": "prognosis_dask.workflows.models",
    "predict_cohort": "prognosis_dask.prediction.scan",
    "predict_scan": "prognosis_dask.prediction.scan",
    "read_cases": "prognosis_dask.cohort.case",
    "read_features": "prognosis_dask.features.dataset",
    "read_images": "prognosis_dask.features.dataset",
    "reproducibility": "prognosis_dask.workflows.reproducibility",
    "run": "prognosis_dask.workflows.run",
    "show_case": "prognosis_dask.prediction.page",
    "validate": "prognosis_dask.workflows.models",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
