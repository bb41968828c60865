"""A job's stages in order: what the results of each depend on, the memory it needs, the workers it runs on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from prognosis_dask.cohort.case import Case
from prognosis_dask.config.job import DeepSection, Job, digest
from prognosis_dask.execution.plan import Stage
from prognosis_dask.features.brain_stage import run_brain
from prognosis_dask.features.stages import (
    BRAIN_VERSION,
    DEEP_VERSION,
    RADIOMICS_VERSION,
    ROI_VERSION,
    StageContext,
    run_deep,
    run_radiomics,
    run_roi,
)
from prognosis_dask.networks.engine import EngineDescription, cases_per_task, frames_together
from prognosis_dask.radiomics import ModalityParams, column_names, unit
from prognosis_dask.radiomics.params import OTHERS
from prognosis_dask.storage.outcome import Outcome

#: Bytes that a task may need at its peak: a CT of 512 x 512 with its mask, and the network with its weights.
IMAGE_MEMORY = 1_000_000_000
NETWORK_MEMORY = 1_500_000_000
#: Four sequences of 256 x 256 x 48, the template and the registrations.
BRAIN_MEMORY = 2_000_000_000


def wants_gpu(job: Job) -> bool:
    """Whether some stage runs on a GPU; then each stage asks for the sort of worker that it needs."""
    return (job.deep.enabled and job.deep.device == "gpu") or (job.grade.enabled and job.grade.device == "gpu")


def memory_of(job: Job) -> int:
    """Bytes that one task of the job may need, the most of all its stages."""
    return max(IMAGE_MEMORY, NETWORK_MEMORY if job.deep.enabled else 0, BRAIN_MEMORY if job.brain.enabled else 0)


def stages_of(job: Job, cases: Sequence[Case], context: StageContext, engine: EngineDescription | None) -> list[Stage]:
    """The job's stages, each with the digests of everything that its results depend on."""
    # whether a mask on one slice will do is part of what becomes of a case; elsewhere the digest is as ever
    planar = {m: ("planar",) if context.radiomics.of(m).planar else () for m in {case.modality for case in cases}}
    images = {case.case_id: case.digest for case in cases}
    if job.brain.enabled:
        images = {
            case.case_id: digest(BRAIN_VERSION, case.digest, job.image, job.brain, *planar[case.modality])
            for case in cases
        }
    roi = {
        case.case_id: digest(ROI_VERSION, images[case.case_id], job.image, job.frames, *planar[case.modality])
        for case in cases
    }
    cpu, network = ("CPU", "GPU") if wants_gpu(job) else ("", "")
    size = job.run.cases_per_task
    stages = [Stage("roi", run_roi, roi, size, resource=cpu, memory=IMAGE_MEMORY)]
    if job.brain.enabled:
        stages.insert(0, Stage("brain", run_brain, images, size, resource=cpu, memory=BRAIN_MEMORY))
    if job.radiomics.enabled:
        params = {name: context.radiomics.of(name).content for name in {case.modality for case in cases}}
        digests = {
            case.case_id: digest(RADIOMICS_VERSION, images[case.case_id], job.image, params[case.modality])
            for case in cases
        }
        stages.append(Stage("radiomics", run_radiomics, digests, size, resource=cpu, memory=IMAGE_MEMORY))
    if engine:
        digests = {case.case_id: digest(DEEP_VERSION, roi[case.case_id], engine.provenance) for case in cases}
        size = cases_per_task(job.deep) if wants_gpu(job) else size
        group = partial(_frames_together, context.deep)
        stages.append(Stage("deep", run_deep, digests, size, group, resource=network, memory=NETWORK_MEMORY))
    return stages


def feature_settings(job: Job, context: StageContext, engine: EngineDescription | None) -> dict[str, str]:
    """What a feature means, whatever the cohort: tables whose features are to be compared must agree in it."""
    settings = {}
    if job.radiomics.enabled:
        for modality, params in context.radiomics.by_modality:
            of = "" if modality == OTHERS else f".{modality}"
            settings[f"radiomics.parameters{of}"] = digest(RADIOMICS_VERSION, params.content)
        settings["radiomics.image"] = digest(job.image)
    if engine:
        settings["deep.frames"] = digest(ROI_VERSION, DEEP_VERSION, job.image, job.frames)
        known = engine.provenance
        settings |= {f"deep.{key}": known[key] for key in ("network", "output", "weights_sha256") if key in known}
    return settings


def radiomic_names(cases: Iterable[Case], params: ModalityParams) -> dict[str, tuple[str, ...]]:
    """The radiomic features of each modality that the cases are of, in the order of its own parameters."""
    return {modality: column_names(params.of(modality)) for modality in sorted({case.modality for case in cases})}


def radiomic_units(of_modality: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Each radiomic feature that some modality has, with its unit."""
    return {name: unit(name) for names in of_modality.values() for name in names}


def _frames_together(deep: DeepSection, roi: Outcome) -> int:
    """What tells which cases go through the network together."""
    return frames_together(deep, int(str(roi.result["n_slices"])))
