"""A fitted model in a folder: plain JSON and arrays, with what another cohort's table has to agree with.

``model.json`` holds names and settings, ``arrays.npz`` numbers; nothing in them is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from prognosis_dask.arrays import BoolArray, FloatArray
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.execution.versions import package_versions
from prognosis_dask.modelling.data.columns import Encoding
from prognosis_dask.modelling.data.endpoint import Classes, Survival
from prognosis_dask.modelling.data.table import FeatureTable
from prognosis_dask.modelling.estimators.cox import ProportionalHazards
from prognosis_dask.modelling.fitted import Fitted
from prognosis_dask.modelling.metrics.competing import freedom

DigestArray: TypeAlias = npt.NDArray[np.uint64]

_FORMAT = "prognosis_dask model 1"
MODEL, ARRAYS = "model.json", "arrays.npz"
#: The quantiles that are kept of every feature and of the risk score.
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_OWN = "training."
#: At least this share of a continuous feature's training values differ from each other.
_DISTINCT = 0.95


@dataclass(frozen=True, eq=False)
class Frozen:
    """A model with what is known of the cases that it was fitted on.

    Attributes
    ----------
    fitted
        The model.
    encodings
        How a table's columns become its features.
    classes
        The classes' names; () for survival.
    horizons_days
        Times that survival is predicted at.
    counts
        ``n_cases``, ``n_patients``, ``n_events`` of the training cases; ``n_competing`` where events compete,
        ``n_entered_late`` where cases enter late.
    quantiles
        Of each of ``fitted.features`` among the training cases, shape (:data:`QUANTILES`, features); NaN where all
        values were missing.
    risk_quantiles
        Of the risk score, shape (:data:`QUANTILES`,); empty for more than two classes.
    survival_by_group
        Survival only: ``low`` and ``high`` to the Kaplan-Meier estimate of the training cases with a risk score of up
        to the cut-off and above it, shape (2, times): times in days and survival.
    rows
        Of each training case a digest of its features, see :func:`row_digests`. Empty for models of before these were
        kept, as the next two.
    patients
        Of each training case a digest of its patient's ID, see :func:`patient_digests`. No ID is kept, but whoever
        has a list of possible ones can try them.
    telling
        Shape (features,): whether equal values of a feature tell that two cases are one, see :func:`telling_features`.
    """

    fitted: Fitted
    encodings: tuple[Encoding, ...]
    classes: tuple[str, ...]
    horizons_days: tuple[float, ...]
    counts: Mapping[str, int]
    quantiles: FloatArray
    risk_quantiles: FloatArray
    survival_by_group: Mapping[str, FloatArray]
    rows: DigestArray
    patients: DigestArray
    telling: BoolArray

    def limits(self, features: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """The least and the greatest training value of each feature."""
        position = {name: i for i, name in enumerate(self.fitted.features)}
        at = [position[name] for name in features]
        return self.quantiles[0, at], self.quantiles[-1, at]


def describe(
    fitted: Fitted, table: FeatureTable, encodings: Sequence[Encoding], horizons_days: Sequence[float]
) -> Frozen:
    """A model with the distribution of the table that it was fitted on."""
    position = {name: i for i, name in enumerate(table.features)}
    X = table.X[:, [position[name] for name in fitted.features]]
    risk = fitted.predict(table).risk_score
    needed = set(fitted.features)
    groups: dict[str, FloatArray] = {}
    if isinstance(table.endpoint, Survival) and risk is not None and fitted.cutoff is not None:
        groups = {
            name: _curve(table.endpoint.rows(rows))
            for name, rows in (("low", risk <= fitted.cutoff), ("high", risk > fitted.cutoff))
            if rows.any()
        }
    quantiles = _column_quantiles(X)
    return Frozen(
        fitted,
        tuple(encoding for encoding in encodings if needed & set(encoding.features)),
        table.endpoint.names if isinstance(table.endpoint, Classes) else (),
        tuple(float(days) for days in horizons_days),
        count_cases(table),
        quantiles,
        _quantiles(risk) if risk is not None else np.zeros(0),
        groups,
        row_digests(fitted, table),
        patient_digests(quantiles, table.patient_ids),
        telling_features(X),
    )


def _encoding(content: Mapping[str, Any]) -> Encoding:
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    return Encoding(**plain)


def row_digests(fitted: Fitted, table: FeatureTable) -> DigestArray:
    """A number for each case that is the same where all of the model's features are, in single precision."""
    position = {name: i for i, name in enumerate(table.features)}
    X = table.X[:, [position[name] for name in fitted.features]].astype("<f4")
    X[np.isnan(X)] = np.nan
    return np.array([int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest()) for row in X], np.uint64)


