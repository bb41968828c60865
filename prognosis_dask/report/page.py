"""``report.html``: one file that needs no other, from a run's folder or one of models; its head, its last section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from prognosis_dask.errors import count
from prognosis_dask.features.registry import BRAIN
from prognosis_dask.modelling.folder import ModelFolder
from prognosis_dask.publish import replacing
from prognosis_dask.report.content import (
    Block,
    Details,
    Heading,
    Picture,
    Rows,
    Section,
    Table,
    absent,
    optional,
    write_figures,
)
from prognosis_dask.report.read import RunFolder, read_run
from prognosis_dask.report.sections.cohort import cohort, flow
from prognosis_dask.report.sections.features import families, features
from prognosis_dask.report.sections.final_model import final_model
from prognosis_dask.report.sections.radiomics_checklists import clear, metrics_score, uses_images
from prognosis_dask.report.sections.regions import brains, regions
from prognosis_dask.report.sections.tripod import answers, tripod
from prognosis_dask.report.sections.validation import validation
from prognosis_dask.report.words import describe, duration, identifiers_shown, interval, number, settings
from prognosis_dask.storage.place import placed


@dataclass(frozen=True)
class KeyFigure:
    """One number at the top of the page."""

    label: str
    value: str
    detail: str = ""


def rewrite_report(place: Path | str, *, identifiers: bool = False) -> Path | str:
    """Write the report of a run or of models anew, in their folder or bucket; where it is.

    Raises
    ------
    StoreError, BucketError
        As :func:`write_report`; when another command writes to the bucket, or it cannot be reached.
    """
    with placed(place, needed=True) as at:
        at.fetch()
        written = write_report(at.folder, identifiers=identifiers)
    return written if at.address is None else str(at.address / written.name)


def write_report(folder: Path, *, identifiers: bool = False) -> Path:
    """Write ``folder/report.html`` and ``folder/figures/`` from what lies in the folder; what is missing is said to be.

    ``figures`` holds every figure of the page as SVG and its data as CSV. The same folder gives the same files, byte
    for byte.

    Parameters
    ----------
    folder
        A run's, or one that ``prognosis fit`` wrote.
    identifiers
        Whether patients and cases are called by their identifiers, and paths are whole; else the page has hashes of
        the ones and the last parts of the others, so that it can be handed on.

    Raises
    ------
    StoreError
        When ``folder`` is neither, or a file in it cannot be read.
    """
    target = folder / "report.html"
    run = read_run(folder)
    with identifiers_shown(identifiers):
        page = sections(run)
    text = render_page(
        title=run.info.get("title") or (run.model.summary.get("title") if run.model else "") or run.name,
        origin=_origin(run),
        untrained=run.untrained,
        key_figures=_key_figures(run),
        sections=page,
    )
    figures = (block for section in page for block in section.blocks if isinstance(block, Picture))
    write_figures(figures, folder / "figures")
    with replacing(target) as aside:
        aside.write_text(text, encoding="utf-8")
    return target


def sections(run: RunFolder) -> list[Section]:
    """All of the page but its head. Models alone have no images, so nothing is said of them."""
    found = [cohort(run)]
    if run.info:
        found += [brains(run)] if BRAIN.is_on(run.job) else []
        found += [regions(run), features(run)]
    wanted = bool((run.job.get("model") or {}).get("enabled", True))
    found += [validation(run.model, wanted=wanted), final_model(run.model)]
    return [*found, checklists(run), the_run(run)]


def checklists(run: RunFolder) -> Section:
    """TRIPOD+AI; CLEAR and METRICS as well of what is made of images."""
    known = {} if run.model is None or run.model.not_fitted else answers(run, run.model)
    blocks = tripod(known)
    if uses_images(run):
        blocks += [*clear(run, known), *metrics_score(run, known)]
    return Section("checklists", "Checklists", blocks)


def render_page(
    *, title: str, origin: str, key_figures: Sequence[KeyFigure], sections: Sequence[Section], untrained: bool = False
) -> str:
    """A page as text.

    Parameters
    ----------
    title, origin
        Its heading, and one line that says what it is of.
    key_figures
        What stands at its top.
    sections
        All the rest.
    untrained
        Whether it has to warn that features come from untrained weights.
    """
    environment = Environment(
        loader=PackageLoader("prognosis_dask.report", package_path=""),
        autoescape=True,  # patients' names and reasons are text from files that anybody wrote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        origin=origin,
        untrained=untrained,
        key_figures=key_figures,
        sections=sections,
    )


def _origin(run: RunFolder) -> str:
    if not run.info:
        return "Models fitted on tables of features; no images were read here."
    finished = _moment(run.info.get("finished"))
    return (
        f"Run {run.name}, finished {finished}."
        if finished
        else f"Run {run.name}, not finished when this page was written."
    )


def _moment(text: str | None) -> str:
    """A time as ``run.json`` holds it, for reading.

    >>> _moment("2026-01-05T10:01:07.5+00:00")
    '2026-01-05, 10:01 UTC'
    """
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d, %H:%M %Z}".strip() if text else ""
    except ValueError:
        return str(text)


def _key_figures(run: RunFolder) -> list[KeyFigure]:
    figures = []
    if run.info:
        found, usable = flow(run)[:2]
        number_of_features = sum(family.features for family in families(run))
        figures += [
            KeyFigure(
                "cases with features", f"{usable.cases} of {found.cases}", count(usable.patients or 0, "patient")
            ),
            KeyFigure("features", str(number_of_features)),
        ]
    if run.model is not None and not run.model.not_fitted:
        figures += _model_figures(run.model)
    elif run.model is not None:
        figures.append(KeyFigure("model", "none", run.model.not_fitted))
    if run.info.get("seconds") is not None:
        reused = any(stage.get("reused") for stage in (run.info.get("stages") or {}).values())
        label = "time of the last run, which went on from an earlier one" if reused else "run time"
        figures.append(KeyFigure(label, duration(run.info["seconds"]), _rate(run.info)))
    return figures


def _model_figures(models: ModelFolder) -> list[KeyFigure]:
    summary, found = models.summary, models.estimate()
    patients = count(summary["n_patients"], "patient")
    if models.classes:
        figures = [KeyFigure("cases in the model", str(summary["n_cases"]), f"of {patients}")]
    else:
        figures = [KeyFigure("patients with the event", str(summary["n_events"]), f"of {patients} in the model")]
    if found is not None:
        title = describe(models.headline).title
        whose = "cases that it was fitted on among them" if models.summary.get("met_before") else "held-out cases"
        figures.append(KeyFigure(f"{title}, {whose}", number(found[0]), interval(found[1], found[2])))
    flattering = models.in_sample()
    if flattering is not None:
        figures.append(KeyFigure("the same in-sample, optimistic", number(flattering)))
    return figures


def _rate(info: Mapping[str, Any]) -> str:
    computed = max((int(stage.get("done", 0)) for stage in (info.get("stages") or {}).values()), default=0)
    seconds = float(info["seconds"])
    return f"{60 * computed / seconds:.1f} cases a minute" if computed > 0 and seconds > 0 else ""


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
