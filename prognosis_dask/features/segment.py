"""The stage that outlines the region of cases without a mask: a network over the whole image, its mask, a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import SimpleITK as sitk

from prognosis_dask.arrays import Float32Array
from prognosis_dask.brain.pictures import LESION, SLICES, slices_png
from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.config.fields import Above, AtLeast, Below
from prognosis_dask.config.job import Job, SegmentSection
from prognosis_dask.config.reading import build, expect
from prognosis_dask.errors import CaseError, Code, JobError
from prognosis_dask.features.deep import by_content, file_stamp
from prognosis_dask.features.guard import Stopwatch
from prognosis_dask.features.stage import Stage, StageContext, Work, described
from prognosis_dask.imaging.cube import VolumeRule, whole_volume
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.imaging.load import load_image
from prognosis_dask.networks.catalogue import split_description
from prognosis_dask.networks.clip_engine import RunClip
from prognosis_dask.networks.file_network import architecture_provenance, file_sha256, library, load_file, tried
from prognosis_dask.networks.programs import PROGRAMS, SegmentProgram, find_program
from prognosis_dask.storage.brains import MaskStore
from prognosis_dask.storage.ledger import TaskResult, Values

#: Where a region comes from: the variable ``mask_source``.
DRAWN, AUTOMATIC = "drawn", "automatic"


class SegmentWork(Work):
    """One network a process, over the series of cases that came without a mask; the others pass as they are."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._described: SegmentDescription | None = None
        self._without: frozenset[str] = frozenset()

    def check(self, job: Job) -> None:
        describe_segmenter(job.segment)

    def concerns(self, case: Case) -> bool:
        return not case.mask

    def prepare(self, context: StageContext, cases: Sequence[Case]) -> None:
        self._without = frozenset(case.case_id for case in cases if not case.mask)
        MaskStore(context.masks).create()

    def lost(self, context: StageContext, done: Mapping[str, TaskResult]) -> set[str]:
        held = MaskStore(context.masks).held()
        return {case_id for case_id in self._without.intersection(done) if short_hash(case_id) not in held}

    def inputs(self, context: StageContext, modality: str) -> tuple[object, ...]:
        return (by_content(self.provenance(context)),)

    def provenance(self, context: StageContext) -> dict[str, str]:
        if self._described is None:
            self._described = describe_segmenter(context.job.segment)
        return self._described.provenance

    def meaning(self, context: StageContext) -> dict[str, str]:
        known = self.provenance(context)
        return described(
            "segment.network", {"version": self.stage.version, **known}, self.stage.version, by_content(known)
        )

    def warm(self, context: StageContext) -> None:
        load_segmenter_once(context.job.segment)

    def measure(self, case: Case, context: StageContext, watch: Stopwatch) -> Values:
        if case.mask:
            return {"mask_source": DRAWN}
        with watch.step("read"):
            image = load_image(case.image, context.job.image, etag=case.etag(case.image))
        with watch.step("network"):
            mask = load_segmenter_once(context.job.segment).mask(image)
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
        if not voxels:
            named = Path(context.job.segment.network).name
            raise CaseError(Code.NO_CANDIDATE, f"{named} outlines nothing in the image; look at it, or outline it")
        with watch.step("write"):
            volume = voxels * math.prod(mask.GetSpacing()) / 1000.0
            title = f"outlined by a network, not reviewed; {volume:.3g} mL"
            attributes = {"mask_source": AUTOMATIC, "volume_ml": volume, "network": context.job.segment.network}
            pictures = {"quality": outlined(image, mask, title)}
            digest = case.stored.get(MaskStore.stage, "")
            MaskStore(context.masks).write_images(case.case_id, {"mask": mask}, attributes, pictures, digest)
        return {"mask_source": AUTOMATIC}


def load_segmenter_once(section: SegmentSection) -> Segmenter | SegmentProgram:
    """The network of this process: loaded at first use, kept for the tasks that follow while its files are the same."""
    return _segmenter(section, tuple(map(file_stamp, segment_files(section))))


@lru_cache(maxsize=1)
def _segmenter(section: SegmentSection, stamps: tuple[tuple[int, int] | None, ...]) -> Segmenter | SegmentProgram:
    return load_segmenter(section)


