"""The radiomic features of an image and its mask, without a job: ``prognosis features``."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.crawl import read_headers
from prognosis_dask.cohort.dicom_header import is_dicom
from prognosis_dask.cohort.headers import MaskHeader
from prognosis_dask.cohort.rois import Candidate, check_rules, matches, select
from prognosis_dask.cohort.sources import UnusableRow, is_table, read_table
from prognosis_dask.cohort.summary import FORESEEN
from prognosis_dask.config.job import CohortSection, ImageSection
from prognosis_dask.errors import CaseError, Code, JobError, Problem, expect_kind, warn
from prognosis_dask.imaging.load import load_roi
from prognosis_dask.imaging.roi import Roi, grid_of
from prognosis_dask.prediction.resolve import Upload, linked_files, resolve_upload
from prognosis_dask.publish import replacing
from prognosis_dask.radiomics.extraction import extract, pyradiomics_problems
from prognosis_dask.radiomics.parameter_file import read_params
from prognosis_dask.radiomics.params import RadiomicsParams, quiet
from prognosis_dask.radiomics.texture import warn_of_few
from prognosis_dask.volumes.files import VOLUME_SUFFIXES
from prognosis_dask.volumes.labels import LAYER

if TYPE_CHECKING:
    import pandas as pd

#: The column that says why a row of a table has no values; absent where all have.
PROBLEM = "problem"
#: What an index finds that says nothing here, or that reading the image says again.
_NOT_TOLD = (*FORESEEN, Code.NO_ENDPOINT, Code.ROI_AMBIGUOUS)


def extract_features(
    image: Path | str,
    mask: Path | str = "",
    *,
    params: Path | str = "",
    label: int | Sequence[int] = (),
    roi: str | Sequence[str] = (),
    settings: ImageSection | None = None,
    diagnostics: bool = False,
) -> pd.DataFrame:
    """The radiomic features of an image inside its mask, equal to those of pyradiomics' ``execute()`` to the last bit.

    Parameters
    ----------
    image
        An image file (NIfTI, NRRD, MetaImage); the folder of a DICOM series, in which an RTSTRUCT or SEG may lie; or a
        table in the form of pyradiomics' batches, with the columns ``Image`` and ``Mask``, each row a case.
    mask
        A label map, an RTSTRUCT or a SEG; not with a table, nor where the folder holds it.
    params
        A parameter file of pyradiomics; without one, its defaults with ``binWidth: 25``.
    label
        Values of a label map, or numbers of ROIs or segments; a row for each. Without one the parameter file's, and
        else the mask has to hold one only.
    roi
        Names of structures, or patterns after ``re:``; a row for each that matches.
    settings
        How image and mask are brought onto one grid: a job's section ``image``.
    diagnostics
        Whether pyradiomics' ``diagnostics_*`` come before the features.

    Returns
    -------
    pandas.DataFrame
        A row for each structure: where it comes from, and the features under pyradiomics' names and in its order. A row
        of a table that cannot be used keeps its place, without values and with the reason under ``problem``.

    Raises
    ------
    CaseError
        When image or mask cannot be used, or several structures are there and none is named.
    JobError
        When a file is not there, or the parameters are not pyradiomics'.

    Examples
    --------
    >>> import numpy as np
    >>> from tempfile import TemporaryDirectory
    >>> z, y, x = np.mgrid[:20, :20, :20]
    >>> ball = ((z - 10) ** 2 + (y - 10) ** 2 + (x - 10) ** 2 < 36).astype(np.uint8)
    >>> with TemporaryDirectory() as folder:
    ...     for name, values in (("ct.nrrd", 30.0 * z), ("tumour.nrrd", ball)):
    ...         sitk.WriteImage(sitk.GetImageFromArray(values), f"{folder}/{name}")
    ...     found = extract_features(f"{folder}/ct.nrrd", f"{folder}/tumour.nrrd")
    >>> float(found["original_shape_VoxelVolume"][0]) == float(ball.sum())  # voxels of one cubic millimetre
    True
    """
    import pandas as pd

    work = _Work(read_params(str(params)), settings or ImageSection(), diagnostics)
    labels = (label,) if isinstance(label, int) else tuple(label)
    names = (roi,) if isinstance(roi, str) else tuple(roi)
    check_rules(names)
    _expect_there(image, mask)
    if is_table(Path(image)):
        if mask or labels or names:
            raise JobError(f"{image} is a table of cases: its columns Mask, Label and ROI say what is measured in each")
        return pd.DataFrame(list(_rows_of_table(Path(image), work)))
    with tempfile.TemporaryDirectory(prefix="prognosis-features-") as folder:
        found = _cases(Path(image), Path(mask) if str(mask) else None, names, Path(folder))
        cases = _chosen(found, labels, names, work)
        return pd.DataFrame([_row(case, image, mask or case.mask, work) for case in cases])


@dataclass(frozen=True)
class _Work:
    params: RadiomicsParams
    image: ImageSection
    diagnostics: bool

    @property
    def label(self) -> int | None:
        """The parameter file's own label; in a layer of its own above the first."""
        label, channel = (self.params.settings.get(name) for name in ("label", "label_channel"))
        return int(label or 1) + LAYER * int(channel) if channel else label


