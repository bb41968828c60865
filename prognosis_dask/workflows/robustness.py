"""The folder of ``prognosis robustness``: which radiomic features stay as they are when image and mask vary a little.

Every region of a run is perturbed and measured again, on workers; and so are negative controls, on which a model that
learns from texture must be worse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from prognosis_dask.arrays import FloatArray, Map
from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.config.job import Job
from prognosis_dask.config.radiomics import IbsiSection
from prognosis_dask.errors import CaseError, StatisticsError, count
from prognosis_dask.execution.cluster import LocalSpec, Workers, connect, joined, map_on
from prognosis_dask.execution.record import recorded_job
from prognosis_dask.features.dataset import read_features
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.modelling.data.pairing import FEWEST_PAIRS, region_of
from prognosis_dask.modelling.fit import fit_dataset
from prognosis_dask.modelling.folder import known_json
from prognosis_dask.modelling.validation.reproducibility import intraclass_correlation, reproducible_features
from prognosis_dask.objects.address import join
from prognosis_dask.publish import expect_writable
from prognosis_dask.radiomics import ibsi
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.parameter_file import column_names, job_params
from prognosis_dask.radiomics.params import ModalityParams
from prognosis_dask.radiomics.perturbation import CONTROLS, Extent, control, perturbed
from prognosis_dask.report.page import write_report
from prognosis_dask.storage.ledger import digests_in
from prognosis_dask.storage.place import kept_in, local_copy, placed, results_folder
from prognosis_dask.storage.rois import RoiStore
from prognosis_dask.workflows.reproducibility import write_rows

#: Intraclass correlation from which a feature is robust (Zwanenburg et al. 2019).
THRESHOLD = 0.9
#: What a control leaves as it is in the images.
_KEPT = {"shuffled_voxels": "its histogram, volume and shape", "shuffled_mask": "the box and the number of voxels"}


@dataclass(frozen=True)
class _Families:
    """What is measured again: pyradiomics' features where there are parameters, IBSI's where there is a section."""

    params: ModalityParams | None
    ibsi: IbsiSection | None

    @classmethod
    def of(cls, dataset: xr.Dataset, job: Job) -> _Families:
        """Those of a run's dataset."""
        params = job_params(job.radiomics.params) if "radiomics" in dataset else None
        return cls(params, job.ibsi if "ibsi" in dataset else None)

    def names(self, modality: str) -> dict[str, tuple[str, ...]]:
        """By family the names, in the order of :meth:`measure`."""
        found = {}
        if self.params is not None:
            found["radiomics"] = column_names(self.params.of(modality))
        if self.ibsi is not None:
            found["ibsi"] = ibsi.names(self.ibsi)
        return found

    def measure(self, roi: Roi, modality: str) -> list[float]:
        """All features of one image and mask, as the run measured them."""
        values: list[float] = []
        if self.params is not None:
            values += extract(roi, self.params.of(modality)).values()
        if self.ibsi is not None:
            values += ibsi.measure(roi, self.ibsi, whole=modality == "CT").values()
        return values


@dataclass(frozen=True)
class Robustness:
    """What :func:`robustness` found; printed, it is what the command prints.

    Attributes
    ----------
    rows
        One row per region and feature, as in ``agreement.csv``.
    robust
        The features that reach the threshold in every region.
    threshold
        Of ICC(1,1).
    cases, repeats
        How many cases, and how often each was perturbed.
    failed
        Cases of which no perturbation could be measured, with the reason.
    controls
        By negative control, how the model performs on it; empty where the run has no model.
    """

    rows: list[dict[str, Any]]
    robust: tuple[str, ...]
    threshold: float
    cases: int
    repeats: int
    failed: Mapping[str, str]
    controls: Mapping[str, str]

    @property
    def features(self) -> int:
        """How many were compared."""
        return len({row["feature"] for row in self.rows})

    def __str__(self) -> str:
        lines = [
            f"{count(self.cases, 'case')}, each perturbed {count(self.repeats, 'time')}: {len(self.robust)} of "
            f"{count(self.features, 'feature')} have an ICC(1,1) of {self.threshold:g} or above in every region"
        ]
        lines += [f"{case_id}: {reason}" for case_id, reason in self.failed.items()]
        return "\n".join([*lines, *(f"{name.replace('_', ' ')}: {said}" for name, said in self.controls.items())])


