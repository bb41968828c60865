"""The run: stages, seconds, versions, digests, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.report.content import Block, Details, Heading, Rows, Section, Table, absent, optional
from prognosis_dask.report.identifiers import settings
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.words import duration

_HEADINGS = {"deep": "Network", "cluster": "Cluster", "versions": "Versions", "digests": "Digests"}


def the_run(run: RunFolder) -> Section:
    """Stages, seconds per step, provenance and the job; for models alone, the procedures and their digests."""
    blocks: list[Block] = []
    if run.info:
        blocks += [_stages(run), *_steps(run), _provenance(run.info)]
        blocks += [Heading("The job"), Details("All settings of the job file", _json(run.job))]
    if run.model is not None and not run.info and not run.model.not_fitted:
        blocks += optional(_fitted_with(run.model))
    if run.model is not None and run.model.procedures:
        blocks += [Heading("The procedures"), Details("All settings of what was fitted", _json(run.model.procedures))]
    return Section("run", "The run", blocks or [absent("Nothing was recorded of how the models were fitted.")])


def _fitted_with(models: ModelFolder) -> Table | None:
    """Versions, seed and folds of models that no run recorded."""
    rule: Mapping[str, Any] = models.summary.get("validation") or {}
    named = {"folds": "Folds", "repeats": "Repeats", "halves": "Halves for the intervals", "seed": "Seed"}
    groups = [Rows("Validation", [(title, _plain(rule[key])) for key, title in named.items() if key in rule])]
    versions: Mapping[str, str] = models.summary.get("versions") or {}
    groups.append(Rows("Versions", [(name, _plain(value)) for name, value in versions.items()]))
    groups = [group for group in groups if group.rows]
    return Table("What the models were fitted with.", ("Name", "Value"), "lc", groups) if groups else None


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(settings(data), indent=2, ensure_ascii=False)


def _stages(run: RunFolder) -> Block:
    stages: Mapping[str, Mapping[str, Any]] = run.info.get("stages") or {}
    if not stages:
        return absent("No stage’s duration was recorded.")
    rows = [
        (name, *(str(stage.get(key, "–")) for key in ("done", "failed", "reused")), duration(stage.get("seconds")))
        for name, stage in stages.items()
    ]
    return Table(
        "Cases per stage in this run, and the workers’ time, summed over them; “reused” were finished by an earlier "
        "run of the same job.",
        ("Stage", "Done", "Failed", "Reused", "Workers’ time"),
        "lnnnn",
        [Rows("", rows)],
    )


def _steps(run: RunFolder) -> list[Block]:
    rows = [(stage, step, str(n), f"{median:.3f}") for stage, step, n, median in step_seconds(run)]
    if not rows:
        return []
    caption = "Seconds per case and step, as the worker measured them (median)."
    return [Table(caption, ("Stage", "Step", "Cases", "Seconds"), "llnn", [Rows("", rows)])]


def _provenance(info: Mapping[str, Any]) -> Table:
    times = [(name, str(info[name])) for name in ("started", "finished") if info.get(name)]
    groups = [Rows("Times", times)]
    for key, heading in _HEADINGS.items():
        groups.append(Rows(heading, [(name, _plain(value)) for name, value in settings(info.get(key) or {}).items()]))
    known = [Rows(group.title, group.rows or [("not recorded", "")]) for group in groups]
    caption = "Where the values come from. Equal digests mean equal input and settings."
    return Table(caption, ("Name", "Value"), "lc", known)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def step_seconds(run: RunFolder) -> list[tuple[str, str, int, float]]:
    """(stage, step, cases, median seconds) over the results that the ledger holds."""
    rows = []
    for stage, results in run.results.items():
        seconds: dict[str, list[float]] = {}
        for result in results.values():
            for step, value in result.seconds.items():
                seconds.setdefault(step, []).append(value)
        steps = sorted(seconds, key=lambda step: step == "total")  # as they were taken, the total last
        rows += [(stage, step, len(seconds[step]), float(np.median(seconds[step]))) for step in steps]
    return rows