def _expect_there(image: Path | str, mask: Path | str) -> None:
    for name, given in (("image", image), ("mask", mask)):
        expect_kind(given, Path | str, f"the {name}", "the path of its file or folder")
    for path in filter(str, (image, mask)):
        if not Path(path).exists():
            raise JobError(f"no file at {path}")
        if Path(path).suffix.lower() in (".hdr", ".img"):
            raise JobError(f"{path} is half of a pair of header and voxels: write both into one file, as .nii")
        if Path(path).is_file() and not _may_be_image(Path(path)):
            raise JobError(f"{path} is no image: expected NIfTI, NRRD, MetaImage or DICOM, or a CSV file of cases")
    if Path(image).is_file() and not str(mask) and not is_table(Path(image)):
        raise JobError(f"{image} is one file: name the file of its mask too")


def _may_be_image(path: Path) -> bool:
    if path.name.lower().endswith(VOLUME_SUFFIXES) or is_table(path):
        return True
    with path.open("rb") as stream:
        return is_dicom(stream.read(132))


def _cases(image: Path, mask: Path | None, names: tuple[str, ...], folder: Path) -> list[Case]:
    """The structures of the image, found as those of a scan that is predicted."""
    if mask is not None and _is_volume(image) and not _is_volume(mask):
        return _on_file(image, mask, names)
    files = linked_files([("", image)], mask, folder)
    rules = CohortSection(roi=names, roi_policy="each")  # a segment has several names, any of which may be asked for
    upload = Upload(files, str(folder / "index"), rules, takes_no_mask=False, modality="")
    (result,) = resolve_upload((Case("", "", "", "", "", ""),), ("",), upload)
    if (problem := result.problem) is not None:
        problem = _of_originals(problem, files.originals)
        where = problem.where or (str(image) if problem.code in _OF_FOLDER else "")
        named = f"{where}: " if where and image.is_dir() else ""
        advice = f"; {_ADVICE[problem.code]}" if problem.code in _ADVICE else ""
        raise CaseError(problem.code, f"{named}{problem.reason}{advice}", where=problem.where)
    cases: list[Case] = result.values["cases"]  # type: ignore[assignment]
    problems: list[Problem] = result.values["problems"]  # type: ignore[assignment]
    for problem in problems:
        if problem.code not in _NOT_TOLD:
            warn(problem.code, _of_originals(problem, files.originals).reason)
    if image.is_dir():
        return cases
    return [replace(case, patient_id="", modality="") for case in cases]  # of the links' names


_ADVICE = {
    Code.PATIENT_WITHOUT_MASK: "name the mask's file after the image",
    Code.NO_IMAGES: "expected a DICOM series, or an image file and its mask's",
    Code.ROI_AMBIGUOUS: "`prognosis index` lists those of a whole cohort",
}
_OF_FOLDER = (Code.NO_IMAGES, Code.ROI_AMBIGUOUS)