def robustness(
    run: Path | str,
    out: Path | str | None = None,
    *,
    extent: Extent | None = None,
    repeats: int = 10,
    threshold: float = THRESHOLD,
    seed: int = 0,
    client: Workers | None = None,
) -> Robustness:
    """Perturb the regions of a run, measure them as the run did, and compare.

    Parameters
    ----------
    run
        A finished run's folder or address, with ``rois.zarr``. Its radiomic and IBSI features are measured again, with
        its own parameters.
    out
        A folder or an address for the files; else ``robustness`` in the run's:

        ====================  ==============================================================================
        agreement.csv         feature, roi, n, icc_1_1 with its interval of 95 %
        reproducible.csv      feature: those that reach the threshold in every region; selection can read it
        images/               the job's model of these features of these cases, like ``models/``
        shuffled_voxels/      the same on regions whose grey values are in random order
        shuffled_mask/        the same on as many voxels of the region's box, drawn at random
        summary.json          what was done, and what the controls say
        ====================  ==============================================================================
    extent
        How far each perturbation goes at most; by default those of :class:`Extent`.
    repeats
        Perturbations of each case, two or more.
    threshold
        Of ICC(1,1), above 0 and up to 1.
    seed
        Of the draws, which do not depend on the number of workers.
    client
        A Dask client, or what gives one in a ``with`` statement; without one a cluster is started here.

    Raises
    ------
    StatisticsError, StoreError
        When the run has no regions of interest or no radiomic features, or fewer than three cases of any region.
    """
    if not 0 < threshold <= 1:
        raise StatisticsError(f"the threshold is {threshold:g}, expected an ICC above 0 and up to 1")
    if repeats < 2:
        raise StatisticsError(f"{count(repeats, 'perturbation')} of each case, expected two or more")
    expect_writable(run if out is None else out)
    drawn = _Perturbing(extent or Extent(), repeats, seed, threshold)
    if out is not None and str(out) != join(run, "robustness"):
        with results_folder(out) as folder:
            return _compared(local_copy(run), folder, drawn, client)
    with placed(run, needed=True) as place:
        place.fetch()
        found = _compared(place.folder, place.folder / "robustness", drawn, client)
        write_report(place.folder)
    return found


class _Perturbing(NamedTuple):
    """How regions are perturbed and compared."""

    extent: Extent
    repeats: int
    seed: int
    threshold: float


