"""A job from its file to its report: cohort, stages, feature dataset, models, report.

The stages run as a plan of tasks; the ledger remembers them case by case, so that the same command goes on where it was
stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import xarray as xr
from distributed import Client

from prognosis_dask.arrays import Map
from prognosis_dask.cohort.case import Case, read_cases, read_problems, write_cases, write_problems
from prognosis_dask.cohort.clinical import clinical_table, key
from prognosis_dask.cohort.collections import resolve
from prognosis_dask.cohort.endpoints import unit_of
from prognosis_dask.cohort.idc import cited, read_origins
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.cohort.series import with_listings
from prognosis_dask.cohort.sources import expect_source
from prognosis_dask.cohort.summary import FORESEEN, expect_cases
from prognosis_dask.config.job import CohortSection, Job, load_job
from prognosis_dask.errors import Code, JobError, Problem, StatisticsError, count
from prognosis_dask.execution.cluster import LocalSpec, Workers, check_run, connect, joined, map_on
from prognosis_dask.execution.dashboard import own_page
from prognosis_dask.execution.monitor import RunMonitor, check_report, journal_in, report_to
from prognosis_dask.execution.plan import CohortPlan, PlannedStage, memory_of, planned_stages, wants_gpu
from prognosis_dask.execution.progress import RunProgress
from prognosis_dask.execution.record import LoadedStages, RunRecord, check_folder, earlier_job, load_stages
from prognosis_dask.execution.runner import run_plan
from prognosis_dask.features.dataset import (
    build_features,
    constant_warnings,
    read_features,
    said_of_twins,
    twin_warnings,
    write_features,
)
from prognosis_dask.features.deep import settle_memory_formats
from prognosis_dask.features.registry import MAPS, ROI, came_through, stages, stages_of
from prognosis_dask.features.stage import Stage, all_needs
from prognosis_dask.modelling.fit import fit_dataset
from prognosis_dask.modelling.spec import BOTH, job_spec
from prognosis_dask.objects.address import join
from prognosis_dask.objects.files import files_below, put_files
from prognosis_dask.radiomics.parameter_file import job_params
from prognosis_dask.storage.ledger import Ledger, TaskResult
from prognosis_dask.storage.place import Place, local_copy, placed
from prognosis_dask.synthetic import make_cohort
from prognosis_dask.workflows.grade import check_grade, fit_grade
from prognosis_dask.workflows.idle_keys import idle_keys
from prognosis_dask.workflows.models import headline_text

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunResult:
    """Where a finished run lies, and per stage how many cases are done, failed and reused, and the seconds it took.

    ``folder`` and ``report`` are paths; of a run in a bucket addresses.
    """

    folder: Path | str
    report: Path | str
    stages: Mapping[str, Mapping[str, float]]

    @property
    def features(self) -> xr.Dataset:
        """The feature dataset, read from the folder (docs/features.md)."""
        return read_features(local_copy(self.folder))


@dataclass(frozen=True)
class RunContext:
    """What a run works with: the cluster, its place, ledger and monitor, and who takes the lines that tell of it."""

    client: Client
    place: Place
    ledger: Ledger
    monitor: RunMonitor
    say: Say
    performance_report: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the driver writes."""
        return self.place.folder