def outlined(image: sitk.Image, mask: sitk.Image, title: str) -> bytes:
    """A PNG of up to eight axial slices from the region's foot to its top, with its outline.

    ``title``: the heading. Never a patient's name.
    """
    upright = [sitk.DICOMOrient(one, "LPS") for one in (image, mask)]
    values, inside = map(sitk.GetArrayFromImage, upright)
    held = np.flatnonzero(inside.any(axis=(1, 2)))
    chosen = np.unique(np.linspace(held[0], held[-1], SLICES).round().astype(int))
    row = (values[chosen], values[chosen])
    return slices_png([row], [(inside[chosen] > 0, LESION)], upright[0].GetSpacing(), title)


_FILE = "file:"
#: A patch counts least at its borders, where a network sees least: the weights' deviation as a share of its size.
_SIGMA = 1 / 8


@dataclass(frozen=True)
class SegmentNetwork:
    """A network that outlines regions, as ``NETWORK.toml`` beside its file says; ``input.voxels`` are of one patch."""

    input: VolumeRule
    labels: Annotated[dict[str, Annotated[int, Above(0)]], "Names of the regions and their numbers."]
    output: Annotated[
        Literal["softmax", "sigmoid"],
        "`softmax`: of the channels the largest value decides, the first is the background and a label's number its "
        "channel; `sigmoid`: each channel decides by itself, label 1 by the first.",
    ] = "softmax"
    threshold: Annotated[float, "Of `sigmoid`: a voxel belongs to a region where the network's value is above."] = 0.0
    overlap: Annotated[float, AtLeast(0), Below(1), "Share of a patch that the next one covers again."] = 0.5
    licence: Annotated[str, "Licence of code and weights."] = ""
    weights: Annotated[str, "Where the weights come from."] = ""
    citation: Annotated[str, "What to cite."] = ""


@dataclass(frozen=True)
class Segmenter:
    """A network, ready to outline the regions of these ``numbers``, together one.

    ``run`` takes one patch, (1, 1, *voxels), and gives its values, (channel, *voxels), flat.
    """

    run: RunClip
    network: SegmentNetwork
    numbers: tuple[int, ...]

    def mask(self, image: sitk.Image) -> sitk.Image:
        """The region (uint8, 0 and 1) on the image's grid; empty where the network finds none.

        Raises
        ------
        CaseError
            ``IMAGE_INVALID`` as :func:`prognosis_dask.imaging.cube.whole_volume`; ``SEGMENT_FAILED`` when the network's
            values are not finite, or all of them are inside.
        """
        volume = whole_volume(image, self.network.input)
        inside = image_like(self._inside(sitk.GetArrayViewFromImage(volume)), volume)
        # what decides is interpolated, not the decision: the outline is as smooth as the network's values
        same = sitk.Resample(inside, image, sitk.Transform(), sitk.sitkLinear, -1.0)
        mask = (sitk.GetArrayViewFromImage(same) > 0).astype(np.uint8)
        if mask.all():
            raise CaseError(
                Code.SEGMENT_FAILED,
                "the network outlines the whole image; its threshold has to be 0.5 for probabilities, 0 for logits",
            )
        return image_like(mask, image)

    def _inside(self, volume: Float32Array) -> Float32Array:
        """By how much each voxel is inside: above zero where it is."""
        voxels = self.network.input.voxels
        near = _weights(voxels)
        total = np.zeros(volume.shape, np.float32)
        scores: Float32Array | None = None
        for at in _patches(volume.shape, voxels, self.network.overlap):
            found = self.run(np.ascontiguousarray(volume[at])[None, None]).reshape(-1, *voxels)
            scores = np.zeros((len(found), *volume.shape), np.float32) if scores is None else scores
            scores[(slice(None), *at)] += found * near
            total[at] += near
        assert scores is not None
        scores /= total
        inside = _excess(scores, self.network, self.numbers)
        if not np.isfinite(inside).all():
            raise CaseError(Code.SEGMENT_FAILED, "the network gives values that are not finite; expected numbers")
        return inside


def _excess(scores: Float32Array, network: SegmentNetwork, numbers: Sequence[int]) -> Float32Array:
    if network.output == "sigmoid":
        return np.asarray(scores[[number - 1 for number in numbers]].max(axis=0) - np.float32(network.threshold))
    others = [channel for channel in range(len(scores)) if channel not in numbers]
    return np.asarray(scores[list(numbers)].max(axis=0) - scores[others].max(axis=0))


def _patches(size: tuple[int, ...], voxels: Sequence[int], overlap: float) -> Iterator[tuple[slice, ...]]:
    """Patches evenly over the volume, the first at its beginning, the last at its end.

    >>> [[one.start for one in at] for at in _patches((10, 4), (4, 4), 0.5)]
    [[0, 0], [2, 0], [4, 0], [6, 0]]
    """
    starts = []
    for length, patch in zip(size, voxels, strict=True):
        number = math.ceil((length - patch) / max(1.0, patch * (1 - overlap))) + 1
        starts.append(np.linspace(0, length - patch, number).round().astype(int))
    for at in itertools.product(*starts):
        yield tuple(slice(int(start), int(start) + patch) for start, patch in zip(at, voxels, strict=True))


