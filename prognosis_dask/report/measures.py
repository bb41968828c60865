"""The measures' names as readers know them, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A measure of performance: its name, which values are good, and what guessing gives (None: depends)."""

    title: str
    better: str
    no_skill: float | None = None


MEASURES = {
    "harrell_c": Measure("Harrell’s C", "higher is better; 0.5 is guessing", 0.5),
    "uno_c": Measure("Uno’s C", "higher is better; 0.5 is guessing", 0.5),
    "auc_t": Measure("AUC(t)", "higher is better; 0.5 is guessing", 0.5),
    "mean_auc": Measure("Mean AUC(t)", "higher is better; 0.5 is guessing", 0.5),
    "brier": Measure("Brier score", "lower is better"),
    "ibs": Measure("Integrated Brier score", "lower is better"),
    "calibration_slope": Measure("Calibration slope", "1 is best; below 1 the predictions are too extreme", 0.0),
    "observed_expected": Measure("Observed / expected", "1 is best"),
    "ici": Measure("ICI", "mean distance of predicted from observed risk; 0 is best"),
    "auc": Measure("AUC", "higher is better; 0.5 is guessing", 0.5),
    "balanced_accuracy": Measure("Balanced accuracy", "higher is better"),
    "accuracy": Measure("Accuracy", "higher is better"),
    "log_loss": Measure("Log loss", "lower is better"),
}


def describe(name: str) -> Measure:
    """The measure of that name in ``measures.csv``; an unknown one by its own name.

    >>> describe("uno_c").title, describe("my_score").title
    ('Uno’s C', 'my score')
    """
    return MEASURES.get(name, Measure(name.replace("_", " "), ""))
