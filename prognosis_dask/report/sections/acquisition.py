"""Features: whether they differ by what the images were acquired with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prognosis_dask.arrays import FloatArray, IntArray
from prognosis_dask.cohort.case import Case
from prognosis_dask.modelling.validation.differences import holm
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.report.content import Block, Heading, Picture, Text, absent
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.sections.characteristics import ACQUIRED
from prognosis_dask.report.sections.regions import per_case
from prognosis_dask.report.words import clipped, listed, p_text

#: Patients of a group; smaller ones are left out.
LEAST = 5
#: Permutations of the groups among the patients.
PERMUTATIONS = 499
#: Patients that are compared at most; of more, so many are drawn.
_MOST = 1000
_SEED = 0


@dataclass(frozen=True)
class Explained:
    """How much of the features' ranks the groups of one acquisition parameter explain.

    Attributes
    ----------
    modality, parameter
        Of the images, and what the groups have in common.
    groups
        Patients by value.
    features
        How many were compared.
    share
        Mean over the features of the share of their ranks' variance between the groups (η² of Kruskal and Wallis' test,
        H / (n - 1)).
    low, high
        Between what it lies in 95 % of permutations of the groups among the patients.
    p
        One-sided, of the permutations; of all parameters together by Holm in ``p_holm``.
    volume
        The same share of the regions' volume; NaN where it is not known.
    """

    modality: str
    parameter: str
    groups: Mapping[str, int]
    features: int
    share: float
    low: float
    high: float
    p: float
    p_holm: float
    volume: float


def acquisition(run: RunFolder, values: pd.DataFrame | None) -> list[Block]:
    """Whether features differ by scanner, kernel, thickness and so on; nothing where no header says any of them."""
    if values is None or not any(case.acquisition for case in run.cases):
        return []
    found, not_compared = explained(run.cases, values, per_case(run, "volume_ml"))
    rest = f"Not compared: {'; '.join(not_compared)}." if not_compared else ""
    if not found:
        return [
            Heading("Acquisition"),
            absent(f"No acquisition parameter has two groups of at least {LEAST} patients. {rest}"),
        ]
    blocks: list[Block] = [Heading("Acquisition"), _verdict(found), _picture(found)]
    return [*blocks, Text(rest, "note")] if rest else blocks


def _verdict(found: Sequence[Explained]) -> Text:
    beyond = [f"{one.modality}: {one.parameter} ({p_text(one.p_holm)})" for one in found if one.p_holm < 0.05]
    if not beyond:
        return Text(
            "No acquisition parameter explains more of the features than chance does, as far as groups of this size "
            "can show."
        )
    return Text(
        f"Features differ by acquisition beyond chance: {listed(beyond)}. The scanner may be the cause, or different "
        "patients: compare the volume, and the characteristics by site. A procedure with `harmonise` aligns sites.",
        "warning",
    )


def _picture(found: Sequence[Explained]) -> Picture:
    rows = [
        {
            "modality": one.modality,
            "parameter": one.parameter,
            "groups": "; ".join(f"{value}: {n}" for value, n in one.groups.items()),
            "features": one.features,
            "explained": one.share,
            "chance_lower": one.low,
            "chance_upper": one.high,
            "p": one.p,
            "p_holm": one.p_holm,
            "explained_volume": one.volume,
        }
        for one in found
    ]
    told = "; ".join(f"{one.modality} {one.parameter} {100 * one.share:.0f} %" for one in found)
    return Picture(
        "acquisition",
        _draw(found),
        pd.DataFrame(rows),
        f"Share of the features’ variance that acquisition explains: {told}.",
        "Share of the variance of the features’ ranks that groups of one acquisition parameter explain, mean over the "
        f"features, one case of each patient. Bar: where it lies in 95 % of {PERMUTATIONS} permutations of the groups "
        "among the patients. Open diamond: the same for the region’s volume, which hardly depends on the scanner; a "
        "large share means that the groups hold different patients (as a single figure it varies more by chance). "
        f"Groups of fewer than {LEAST} patients are left out.",
    )


@svg
def _draw(found: Sequence[Explained]) -> Figure:
    """A row per parameter: what it explains, what chance gives, and what it explains of the volume."""
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.0 + 0.36 * len(found))
    axes = figure.subplots()
    places = np.arange(len(found))[::-1]
    for place, one in zip(places, found, strict=True):
        axes.barh(place, 100 * (one.high - one.low), 0.5, 100 * one.low, color=canvas.PALE, zorder=1)
        axes.plot(100 * one.volume, place, "D", color=canvas.INK, mfc="white", ms=5, zorder=2, clip_on=False)
        axes.plot(100 * one.share, place, "s", color=canvas.BLUE, ms=6.5, zorder=3, clip_on=False)
    names = [f"{one.modality}: {clipped(one.parameter)}\n{_sizes(one.groups)}" for one in found]
    canvas.named_rows(axes, places.tolist(), names, size=7.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("explained variance of ranks (%)")
    marks = [("features", "s", canvas.BLUE, canvas.BLUE), ("volume", "D", canvas.INK, "white")]
    handles = [axes.plot([], [], mark, color=edge, mfc=face, ms=6, label=name)[0] for name, mark, edge, face in marks]
    handles.append(axes.barh([0], [0], color=canvas.PALE, label="chance, 95 %"))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    return figure


def _sizes(groups: Mapping[str, int], most: int = 3) -> str:
    shown = ", ".join(f"{clipped(value, 16)} ({n})" for value, n in list(groups.items())[:most])
    return shown + (f" and {len(groups) - most} more" if len(groups) > most else "")


def explained(
    cases: Sequence[Case], values: pd.DataFrame, volume_ml: Mapping[str, float]
) -> tuple[list[Explained], list[str]]:
    """What each parameter explains, of each modality; and what could not be compared, with the reason.

    Parameters
    ----------
    cases
        Of each patient and modality the first one with features is taken.
    values
        A row per ``case_id``, a column per feature.
    volume_ml
        By ``case_id``.
    """
    rng = np.random.default_rng(_SEED)
    found, not_compared = [], []
    for modality in dict.fromkeys(case.modality for case in cases):
        of_modality = {case.case_id: case for case in cases if case.modality == modality}
        table = _complete(values.loc[values.index.isin(list(of_modality))])
        own: dict[str, Case] = {}
        for case in map(of_modality.__getitem__, table.index):
            own.setdefault(case.patient_id, case)
        for key, title in ACQUIRED.items():
            said = {case.case_id: text for case in own.values() if (text := case.acquisition.get(key, "").strip())}
            groups = grouped(said)
            if len(set(groups.values())) > 1:
                found.append(_explained(modality, title, groups, table, volume_ml, rng))
            elif said:
                why = "one value" if len(set(said.values())) == 1 else f"no two groups of {LEAST} patients"
                not_compared.append(f"{modality} {title} ({why})")
    adjusted = holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)], not_compared


def grouped(said: Mapping[str, str]) -> dict[str, str]:
    """The group of each case: its value, where :data:`LEAST` cases share it; numbers that few share in two halves.

    >>> grouped({"a": "B30f", "b": "B30f", "c": "x"} | {str(i): "B70f" for i in range(5)}) == {
    ...     str(i): "B70f" for i in range(5)
    ... }
    True
    >>> halves = grouped({str(i): f"{500 + i}" for i in range(12)})
    >>> sorted(set(halves.values()))
    ['above 505.5', 'up to 505.5']
    """
    counts = Counter(said.values())
    kept = {case: text for case, text in said.items() if counts[text] >= LEAST}
    if len(set(kept.values())) > 1 or 2 * len(kept) >= len(said):
        return kept
    try:
        numbers = {case: float(text) for case, text in said.items()}
    except ValueError:
        return kept
    middle = float(np.median(list(numbers.values())))
    halves = {case: f"{'up to' if value <= middle else 'above'} {middle:g}" for case, value in numbers.items()}
    sizes = Counter(halves.values())
    return halves if len(sizes) > 1 and min(sizes.values()) >= LEAST else {}


def _complete(values: pd.DataFrame) -> pd.DataFrame:
    """Of the features that most cases have, those that vary; of the cases those that have all of them."""
    finite = np.isfinite(values.to_numpy(dtype=float))
    table = values.loc[:, finite.mean(axis=0) > 0.5] if len(values) else values
    table = table[np.isfinite(table.to_numpy(dtype=float)).all(axis=1)]
    return pd.DataFrame(table.loc[:, [table[name].nunique() > 1 for name in table.columns]])


def _explained(
    modality: str,
    title: str,
    groups: Mapping[str, str],
    values: pd.DataFrame,
    volume_ml: Mapping[str, float],
    rng: np.random.Generator,
) -> Explained:
    named = list(groups)
    case_ids = [named[i] for i in sorted(rng.permutation(len(named))[:_MOST])]
    group = np.unique([groups[case] for case in case_ids], return_inverse=True)[1]
    alike = likeness(values.loc[case_ids].to_numpy(dtype=float))
    share = share_between(alike, group)
    permuted = np.array([share_between(alike, rng.permutation(group)) for _ in range(PERMUTATIONS)])
    low, high = np.quantile(permuted, [0.025, 0.975])
    p = (1 + int((permuted >= share).sum())) / (1 + PERMUTATIONS)
    volume = np.array([volume_ml.get(case, np.nan) for case in case_ids])
    of_volume = share_between(likeness(volume[:, np.newaxis]), group) if np.isfinite(volume).all() else float("nan")
    sizes = dict(Counter(groups[case] for case in case_ids).most_common())
    return Explained(modality, title, sizes, values.shape[1], share, float(low), float(high), p, p, of_volume)


def likeness(values: FloatArray) -> FloatArray:
    """Products between cases of the features' ranks, each feature's centred and of length one: their mean.

    Parameters
    ----------
    values
        (case, feature), finite. Features without variance count as zero.

    Returns
    -------
    (case, case)
    """
    ranks = pd.DataFrame(values).rank().to_numpy(copy=True)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    ranks = ranks[:, length > 0] / length[length > 0]
    return np.asarray(ranks @ ranks.T / values.shape[1])


def share_between(alike: FloatArray, group: IntArray) -> float:
    """The share of the ranks' variance that lies between groups, mean over the features.

    Of a single feature it is H / (n - 1) with Kruskal and Wallis' H, ties counted.

    >>> from scipy.stats import kruskal
    >>> x = np.array([1.0, 2, 3, 3, 7, 9])
    >>> h = kruskal(x[:2], x[2:]).statistic
    >>> bool(np.isclose(share_between(likeness(x[:, np.newaxis]), np.array([0, 0, 1, 1, 1, 1])), h / 5))
    True
    """
    members = group[np.newaxis] == np.unique(group)[:, np.newaxis]
    within = np.einsum("gi,ij,gj->g", members, alike, members, optimize=True)
    return float((within / members.sum(axis=1)).sum())
