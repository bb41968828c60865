"""Features: how many of each family, and how they correlate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prognosis_dask.arrays import FloatArray
from prognosis_dask.features.registry import DEEP, RADIOMICS, stages
from prognosis_dask.features.stage import Family, Stage
from prognosis_dask.modelling.folder import ModelFolder, known_json
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Block, Heading, Picture, Rows, Section, Table, Text, absent
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.acquisition import acquisition
from prognosis_dask.report.sections.regions import per_case
from prognosis_dask.report.words import clipped, short_name

#: Features in the correlation figure: more names than this cannot be read on a page.
MAX_CORRELATED = 40


@dataclass(frozen=True)
class FamilySummary:
    """Features that share a kind, and how many of their values are unusable.

    ``missing`` is the share of values that are not finite, over the cases whose stage is done; ``constant`` counts
    features that have the same value in every case.
    """

    name: str
    features: int
    missing: float
    constant: int


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho between features, and of each with the volume; ordered so that similar features are neighbours."""

    names: list[str]
    between: FloatArray
    with_volume: FloatArray


def features(run: RunFolder) -> Section:
    """Features by family, and how they correlate."""
    found = families(run)
    blocks: list[Block] = [_families_table(found) if found else absent("This run holds no features.")]
    for stage in (RADIOMICS, DEEP):
        if run.job and not stage.is_on(run.job):
            blocks.append(absent(_without(run, stage)))
    if (figure := correlation(run)) is not None:
        blocks.append(figure)
    elif found:
        blocks.append(absent("Too few cases have finite features to correlate them (5 are needed)."))
    return Section("features", "Features", [*blocks, *acquisition(run, feature_table(run)), *_robustness(run)])


def _robustness(run: RunFolder) -> list[Block]:
    """What ``prognosis robustness`` found, where it was run."""
    found = known_json(run.path / "robustness" / "summary.json")
    if not found:
        return []
    said = (
        f"{found['cases']} cases were perturbed {found['repeats']} times each (rotation, translation, noise, contour, "
        f"volume): {found['robust']} of {found['features']} radiomic features have an ICC(1,1) of "
        f"{found['threshold']:g} or above. "
    )
    controls = [
        Text(f"Negative control, {name.replace('_', ' ')}: {text}.", "warning" if ":" in text else "plain")
        for name, text in found["controls"].items()
    ]
    return [Heading("Robustness"), Text(said), *controls]


def _without(run: RunFolder, stage: Stage) -> str:
    if stage is DEEP and (run.job.get("grade") or {}).get("enabled"):
        return (
            "The deep features are those of the grade’s own network. It is retrained in every fold, so they are not "
            "columns of the run: see Validation."
        )
    return f"The job has {stage.name} features switched off."


def _families_table(found: Sequence[FamilySummary]) -> Table:
    rows = [(f.name, str(f.features), f"{100 * f.missing:.1f} %", str(f.constant)) for f in found]
    return Table(
        "Features by family. “Missing” is the share of values that are not finite among the cases that passed that "
        "stage; a constant feature has one value in all of them.",
        ("Family", "Features", "Missing", "Constant"),
        "lnnn",
        [Rows("", rows)],
    )


def families(run: RunFolder) -> list[FamilySummary]:
    """The features by kind: the tumour's size and place, pyradiomics' classes, and the deep features.

    Each modality has families of its own: its values differ, and its parameters may.
    """
    found = []
    modality = {case.case_id: case.modality for case in run.cases}
    several = sorted(set(modality.values()))
    for stage in stages():
        values = run.values(stage.family.name) if stage.family else None
        if stage.family is None or values is None:
            continue
        values = values[values.index.isin(_done(run, stage))]
        if len(several) < 2:
            found += _families_of(stage.family, values)
            continue
        for name in several:
            own = values[[modality.get(case) == name for case in values.index]]
            found += _families_of(stage.family, own.loc[:, own.notna().any()], f"{name} ")
    return found


def _families_of(declared: Family, values: pd.DataFrame, of: str = "") -> list[FamilySummary]:
    names = [declared.part(name) if declared.part else declared.name for name in values.columns]
    chosen = {family: [name == family for name in names] for family in dict.fromkeys(names)}
    return [_summarise(f"{of}{name}", values.loc[:, at].to_numpy(dtype=float)) for name, at in chosen.items()]


def _done(run: RunFolder, stage: Stage) -> set[str]:
    return {case_id for case_id, result in run.results.get(stage.name, {}).items() if result.problem is None}


def _summarise(name: str, values: FloatArray) -> FamilySummary:
    missing = float(1 - np.isfinite(values).mean()) if values.size else 0.0
    constant = int(np.sum(np.ptp(values, axis=0) == 0)) if len(values) > 1 else 0
    return FamilySummary(name, values.shape[1], missing, constant)