def run(
    job: Job | Path | str,
    *,
    client: Workers | None = None,
    out: Path | str | None = None,
    performance_report: Path | None = None,
    say: Say = print,
) -> RunResult:
    r"""Run a job to its report; run it again to go on where it was stopped.

    Parameters
    ----------
    job
        A job file, or what :func:`prognosis_dask.config.job.load_job` gives.
    client
        A Dask client that is already there, what ``--cluster`` takes (``"tcp://HOST:PORT"``), or what gives a client
        in a ``with`` statement that is entered once all inputs are checked; without one, a cluster is started here. A
        script that starts one does so below ``if __name__ == "__main__":``, since its workers import it.
    out
        The run's folder, or its address in a bucket; else the job's ``run.out``, else ``runs/<job name>``.
    performance_report
        Where Dask's performance report of the stages goes, if it is wanted.
    say
        Takes the lines that tell what is being done.

    Raises
    ------
    PrognosisError
        When the user has something to correct. A case that cannot be used raises nothing: it is listed in the report.

    Examples
    --------
    Two synthetic patients, their radiomics, and the crop of the first with its mask:

    >>> from tempfile import TemporaryDirectory
    >>> from prognosis_dask import read_images
    >>> keys = ["synth.patients=2", "synth.bad_cases=false", "deep.enabled=false", "model.enabled=false"]
    >>> with TemporaryDirectory() as folder:
    ...     job = Path(folder) / "two.toml"
    ...     _ = job.write_text('name = "two"\ncohort.roi = ["GTV-1"]')
    ...     result = run(load_job(job, keys), out=f"{folder}/run", say=str)
    ...     features = result.features
    ...     images = read_images(f"{folder}/run", "MADE-0001_CT_GTV-1")
    >>> features["case"].values.tolist(), features["radiomics"].shape
    (['MADE-0001_CT_GTV-1', 'MADE-0002_CT_GTV-1'], (2, 107))
    >>> images["image"].dims, images["mask"].dims
    (('z', 'y', 'x'), ('z', 'y', 'x'))
    """
    if not isinstance(job, Job):
        job = load_job(job)
    check_inputs(job, model=job.model.enabled)
    check_report(performance_report)
    for warning in idle_keys(job):
        say(warning)
    with placed(run_place(job, out)) as place:
        check_folder(place.folder, job.name)
        with (
            Ledger.create(place.folder / "ledger.sqlite") as ledger,
            joined(connect(LocalSpec()) if client is None else client) as cluster,
            journal_in(place.folder),
            RunMonitor(cluster, job.name) as monitor,
        ):
            result = _run(job, RunContext(cluster, place, ledger, monitor, say, performance_report))
    if place.address is None:
        return result
    return replace(result, folder=str(place.address), report=str(place.address / "report.html"))


def run_features(job: Job, client: Client, out: Path | str, *, say: Say = print) -> RunRecord:
    """Run a job up to its feature dataset only, on a client whose workers are prepared.

    Raises
    ------
    PrognosisError
        As :func:`run`.
    """
    check_inputs(job, model=False)
    folder = Path(out).absolute()
    with Ledger.create(folder / "ledger.sqlite") as ledger, RunMonitor(client, job.name) as monitor:
        record = _features(job, RunContext(client, Place(folder), ledger, monitor, say))[0].ended()
    record.write(folder)
    return record


def cohort_of(job: Job, client: Client, folder: Path, say: Say = print) -> list[Case]:
    """The job's cases, read from its folders, made, or from its table; written to ``folder`` as a run would."""
    check_inputs(job, model=False)
    folder.mkdir(parents=True, exist_ok=True)
    return _cohort(job, Place(folder), map_on(client), say)[0]


def run_place(job: Job, out: Path | str | None) -> Path | str:
    """Where the job's run lies: ``out``, else the job's own choice, else ``runs/<job name>``."""
    return out or job.run.out or Path("runs") / job.name


def check_inputs(job: Job, *, model: bool = True) -> None:
    """Refuse what cannot run, to its model or only to its features, before anything is started.

    Raises
    ------
    PrognosisError
        When the job names no images, or images, tables, parameters or weights that are not there.
    """
    if not (job.synth.patients or job.cohort.sources or job.cohort.cases):
        raise JobError(
            f"job {job.name!r} names no images; set cohort.sources (folders) or cohort.cases (a table): "
            "--set cohort.sources=/data/..."
        )
    for name, path in [("cases", job.cohort.cases), ("clinical", job.cohort.clinical)]:
        if path and not Path(path).is_file():
            raise JobError(f"cohort.{name}: no file at {path}")
    collection = resolve(job.cohort).collection
    clinical_table(job.cohort, collection)
    entry = job.model.entry if model and job.model.enabled else ""
    if entry and collection.time_unit != "days" and not unit_of(entry):
        raise JobError(
            f"model.entry is {entry!r}, whose heading says no unit and is taken in days, while the survival time is in "
            f"{collection.time_unit}: name the unit in the heading, such as {entry}_{collection.time_unit}"
        )
    if job.cohort.cases:
        read_cases(job.cohort.cases)
    for path in job.cohort.sources:
        expect_source(path, "cohort.sources")
    job_params(job.radiomics.params)
    for stage in stages_of(job):
        stage.load().check(job)
    _check_model(job, model=model)


