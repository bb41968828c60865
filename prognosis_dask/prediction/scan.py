"""``prognosis predict`` on images: a scan to ``scan.json``, ``scan.html`` and pictures, or a folder of new patients."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prognosis_dask.cohort.case import SEQUENCES
from prognosis_dask.cohort.sequence_names import sequence_of
from prognosis_dask.cohort.sources import expect_source
from prognosis_dask.config.fields import Location
from prognosis_dask.config.job import RunSection
from prognosis_dask.errors import JobError, StoreError
from prognosis_dask.execution.cluster import LocalSpec, Workers, connect, joined
from prognosis_dask.execution.record import check_folder
from prognosis_dask.prediction.clinical_inputs import read_clinical
from prognosis_dask.prediction.model import ScanModel, cohort_rules, load_model
from prognosis_dask.prediction.page import one_file
from prognosis_dask.prediction.resolve import linked_files
from prognosis_dask.prediction.result import ScanPrediction, json_text
from prognosis_dask.prediction.steps import ChoiceNeeded, ScanContext, dicom_files, predict_files
from prognosis_dask.publish import expect_writable, publish_folder, staging
from prognosis_dask.storage.place import local_copy
from prognosis_dask.volumes.files import VOLUME_SUFFIXES
from prognosis_dask.workflows.models import Say, predict
from prognosis_dask.workflows.run import run_features

if TYPE_CHECKING:
    import pandas as pd

_JSON = "scan.json"
Files = Path | str | Sequence[Path | str] | Mapping[str, Path | str]


def predict_scan(
    model: Path | str,
    files: Files,
    out: Path | str,
    *,
    mask: Path | str = "",
    roi: str = "",
    clinical: Mapping[str, str] | None = None,
    dicom: bool = False,
    client: Workers | None = None,
) -> ScanPrediction:
    """Predict one new scan by a saved model, and write ``scan.json``, ``scan.html`` and, of the head, ``epitome.png``.

    Parameters
    ----------
    model
        The folder of a run or of its models, or the address of one.
    files
        Image files: of MR of the head by sequence (``T1``, ``T1c``, ``T2``, ``FLAIR``), or a list whose names say which
        is which; a single file may have any name. Or one folder with the DICOM series of one session (or its files):
        an RTSTRUCT or SEG in it is the mask.
    out
        The folder to write; an earlier scan's is replaced as a whole.
    mask
        The structure's mask. Without one, models of the head look for the tumour themselves.
    roi
        The structure's name, where there are several.
    clinical
        The patient's values of the model's clinical columns; those not given are taken as the training cases' median.
    dicom
        Whether the mask and the measurements are written as DICOM too (SEG and SR): of a scan that came as DICOM. They
        name the patient, as its headers do.
    client
        A Dask client, or what gives one; without one, a worker is started on this machine.

    Raises
    ------
    CaseError
        When the scan cannot be used: what is wrong with it, in one line.
    PrognosisError
        When there is no such model, it is not for this scan, a file is not there, several structures are, or ``out``
        cannot be written or holds something else.

    Examples
    --------
    >>> found = predict_scan("runs/chest", "new/manifest-made/MADE-CHEST/MADE-0002", "one", roi="GTV-1")
    >>> found.scan.roi, found.prediction.kind, found.prediction.group
    ('GTV-1', 'survival', 'low')
    """
    out = Path(out).absolute()
    expect_room(out)
    loaded = load_model(local_copy(model))
    given = read_clinical(loaded.frozen, clinical or {})
    images = _images(files, loaded)
    mask_file = Path(mask) if str(mask) else None
    _expect_files([*(path for _, path in images), *([mask_file] if mask_file else [])])
    if dicom and any(path.name.lower().endswith(VOLUME_SUFFIXES) for _, path in images):
        raise JobError(f"{images[0][1]} is no DICOM, to which a SEG and an SR could refer: give the series' folder")
    beside = out.parent if client is not None else None  # where the workers of a cluster see it
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    workers = connect(LocalSpec(workers=1, dashboard="127.0.0.1:0")) if client is None else client
    with tempfile.TemporaryDirectory(prefix="prognosis-scan-", dir=beside) as folder, joined(workers) as cluster:
        work = Path(folder).resolve()
        scan = replace(linked_files(images, mask_file, work), roi=roi, clinical=given)
        context = ScanContext(cluster, "scan", work, work, loaded.job.run.case_limit_s)
        try:
            found = predict_files(loaded, scan, context)
        except ChoiceNeeded as needed:
            called = f" called {roi!r}" if roi else ""
            raise JobError(
                f"{images[0][1]} holds {len(needed.choices)} cases ({'; '.join(needed.choices)}), expected one{called}:"
                " give the images of one session, or the structure's name with --roi; --cohort predicts many patients"
            ) from None
        found = replace(found, scan=replace(found.scan, name=_name(images, found.scan.files or {}, loaded)))
        more = dicom_files(loaded, found.plain(), context, work / "dicom") if dicom else []
        _write(found, work, out, more)
    return found


def expect_room(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds something else than an earlier scan, which would be lost.

    Raises
    ------
    StoreError
        Saying so.
    """
    expect_writable(folder)
    if not (folder / _JSON).is_file() and folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder} holds something else, which would be lost; choose another folder with --out")