def correlation(run: RunFolder) -> Picture | None:
    """Clustered correlations of the highest-ranked features, or of the first ones where nothing was ranked."""
    table = feature_table(run)
    if table is None:
        return None
    ranked = _ranked(run.model, list(table.columns))
    ranked = ranked if len(ranked) > 1 else []  # of one alone there is no correlation; a network's are no columns here
    ordered = table[ranked] if ranked else table
    volume = pd.Series(per_case(run, "volume_ml"), dtype=float).reindex(table.index).to_numpy()
    found = correlate(ordered.to_numpy(dtype=float), list(ordered.columns), volume)
    if found is None:
        return None
    kind = "highest-ranked" if ranked else "first"
    data = pd.DataFrame(found.between, columns=found.names)
    data.insert(0, "feature", found.names)
    data["volume_ml"] = found.with_volume
    return Picture("feature_correlations", _draw_correlations(found), data, *_correlation_texts(found, kind))


def _correlation_texts(found: Correlation, kind: str) -> tuple[str, str]:
    count = len(found.names)
    strong = int((np.abs(found.with_volume) > 0.7).sum())
    upper = np.abs(found.between[np.triu_indices(count, 1)])
    alt = (
        f"Heat map of the correlations between {count} features: median absolute rho {np.median(upper):.2f}; "
        f"{strong} of them beyond 0.7 with the volume."
    )
    caption = (
        f"Spearman correlation between the {count} {kind} features, ordered by average linkage on 1 − |ρ| "
        f"(columns as rows), and, right, of each with the ROI volume. {strong} of {count} correlate with "
        "the volume beyond |ρ| = 0.7: such features add little beyond size."
    )
    return alt, caption


def feature_table(run: RunFolder) -> pd.DataFrame | None:
    """Radiomics and deep features side by side, one row per case; None where there are none."""
    of_families = (run.values(stage.family.name) for stage in (RADIOMICS, DEEP) if stage.family)
    parts = [part for part in of_families if part is not None]
    if not parts:
        return None
    table = pd.concat(parts, axis=1)
    # a stage that failed or never ran leaves whole rows of NaN; they say nothing of the other features
    complete = table.dropna(axis=1, how="all")
    return complete if complete.shape[1] else None


def _ranked(models: ModelFolder | None, known: Sequence[str]) -> list[str]:
    """The features that the outer folds chose most often."""
    selection = models.table("selection") if models is not None else None
    if models is None or selection is None:
        return []
    chosen = selection[(selection["procedure"] == models.primary) & (selection["share"] > 0)]
    names = set(known)
    return [f for f in chosen.sort_values("share", ascending=False, kind="stable")["feature"] if f in names]


def correlate(values: FloatArray, names: Sequence[str], volume_ml: FloatArray) -> Correlation | None:
    """Correlate at most 40 features over the cases that have all of them.

    Parameters
    ----------
    values
        (case, feature); the leftmost features that vary are taken, so put the interesting ones first.
    names
        One per column.
    volume_ml
        One per case.

    Returns
    -------
    None where fewer than 5 cases or 3 features are left. The order is that of average linkage on
    ``1 - |rho|``, as in a clustered heat map.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    complete = np.isfinite(values).all(axis=1) & np.isfinite(volume_ml)
    kept = values[complete]
    if len(kept) < 5:
        return None
    columns = np.flatnonzero(np.ptp(kept, axis=0) > 0)[:MAX_CORRELATED]
    if len(columns) < 3:
        return None
    ranks = pd.DataFrame(np.column_stack([kept[:, columns], volume_ml[complete]])).rank().to_numpy()
    if np.ptp(ranks[:, -1]) == 0:
        return None
    rho = np.corrcoef(ranks, rowvar=False)
    between = rho[:-1, :-1]
    distance = squareform(np.clip(1 - np.abs(between), 0, None), checks=False)
    order = leaves_list(linkage(distance, method="average", optimal_ordering=True))
    return Correlation([names[columns[i]] for i in order], between[np.ix_(order, order)], rho[-1, :-1][order])


@svg
def _draw_correlations(correlation: Correlation) -> Figure:
    """A clustered heat map of the features, and beside it each feature's correlation with the volume."""
    size = len(correlation.names)
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.3 + 0.115 * max(size, 14))
    heat, strip = figure.subplots(1, 2, gridspec_kw={"width_ratios": [size, max(1.2, size / 22)], "wspace": 0.01})
    shown = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "aspect": "auto"}
    image = heat.imshow(correlation.between, **shown)
    strip.imshow(correlation.with_volume[:, np.newaxis], **shown)
    heat.set_yticks(range(size), [clipped(short_name(name)) for name in correlation.names], fontsize=6.5)
    heat.set_xticks([])
    strip.set_xticks([0], ["volume"], fontsize=7)
    strip.set_yticks([])
    for axes in (heat, strip):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    bar: dict[str, Any] = {"location": "bottom", "shrink": 0.5, "aspect": 40, "ticks": [-1, -0.5, 0, 0.5, 1]}
    figure.colorbar(image, ax=[heat, strip], label="Spearman’s ρ", **bar)
    return figure
