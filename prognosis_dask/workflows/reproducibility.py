"""The folder of ``prognosis reproducibility``: which features agree between two measurements of the same patients."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prognosis_dask.arrays import FloatArray
from prognosis_dask.errors import StatisticsError, count
from prognosis_dask.modelling.data.pairing import (
    IdColumns,
    Pairs,
    of_modality,
    of_runs,
    pair,
    pair_within,
    read_measurement,
)
from prognosis_dask.modelling.validation.reproducibility import (
    THRESHOLD,
    agreement_rows,
    family_rows,
    reproducible_features,
)
from prognosis_dask.publish import expect_writable
from prognosis_dask.report import canvas
from prognosis_dask.report.canvas import svg
from prognosis_dask.storage.place import local_copy, results_folder

#: Fewer values have no shape to draw: they are shown as points.
_FEWEST_FOR_VIOLIN = 8


@dataclass(frozen=True)
class Reproducibility:
    """What :func:`reproducibility` found; printed, it is what the command prints.

    Attributes
    ----------
    agreement
        One row per feature, as in ``agreement.csv``.
    families
        One row per family of features, as in ``families.csv``.
    reproducible
        The features that reach the threshold.
    pairs, by, left_out
        How many pairs of measurements, what they were paired by, and the cases without a partner.
    not_compared
        Columns that are not features of both.
    """

    agreement: list[dict[str, Any]]
    families: list[dict[str, Any]]
    reproducible: tuple[str, ...]
    pairs: int
    by: str
    left_out: tuple[str, ...]
    not_compared: tuple[str, ...]

    def __str__(self) -> str:
        rest = (
            f"; {count(len(self.not_compared), 'column')} not compared: no feature of both" if self.not_compared else ""
        )
        lines = [
            f"{count(self.pairs, 'pair')} by {self.by}; {count(len(self.left_out), 'case')} without a partner{rest}"
        ]
        for row in self.families:
            whose = f"{row['family']} of {row['roi']}" if row["roi"] else row["family"]
            lines.append(
                f"{whose}: concordance mean {row['mean_ccc']:.2f}, median {row['median_ccc']:.2f}; "
                f"{row['reproducible']} of {count(row['determined'], 'feature')} at {row['threshold']:g} or above"
            )
        if len({row["roi"] for row in self.families}) > 1:
            lines.append(
                f"Each region by itself; {count(len(self.reproducible), 'feature')} reach it in every one. "
                "--pooled takes all regions together by a mixed model."
            )
        return "\n".join(lines)


def reproducibility(
    first: Path | str,
    second: Path | str | None = None,
    out: Path | str | None = None,
    *,
    threshold: float = THRESHOLD,
    modalities: Sequence[str] = (),
    columns: IdColumns | None = None,
    pooled: bool = False,
) -> Reproducibility:
    r"""Compare two measurements of the same patients, feature by feature.

    Parameters
    ----------
    first, second
        Runs' folders or addresses, or tables (CSV, XLSX). Without the second, the two series of each patient in the
        first.
    out
        A folder or an address for the files; without it none are written:

        ================  =================================================================================
        agreement.csv     feature, family, roi, n, then ccc, icc_1_1, icc_2_1, icc_3_1, each with its interval
        families.csv      family, roi, features, determined, mean_ccc, median_ccc, ..., reproducible, share
        reproducible.csv  feature: those that reach the threshold in every region; selection can read it
        violin.svg        the distribution of the concordance per family
        summary.json      what was compared, and how the rows were paired
        ================  =================================================================================
    threshold
        Of the concordance correlation, above 0 and up to 1.
    modalities
        Two of them: cases of the one are compared with those of the other.
    columns
        Of tables: the columns that say whose row it is. With a ``run`` column one table holds both measurements.
    pooled
        All regions in one coefficient, by a mixed model; else each region of interest by itself.

    Raises
    ------
    StatisticsError, StoreError
        When a source cannot be read, rows or features cannot be paired, or ``out`` cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     first, second = Path(folder) / "first.csv", Path(folder) / "second.csv"
    ...     _ = first.write_text("patient_id,volume,entropy\nP1,10,3\nP2,14,5\nP3,21,4\nP4,30,6\n")
    ...     _ = second.write_text("patient_id,volume,entropy\nP1,11,5\nP2,14,3\nP3,20,6\nP4,31,4\n")
    ...     found = reproducibility(first, second)
    >>> found.pairs, found.reproducible
    (4, ('volume',))
    """
    if not 0 < threshold <= 1:
        raise StatisticsError(f"the threshold is {threshold:g}, expected a concordance above 0 and up to 1")
    expect_writable(out)
    pairs = _pairs(first, second, modalities, columns)
    rows = agreement_rows(pairs, pooled=pooled)
    found = Reproducibility(
        rows,
        family_rows(rows, threshold),
        reproducible_features(rows, threshold),
        len(pairs.first.case_ids),
        pairs.by,
        pairs.left_out,
        pairs.not_compared,
    )
    if out is not None:
        settings = {
            "first": str(first),
            "second": str(second or first),
            "modalities": list(modalities),
            "threshold": threshold,
            "pooled": pooled,
        }
        with results_folder(out) as folder:
            _write(found, folder, settings)
    return found


def _pairs(first: Path | str, second: Path | str | None, modalities: Sequence[str], columns: IdColumns | None) -> Pairs:
    one = read_measurement(local_copy(first), columns)
    if columns is not None and columns.run:
        return pair(*of_runs(one))
    if not modalities:
        if second is not None and Path(second).resolve() == Path(first).resolve():
            raise StatisticsError(f"{first} would be compared with itself: give the other measurement as the second")
        return pair_within(one) if second is None else pair(one, read_measurement(local_copy(second), columns))
    if len(modalities) != 2:
        raise StatisticsError(f"--modalities {','.join(modalities)}: expected two of them, such as CT,MR")
    other = one if second is None else read_measurement(local_copy(second), columns)
    return pair(of_modality(one, modalities[0]), of_modality(other, modalities[1]))


def _write(found: Reproducibility, folder: Path, settings: Mapping[str, Any]) -> None:
    write_rows(folder / "agreement.csv", found.agreement)
    write_rows(folder / "families.csv", found.families)
    write_rows(folder / "reproducible.csv", ({"feature": name} for name in found.reproducible), ("feature",))
    values = {
        " ".join(filter(None, (row["family"], row["roi"]))): np.array(
            [one["ccc"] for one in found.agreement if (one["family"], one["roi"]) == (row["family"], row["roi"])]
        )
        for row in found.families
    }
    (folder / "violin.svg").write_text(agreement_violins(values, settings["threshold"]), encoding="utf-8")
    summary = {**settings, "pairs": found.pairs, "paired_by": found.by, "left_out": found.left_out}
    summary["not_compared"] = found.not_compared
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], names: Iterable[str] = ()) -> None:
    """Write rows with the same keys, which ``names`` lists where there may be none; NaN is an empty cell."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(names) or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in rows)