def patient_digests(quantiles: FloatArray, patient_ids: Sequence[str]) -> DigestArray:
    """A number for each patient's ID that differs from model to model, by the quantiles that the model keeps."""
    key = hashlib.blake2b(quantiles.tobytes(), digest_size=32).digest()
    digests = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in patient_ids)
    return np.array([int.from_bytes(digest) for digest in digests], np.uint64)


def telling_features(X: FloatArray) -> BoolArray:
    """The continuous columns: nearly all of their values differ. Of columns in the same order only the first.

    >>> telling_features(np.array([[0.1, 0.2, 1.0], [0.3, 0.6, 0.0], [0.2, 0.4, 1.0]])).tolist()
    [True, False, False]
    """
    telling = np.zeros(X.shape[1], dtype=bool)
    orders: set[bytes] = set()
    for column, values in enumerate(X.T):
        held = np.isfinite(values)
        if len(np.unique(values[held])) >= max(_DISTINCT * held.sum(), 2):
            order = np.argsort(values, kind="stable").tobytes()
            telling[column] = order not in orders
            orders.add(order)
    return telling


def count_cases(table: FeatureTable) -> dict[str, int]:
    """Cases, patients and, for survival, patients with the event, with a competing one, and cases that entered late.

    The last two only where events compete, or cases enter late.
    """
    counts = {"n_cases": len(table.case_ids), "n_patients": len(set(table.patient_ids))}
    if isinstance(table.endpoint, Survival):
        with_event = {p for p, event in zip(table.patient_ids, table.endpoint.event, strict=True) if event}
        counts["n_events"] = len(with_event)
        competing = table.endpoint.competing
        if competing is not None:
            counts["n_competing"] = len({p for p, of in zip(table.patient_ids, competing, strict=True) if of})
        if table.endpoint.entry_days is not None:
            counts["n_entered_late"] = int((table.endpoint.entry_days > 0).sum())
    return counts


