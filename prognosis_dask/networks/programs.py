"""Programs that outline structures in an image: how each is called, and which file it writes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from prognosis_dask.errors import CaseError, Code, JobError, MissingExtraError
from prognosis_dask.imaging.geometry import image_like

#: One thread per worker, also for programs that it starts: the variables of OpenMP, MKL, ITK and Python 3.13.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "PYTHON_CPU_COUNT"), "1"
)
#: By their names in a job: the program, and where it comes from.
PROGRAMS = {
    "totalsegmentator": ("TotalSegmentator", "pip install TotalSegmentator"),
    "nnunet": ("nnUNetv2_predict", "pip install nnunetv2"),
}
#: TotalSegmentator's tasks that can be asked for some of their classes only, which is faster.
_SUBSETS = ("total", "total_mr")


def run_program(name: str, command: Sequence[str], written: Path, code: Code) -> None:
    """Run a program in one thread, and expect a file or folder that it writes.

    Raises
    ------
    CaseError
        With ``code``, when it fails or writes none.
    """
    # FSL's output format follows the last variable, whatever the file's name
    environment = {**os.environ, **_ONE_THREAD, "FSLOUTPUTTYPE": "NIFTI_GZ"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode or not written.exists():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it printed nothing"]
        raise CaseError(code, f"{name} ended with status {done.returncode}: {last[0][:300]}")


def on_grid(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """A program's mask (0 and 1, uint8) on the image's grid, nearest neighbour."""
    same = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    return image_like((sitk.GetArrayViewFromImage(same) > 0).astype(np.uint8), image)


@dataclass(frozen=True)
class SegmentProgram:
    """An installed program that outlines the regions of these names.

    Attributes
    ----------
    kind, name
        Of :data:`PROGRAMS`; the task or the data set.
    program
        Its path.
    regions
        Names of the regions with their values in what it writes; of TotalSegmentator, which writes a file for each, 1.
    device
        ``cpu`` or ``gpu``.
    model
        The folder of nnU-Net's trained model.
    """

    kind: str
    name: str
    program: str
    regions: Mapping[str, tuple[int, ...]]
    device: Literal["cpu", "gpu"]
    model: Path | None = None

    def mask(self, image: sitk.Image) -> sitk.Image:
        """The region (uint8, 0 and 1) on the image's grid; empty where the program finds none.

        Raises
        ------
        CaseError
            ``SEGMENT_FAILED`` when it fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            run = self._total if self.kind == "totalsegmentator" else self._nnunet
            found = [on_grid(mask, image) for mask in run(image, Path(folder))]
        whole = np.any([sitk.GetArrayViewFromImage(mask) > 0 for mask in found], axis=0)
        return image_like(whole.astype(np.uint8), image)

    def _total(self, image: sitk.Image, folder: Path) -> list[sitk.Image]:
        source, out = folder / "image.nii.gz", folder / "out"
        sitk.WriteImage(image, str(source))
        command = [self.program, "-i", str(source), "-o", str(out), "--task", self.name, "--device", self.device]
        command += ["--nr_thr_resamp", "1", "--nr_thr_saving", "1"]
        command += ["--roi_subset", *self.regions] if self.name in _SUBSETS else []
        run_program(self.kind, command, out, Code.SEGMENT_FAILED)
        missing = [name for name in self.regions if not (out / f"{name}.nii.gz").is_file()]
        if missing:
            seen = ", ".join(sorted(path.name.removesuffix(".nii.gz") for path in out.iterdir())[:10]) or "nothing"
            raise CaseError(
                Code.SEGMENT_FAILED, f"{self.kind} wrote no {missing[0]}.nii.gz (segment.regions), but {seen}"
            )
        return [sitk.ReadImage(str(out / f"{name}.nii.gz")) for name in self.regions]

    def _nnunet(self, image: sitk.Image, folder: Path) -> list[sitk.Image]:
        assert self.model is not None
        ending = str(_dataset(self.model)["file_ending"])
        source, out = folder / "in", folder / "out"
        source.mkdir()
        sitk.WriteImage(image, str(source / f"case_0000{ending}"))
        trainer, plans, configuration = self.model.name.split("__")
        command = [self.program, "-i", str(source), "-o", str(out), "-d", self.name]
        command += ["-tr", trainer, "-p", plans, "-c", configuration]
        command += ["-device", "cuda" if self.device == "gpu" else "cpu", "-npp", "1", "-nps", "1"]
        run_program(self.kind, command, out / f"case{ending}", Code.SEGMENT_FAILED)
        values = sitk.ReadImage(str(out / f"case{ending}"))
        wanted = [value for of_region in self.regions.values() for value in of_region]
        held = np.isin(sitk.GetArrayViewFromImage(values), wanted).astype(np.uint8)
        return [image_like(held, values)]

    def provenance(self) -> dict[str, str]:
        """What its regions depend on, as far as the program says."""
        found = {"regions": "+".join(self.regions), "device": self.device}
        if self.model is None:
            return {**found, "weights": self.name, "version": _version("TotalSegmentator")}
        files = sorted([*self.model.glob("*.json"), *self.model.glob("fold_*/checkpoint_final.pth")])
        digest = hashlib.sha256()
        for path in files:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return {
            **found,
            "weights": self.model.name,
            "weights_sha256": digest.hexdigest(),
            "version": _version("nnunetv2"),
        }


def find_program(kind: str, name: str, regions: Sequence[str], device: Literal["cpu", "gpu"]) -> SegmentProgram:
    """The program of a job, with the regions that it is asked for.

    Raises
    ------
    MissingExtraError
        When it is not installed here.
    JobError
        When it is not told which regions, or its model is not there or has none of such names.
    """
    program, source = PROGRAMS[kind]
    path = shutil.which(program)
    if path is None:
        raise MissingExtraError(
            f"segment.network is '{kind}:{name}', but there is no program {program!r} on the PATH ({source})"
        )
    if kind == "totalsegmentator":
        if not regions:
            raise JobError("segment.regions is empty, expected the names of TotalSegmentator's classes that are wanted")
        return SegmentProgram(kind, name, path, dict.fromkeys(regions, (1,)), device)
    model = _trained(name)
    known = {label: _values(value) for label, value in _dataset(model)["labels"].items() if label != "background"}
    for region in regions:
        if region not in known:
            raise JobError(
                f"segment.regions has {region!r}, expected labels of {model / 'dataset.json'}: {', '.join(known)}"
            )
    return SegmentProgram(kind, name, path, {one: known[one] for one in regions or known}, device, model)


def _trained(name: str) -> Path:
    """The folder of the trained model, TRAINER__PLANS__CONFIGURATION; full resolution where there are several."""
    results = os.environ.get("nnUNet_results", "")  # noqa: SIM112
    found = sorted(Path(results, name).glob("*__*__*")) if results else []
    found = [path for path in found if path.name.endswith("__3d_fullres")] or found
    found = [path for path in found if (path / "dataset.json").is_file()]
    if not found:
        raise JobError(
            f"segment.network is 'nnunet:{name}', but nnUNet_results ({results or 'not set'}) holds no trained "
            "model of it"
        )
    if len(_dataset(found[0])["channel_names"]) != 1:
        raise JobError(f"segment.network: {found[0]} wants several channels; expected a model of one image")
    return found[0]


def _dataset(model: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((model / "dataset.json").read_text(encoding="utf-8"))
    return content


def _values(label: int | Sequence[int]) -> tuple[int, ...]:
    return (label,) if isinstance(label, int) else tuple(label)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not known: it is installed elsewhere"
