"""What a frozen model is worth, in the words that stand beside each of its predictions.

A prediction is read by somebody who has not read the model's report. So what the report says of the model goes with
it: how good it was on cases that it had not seen, how few it learnt from, and what speaks against using it. Every
table, page and file of predictions takes the words from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prognosis_dask.errors import count
from prognosis_dask.features.registry import NETWORKS
from prognosis_dask.modelling.folder import known_json, number_or_none
from prognosis_dask.modelling.saved import MODEL, Frozen

#: A measure of order at which a model only guesses.
_GUESSING = 0.5
#: Models of fewer patients are warned of: their held-out figures rest on a handful of cases in each fold.
FEWEST_PATIENTS = 50
UNTRAINED = "Deep features come from untrained weights: they are random, and so is what is made of them."


@dataclass(frozen=True)
class Worth:
    """What is known of a model.

    Attributes
    ----------
    facts
        What it learnt from and how good it was, by what a reader calls it.
    figures
        The same as columns of a table: ``model_cases, model_patients, model_events, held_out_measure, held_out,
        held_out_lower, held_out_upper``; None where it is not known, or there is no such thing.
    warnings
        Sentences that no reader of a prediction must miss.
    """

    facts: Mapping[str, str]
    figures: Mapping[str, str | float | int | None]
    warnings: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All facts in a line."""
        return "The model: " + "; ".join(f"{name} {value}" for name, value in self.facts.items()) + "."

    @property
    def columns(self) -> dict[str, str | float | int | None]:
        """What stands in each row of a table of predictions."""
        return {**self.figures, "model_warnings": " ".join(self.warnings)}


def worth_of(frozen: Frozen, folder: Path | str) -> Worth:
    """What a model's folder says of it.

    Parameters
    ----------
    frozen
        The model.
    folder
        Its folder, or the run's that it is in: the ``summary.json`` beside it holds its validation, the run's
        ``run.json`` where its features come from.
    """
    folder = Path(folder)
    models = folder if (folder / MODEL).is_file() else folder / "models"
    summary = known_json(models / "summary.json")
    if summary and any(summary.get(name) != value for name, value in frozen.counts.items()):
        summary = {}  # of another fit: it says nothing of this model
    counts = frozen.counts
    learnt = f"{count(counts['n_cases'], 'case')} of {count(counts['n_patients'], 'patient')}"
    if "n_events" in counts:
        learnt += f", {counts['n_events']} with the event"
    if "n_competing" in counts:
        learnt += f", {counts['n_competing']} with a competing event (survival is freedom from the event among these)"
    if "n_entered_late" in counts:
        learnt += f", {count(counts['n_entered_late'], 'case')} followed from later than day 0 on"
    facts = {"learnt from": learnt, "features in it": str(len(frozen.fitted.chosen))}
    name, short = ("AUC", "auc") if frozen.classes else ("C-index", "c_index")
    value, lower, upper = (number_or_none(summary.get(f"{short}_cv{end}")) for end in ("", "_lower", "_upper"))
    ends = "" if lower is None or upper is None else f" (95 % interval {lower:.2f} to {upper:.2f})"
    facts[f"{name} on held-out cases"] = "not known" if value is None else f"{value:.2f}{ends}"
    figures: dict[str, str | float | int | None] = {
        "model_cases": counts["n_cases"],
        "model_patients": counts["n_patients"],
        "model_events": counts.get("n_events"),
        "held_out_measure": short,
        "held_out": value,
        "held_out_lower": lower,
        "held_out_upper": upper,
    }
    warnings = [
        *_of_features(frozen, models.parent, summary.get("notes") or ()),
        *_of_validation(name, value, lower, upper),
        *_of_size(counts["n_patients"]),
    ]
    return Worth(facts, figures, tuple(warnings))


def untrained(folder: Path) -> bool:
    """Whether the deep features of a run come from weights that nobody trained; False where no run is."""
    run = known_json(folder / "run.json")
    parts = [part.get(name) for name in NETWORKS for part in (run, run.get("job", {}))]
    named = [part.get("weights", "") for part in parts if part]
    return any(str(weights).startswith("untrained") for weights in named)


def _of_features(frozen: Frozen, run: Path, notes: Sequence[str]) -> list[str]:
    family = {name: encoding.family for encoding in frozen.encodings for name in encoding.features}
    used = {family.get(name) for name in frozen.fitted.features}
    return [UNTRAINED] if used.intersection(NETWORKS) and (UNTRAINED in notes or untrained(run)) else []


def _of_validation(name: str, value: float | None, lower: float | None, upper: float | None) -> list[str]:
    if value is None:
        return [
            "How good the model is on cases that it has not seen is not known: no results of a validation were kept "
            "with it."
        ]
    told = f"{name} {value:.2f}"
    if value <= _GUESSING:
        return [f"On cases that it had not seen the model did no better than guessing ({told}; guessing gives 0.50)."]
    if lower is None or upper is None:
        return [f"How certain the model's {told} on cases that it had not seen is, is not known."]
    if lower <= _GUESSING:
        return [
            f"On cases that it had not seen the model may do no better than guessing: {told}, 95 % interval "
            f"{lower:.2f} to {upper:.2f}; guessing gives 0.50."
        ]
    return []


def _of_size(patients: int) -> list[str]:
    if patients >= FEWEST_PATIENTS:
        return []
    return [f"The model learnt from {count(patients, 'patient')} only."]