def save_frozen(frozen: Frozen, folder: Path) -> None:
    """Write the model into a folder; equal models, equal bytes."""
    plain, arrays = frozen.fitted.to_plain()
    arrays = {
        **arrays,
        f"{_OWN}quantiles": frozen.quantiles,
        f"{_OWN}risk_quantiles": frozen.risk_quantiles,
        f"{_OWN}rows": frozen.rows,
        f"{_OWN}patients": frozen.patients,
        f"{_OWN}telling": frozen.telling,
        **{f"{_OWN}survival.{name}": curve for name, curve in frozen.survival_by_group.items()},
    }
    with (folder / ARRAYS).open("wb") as stream:
        np.savez(stream, **arrays)
    content = {
        "format": _FORMAT,
        "model": plain,
        "encodings": [asdict(encoding) for encoding in frozen.encodings],
        "classes": list(frozen.classes),
        "horizons_days": list(frozen.horizons_days),
        "training": dict(frozen.counts),
        "versions": package_versions(),
        **_formula(frozen),
        "arrays_sha256": _sha256(folder / ARRAYS),
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    (folder / MODEL).write_text(text + "\n", encoding="utf-8")


def is_model(path: Path) -> bool:
    """Whether a folder holds a frozen model, itself or in its ``models/``."""
    return (path / MODEL).is_file() or (path / "models" / MODEL).is_file()


def load_frozen(folder: Path | str) -> Frozen:
    """Read a model back.

    Parameters
    ----------
    folder
        A models folder, or the run's folder that it is in.

    Raises
    ------
    StatisticsError
        When there is no model, or its files are not what was written together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StatisticsError(f"no folder at {folder}; expected that of a run, or of `prognosis fit`, with its model")
    if not (folder / MODEL).is_file() and (folder / "models" / MODEL).is_file():
        folder = folder / "models"
    if not (folder / MODEL).is_file():
        raise StatisticsError(f"{folder} holds no {MODEL}; `prognosis fit` and `prognosis run` write one")
    try:
        content = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        _expect_whole(folder, content)
        with np.load(folder / ARRAYS) as stored:  # NumPy unpickles nothing unless asked to
            arrays = {name: stored[name] for name in stored.files}
        return _frozen(content, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StatisticsError(
            f"the model in {folder} cannot be read ({type(error).__name__}: {error}); fit it again"
        ) from error


def _formula(frozen: Frozen) -> dict[str, Any]:
    """A Cox model as a reader can compute it: ``risk score = sum of coefficient * (value - mean) / scale``.

    Values are bounded at ``least`` and ``greatest`` before.
    """
    model, fitted = frozen.fitted.model, frozen.fitted
    if not isinstance(model, ProportionalHazards):
        return {}
    preparation = fitted.preparation
    mean = preparation.mean[fitted.columns].tolist()
    scale = (preparation.scale / preparation.weight)[fitted.columns].tolist()
    survival = model.baseline.survival(np.zeros(1), np.array(frozen.horizons_days))[0]
    return {
        "kind": "cox",
        "features": list(fitted.chosen),
        "mean": mean,
        "scale": scale,
        **_bounds(fitted),
        "coefficient": model.coefficient.tolist(),
        "baseline_survival": {f"{t:g}": s for t, s in zip(frozen.horizons_days, survival.tolist(), strict=True)},
    }


def _bounds(fitted: Fitted) -> dict[str, Any]:
    """What a value is bounded at before it is standardised, where it is."""
    limits = fitted.preparation.limits()
    if limits is None:
        return {}
    return {name: limit[fitted.columns].tolist() for name, limit in zip(("least", "greatest"), limits, strict=True)}


def _frozen(content: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Frozen:
    groups = f"{_OWN}survival."
    return Frozen(
        Fitted.from_plain(content["model"], {k: v for k, v in arrays.items() if not k.startswith(_OWN)}),
        tuple(_encoding(encoding) for encoding in content["encodings"]),
        tuple(content["classes"]),
        tuple(content["horizons_days"]),
        content["training"],
        arrays[f"{_OWN}quantiles"],
        arrays[f"{_OWN}risk_quantiles"],
        {name.removeprefix(groups): curve for name, curve in arrays.items() if name.startswith(groups)},
        arrays.get(f"{_OWN}rows", np.zeros(0)).astype(np.uint64),
        arrays.get(f"{_OWN}patients", np.zeros(0)).astype(np.uint64),
        arrays.get(f"{_OWN}telling", np.zeros(len(content["model"]["features"]))).astype(bool),
    )


def _expect_whole(folder: Path, content: Mapping[str, Any]) -> None:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        seen = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise StatisticsError(f"{folder / MODEL}: format is {seen!r}, expected {_FORMAT!r}; fit the model again")
    if _sha256(folder / ARRAYS) != content["arrays_sha256"]:
        raise StatisticsError(f"{folder / ARRAYS} is not the file that {MODEL} was written with; copy both again")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _quantiles(values: FloatArray) -> FloatArray:
    held = values[np.isfinite(values)]
    return np.quantile(held, QUANTILES) if len(held) else np.full(len(QUANTILES), np.nan)


def _column_quantiles(X: FloatArray) -> FloatArray:
    """:func:`_quantiles` of each column, shape (quantiles, features); the complete ones at once."""
    found = np.empty((len(QUANTILES), X.shape[1]))
    whole = np.isfinite(X).all(axis=0)
    if whole.any():
        found[:, whole] = np.quantile(X[:, whole], QUANTILES, axis=0)
    for column in np.flatnonzero(~whole):
        found[:, column] = _quantiles(X[:, column])
    return found


def _curve(cases: Survival) -> FloatArray:
    estimate = freedom(cases)
    return np.vstack([estimate.time_days, estimate.survival])


#: A model whose training cases' scores (log odds, or log hazards) span less has learnt nothing useful.
_LEAST_SPAN = 0.01


def tells_apart(frozen: Frozen) -> bool:
    """Whether the training cases have different scores; with few cases, tuning may shrink a model to one for all."""
    scores = frozen.risk_quantiles
    return not len(scores) or bool(scores[-1] - scores[0] >= _LEAST_SPAN)


def out_of_range(frozen: Frozen, table: FeatureTable) -> list[str]:
    """Warnings of features in the model that lie outside the range of all training cases, and of missing ones.

    The first warning, where it applies, is that the model gives every case the same score.

    Parameters
    ----------
    frozen
        The model.
    table
        One row, with every feature that the model asks for.
    """
    position = {name: i for i, name in enumerate(table.features)}
    chosen = frozen.fitted.chosen
    values = table.X[0, [position[name] for name in chosen]]
    least, most = frozen.limits(chosen)
    outside = [name for name, v, a, b in zip(chosen, values, least, most, strict=True) if v < a or v > b]
    missing = [name for name, value in zip(chosen, values, strict=True) if math.isnan(value)]
    warnings = []
    if not tells_apart(frozen):
        warnings.append("The model gives all its training cases the same score: it says nothing of this one either.")
    if outside:
        warnings.append(
            f"Outside of what any training case had: {len(outside)} of the model's {count(len(chosen), 'feature')}, "
            f"{_some(outside)}. There the model extrapolates."
        )
    if frozen.fitted.bounded(table).any():
        warnings.append(
            f"Some lie so far out that the model takes them as {frozen.fitted.procedure.bound_margin:g} SD "
            "beyond the training cases: it cannot know what lies there."
        )
    if missing:
        warnings.append(f"Not known of this scan, {frozen.fitted.completes}: {_some(missing)}.")
    return warnings


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