def _check_model(job: Job, *, model: bool) -> None:
    of_family = {stage.family.name: stage for stage in stages() if stage.family and not stage.family.handful}
    if job.model.features not in (*of_family, "both"):
        known = ", ".join(map(repr, (*of_family, "both")))
        raise JobError(f"model.features is {job.model.features!r}, expected one of {known}")
    if job.grade.enabled and job.model.enabled:
        check_grade(job)
    elif model:
        _check_features(job, of_family)


def _check_features(job: Job, of_family: Mapping[str, Stage]) -> None:
    """A model needs the features that it names, and a selector and a learner that there are."""
    try:
        job_spec(job.model, has_volume=True)
    except StatisticsError as error:
        raise JobError(f"model.{error}") from error
    named = job.model.features
    for family in BOTH if named == "both" else (named,):
        if not of_family[family].is_on(job):
            switch = of_family[family].switch
            others = [f" or model.features = {name!r}" for name, stage in of_family.items() if stage.is_on(job)]
            raise JobError(
                f"model.features is {named!r}, but {switch} is false; set {switch} = true{''.join(others[:1])}"
            )


def _run(job: Job, at: RunContext) -> RunResult:
    record, dataset = _features(job, at, model=job.model.enabled)
    if job.model.enabled:
        at.monitor.phase("model")
        _model(job, at, dataset)
    else:
        at.say("No model: model.enabled is false")
    record = record.ended()
    record.write(at.folder)
    from prognosis_dask.report.page import write_report  # with matplotlib, which a refused or stopped run does without

    return RunResult(at.folder, write_report(at.folder), record.stages)


def _model(job: Job, at: RunContext, dataset: xr.Dataset) -> None:
    at.say("Fitting and validating the model")
    if job.grade.enabled:
        training_map = map_on(at.client, gpu=job.grade.device == "gpu")
        summary = fit_grade(job, dataset, at.folder, map_on(at.client), training_map)
    else:
        summary = fit_dataset(dataset, job.model, at.folder / "models", map=map_on(at.client))
    for note in (*summary.get("rows_said", ()), *summary.get("label", ())):
        at.say(note)
    at.say(f"No model: {summary['not_fitted']}" if "not_fitted" in summary else f"Model: {headline_text(summary)}")