def _images(files: Files, model: ScanModel) -> list[tuple[str, Path]]:
    """The MR sequence ("": not known) and the path of each file; of a folder its path alone.

    Raises
    ------
    JobError
        When there is no such file, or the names of MR sequences do not say which is which.
    """
    if isinstance(files, Mapping):
        named = [(name, Path(path)) for name, path in files.items()]
        unknown = [name for name, _ in named if name not in SEQUENCES]
        if unknown:
            raise JobError(f"{unknown[0]!r} is no MR sequence, expected one of {', '.join(SEQUENCES)}")
        return named
    files = [files] if isinstance(files, Path | str) else files
    named = [(sequence_of(Path(path).name), Path(path)) for path in files]
    told_apart = {name for name, _ in named}
    if model.job.brain.enabled and len(named) > 1 and (len(told_apart) < len(named) or "" in told_apart):
        raise JobError(
            f"which sequences are {', '.join(str(path) for _, path in named)}? Each name has to say one of T1, T1c, T2 "
            "and FLAIR, each once; or write T2=FILE"
        )
    return named


def _expect_files(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise JobError(f"no file at {path}")


def _name(images: Sequence[tuple[str, Path]], files: Mapping[str, str], model: ScanModel) -> str:
    """The scan's name: its folder's, or its file's without what comes after the first dot."""
    if images[0][1].is_dir():
        return images[0][1].resolve().name
    file = files.get(model.training.reference) or next(iter(files.values()))
    return Path(file).name.split(".")[0]


def _write(found: ScanPrediction, work: Path, out: Path, more: Sequence[Path]) -> None:
    plain = found.plain()
    with staging(out) as aside:
        staged = aside / out.name
        staged.mkdir()
        (staged / _JSON).write_text(json_text(plain), encoding="utf-8")
        (staged / "scan.html").write_text(one_file(plain, work), encoding="utf-8")
        if found.epitome:
            (staged / "epitome.png").write_bytes((work / "epitome.png").read_bytes())
        for path in more:
            shutil.copy(path, staged)
        publish_folder(staged, out)


def predict_cohort(
    model: Path | str,
    source: Path | str,
    out: Path | str,
    *,
    clinical: Path | str = "",
    client: Workers | None = None,
    say: Say = print,
) -> pd.DataFrame:
    """Index a folder of new patients, compute the model's features of them, and predict each case.

    Parameters
    ----------
    model
        The folder of a run, or of its models with the job beside them.
    source
        The patients' folder, or what else a job's ``cohort.sources`` may hold.
    out
        The folder for the new patients' features, as of a run, and ``predictions.csv``. The same command resumes.
    clinical
        A table with the clinical columns of the model, if it has any.
    client
        As :func:`prognosis_dask.workflows.run.run` takes it.
    say
        Takes the lines that tell what is being done.

    Returns
    -------
    pandas.DataFrame
        As :func:`prognosis_dask.workflows.models.predict` gives it.

    Raises
    ------
    PrognosisError
        When there is no such model or folder, or the features are not the model's.

    Examples
    --------
    >>> new = predict_cohort("runs/chest", "new/manifest-made/MADE-CHEST", "many", say=str)
    >>> new[["patient_id", "group"]].values.tolist()
    [['MADE-0001', 'high'], ['MADE-0002', 'low'], ['MADE-0003', 'low']]
    """
    expect_source(str(source), "FOLDER")
    loaded, folder = load_model(Path(model)), Path(out).absolute()
    rules = replace(
        cohort_rules(loaded),
        sources=(Location().resolve_path(Path.cwd(), str(source)),),
        clinical=str(clinical),
        time_column="",  # new patients have no outcome yet
        event_column="",
    )
    job = replace(loaded.job, name=f"{loaded.job.name}-predicted", cohort=rules, run=RunSection())
    check_folder(folder, job.name)
    with joined(connect(LocalSpec()) if client is None else client) as cluster:
        run_features(job, cluster, folder, say=say)
    return predict(model, folder, folder / "predictions.csv", say=say)
