"""The tables of the bootstrap and of permuted endpoints."""

from __future__ import annotations

from typing import Any

from prognosis_dask.errors import count
from prognosis_dask.report.content import Rows, Table
from prognosis_dask.report.headline import headline
from prognosis_dask.report.measures import describe
from prognosis_dask.report.model_folder import ModelFolder
from prognosis_dask.report.records import records
from prognosis_dask.report.words import breakable, number, p_number, with_interval

#: The bootstrap's corrected figures, which have intervals.
_CORRECTED = ("optimism_corrected", "point632_plus")


def resampled(models: ModelFolder) -> list[Table]:
    """What the bootstrap and permuted endpoints say, where they were asked for."""
    found = []
    corrected = [f"{figure}{bound}" for figure in _CORRECTED for bound in ("", "_lower", "_upper")]
    bootstrap = models.table("bootstrap", "procedure", "apparent", "out_of_bag", *corrected)
    measure = describe(headline(models)).title
    if bootstrap is not None:
        rows = [
            (
                r.procedure,
                number(r.apparent, 3),
                number(r.out_of_bag, 3),
                *(_bounded(r, name) for name in _CORRECTED),
            )
            for r in records(bootstrap)
        ]
        head = ("Procedure", "In-sample (optimistic)", "Out of bag", "Optimism-corrected (95 % CI)", ".632+ (95 % CI)")
        caption = (
            f"Bootstrap of the whole procedure{_draws(models, 'sample')}, {measure}: in-sample, of the cases that were "
            "not drawn, in-sample less the optimism of models of drawn cases (Harrell 1996), and the .632+ mean (Efron "
            "and Tibshirani 1997)."
        )
        redrawn = int(bootstrap["redrawn"].sum()) if "redrawn" in bootstrap else 0
        if redrawn:
            caption += f" {count(redrawn, 'sample')} that no model could be learnt from (no event drawn) drawn again."
        found.append(Table(caption, head, "lvvvv", [Rows("", rows)]))
    permutation = models.table("permutation", "procedure", "observed", "permuted_median", "permuted_greatest", "p")
    if permutation is not None:
        rows = [
            (
                r.procedure,
                number(r.observed, 3),
                number(r.permuted_median, 3),
                number(r.permuted_greatest, 3),
                p_number(r.p),
            )
            for r in records(permutation)
        ]
        head = ("Procedure", "Held-out", "Permuted, median", "Permuted, greatest", "p")
        caption = (
            f"{measure} of held-out cases, and what the same procedure finds when the endpoints are permuted"
            f"{_draws(models, 'permutation')}; p is the share at least as good, the observed one counted in."
        )
        found.append(Table(caption, head, "lnnnn", [Rows("", rows)]))
    return found


def _bounded(row: Any, name: str) -> str:
    return breakable(with_interval(getattr(row, name), getattr(row, f"{name}_lower"), getattr(row, f"{name}_upper"), 3))


def _draws(models: ModelFolder, what: str) -> str:
    draws = (models.summary.get("validation") or {}).get("draws")
    return f" ({count(int(draws), what)})" if draws else ""
