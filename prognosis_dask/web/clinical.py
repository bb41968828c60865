"""The clinical values that a form asks for: its fields, what was put in, and what a reader is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.clinical_inputs import Asked
from prognosis_dask.web.errors import RefusedError
from prognosis_dask.web.model import ServedModel


def form_fields(model: ServedModel) -> dict[str, Asked]:
    """The columns that the prediction depends on and no image tells, by the name of their field in the form."""
    return {f"{model.key}.{place}": column for place, column in enumerate(model.asked)}


def read_fields(model: ServedModel, fields: Mapping[str, str]) -> dict[str, str]:
    """What was put in for the model, by column; empty fields, and those of other models, are left out.

    Raises
    ------
    RefusedError
        When a value is none that the column can have: one sentence.
    """
    given = {}
    for name, column in form_fields(model).items():
        try:
            value = column.read(fields.get(name, ""))
        except StatisticsError as error:
            raise RefusedError(f"{error}."[:300]) from error
        if value:
            given[column.column] = value
    return given


def told(model: ServedModel, given: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per column what was given (None: nothing was), and what was taken where nothing was: the training median."""
    return [
        {
            "column": column.column,
            "unit": column.unit,
            "given": given.get(column.column),
            "training_median": column.training[1] if column.training else None,
        }
        for column in model.asked
    ]
