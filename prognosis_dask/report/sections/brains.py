"""Preparation of the brains: what was found in MR of the head, how sure it is, and where to look first."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from prognosis_dask.brain.preprocess import MOST_MOVED_MM
from prognosis_dask.brain.quality import (
    LEAST_AGREEMENT,
    LEAST_COVERAGE,
    LEAST_FIT,
    LEAST_OVERLAP,
    LEAST_SHARED_TEMPLATE,
    MOST_BEYOND_ML,
    MOST_MISSING_ML,
    MOST_OFF_CENTRE_MM,
    SCALE,
    SKULL_MM,
    SKULL_T2_MM,
    VOLUME_L,
)
from prognosis_dask.errors import count
from prognosis_dask.features.registry import BRAIN
from prognosis_dask.objects.address import join
from prognosis_dask.report.canvas import png_address, png_size
from prognosis_dask.report.content import Block, Picture, Rows, Section, Table, Text, absent
from prognosis_dask.report.identifiers import named
from prognosis_dask.report.read import RunFolder
from prognosis_dask.report.words import listed, number
from prognosis_dask.storage.brains import BrainStore

#: So many of the least sure cases are shown.
_SHOWN = 3
_LABEL_HEIGHT = 34
#: What is measured of every case, how it is called, and what is accepted.
_FIGURES = {
    "brain_volume_l": ("brain volume (L)", f"{VOLUME_L[0]:g} to {VOLUME_L[1]:g}, less where part is imaged"),
    "coverage": ("share of the brain in the image", f"at least {LEAST_COVERAGE:g}"),
    "template_overlap": ("overlap with the template’s brain (Dice)", f"at least {LEAST_OVERLAP:g}"),
    "scale": ("size against the template", f"{SCALE[0]:g} to {SCALE[1]:g}"),
    "mutual_information": ("mutual information with the template (nats)", f"at least {LEAST_SHARED_TEMPLATE:g}"),
    "upright": ("the same against the best of 23 other turns (ratio)", "above 1"),
    "agreement": ("overlap of two methods’ brains (Dice)", f"at least {LEAST_AGREEMENT:g}"),
    "boundary_fit": ("contrast of the brain’s edge (−1 to 1)", f"at least {LEAST_FIT:g}"),
    "skull_mm": (
        "from the mask to the skull (mm)",
        f"{SKULL_MM[0]:g} to {SKULL_MM[1]:g}; T2 {SKULL_T2_MM[0]:g} to {SKULL_T2_MM[1]:g}".replace("-", "−"),
    ),
    "off_centre_mm": ("the mask to one side (mm)", f"up to {MOST_OFF_CENTRE_MM:g}"),
    "missing_ml": ("the template’s brain that the mask lacks (mL)", f"up to {MOST_MISSING_ML:g}"),
    "beyond_ml": ("the mask far outside the template’s brain (mL)", f"up to {MOST_BEYOND_ML:g}"),
}
_SOURCES = {
    "drawn": "outlined on every slice",
    "interpolated": "outlined on some slices, completed by shape between them",
    "automatic": "found automatically",
}


def brains(run: RunFolder) -> Section:
    """What the preparation measured, where the tumours' masks come from, and pictures of the least sure cases."""
    found = quality_table(run)
    blocks: list[Block] = [absent("No brain was prepared.")]
    if len(found):
        blocks = [Text(_described(run, found)), *_warning(found), _figures(found)]
        blocks += [picture] if (picture := _least_sure(run, found)) else []
    return Section("brains", "Preparation of the brains", blocks)


def quality_table(run: RunFolder) -> pd.DataFrame:
    """A row per prepared case: the figures of its quality, and where its tumour's mask comes from."""
    done = {k: result.values for k, result in run.results.get(BRAIN.name, {}).items() if result.problem is None}
    moved = sorted({name for values in done.values() for name in values if name.startswith("moved_mm_")})
    names = [*_FIGURES, *moved, "stripped_before", "tumour_source", "tumour_confidence"]
    rows = [{"case_id": case_id, **{name: values.get(name) for name in names}} for case_id, values in done.items()]
    return pd.DataFrame(rows, columns=["case_id", *names]).sort_values("case_id", ignore_index=True)


