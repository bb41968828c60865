"""What the runner costs on a large cohort: simulated patients through three stages that do nothing.

    python -m benchmarks.scheduler_scale [--patients 100000] [--workers 2]
    python -m benchmarks.scheduler_scale --collection nlst

With a collection, the cases are its masks in the catalogue of the Imaging Data Commons, each with a CT of its patient.
No image is read; the catalogue's query is timed too.

The plan, the runner, the ledger, the counts for the dashboard and the progress line are the real ones, on real worker
processes; only the stages return at once. Scheduler and driver are one process here, as under ``--cluster local``; its
resident memory is sampled twice a second. Printed: milliseconds per case, and the memory at each tenth of the run.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from prognosis_dask.cohort.case import Case
from prognosis_dask.cohort.idc import MASKS, PREFIX, IdcSeries, select_series
from prognosis_dask.config.job import IdcSection
from prognosis_dask.execution.cluster import LocalSpec, connect
from prognosis_dask.execution.monitor import RunMonitor
from prognosis_dask.execution.plan import CohortPlan, PlannedStage
from prognosis_dask.execution.progress import RunProgress
from prognosis_dask.execution.runner import run_plan
from prognosis_dask.storage.ledger import Ledger, TaskResult

STAGES = ("roi", "radiomics", "deep")
#: Seconds between two looks at the memory.
SAMPLE_EVERY = 0.5


@dataclass(frozen=True)
class Scale:
    """One run: how long it took, CPU time of driver and scheduler in it, and (cases done, MB) in between."""

    cases: int
    seconds: float
    cpu_seconds: float
    memory: list[tuple[int, float]]

    @property
    def milliseconds_per_case(self) -> float:
        return 1000 * self.seconds / self.cases

    @property
    def growth_mb(self) -> float:
        """How much the driver's and scheduler's memory grew from a fifth of the cases on."""
        early = next(mb for done, mb in self.memory if done >= self.cases / 5)
        return self.memory[-1][1] - early


@dataclass
class Sampler(threading.Thread):
    """Looks at this process's memory now and then."""

    done: int = 0
    samples: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        process = psutil.Process()
        while not self._ended.wait(SAMPLE_EVERY):
            self.samples.append((self.done, process.memory_info().rss / 1e6))

    def end(self) -> None:
        self._ended.set()
        self.join()
        self.samples.append((self.done, psutil.Process().memory_info().rss / 1e6))


def simulated(patients: int) -> list[Case]:
    """That many patients, a case each."""
    names = [f"P{n:06d}" for n in range(patients)]
    return [Case(f"{name}_CT_GTV-1", name, "CT", "GTV-1", f"{name}.series.json", f"{name}.dcm") for name in names]


def masks_of(series: Sequence[IdcSeries]) -> list[Case]:
    """A case for every mask among the series."""
    images = {one.patient_id: one.address for one in series if one.modality not in MASKS}
    return [
        Case(f"{one.patient_id}_{one.uuid}", one.patient_id, "CT", one.result, images[one.patient_id], one.address)
        for one in series
        if one.modality in MASKS
    ]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(cases: Sequence[Case], workers: int) -> Scale:
    """Run the cases through the stages."""
    digests = {case.case_id: "0123456789abcdef" for case in cases}
    needs = {name: STAGES[:1] if name != STAGES[0] else () for name in STAGES}
    stages = [PlannedStage(name, STAGE_FUNCTIONS[name], digests, tuple(needs[name])) for name in STAGES]
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.create(Path(folder) / "ledger.sqlite") as ledger,
        connect(LocalSpec(workers=workers, dashboard="127.0.0.1:0")) as client,
        RunMonitor(client, "scale") as monitor,
    ):
        plan = CohortPlan(cases, stages, None, {name: {} for name in STAGES})
        monitor.begin(RunProgress(cases, needs, {name: {} for name in STAGES}))
        sampler = Sampler()
        sampler.start()
        started, cpu = time.perf_counter(), time.process_time()

        def record(outcomes: Sequence[TaskResult]) -> None:
            ledger.record(outcomes)
            sampler.done += sum(outcome.stage == STAGES[-1] for outcome in outcomes)

        run_plan(client, plan, record, monitor.count, retries=0)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        sampler.end()
        assert all(count.done == len(cases) for count in ledger.counts().values())
    return Scale(len(cases), seconds, cpu, sampler.samples)


def roi(cases: tuple[Case, ...], digests: tuple[str, ...], context: None) -> list[TaskResult]:
    return _nothing("roi", cases, digests)


def radiomics(cases: tuple[Case, ...], digests: tuple[str, ...], context: None) -> list[TaskResult]:
    return _nothing("radiomics", cases, digests)


def deep(cases: tuple[Case, ...], digests: tuple[str, ...], context: None) -> list[TaskResult]:
    return _nothing("deep", cases, digests)


STAGE_FUNCTIONS = {"roi": roi, "radiomics": radiomics, "deep": deep}


def _nothing(stage: str, cases: tuple[Case, ...], digests: tuple[str, ...]) -> list[TaskResult]:
    pairs = zip(cases, digests, strict=True)
    return [TaskResult(case.case_id, stage, digest, None, {"total": 0.0}, {"n_slices": 26}) for case, digest in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--collection", help="of the IDC; its masks are the cases")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.collection:
        before, cpu = _peak_mb(), time.process_time()
        series = select_series([PREFIX + options.collection], [], IdcSection(), ["CT"]).series
        cpu, peak = time.process_time() - cpu, _peak_mb()
        print(
            f"{options.collection}: {len(series)} series from the catalogue in {cpu:.2f} s of processor time, peak ",
            end="",
        )
        print(f"memory {peak:.0f} MB, of which {before:.0f} MB this program before", flush=True)
        cases = masks_of(series)
    else:
        cases = simulated(options.patients)
    scale = measure(cases, options.workers)
    print(f"{scale.cases} cases, {len(STAGES)} stages each, {options.workers} workers: {scale.seconds:.1f} s")
    cpu = 1000 * scale.cpu_seconds / scale.cases
    print(f"overhead {scale.milliseconds_per_case:.3f} ms a case; CPU of driver and scheduler {cpu:.3f} ms")
    print("| cases done | driver and scheduler, MB |\n|---|---|")
    for tenth in range(1, 11):
        done, mb = next(sample for sample in scale.memory if sample[0] >= tenth * scale.cases / 10)
        print(f"| {done} | {mb:.0f} |")
    print(f"from a fifth of the cases on it grew by {scale.growth_mb:.1f} MB")


if __name__ == "__main__":
    main()
