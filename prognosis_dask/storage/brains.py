"""``brain/``: what the brain stage makes of each case, as files that any viewer opens.

One folder per case, named by the first 12 hex digits of the SHA-256 of the case_id::

    image.nii.gz       the sequence that the tumour is drawn on: stripped, corrected, normalised (float32)
    brain.nii.gz       the brain mask, and
    tumour.nii.gz      the tumour mask, 0 and 1, on the same grid; slices that were interpolated are in it
    *.png              pictures
    case.json          case_id, the caller's ``attributes``, and the SHA-256 of every file

A folder is written aside and published by one rename.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from prognosis_dask.cohort.case import short_hash
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.publish import publish_folder, remove_abandoned, staging

_IMAGES = ("image", "brain", "tumour")


@dataclass(frozen=True)
class StoredBrain:
    """A case as it was written: images on one grid, and the attributes."""

    image: sitk.Image
    brain: sitk.Image
    tumour: sitk.Image
    attributes: Mapping[str, Any]


class BrainStore:
    """The prepared brains of a cohort on disk; see the module for the layout. Workers open it by its path."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def create(self) -> None:
        """Make the folder, and remove what killed writers left in it. For the driver, before the tasks."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.path / "case")

    def folder(self, case_id: str) -> Path:
        """Where the case's files are."""
        return self.path / short_hash(case_id)

    def write(self, case_id: str, brain: StoredBrain, pictures: Mapping[str, bytes]) -> None:
        """Write one case, replacing what it had; ``pictures`` are PNGs by name."""
        final = self.folder(case_id)
        with staging(final) as work:
            staged = work / "case"
            staged.mkdir()
            for name in _IMAGES:
                sitk.WriteImage(getattr(brain, name), str(staged / f"{name}.nii.gz"), useCompression=True)
            for name, png in pictures.items():
                (staged / f"{name}.png").write_bytes(png)
            files = {path.name: _sha256(path) for path in sorted(staged.iterdir())}
            header = {"case_id": case_id, "attributes": dict(brain.attributes), "sha256": files}
            (staged / "case.json").write_text(json.dumps(header, indent=1), encoding="utf-8")
            publish_folder(staged, final)

    def read(self, case_id: str) -> StoredBrain:
        """One case, exactly as written.

        Raises
        ------
        CaseError
            ``STORE_DAMAGED`` when a file is missing, or is not what was written.
        """
        folder = self.folder(case_id)
        try:
            header = json.loads((folder / "case.json").read_text(encoding="utf-8"))
            if header["case_id"] != case_id:
                raise ValueError("case.json is another case's")
            for name in _IMAGES:
                if _sha256(folder / f"{name}.nii.gz") != header["sha256"][f"{name}.nii.gz"]:
                    raise ValueError(f"{name}.nii.gz differs from what was written")
            image, brain, tumour = (sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in _IMAGES)
        except (FileNotFoundError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CaseError(
                Code.STORE_DAMAGED,
                f"the prepared brain is missing or damaged ({type(error).__name__}: {error}); run the same command "
                "again: the brain stage of this case is then redone",
                where=str(folder),
            ) from error
        return StoredBrain(image, brain, tumour, header["attributes"])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
