"""Feature maps: pyradiomics' voxel mode, the features of each voxel's neighbourhood."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from radiomics.featureextractor import RadiomicsFeatureExtractor

from prognosis_dask.cohort.case import Case, read_cases
from prognosis_dask.config.job import ImageSection
from prognosis_dask.errors import CaseError, JobError
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.publish import expect_writable
from prognosis_dask.radiomics.extraction import pyradiomics_problems
from prognosis_dask.radiomics.params import RadiomicsParams, quiet

#: Voxels whose matrices are held at once if the file has no ``voxelBatch``: one GLCM of 100 levels takes 1 MB.
BATCH = 200


def feature_maps(roi: Roi, params: RadiomicsParams, *, radius: int | None = None) -> dict[str, sitk.Image]:
    """The maps of one case, by feature name: those of ``execute(..., voxelBased=True)`` on the full image and mask.

    They cover the mask's box and the radius around it; outside the mask they have the file's ``initValue``, by default
    0. Shape has no maps. ``voxelBatch`` may change a value's last bit, since pyradiomics omits what a whole batch
    lacks; the default is :data:`BATCH`.

    Parameters
    ----------
    roi
        Image and mask, uncropped.
    params
        With ``voxelSetting`` beside ``setting``, as pyradiomics reads it.
    radius
        Of the neighbourhood in voxels, instead of the file's ``kernelRadius``, which is 1 if it has none.

    Raises
    ------
    CaseError
        ``RADIOMICS_FAILED`` with pyradiomics' reason.
    """
    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 1)
    with quiet():
        extractor = RadiomicsFeatureExtractor(params.content)
    extractor.settings.update(additionalInfo=False, label=1)
    extractor.settings.setdefault("voxelBatch", BATCH)
    if radius is not None:
        extractor.settings["kernelRadius"] = radius
    with pyradiomics_problems():
        maps: dict[str, sitk.Image] = dict(extractor.execute(roi.image, roi.mask, label=1, voxelBased=True))
    return maps


def expect_maps(params: RadiomicsParams) -> None:
    """Refuse parameters that give no maps.

    Raises
    ------
    JobError
        When they ask for shape only, or for local binary patterns.
    """
    if not [kind for kind in params.content["featureClass"] if not kind.startswith("shape")]:
        raise JobError("these parameters request shape only, which has no maps; name another featureClass")
    patterns = [kind for kind in params.content.get("imageType", {}) if kind.startswith("LBP")]
    if patterns:
        raise JobError(f"there are no maps of imageType.{patterns[0]}, which pyradiomics leaves out; take it out")


def write_maps(
    table: Path,
    out: Path,
    params: RadiomicsParams,
    *,
    cases: Sequence[str] = (),
    radius: int | None = None,
    zarr: bool = False,
) -> Iterator[tuple[str, Path | CaseError]]:
    """Write the maps of a table's cases, and yield each case's identifier with its folder or its problem.

    Each case has a folder of NRRD files in ``out``, one per feature, or a zarr group with one array per feature, (z, y,
    x), and ``spacing``, ``origin`` and ``direction`` in ITK's order among its attributes.

    Raises
    ------
    JobError
        When ``cases`` names one that the table lacks, or the parameters ask for shape only or
        for local binary patterns.
    """
    known = {case.case_id: case for case in read_cases(table)}
    unknown = [name for name in cases if name not in known]
    if unknown:
        raise JobError(f"{table} has no case {', '.join(unknown)}; it has {', '.join(list(known)[:5])} ...")
    expect_writable(out)
    expect_maps(params)
    for name in cases or known:
        try:
            yield name, _write_case(known[name], out, params, radius, zarr=zarr)
        except CaseError as error:
            yield name, error


def _write_case(case: Case, out: Path, params: RadiomicsParams, radius: int | None, *, zarr: bool) -> Path:
    maps = feature_maps(load_roi(case, ImageSection(), full=True, one_slice=True), params, radius=radius)
    name = re.sub(r"[^\w.+-]", "_", case.case_id)
    if name != case.case_id:
        name = f"{name}-{case.short_hash}"
    folder = out / (name + (".zarr" if zarr else ""))
    out.mkdir(parents=True, exist_ok=True)
    if zarr:
        _write_zarr(maps, folder)
    else:
        folder.mkdir(exist_ok=True)
        write_nrrd(maps, folder)
    return folder


def write_nrrd(maps: dict[str, sitk.Image], folder: Path) -> None:
    """Write each map to ``NAME.nrrd`` in a folder that is there."""
    for name, image in maps.items():
        sitk.WriteImage(image, str(folder / f"{name}.nrrd"), useCompression=True)


def _write_zarr(maps: dict[str, sitk.Image], folder: Path) -> None:
    import zarr

    group = zarr.open_group(folder, mode="w")
    for name, image in maps.items():
        array = sitk.GetArrayFromImage(image)
        stored: Any = group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=array.shape)
        stored[:] = np.asarray(array)
        group.attrs.update(
            {
                "spacing": list(image.GetSpacing()),
                "origin": list(image.GetOrigin()),
                "direction": list(image.GetDirection()),
            }
        )