def _described(run: RunFolder, found: pd.DataFrame) -> str:
    prepared = set(found["case_id"])
    sequences = Counter(name for case in run.cases if case.case_id in prepared for name in case.sequences)
    held = (
        f" Their sequences: {listed([f'{name} in {n}' for name, n in sequences.most_common()])}." if sequences else ""
    )
    sources = Counter(found["tumour_source"])
    tumours = listed([f"{sources[source]} {words}" for source, words in _SOURCES.items() if sources[source]])
    stripped = int(np.sum(found["stripped_before"].eq(True)))
    before = f" {count(stripped, 'case')} came without skull." if stripped else ""
    return (
        f"{count(len(found), 'case')} prepared.{held}{before} Tumours: {tumours}. brain/ holds every case’s images, "
        "masks and pictures; look at quality.png before you believe a figure."
    )


def _warning(found: pd.DataFrame) -> list[Block]:
    automatic = int(found["tumour_source"].eq("automatic").sum())
    if not automatic:
        return []
    return [Text(f"{count(automatic, 'tumour')} found automatically and not reviewed: look at each one.", "warning")]


def _figures(found: pd.DataFrame) -> Table:
    rows = [(label, *_spread(found[name]), expected) for name, (label, expected) in _FIGURES.items()]
    moved = [name for name in found if str(name).startswith("moved_mm_")]
    rows += [
        (
            f"way of {str(name).removeprefix('moved_mm_')} to its place (mm)",
            *_spread(found[name]),
            f"up to {MOST_MOVED_MM:g}",
        )
        for name in moved
    ]
    return Table(
        "Quality of the preparation over the cases that came through it. What lies outside of what is accepted ends "
        "its case with a problem code.",
        ("Figure", "Median", "Least", "Greatest", "Accepted"),
        "lnnnl",
        [Rows("", rows)],
    )


def _spread(column: pd.Series[float]) -> tuple[str, str, str]:
    values = pd.to_numeric(column).dropna()
    if values.empty:
        return "–", "–", "–"
    return number(float(values.median())), number(float(values.min())), number(float(values.max()))


def _least_sure(run: RunFolder, found: pd.DataFrame) -> Picture | None:
    """The pictures of the cases whose brain agrees least with the template's."""
    ranked = found.sort_values(["template_overlap", "upright"], na_position="last", kind="stable")
    store = BrainStore(join(run.arrays, "brain"))
    found_pictures = [(case_id, store.picture(case_id)) for case_id in ranked["case_id"][:_SHOWN]]
    shown = [(case_id, picture) for case_id, picture in found_pictures if picture is not None]
    if not shown:
        return None
    return Picture(
        "brains",
        stacked(shown),
        found.assign(case_id=found["case_id"].map(named)),
        f"Slices of {len(shown)} heads before and after the preparation, with the outlines of brain and tumour: "
        f"{listed([named(case_id) for case_id, _ in shown])}.",
        f"{count(len(shown), 'case').capitalize()} whose brain agrees least with the template’s: slices from the "
        "brain’s foot to its top as scanned (above) and prepared (below), brain in blue, tumour in yellow. Is the "
        "brain whole, the skull gone, the outline where the tumour is? The patient’s left is on the right. The CSV "
        "holds all cases.",
    )


def stacked(shown: Sequence[tuple[str, bytes]]) -> str:
    """The pictures under one another, each below its case's name."""
    parts, top, widest = [], 0, 1
    for case_id, content in shown:
        width, height = png_size(content)
        parts.append(
            f'<text y="{top + 22}" font-family="DejaVu Sans, sans-serif" font-size="18">'
            f"{html.escape(named(case_id))}</text>"
            f'<image y="{top + _LABEL_HEIGHT}" width="{width}" height="{height}" href="{png_address(content)}"/>'
        )
        top, widest = top + _LABEL_HEIGHT + height, max(widest, width)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {widest} {top}">{"".join(parts)}</svg>'
