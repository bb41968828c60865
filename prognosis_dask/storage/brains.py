"""``brain/`` and ``segment/``: what stages make of each case, as files that any viewer opens.

One folder per case, named by the first 12 hex digits of the SHA-256 of the case_id::

    image.nii.gz       brain/: the sequence that the tumour is drawn on: stripped, corrected, normalised (float32)
    brain.nii.gz       brain/: the brain mask, and
    tumour.nii.gz      the tumour mask, 0 and 1, on the same grid; slices that were interpolated are in it
    mask.nii.gz        segment/: the region that a network outlined, 0 and 1, on the series' grid
    *.png              pictures
    case.json          case_id, the caller's ``attributes``, the SHA-256 of every file, and the digest of the stage that
                       made it, so that what another run wrote late is not taken for this one's

A folder is written aside and published by one rename; in a bucket all objects are written at once.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, short_hash
from prognosis_dask.errors import CaseError, Code
from prognosis_dask.objects.address import Address, is_address, join, parse_address
from prognosis_dask.objects.bucket import bucket_of, several
from prognosis_dask.objects.files import files_below, files_named, put_case, read_all, read_bytes
from prognosis_dask.publish import publish_folder, remove_abandoned, staging

#: The file of a case that says what its folder holds.
HEADER = "case.json"
OF_ANOTHER_RUN = "it was written by another run, with other settings or from other files"


@dataclass(frozen=True)
class StoredBrain:
    """A case as it was written: images on one grid, and the attributes."""

    image: sitk.Image
    brain: sitk.Image
    tumour: sitk.Image
    attributes: Mapping[str, Any]


class ImageStore:
    """Images of each case, in a folder or a bucket; see the module for the layout. Opened by its path."""

    #: The images that a case has, what they are called in messages, and the stage that makes them.
    images: ClassVar[tuple[str, ...]]
    what: ClassVar[str]
    stage: ClassVar[str]

    def __init__(self, path: Path | str) -> None:
        self.path = path if is_address(path) else Path(path)

    def create(self) -> None:
        """Make the folder, and remove what killed writers left in it. For the driver, before the tasks."""
        if isinstance(self.path, Path):
            self.path.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.path / "case")

    def _place(self, case_id: str) -> Path | str:
        return Path(self.folder(case_id)) if isinstance(self.path, Path) else self.folder(case_id)

    def folder(self, case_id: str) -> str:
        """Where the case's files are."""
        return join(self.path, short_hash(case_id))

    def write_images(
        self,
        case_id: str,
        images: Mapping[str, sitk.Image],
        attributes: Mapping[str, Any],
        pictures: Mapping[str, bytes],
        digest: str = "",
    ) -> None:
        """Write one case, replacing what it had; ``pictures`` are PNGs by name, ``digest`` the stage's."""
        with self.filled(case_id, {"attributes": dict(attributes)}, digest) as staged:
            for name in self.images:
                sitk.WriteImage(images[name], str(staged / f"{name}.nii.gz"), useCompression=True)
            for name, png in pictures.items():
                (staged / f"{name}.png").write_bytes(png)

    @contextmanager
    def filled(self, case_id: str, more: Mapping[str, Any], digest: str) -> Iterator[Path]:
        """An empty folder to fill, which is then published in place of the case's, with its :data:`HEADER`."""
        with staging(self._place(case_id)) as work:
            staged = work / "case"
            staged.mkdir()
            yield staged
            files = {path.name: _sha256(path) for path in sorted(staged.iterdir())}
            header = {"case_id": case_id, "stage_digest": digest, **more, "sha256": files}
            (staged / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")
            if is_address(self.path):
                _replace(files_below(staged), parse_address(self.folder(case_id)))
            else:
                publish_folder(staged, Path(self.folder(case_id)))

    @contextmanager
    def checked(self, case_id: str, digest: str = "") -> Iterator[tuple[Path, dict[str, Any]]]:
        """A folder on this machine with the case's images, exactly as written, and its attributes.

        Raises
        ------
        CaseError
            ``STORE_DAMAGED`` when a file is missing, or is not what was written, or was under another ``digest``.
        """
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(self._local(case_id))
                header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
                if header["case_id"] != case_id:
                    raise ValueError(f"{HEADER} is another case's")
                if is_of_another_run(header, digest):
                    raise ValueError(OF_ANOTHER_RUN)
                for name in self.images:
                    if _sha256(folder / f"{name}.nii.gz") != header["sha256"][f"{name}.nii.gz"]:
                        raise ValueError(f"{name}.nii.gz differs from what was written")
                attributes: dict[str, Any] = header["attributes"]
            except (FileNotFoundError, ValueError, KeyError, TypeError, RuntimeError) as error:
                raise CaseError(
                    Code.STORE_DAMAGED,
                    f"the {self.what} is missing or damaged ({type(error).__name__}: {error}); run the same command "
                    f"again: the stage {self.stage} of this case is then redone",
                    where=self.folder(case_id),
                ) from error
            yield folder, attributes

    @contextmanager
    def _local(self, case_id: str) -> Iterator[Path]:
        """The case's folder on this machine, or a copy of what is read of it."""
        if not is_address(self.path):
            yield Path(self.folder(case_id))
            return
        names = [HEADER, *(f"{name}.nii.gz" for name in self.images)]
        with tempfile.TemporaryDirectory() as folder:
            for name, content in zip(names, self._contents(case_id, names), strict=True):
                (Path(folder) / name).write_bytes(content)
            yield Path(folder)

    def _contents(self, case_id: str, names: list[str]) -> Iterator[bytes]:
        try:
            yield from read_all([join(self.folder(case_id), name) for name in names])
        except CaseError as error:
            if error.problem.code is not Code.OBJECT_MISSING:
                raise
            raise FileNotFoundError(error.problem.where) from error

    def picture(self, case_id: str) -> bytes | None:
        """The picture of the case's quality; None where there is none."""
        try:
            return read_bytes(join(self.folder(case_id), "quality.png"))
        except (FileNotFoundError, CaseError):
            return None

    def held(self) -> set[str]:
        """The short hashes of the cases that are there."""
        return {path.split("/")[-2] for path in files_named(self.path, HEADER)}

    def headers(self) -> Iterator[dict[str, Any]]:
        """What is kept beside the images of each case that is there, in no order."""
        for content in read_all(files_named(self.path, HEADER)):
            with suppress(ValueError):  # a damaged one is found when its case is read
                yield json.loads(content)


class BrainStore(ImageStore):
    """The prepared brains of a cohort."""

    images = ("image", "brain", "tumour")
    what = "prepared brain"
    stage = "brain"

    def write(self, case_id: str, brain: StoredBrain, pictures: Mapping[str, bytes], digest: str = "") -> None:
        """Write one case, replacing what it had; ``pictures`` are PNGs by name."""
        images = {name: getattr(brain, name) for name in self.images}
        self.write_images(case_id, images, brain.attributes, pictures, digest)

    def read(self, case_id: str, digest: str = "") -> StoredBrain:
        """One case, exactly as written; errors as :meth:`checked`."""
        with self.checked(case_id, digest) as (folder, attributes):
            image, brain, tumour = (sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in self.images)
        return StoredBrain(image, brain, tumour, attributes)


class MaskStore(ImageStore):
    """The masks that a network outlined."""

    images = ("mask",)
    what = "mask that a network outlined"
    stage = "segment"

    @contextmanager
    def with_mask(self, case: Case) -> Iterator[Case]:
        """The case with the mask that was outlined for it as its own; STORE_DAMAGED as :meth:`checked` raises it."""
        with self.checked(case.case_id, case.stored.get(self.stage, "")) as (folder, _):
            yield replace(case, mask=str(folder / "mask.nii.gz"))


def is_of_another_run(header: Mapping[str, Any], digest: str) -> bool:
    """Whether a case was written under another digest than is expected; runs of before did not say under which."""
    return bool(digest) and header.get("stage_digest", "") not in ("", digest)


def _replace(files: Mapping[str, Path], address: Address) -> None:
    """Write a case's files, and remove what it had besides, as by the renaming of a folder."""
    bucket, kept = bucket_of(address), {(address / name).key for name in files}
    for _ in several(bucket.delete, [stat.key for stat in bucket.list(address.key) if stat.key not in kept]):
        pass
    put_case(files, address)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
