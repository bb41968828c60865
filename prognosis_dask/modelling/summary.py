"""What ``summary.json`` in a models folder may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prognosis_dask.errors import StatisticsError

#: What ``summary.json`` may hold: key, type, meaning.
SUMMARY = (
    ("title", "text", "the specification's"),
    ("n_cases", "number", "cases in the analysis"),
    ("n_patients", "number", "their patients"),
    ("n_events", "number", "patients with the event; survival only"),
    ("n_competing", "number", "patients with a competing event, where events compete"),
    ("n_entered_late", "number", "cases that were followed from later than day 0 on, where there are any"),
    ("median_follow_up_days", "number", "by the reverse Kaplan-Meier estimate; survival only"),
    ("classes", "object", "cases by class; classes only"),
    ("left_out", "object", "rows that are not in the analysis, by reason"),
    ("rows", "text", "what a row is: `patient` or `case`"),
    ("not_fitted", "text", "why there is no model; then little else is there"),
    ("procedure", "text", "the final procedure, or the folder of another cohort's model"),
    ("validation", "object", "how it was validated"),
    ("c_index_cv", "number", "Harrell's C of the final procedure on held-out cases; survival only"),
    ("c_index_cv_lower", "number", "lower bound of its 95 % interval"),
    ("c_index_cv_upper", "number", "its upper bound"),
    ("c_index_in_sample", "number", "the same of the cases that it was fitted on"),
    ("logrank_p", "number", "of the held-out risk groups; survival only"),
    ("auc_cv", "number", "AUC of the final procedure on held-out cases; classes only"),
    ("auc_cv_lower", "number", "lower bound of its 95 % interval"),
    ("auc_cv_upper", "number", "its upper bound"),
    ("auc_in_sample", "number", "the same of the cases that it was fitted on"),
    ("interval", "text", "how intervals came about"),
    ("versions", "object", "of the program and what it requires, by name"),
    ("curve", "text", "the procedure whose ranking curve.csv follows"),
    ("spread", "list", "5th and 95th percentile of what the final model predicts its own cases, by horizon or class"),
    ("k_final", "number", "features in the final model"),
    ("features", "list", "their families"),
    ("rows_said", "list", "notes on what a row is"),
    ("label", "list", "notes on what selection learns from"),
    ("notes", "list", "all notes"),
    ("external", "bool", "true where another cohort's model was validated"),
    ("met_before", "number", "cases that such a model was fitted on"),
    ("met_by", "text", "by what these are known"),
)


def check_summary(summary: Mapping[str, Any]) -> None:
    """Check that a summary has no key that the schema does not know.

    Raises
    ------
    StatisticsError
        Names the key.
    """
    known = [key for key, _, _ in SUMMARY]
    for key in summary:
        if key not in known:
            raise StatisticsError(f"summary.json: unknown key {key!r}, expected one of {', '.join(known)}")