def _weights(voxels: Sequence[int]) -> Float32Array:
    found = np.ones((1,) * len(voxels))
    for axis, size in enumerate(voxels):
        away = (np.arange(size) - (size - 1) / 2) / max(size * _SIGMA, 1e-6)
        shape = [1] * len(voxels)
        shape[axis] = size
        found = found * np.exp(-(away**2) / 2).reshape(shape)
    return found.astype(np.float32)


@dataclass(frozen=True)
class SegmentDescription:
    """What is known before the network is loaded: ``provenance`` holds all that its regions depend on."""

    provenance: dict[str, str]
    numbers: tuple[int, ...] = field(default=())


def describe_segmenter(section: SegmentSection) -> SegmentDescription:
    """Describe the network of a job; runs a file once on an empty patch.

    Raises
    ------
    JobError, WeightsError, MissingExtraError, ClusterError
        When the job names no network, its file or description cannot be used, or a program is not installed.
    """
    program = _program(section)
    if program:
        return SegmentDescription({"network": section.network, **program.provenance()})
    network, numbers = _network(section)
    _load(replace(section, device="cpu"))
    path, _ = segment_files(section)
    known, version = library(path, section.key)
    provenance = {
        "network": section.network,
        "weights": section.network,
        "weights_sha256": file_sha256(path, section.weights_sha256, section.key),
        "regions": "+".join(name for name, number in network.labels.items() if number in numbers),
        "input": str(network.input),
        "output": f"{network.output} {network.threshold:g} {network.overlap:g} {sorted(network.labels.items())}",
        "device": section.device,
        known: version,
        **architecture_provenance(path),
    }
    return SegmentDescription(provenance, numbers)


def load_segmenter(section: SegmentSection) -> Segmenter | SegmentProgram:
    """Load the network of a job, or find its program.

    Raises
    ------
    JobError, WeightsError, MissingExtraError, ClusterError
        As :func:`describe_segmenter`; when there is no GPU for a job that wants one.
    """
    return _program(section) or _load(section)


def segment_files(section: SegmentSection) -> list[Path]:
    """The network's file and its description; none of a program."""
    if not section.network.startswith(_FILE):
        return []
    path = Path(section.network.removeprefix(_FILE))
    return [path, path.with_suffix(".toml")]


def _program(section: SegmentSection) -> SegmentProgram | None:
    kind, _, name = section.network.partition(":")
    if kind in PROGRAMS and name:
        return find_program(kind, name, section.regions, section.device)
    if section.network.startswith(_FILE) and name:
        return None
    known = ", ".join(f"'{program}:NAME'" for program in PROGRAMS)
    raise JobError(
        f"segment.network is {section.network!r}, expected 'file:PATH' of a TorchScript or ONNX file, {known}"
    )


def _network(section: SegmentSection) -> tuple[SegmentNetwork, tuple[int, ...]]:
    """What the TOML file says, and the numbers of the labels that the job wants."""
    file, path = segment_files(section)
    found = build(SegmentNetwork, split_description(file)[1], str(path))
    found.input.check(f"{path}: input")
    expect(bool(found.labels), str(path), "labels", {}, "a name and a number at least")
    for name in section.regions:
        if name not in found.labels:
            raise JobError(f"segment.regions has {name!r}, expected labels of {path}: {', '.join(found.labels)}")
    return found, tuple(sorted({found.labels[name] for name in section.regions or found.labels}))


def _load(section: SegmentSection) -> Segmenter:
    network, numbers = _network(section)
    path, card = segment_files(section)
    file_sha256(path, section.weights_sha256, section.key)
    run = load_file(path, section.device, section.key)
    voxels = network.input.voxels
    values = tried(run, section.key, path, (1, 1, *voxels), f"the patch that {card} describes")
    channels, rest = divmod(values.size, math.prod(voxels))
    needed = max(network.labels.values()) + (network.output == "softmax")
    if rest or channels < needed:
        raise JobError(
            f"segment.network {path} gives {values.size} values of a patch of {math.prod(voxels)} voxels, expected "
            f"{needed} or more for each voxel, as {card} describes it ({network.output}, labels {network.labels})"
        )
    return Segmenter(run, network, numbers)