def _features(job: Job, at: RunContext, *, model: bool = False) -> tuple[RunRecord, xr.Dataset]:
    """The run up to its feature dataset; ``model``: a model of it is to follow."""
    check_run(at.client, str(at.place), gpu=wants_gpu(job), memory=memory_of(job))
    job = settle_memory_formats(job, earlier_job(at.folder), map_on(at.client, gpu=True), at.say)
    loaded = load_stages(job, str(at.place))
    # the brains of scans that are predicted with its model are prepared as these; the engine may be another one there
    record = RunRecord.begin(replace(loaded.context.job, deep=job.deep, deep_2=job.deep_2), at.client)
    record.write(at.folder)
    at.monitor.phase("cohort")
    cases, problems = _cohort(job, at.place, map_on(at.client), at.say)
    _expect_cases(job, cases, problems, at.folder)
    if model:
        _expect_columns(job, cases)
    stages = planned_stages(cases, loaded)
    listed = Path(job.cohort.cases).parent if job.cohort.cases else at.folder
    record = record.of_data(cited(read_origins(listed, cases))).planned(
        loaded, {stage.name: stage.digests for stage in stages}
    )
    loaded.prepare(cases)
    workers = count(record.cluster["workers"], "worker")
    at.say(f"{count(len(cases), 'case')}, {workers}, dashboard {own_page(at.client)}")
    started = time.process_time()
    try:
        with report_to(at.performance_report, at.client):
            counts = run_stages(at.client, at.ledger, at.monitor, cases, stages, loaded, at.place)
    finally:
        results = came_through(stages_of(job), {stage.name: current(at.ledger, stage) for stage in stages})
        of_stages = [p for rows in results.values() for o in rows.values() for p in (o.problem, *o.warnings)]
        found = [*problems, *filter(None, of_stages)]
        write_problems(at.folder / "problems.csv", found)
    record = record.computed(counts, time.process_time() - started)

    at.monitor.phase("features")
    at.say("Collecting the features")
    dataset = build_features(cases, loaded.columns(cases), results, record.provenance())
    write_features(dataset, at.folder)
    record.write(at.folder)
    constant, twins = constant_warnings(dataset), twin_warnings(dataset)
    doubts = [*constant, *twins]
    write_problems(at.folder / "problems.csv", [*found, *doubts])
    for said in [*(warning.reason for warning in constant), *said_of_twins(twins)]:
        at.say(said)
    _tell_problems([*found, *doubts], at.folder, at.say)
    return record, dataset


def _tell_problems(problems: Iterable[Problem], folder: Path, say: Say) -> None:
    """A line on what could not be used, and one on what is used although something has to be known of it."""
    problems = set(problems)
    left_out = Counter(str(problem.code) for problem in problems if problem.severity == "problem")
    if left_out:
        listed = ", ".join(f"{number} {code}" for code, number in sorted(left_out.items()))
        say(f"{count(left_out.total(), 'problem')} ({listed}), left out: {folder / 'problems.csv'} says why")
    warnings = {problem for problem in problems if problem.severity == "warning"}
    if warnings:
        codes = Counter(str(warning.code) for warning in warnings)
        listed = ", ".join(f"{number} {code}" for code, number in sorted(codes.items()))
        cases = len({warning.case_id for warning in warnings if warning.case_id})
        whose = f" on {count(cases, 'case')}" if cases else ""
        said = f"{count(len(warnings), 'warning')} ({listed}){whose}, which are used all the same"
        say(f"{said}: see {folder / 'problems.csv'}")


def _cohort(job: Job, place: Place, cluster_map: Map, say: Say) -> tuple[list[Case], list[Problem]]:
    """The job's cases, also written to the run's folder, and what was found wrong on the way to them."""
    rules, folder, survival = job.cohort, place.folder, not job.model.label
    if job.synth.patients:
        rules = _synthetic_cohort(job, place, cluster_map, say)
    if rules.sources:
        say(f"Indexing {', '.join(rules.sources)}")
        index = partial(index_cohort, map=cluster_map, image=job.image, idc=job.idc, survival=survival)
        say(str(index(rules.sources, folder, rules)))
        cases, problems = read_cases(folder / "cases.csv"), read_problems(folder / "problems.csv")
    else:
        cases = read_cases(rules.cases)
        beside = Path(rules.cases).with_name("problems.csv")
        known = read_problems(beside) if beside.is_file() else []
        problems = [problem for problem in known if not problem.case_id or problem.code not in FORESEEN]
        problems = [problem for problem in problems if survival or problem.code is not Code.NO_ENDPOINT]
    if place.address is not None:
        cases = with_listings(cases, place.address)
    if place.address is not None or not rules.sources:
        write_cases(folder / "cases.csv", cases)
    return cases, problems