def _is_volume(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(VOLUME_SUFFIXES)


def _on_file(image: Path, mask: Path, names: tuple[str, ...]) -> list[Case]:
    """The structures of an RTSTRUCT or a SEG on an image file: both are named, so their UIDs need not agree."""
    header, *others = read_headers([str(mask)])
    if isinstance(header, Problem):
        raise CaseError(header.code, header.reason, where=header.where)
    if not isinstance(header, MaskHeader) or others:  # an image of several frames has several headers
        raise CaseError(Code.MASK_UNREADABLE, f"{mask} is no label map, RTSTRUCT or SEG", where=str(mask))
    candidates = [Candidate(header.file, header.sop_uid, header.kind, s, (s.number,)) for s in header.structures]
    selections, problems = select(candidates, names, "each")
    for problem in problems:
        if problem.code not in _NOT_TOLD:
            warn(problem.code, problem.reason)
    return [Case("", "", "", one.name, str(image), str(mask), one.labels) for one in selections]


def _of_originals(problem: Problem, originals: Mapping[str, str]) -> Problem:
    """A problem of the files that were named, not of the links to them, which are gone when it is read."""
    for link, path in originals.items():
        problem = replace(problem, reason=problem.reason.replace(link, path), where=problem.where.replace(link, path))
    return problem


def _chosen(cases: Sequence[Case], labels: Sequence[int], names: Sequence[str], work: _Work) -> list[Case]:
    """Those that were asked for, or the only one."""
    single = [case for case in cases if len(case.labels) == 1] or list(cases)
    whole = cases[0] if cases[0].mask.lower().endswith(VOLUME_SUFFIXES) else None
    if not (labels or names) and work.label is not None and whole is not None:
        labels = (work.label,)
    if labels and whole is not None and not names:
        if (masks := len({(case.image, case.mask) for case in cases})) > 1:
            told = f"{masks} masks that may hold such a label: {_listed(cases)}; name one image and its mask"
            raise CaseError(Code.ROI_AMBIGUOUS, told)
        return [replace(whole, labels=(one,), roi=f"label {one}") for one in labels]
    found = [
        case
        for case in single
        if (not labels or set(case.labels) & set(labels)) and (not names or any(matches(n, case.roi) for n in names))
    ]
    if not found:
        asked = " or ".join([*map(repr, names), *map(str, labels)])
        raise CaseError(Code.ROI_NOT_FOUND, f"no structure is called or numbered {asked}; seen: {_listed(single)}")
    same = len({(case.image, case.roi) for case in found}) < len(found)
    if same or (len(found) > 1 and not (labels or names)):
        how = "--label N" if all(case.roi.startswith(("label ", "all ")) for case in found) else "--roi NAME"
        choose = f"choose with {how}, which can be repeated"
        if len({case.roi for case in found}) < len(found):
            choose = "name one image and its mask"
            if len({(case.image, case.mask) for case in found}) == 1:
                numbers = sorted({number for case in found for number in case.labels})
                choose = f"choose with --label N by number ({', '.join(map(str, numbers))})"
        raise CaseError(Code.ROI_AMBIGUOUS, f"{len(found)} structures: {_listed(found)}; {choose}")
    return found


def _listed(cases: Sequence[Case], most: int = 20) -> str:
    """The names; with their files, where two have the same."""
    in_files = len({case.roi for case in cases}) < len(cases)
    listed = ", ".join(f"{case.roi!r} in {case.mask}" if in_files else repr(case.roi) for case in cases[:most])
    return listed + (f" and {len(cases) - most} more" if len(cases) > most else "")


def _rows_of_table(path: Path, work: _Work) -> Iterator[dict[str, Any]]:
    for row in read_table(path, work.label or 1):
        if isinstance(row, UnusableRow):
            yield row.cells | {PROBLEM: _described(row.problem, "")}
            continue
        case = Case(
            "", row.patient_id, row.modality, row.roi, row.image.path, row.mask.path, labels=(row.label,),
            covariates=row.covariates,
        )  # fmt: skip
        try:
            yield _row(case, case.image, case.mask, work)
        except CaseError as error:
            yield _origin(case, case.image, case.mask) | {PROBLEM: _described(error.problem, case.mask)}


def _described(problem: Problem, mask: str) -> str:
    """With the file, where it is not the mask."""
    where = f"{problem.where}: " if problem.where not in ("", mask) else ""
    return f"{problem.code}: {where}{problem.reason}"


def _row(case: Case, image: Path | str, mask: Path | str, work: _Work) -> dict[str, Any]:
    roi = load_roi(case, work.image, full=True, one_slice=work.params.planar)
    levels: dict[str, int] = {}
    values = extract(roi, work.params, levels=levels)
    warn_of_few(levels, work.params.settings, case.modality)
    more = _diagnostics(roi, case, work.params) if work.diagnostics else {}
    return _origin(case, image, mask) | more | values


def _origin(case: Case, image: Path | str, mask: Path | str) -> dict[str, Any]:
    label = ";".join(map(str, case.labels))
    known = {"patient_id": case.patient_id, "modality": case.modality, "roi": case.roi}
    return {**known, "image": str(image), "mask": str(mask), "label": label, **case.covariates}


def _diagnostics(roi: Roi, case: Case, params: RadiomicsParams) -> dict[str, Any]:
    """The account that pyradiomics gives of images, versions and settings; no filter is computed for it."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    logging.getLogger("radiomics").setLevel(logging.CRITICAL + 1)
    mask, label = _as_given(roi, case)
    with quiet():
        extractor = RadiomicsFeatureExtractor(params.content)
    extractor.addProvenance()
    extractor.disableAllFeatures()
    image_types, extractor.enabledImagetypes = extractor.enabledImagetypes, {}
    with pyradiomics_problems():
        found: dict[str, Any] = dict(extractor.execute(roi.image, mask, label=label))
    return {name: image_types if name.endswith("EnabledImageTypes") else value for name, value in found.items()}


def _as_given(roi: Roi, case: Case) -> tuple[sitk.Image, int]:
    """The mask with its label as its file has them, since pyradiomics hashes that; else as it was read."""
    if case.mask.lower().endswith(VOLUME_SUFFIXES) and len(case.labels) == 1:
        mask = sitk.ReadImage(case.mask)
        if mask.GetNumberOfComponentsPerPixel() == 1 and grid_of(mask) == roi.full:
            return mask, case.labels[0]
    return roi.mask, 1


def write_features(rows: pd.DataFrame, path: Path | None, kind: str = "") -> str:
    """The table as CSV or JSON: written to a file, whose ending says which, or returned where ``path`` is None."""
    kind = kind or ("json" if path is not None and path.suffix.lower() == ".json" else "csv")
    text = _json(rows.to_dict("records")) if kind == "json" else rows.to_csv(index=False)
    if path is None:
        return text
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return ""


def _json(rows: Iterable[Mapping[Any, Any]]) -> str:
    return json.dumps([{str(name): _plain(value) for name, value in row.items()} for row in rows], indent=1) + "\n"


def _plain(value: Any) -> Any:
    """As JSON has it: what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value - value != 0 else value
