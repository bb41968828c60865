"""``report.html``: one file that needs no other, written from a run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from prognosis_dask.report import pictures, tables
from prognosis_dask.report.model_figures import p_text
from prognosis_dask.report.pictures import Picture
from prognosis_dask.report.read import Model, RunFolder, read_run

_SECTIONS = (
    ("cohort", "Cohort"),
    ("regions", "Regions of interest"),
    ("features", "Features"),
    ("model", "Survival model"),
    ("run", "The run"),
)


_FEATURES = {"deep": "deep", "radiomics": "radiomic", "both": "radiomic and deep"}


@dataclass(frozen=True)
class KeyFigure:
    """One number at the top of the page."""

    label: str
    value: str
    detail: str = ""


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` from what the run left in its folder; parts that are missing are said to be.

    The same folder gives the same file, byte for byte.

    Raises
    ------
    StoreError
        When ``run_dir`` is no run's folder or a file in it cannot be read.
    """
    target = run_dir / "report.html"
    text = render(read_run(run_dir))
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def render(run: RunFolder) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("prognosis_dask.report", package_path=""),
        autoescape=True,  # patients' names and reasons are text from files that anybody wrote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=run.info.get("title") or run.name,
        name=run.name,
        finished=_moment(run.info.get("finished")),
        untrained=run.untrained,
        sections=_SECTIONS,
        key_figures=_key_figures(run),
        flow=tables.flow(run),
        not_cases=sum(not problem.case_id for problem in run.problems),
        characteristics=tables.characteristics(run),
        problems=tables.problem_groups(run),
        gallery=pictures.gallery(run),
        sizes=pictures.sizes(run),
        families=tables.families(run),
        disabled=[s for s in ("radiomics", "deep") if (run.job.get(s) or {}).get("enabled") is False],
        correlation=pictures.correlation(run),
        stages=list((run.info.get("stages") or {}).items()),
        steps=tables.step_seconds(run),
        seconds=_duration,
        count=_count,
        provenance=_provenance(run.info),
        job_text=json.dumps(run.job, indent=2, ensure_ascii=False),
        **_model_parts(run),
    )


def _key_figures(run: RunFolder) -> list[KeyFigure]:
    steps = tables.flow(run)
    found, usable = steps[0], steps[1]
    figures = [
        KeyFigure("cases with features", f"{usable.cases} of {found.cases}", _count(usable.patients or 0, "patient")),
        KeyFigure("features", str(sum(family.features for family in tables.families(run)))),
    ]
    if run.model is not None and not run.model.summary.get("not_fitted"):
        summary = run.model.summary
        figures += [
            KeyFigure("patients with the event", str(summary["n_events"]), f"of {summary['n_patients']} in the model"),
            KeyFigure(
                "cross-validated C\N{NON-BREAKING HYPHEN}index", _number(summary.get("c_index_cv")), _interval(summary)
            ),
        ]
    if run.info.get("seconds") is not None:
        reused = any(stage.get("reused") for stage in (run.info.get("stages") or {}).values())
        label = "time of the last run, which went on from an earlier one" if reused else "run time"
        figures.append(KeyFigure(label, _duration(run.info["seconds"]), _rate(run)))
    return figures


def _rate(run: RunFolder) -> str:
    computed = max((int(stage.get("done", 0)) for stage in (run.info.get("stages") or {}).values()), default=0)
    seconds = float(run.info["seconds"])
    return f"{60 * computed / seconds:.1f} cases a minute" if computed > 0 and seconds > 0 else ""


def _interval(summary: Mapping[str, Any]) -> str:
    low, high = summary.get("c_index_cv_lower"), summary.get("c_index_cv_upper")
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2f}"


def _duration(seconds: float | None) -> str:
    """Seconds below two minutes, then minutes, then hours.

    >>> _duration(3.21), _duration(200), _duration(9000), _duration(None)
    ('3.2 s', '3.3 min', '2.5 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _moment(text: str | None) -> str:
    """A time as ``run.json`` holds it, for reading.

    >>> _moment("2026-01-05T10:01:07.5+00:00")
    '2026-01-05, 10:01 UTC'
    """
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d, %H:%M %Z}".strip() if text else ""
    except ValueError:
        return str(text)


def _provenance(info: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    headings = {"deep": "Network", "cluster": "Cluster", "versions": "Versions", "digests": "Digests"}
    times = [(name, str(info[name])) for name in ("started", "finished") if info.get(name)]
    return [("Times", times)] + [
        (heading, [(name, _plain(value)) for name, value in (info.get(key) or {}).items()])
        for key, heading in headings.items()
    ]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _model_parts(run: RunFolder) -> dict[str, Any]:
    model = run.model
    parts: dict[str, Any] = dict.fromkeys(("concordance", "kaplan_meier", "forest"))
    parts |= {"model_text": "", "model_notes": [], "coefficients": []}
    parts["no_model"] = "This run holds no model." if model is None else ""
    if model is not None and model.summary.get("not_fitted"):
        parts["no_model"] = f"No model was fitted: {model.summary['not_fitted']}"
    if model is None or parts["no_model"]:
        return parts
    figures: dict[str, Picture | None] = {
        "concordance": pictures.concordance(model),
        "kaplan_meier": pictures.kaplan_meier(model),
        "forest": pictures.forest(model),
    }
    return (
        parts
        | figures
        | {
            "model_text": _model_text(model, run.job),
            "model_notes": _notes(model),
            "coefficients": _coefficient_rows(model),
        }
    )


def _notes(model: Model) -> list[str]:
    notes = model.summary.get("notes") or []
    left_out = ", ".join(f"{reason} ({count})" for reason, count in (model.summary.get("left_out") or {}).items())
    told = [f"Cases of the feature table that are not in the model: {left_out}."] if left_out else []
    return told + ([notes] if isinstance(notes, str) else [str(note) for note in notes])


def _model_text(model: Model, job: Mapping[str, Any]) -> str:
    summary, section = model.summary, job.get("model") or {}
    text = (
        f"A Cox proportional hazards model of {_count(summary['k_final'], 'feature')} "
        f"({_FEATURES[summary['features']]}) on {_count(summary['n_cases'], 'case')} of "
        f"{_count(summary['n_patients'], 'patient')}, {summary['n_events']} of them with the event."
    )
    if section:
        text += (
            f" Features were ranked by SVM-RFE on survival beyond {section['label_days']:.0f} days; "
            f"ridge penalty {section['penalizer']}; {_count(section['repeats'], 'repeat')} of "
            f"{section['folds']}-fold cross-validation, split by patient."
        )
    if summary.get("c_index_cv") is not None:
        text += f" The cross-validated C-index is {_number(summary['c_index_cv'])}"
        text += f" ({_interval(summary)})" if _interval(summary) else ""
        text += f"; in-sample, and so optimistic, it is {_number(summary.get('c_index_in_sample'))}."
    return text


def _count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> _count(1, "case"), _count(0, "case")
    ('1 case', '0 cases')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _coefficient_rows(model: Model) -> list[dict[str, str]]:
    if model.coefficients is None:
        return []
    rows = model.coefficients.to_dict("records")
    return [
        {
            "feature": row["feature"],
            "coef": f"{row['coef']:.3f}".replace("-", "\N{MINUS SIGN}"),
            "se": f"{row['se']:.3f}",
            "ratio": f"{row['hazard_ratio']:.2f}",
            "interval": f"{row['lower_95']:.2f} to {row['upper_95']:.2f}",
            "p": p_text(row["p"]).removeprefix("p = ").removeprefix("p "),
        }
        for row in rows
    ]