def _synthetic_cohort(job: Job, place: Place, cluster_map: Map, say: Say) -> CohortSection:
    """The rules for a cohort that is made; workers may share no folder, so that of a bucket is made here."""
    say(f"Making a cohort of {count(job.synth.patients, 'patient')} in {join(str(place), 'cohort')}")
    if place.address is None:
        made = make_cohort(place.folder / "cohort", job.synth, map=cluster_map)
        return replace(job.cohort, sources=(str(made.images),), clinical=str(made.clinical))
    made = make_cohort(place.folder / "cohort", job.synth)
    put_files(files_below(made.images), place.address / "cohort")
    return replace(job.cohort, sources=(str(place.address / "cohort"),), clinical=str(made.clinical))


def _expect_cases(job: Job, cases: Sequence[Case], problems: Sequence[Problem], folder: Path) -> None:
    """A cohort without a case ends here, with what was found in its place."""
    if cases:
        return
    if job.cohort.cases:
        raise JobError(f"cohort.cases: {job.cohort.cases} has no row; problems.csv beside an index says why")
    expect_cases(cases, problems, ", ".join(job.cohort.sources) or str(folder / "cohort"), folder)


def _expect_columns(job: Job, cases: Sequence[Case]) -> None:
    """The clinical columns that the model needs are asked for before the images are read, not after."""
    model = {"model.label": job.model.label, "model.entry": job.model.entry}
    wanted = [(setting, name) for setting, name in model.items() if name]
    wanted += [("grade.clinical", name) for name in job.grade.clinical if job.grade.enabled]
    if not wanted:
        return
    covariates = {name for case in cases for name in case.covariates}
    held = {key(name) for name in (*covariates, *vars(cases[0]))}
    for setting, name in wanted:
        if key(name) not in held:
            known = ", ".join(sorted(covariates)) or "none"
            raise JobError(f"{setting} names the column {name!r}, which the cohort's table has not; it has {known}")


# The stages of a job over its cases: what the ledger holds is left out, what comes back is recorded.

#: Stages whose files are results themselves, also where no other stage of the job needs them.
_KEPT = (ROI.name, MAPS.name)


def run_stages(
    client: Client,
    ledger: Ledger,
    monitor: RunMonitor,
    cases: Sequence[Case],
    stages: Sequence[PlannedStage],
    loaded: LoadedStages,
    place: Place,
) -> dict[str, dict[str, float]]:
    """Run what the ledger does not hold yet; per stage the cases done, failed and reused, and the workers' seconds."""
    for stage in stages:
        # another job in the same folder would write other pixels under rows that this one takes for its own
        if stage.name in _KEPT or any(stage.name in other.needs for other in stages):
            ledger.drop_outdated(stage.name, stage.digests)
    place.publish()
    known = {stage.name: _known(ledger, stage, loaded) for stage in stages}
    progress = RunProgress(cases, all_needs({stage.name: stage.needs for stage in stages}), known)
    monitor.begin(progress)
    limits = loaded.context.job.run

    def record(results: Sequence[TaskResult]) -> None:
        place.check()
        ledger.record(results)

    run_plan(
        client,
        CohortPlan(cases, stages, loaded.context, known),
        record,
        monitor.count,
        retries=limits.retries,
        case_limit_s=limits.case_limit_s,
        workers_wait_s=limits.workers_wait_s,
    )
    return progress.counts()


def _known(ledger: Ledger, stage: PlannedStage, loaded: LoadedStages) -> dict[str, TaskResult]:
    """The stage's final results of earlier runs whose data are still there."""
    finished = ledger.finished(stage.name, stage.digests)
    results = {k: v for k, v in ledger.results(stage.name).items() if k in finished}
    # a case that failed has stored nothing that could be gone
    lost = loaded.works[stage.name].lost(loaded.context, {k: v for k, v in results.items() if v.problem is None})
    return {k: v for k, v in results.items() if k not in lost}


def current(ledger: Ledger, stage: PlannedStage) -> dict[str, TaskResult]:
    """The stage's results that belong to this job and this cohort, not to an earlier one in the same folder."""
    results = ledger.results(stage.name)
    return {k: v for k, v in results.items() if stage.digests.get(k) == v.digest}