@svg
def agreement_violins(values: Mapping[str, FloatArray], threshold: float) -> Figure:
    """Distribution of the concordance correlation per family of features: violins with every feature as a point.

    Parameters
    ----------
    values
        Family to the coefficients of its features; those that are not finite are not drawn.
    threshold
        A line, and how many reach it is written beside each family.
    """
    held = {family: of_family[np.isfinite(of_family)] for family, of_family in values.items()}
    held = {family: of_family for family, of_family in held.items() if len(of_family)}
    figure = canvas.new_figure(canvas.FULL_WIDTH, 1.0 + 0.85 * max(len(held), 1))
    axes = figure.subplots()
    canvas.light_grid(axes, "x")
    axes.axvline(threshold, color=canvas.INK, linewidth=0.9, linestyle=(0, (4, 2)))
    for at, (of_family, colour) in enumerate(zip(held.values(), itertools.cycle(canvas.GROUP_COLOURS), strict=False)):
        _violin(axes, at, of_family, colour)
        axes.annotate(
            f"{int((of_family >= threshold).sum())} of {len(of_family)} reach {threshold:g}",
            (1.0, at),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(held)), list(held))
    axes.set_ylim(max(len(held), 1) - 0.5, -0.5)
    lowest = min((float(of_family.min()) for of_family in held.values()), default=0.0)
    axes.set_xlim(max(-1.02, min(-0.05, lowest - 0.05)), 1.02)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("concordance correlation coefficient (Lin)")
    return figure


def _violin(axes: Axes, at: int, values: FloatArray, colour: str) -> None:
    """One family: its shape, its features as points in a fixed scatter, median and quartiles."""
    shaped = len(values) >= _FEWEST_FOR_VIOLIN
    if shaped and np.ptp(values) > 1e-6:
        parts = axes.violinplot([values], [at], orientation="horizontal", widths=0.8, showextrema=False)
        bodies: Any = parts["bodies"]
        for body in bodies:
            outline = body.get_paths()[0].vertices
            outline[:, 0] = np.clip(outline[:, 0], values.min(), values.max())
            body.set(facecolor=colour, alpha=0.25, edgecolor=colour, linewidth=0.8)
    # each point's height comes from its rank, so that the same data give the same drawing
    order = np.argsort(np.argsort(values))
    height = ((order * 0.6180339887) % 1.0 - 0.5) * (0.42 if shaped else 0.0)
    axes.scatter(values, at + height, s=5, color=colour, alpha=0.55, linewidths=0)
    low, middle, high = np.percentile(values, [25, 50, 75])
    axes.plot([low, high], [at, at], color=canvas.INK, linewidth=3.0, solid_capstyle="butt")
    axes.plot([middle], [at], marker="o", markersize=5.5, markerfacecolor="white", markeredgecolor=canvas.INK)