def _compared(run: Path, out: Path, drawn: _Perturbing, client: Workers | None) -> Robustness:
    extent, repeats, seed, threshold = drawn
    job, dataset, cases = _of_run(run)
    families = _Families.of(dataset, job)
    measure = partial(_measured, join(kept_in(run), "rois.zarr"), families, extent, repeats, seed)
    with joined(connect(LocalSpec()) if client is None else client) as cluster:
        found = _measured_all(measure, cases, map_on(cluster))
        failed = {case_id: reason for case_id, reason in found.items() if isinstance(reason, str)}
        values = {case_id: one for case_id, one in found.items() if not isinstance(one, str)}
        rows = agreement(cases, values, families)
        controls = _fitted_controls(job, dataset, values, out, map_on(cluster), families, cases)
    robust = reproducible_features(rows, threshold, by="icc_1_1")
    result = Robustness(rows, robust, threshold, len(values), repeats, failed, controls)
    out.mkdir(exist_ok=True)
    write_rows(out / "agreement.csv", rows)
    write_rows(out / "reproducible.csv", ({"feature": name} for name in robust), ("feature",))
    summary = {"repeats": repeats, "seed": seed, "threshold": threshold, "extent": vars(extent)}
    summary |= {
        "cases": len(values),
        "features": result.features,
        "robust": len(robust),
        "failed": failed,
        "controls": controls,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return result


def _of_run(run: Path) -> tuple[Job, xr.Dataset, list[Case]]:
    dataset = read_features(run)
    held = [np.isfinite(dataset[name].values).any(axis=1) for name in ("radiomics", "ibsi") if name in dataset]
    if not held:
        raise StatisticsError(f"{run} has no radiomic features to be perturbed")
    usable = np.any(held, axis=0)
    measured = set(dataset["case"].values[usable].astype(str))
    job = recorded_job(known_json(run / "run.json"), run / "run.json")
    if job is None:
        raise StatisticsError(f"{run} has no run.json that says how its features were computed; give a run's folder")
    made = digests_in(run, RoiStore.stage)
    cases = [case for case in read_cases(run / "cases.csv") if case.case_id in measured]
    return job, dataset, [replace(case, stored={RoiStore.stage: made.get(case.case_id, "")}) for case in cases]


def _measured_all(measure: Any, cases: Sequence[Case], cluster_map: Map) -> dict[str, FloatArray | str]:
    return dict(zip([case.case_id for case in cases], cluster_map(measure, cases), strict=True))


def _measured(rois: str, families: _Families, extent: Extent, repeats: int, seed: int, case: Case) -> FloatArray | str:
    """The features, (perturbations and then controls, features); a text says why there are none."""
    rng = np.random.default_rng([seed, int(case.short_hash, 16)])
    try:
        roi = RoiStore.open(rois).read_roi(case.case_id, case.stored.get(RoiStore.stage, ""))
        made = [perturbed(roi, extent, rng) for _ in range(repeats)]
        made += [control(roi, kind, rng) for kind in CONTROLS]
        return np.array([families.measure(one, case.modality) for one in made])
    except (CaseError, ValueError, RuntimeError) as error:
        return str(error)


def agreement(cases: Sequence[Case], values: Mapping[str, FloatArray], families: _Families) -> list[dict[str, Any]]:
    """One row per region and feature: ICC(1,1) of the perturbations; regions of fewer than three cases are left out."""
    regions: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        if case.case_id in values:
            regions.setdefault((case.modality, region_of(case.roi)), []).append(case.case_id)
    rows: list[dict[str, Any]] = []
    for (modality, roi), case_ids in regions.items():
        if len(case_ids) < FEWEST_PAIRS:
            continue
        block = np.stack([values[case_id][: -len(CONTROLS)] for case_id in case_ids])
        for at, name in enumerate(chain(*families.names(modality).values())):
            held = block[np.isfinite(block[:, :, at]).all(axis=1), :, at]
            found = intraclass_correlation(held).icc_1_1
            rows.append(
                {
                    "feature": name,
                    "roi": f"{modality} {roi}",
                    "n": len(held),
                    "icc_1_1": found.value,
                    "icc_1_1_lower": found.lower,
                    "icc_1_1_upper": found.upper,
                }
            )
    if not rows:
        raise StatisticsError(f"no region of interest has {FEWEST_PAIRS} cases that could be perturbed and measured")
    return rows


def _fitted_controls(
    job: Job,
    dataset: xr.Dataset,
    values: Mapping[str, FloatArray],
    out: Path,
    cluster_map: Map,
    families: _Families,
    cases: Sequence[Case],
) -> dict[str, str]:
    """By control what the job's model of these features says, beside the same on the images of the same cases."""
    if not job.model.enabled or job.grade.enabled:
        return {}
    of_ibsi = families.params is None or (job.model.features == "ibsi" and families.ibsi is not None)
    section = replace(job.model, features="ibsi" if of_ibsi else "radiomics")
    kept = dataset.isel(case=[at for at, name in enumerate(dataset["case"].values) if str(name) in values])
    images = _measure(fit_dataset(kept, section, out / "images", map=cluster_map))
    said = {}
    for at, kind in enumerate(CONTROLS, -len(CONTROLS)):
        table = _with_values(kept, {name: one[at] for name, one in values.items()}, families, cases)
        said[kind] = _verdict(_measure(fit_dataset(table, section, out / kind, map=cluster_map)), images, kind)
    return said


def _with_values(
    dataset: xr.Dataset, values: Mapping[str, FloatArray], families: _Families, cases: Sequence[Case]
) -> xr.Dataset:
    """The dataset with the features of a control in place of its own."""
    row = {str(name): at for at, name in enumerate(dataset["case"].values)}
    changed = {family: np.full(dataset[family].shape, math.nan) for family in families.names(cases[0].modality)}
    column = {
        family: {str(name): at for at, name in enumerate(dataset[dataset[family].dims[1]].values)} for family in changed
    }
    for case in cases:
        if case.case_id in values:
            begin = 0
            for family, names in families.names(case.modality).items():
                places = [column[family][name] for name in names]
                changed[family][row[case.case_id], places] = values[case.case_id][begin : begin + len(names)]
                begin += len(names)
    arrays = {family: (dataset[family].dims, array, dataset[family].attrs) for family, array in changed.items()}
    return dataset.assign(arrays)


class _Measured(NamedTuple):
    name: str
    value: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.lower:.2f} to {self.upper:.2f})"


def _measure(summary: Mapping[str, Any]) -> _Measured | None:
    """The held-out measure of a fit; None where there is no model."""
    for name, short in (("C-index", "c_index"), ("AUC", "auc")):
        ends = [summary.get(f"{short}_cv{end}") for end in ("", "_lower", "_upper")]
        if None not in ends:
            return _Measured(name, *map(float, ends))  # type: ignore[arg-type]
    return None


def _verdict(found: _Measured | None, images: _Measured | None, kind: str) -> str:
    if found is None or images is None:
        return "no model could be compared"
    text = f"{images.name} on held-out cases {found}, of the images {images}"
    if found.value >= images.value:
        return f"{text}: as good, so what the model learnt may be in {_KEPT[kind]} alone"
    if found.value >= images.lower:
        return f"{text}: within the images' interval, so more than {_KEPT[kind]} is not shown"
    return text
