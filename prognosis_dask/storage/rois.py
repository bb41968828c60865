"""``rois.zarr``: the frames and the cropped image and mask of every case.

Layout (zarr format 3, readable with plain zarr, or ``xarray.open_zarr(path, consolidated=False)``)::

    frames                  (case, slice, row, column) uint8, padded with zeros along slice; one file per case
    case_id                 (case) text; "" is a row that is not taken yet
    crops/<short hash>      one group per case, named by the first 12 hex digits of the SHA-256 of the case_id
        image               (slice, row, column), the image's own pixel type
        mask                (slice, row, column) uint8, 0 and 1
        attributes          case_id, spacing_mm, origin_mm, direction (x, y, z order), start_index, full (geometry of
                            the uncropped image), frames (how many), unit (the image's), sha256 of image, mask and
                            frames, ``stage_digest`` (of the stage that made it), the caller's own ``attributes``, and
                            ``digest``: the SHA-256 over all of these
    cubes/...               :mod:`prognosis_dask.storage.volumes`

A case is prepared in a folder of its own and published by two renames, frames first; in a bucket by writing whole
objects, all at once. Tasks may run twice at once or be killed at any moment: what a row of the ledger speaks of is
whole, and the digests tell when it is not, or when it is of another run, whose worker wrote it late.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import SimpleITK as sitk
import zarr
from zarr.codecs import BloscCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from prognosis_dask.arrays import AnyArray, ByteArray
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.errors import BucketError, CaseError, Code, StoreError
from prognosis_dask.imaging.roi import Roi
from prognosis_dask.objects.address import is_address, join, parse_address
from prognosis_dask.objects.bucket import bucket_of
from prognosis_dask.objects.files import (
    fetch_folder,
    files_below,
    files_named,
    put_case,
    put_files,
    read_all,
    read_bytes,
)
from prognosis_dask.publish import publish_folder, remove_abandoned, staging
from prognosis_dask.storage.brains import OF_ANOTHER_RUN, is_of_another_run
from prognosis_dask.volumes.grid import Grid

#: The longest ROI, in slices, and the side of a frame.
MAX_SLICES, SIDE = 1024, 128
#: Rows of the table of cases that lie in one file.
_ROWS = 4096

_FORMAT = {"format": "prognosis_dask rois", "version": 1}
DIMS = ("slice", "row", "column")
#: What is zero everywhere has its file too.
PACKED: dict[str, Any] = {
    "compressors": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    "config": {"write_empty_chunks": True},
}
_FRAMES: dict[str, Any] = {
    "chunks": (1, 16, SIDE, SIDE),
    "shards": (1, MAX_SLICES, SIDE, SIDE),
    "dtype": "uint8",
    "fill_value": 0,
    "dimension_names": ("case", *DIMS),
    **PACKED,
}
#: A reader that meets the moment between two writers' renames looks again.
_LOOKS, _LOOK_AGAIN_SECONDS = 3, 0.1

#: The files of a crop; its pixels are one chunk each.
HEADER = "zarr.json"
_PIXELS = ("image", "mask")
_CHUNK = "c/0/0/0"
#: As zarr has it: in the header of a group that of its arrays too, so that one object tells of all.
_CONSOLIDATED = {"kind": "inline", "must_understand": False}
#: The files that say which case has which row.
_TABLE = ("zarr.json", "frames/zarr.json", "crops/zarr.json")
#: Stores in buckets that this process has opened, by path, and for which start of a driver: tasks ask nothing anew.
_OPENED: dict[str, tuple[str, RoiStore]] = {}

T = TypeVar("T")


class _DamageError(Exception):
    """What was read is missing or is not what was written."""


class RoiStore:
    """The ROIs of a cohort, in a folder or a bucket; see the module for the layout. Workers open it by its path."""

    #: What makes them.
    stage: ClassVar[str] = "roi"

    def __init__(self, path: Path | str) -> None:
        self.path = path if is_address(path) else Path(path)

    @classmethod
    def create(cls, path: Path | str, case_ids: Iterable[str]) -> RoiStore:
        """Open or create the store and give every new case a row. Rows never change. For the driver, before the tasks.

        Raises
        ------
        StoreError
            When ``path`` exists and is not such a store.
        """
        if is_address(path):
            return cls._create_in_bucket(str(path), case_ids)
        path = Path(path)
        if not path.exists():
            with staging(path) as folder:
                group = zarr.create_group(store=folder / "store", attributes=_FORMAT)
                group.create_array("frames", shape=(0, MAX_SLICES, SIDE, SIDE), **_FRAMES)
                group.create_array("case_id", shape=(0,), chunks=(_ROWS,), dtype=str, dimension_names=("case",))
                group.create_group("crops")
                publish_folder(folder / "store", path)
        remove_abandoned(path)
        store = cls.open(path)
        store._append(list(dict.fromkeys(case_ids)))
        return store

    @classmethod
    def _create_in_bucket(cls, path: str, case_ids: Iterable[str]) -> RoiStore:
        """The same on a copy of the few files that say which case has which row; these are then written."""
        address = parse_address(path)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "rois.zarr"
            if bucket_of(address).exists((address / HEADER).key):
                cls.open(path)
                for name in _TABLE:
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    (copy / name).write_bytes(read_bytes(join(path, name)))
                fetch_folder(address / "case_id", copy / "case_id")
            rows = cls.create(copy, case_ids)._rows
            put_files(files_below(copy), address, mark=HEADER)
        store = cls(path)
        store.__dict__["_rows"] = rows
        return store

    @classmethod
    def open(cls, path: Path | str, started: str = "") -> RoiStore:
        """Open an existing store. Reads one small file: cheap enough for every task.

        Parameters
        ----------
        path
            A folder, or an address in a bucket.
        started
            What one start of a driver is told by. For the same one a store in a bucket is opened once a process; for
            another one anew, since it may have been made again, with other rows.

        Raises
        ------
        StoreError
            When there is no such store at ``path``.
        """
        known, store = _OPENED.get(str(path), ("", None))
        if store is not None and started and known == started:
            return store
        try:
            found = json.loads(read_bytes(join(path, HEADER))).get("attributes")
        except (FileNotFoundError, ValueError, AttributeError, CaseError) as error:
            if isinstance(error, CaseError) and error.problem.code is not Code.OBJECT_MISSING:
                raise BucketError(f"cannot read {error.problem.where}: {error.problem.reason}") from error
            raise StoreError(f"no store of ROIs at {path} ({error}); `prognosis run` makes one") from error
        if found != _FORMAT:
            raise StoreError(f"{path} is {found}, expected {_FORMAT}; use another folder for this run")
        store = cls(path)
        if is_address(path) and started:
            _OPENED[str(path)] = started, store
        return store

    def write(
        self, case_id: str, roi: Roi, frames: ByteArray, attributes: Mapping[str, Any], stage_digest: str = ""
    ) -> None:
        """Write one case, replacing what it had.

        Parameters
        ----------
        case_id
            A case that :meth:`create` was given.
        roi
            The cropped image (any scalar pixel type) and mask.
        frames
            (slice, 128, 128) uint8, at least one slice.
        attributes
            Small things to keep with the case; anything JSON holds.
        stage_digest
            What the case is made of and how, as the ledger has it.

        Raises
        ------
        CaseError
            ``MASK_TOO_LONG`` when there are more frames than the store has slices.
        StoreError
            When the case has no row.
        """
        row = self._row(case_id)
        _check_frames(frames)
        image, mask = (sitk.GetArrayViewFromImage(part) for part in (roi.image, roi.mask))
        header = {
            "case_id": case_id,
            "spacing_mm": roi.image.GetSpacing(),
            "origin_mm": roi.image.GetOrigin(),
            "direction": roi.image.GetDirection(),
            "start_index": roi.start,
            "full": {
                "size": roi.full.size,
                "spacing_mm": roi.full.spacing,
                "origin_mm": roi.full.origin,
                "direction": roi.full.direction,
            },
            "frames": len(frames),
            "unit": roi.unit,
            "sha256": {"image": sha256_of(image), "mask": sha256_of(mask), "frames": sha256_of(frames)},
            "attributes": dict(attributes),
            "stage_digest": stage_digest,
        }
        with staging(self.path) as folder:
            crop = zarr.create_group(store=folder / "crop", attributes={**header, "digest": digest_of(header)})
            for name, pixels in (("image", image), ("mask", mask)):
                crop.create_array(name, data=pixels, chunks=pixels.shape, dimension_names=DIMS, **PACKED)
            _consolidate(folder / "crop")
            shape = (1, MAX_SLICES, SIDE, SIDE)
            staged = zarr.create_array(folder / "frames", shape=shape, **_FRAMES)
            staged[0, : len(frames)] = frames
            shard = folder / "frames" / staged.metadata.encode_chunk_key((0, 0, 0, 0))
            self._publish(folder / "crop", shard, row, case_id)

    def _publish(self, crop: Path, shard: Path, row: int, case_id: str) -> None:
        if isinstance(self.path, Path):
            final = self.path / _frames_key(row)
            final.parent.mkdir(parents=True, exist_ok=True)
            shard.replace(final)
            publish_folder(crop, Path(self._crop(case_id)))
            return
        below = f"crops/{short_hash(case_id)}"
        files = {f"{below}/{name}": file for name, file in files_below(crop).items()}
        put_case({**files, _frames_key(row): shard}, parse_address(self.path))

    def read_roi(self, case_id: str, stage_digest: str = "") -> Roi:
        """The image and mask of one case, exactly as written; with a ``stage_digest``, under no other.

        Raises
        ------
        CaseError
            ``STORE_DAMAGED`` when they are missing, or are not what was written.
        """

        def read() -> Roi:
            below = f"crops/{short_hash(case_id)}"
            group, *chunks = self._read(f"{below}/{HEADER}", *(f"{below}/{name}/{_CHUNK}" for name in _PIXELS))
            header = checked_header(group, case_id, stage_digest)
            # runs of before have the arrays' metadata in files of their own only
            arrays = _consolidated(group) or self._read(*(f"{below}/{name}/{HEADER}" for name in _PIXELS))
            image, mask = (
                same_pixels(name, array_of(array, {_CHUNK: chunk})[...], header)
                for name, array, chunk in zip(_PIXELS, arrays, chunks, strict=True)
            )
            full = {name: tuple(values) for name, values in header["full"].items()}
            return Roi(
                image=_image(image, header),
                mask=_image(mask, header),
                full=Grid(full["size"], full["spacing_mm"], full["origin_mm"], full["direction"]),
                start=tuple(header["start_index"]),
                unit=header.get("unit", ""),
            )

        return self._look(case_id, read)

    def read_frames(self, case_id: str, stage_digest: str = "") -> ByteArray:
        """The frames of one case, (slice, 128, 128) uint8, without the padding; ``stage_digest`` as above.

        Raises
        ------
        CaseError
            ``STORE_DAMAGED`` when they are missing, or are not what was written.
        StoreError
            When the case has no row.
        """
        row = self._row(case_id)

        def read() -> ByteArray:
            key = _frames_key(row)
            held, described, shard = self._read(f"crops/{short_hash(case_id)}/{HEADER}", f"frames/{HEADER}", key)
            header = checked_header(held, case_id, stage_digest)
            frames = array_of(described, {key.removeprefix("frames/"): shard})[row, : header["frames"]]
            return same_pixels("frames", frames, header)

        return self._look(case_id, read)

    def attributes(self, case_id: str) -> dict[str, Any]:
        """What :meth:`write` was given as ``attributes``.

        Raises
        ------
        CaseError
            ``STORE_DAMAGED`` when the case is missing, or its attributes are not what was written.
        """
        found: dict[str, Any] = self._look(case_id, lambda: self._header(case_id))["attributes"]
        return found

    def headers(self) -> Iterator[dict[str, Any]]:
        """What is kept beside the pixels of each case that is there, in no order."""
        for header in read_all(files_named(join(self.path, "crops"), HEADER)):
            with suppress(ValueError, KeyError):  # a damaged one is found when its case is read
                yield json.loads(header)["attributes"]

    @cached_property
    def _rows(self) -> dict[str, int]:
        if isinstance(self.path, Path):
            names = zarr.open_array(self.path / "case_id", mode="r")[:]
        else:
            described, first = self._read(f"case_id/{HEADER}", "case_id/c/0")
            rows = json.loads(described)["shape"][0]
            more = self._read(*(f"case_id/c/{number}" for number in range(1, math.ceil(rows / _ROWS))))
            names = array_of(described, {f"c/{number}": chunk for number, chunk in enumerate([first, *more])})[:]
        return {name: row for row, name in enumerate(names) if name}

    def _row(self, case_id: str) -> int:
        row = self._rows.get(case_id)
        if row is None:  # opened before the case had one
            self.__dict__.pop("_rows", None)
            row = self._rows.get(case_id)
        if row is None:
            # raised on workers, whose logs name no patients
            raise StoreError(f"{self.path} has no row for case {short_hash(case_id)}; RoiStore.create() gives it one")
        return row

    def _append(self, case_ids: list[str]) -> None:
        """Give the unknown cases rows: the untaken ones first (a driver was killed here), then new ones at the end."""
        assert isinstance(self.path, Path)
        new = [case_id for case_id in case_ids if case_id not in self._rows]
        if not new:
            return
        frames = zarr.open_array(self.path / "frames", mode="r+")
        names = zarr.open_array(self.path / "case_id", mode="r+")
        table = list(names[:])
        untaken = [row for row, name in enumerate(table) if not name]
        table += [""] * (len(new) - len(untaken))
        for row, case_id in zip([*untaken, *range(names.shape[0], len(table))], new, strict=False):
            table[row] = case_id
        frames.resize((len(table), MAX_SLICES, SIDE, SIDE))
        names.resize((len(table),))
        names[:] = np.array(table, dtype=object)
        self.__dict__.pop("_rows", None)

    def _crop(self, case_id: str) -> str:
        return join(self.path, f"crops/{short_hash(case_id)}")

    def _header(self, case_id: str) -> dict[str, Any]:
        return checked_header(read_bytes(join(self._crop(case_id), HEADER)), case_id)

    def _read(self, *names: str) -> list[bytes]:
        """Files of the store; of a bucket all at once."""
        return list(read_all([join(self.path, name) for name in names]))

    def _look(self, case_id: str, read: Callable[[], T]) -> T:
        for look in range(_LOOKS):
            try:
                return read()
            # FileNotFoundError: a part is missing; the others: what zarr and its codecs say of damaged bytes
            except (_DamageError, FileNotFoundError, ValueError, KeyError, TypeError, RuntimeError) as error:
                damage: Exception = error
            except CaseError as error:
                if error.problem.code not in (Code.OBJECT_MISSING, Code.OBJECT_CHANGED):
                    raise
                damage = error
            if look + 1 < _LOOKS:
                time.sleep(_LOOK_AGAIN_SECONDS)
        raise CaseError(
            Code.STORE_DAMAGED,
            f"the stored ROI is missing or damaged ({type(damage).__name__}: {damage}); "
            "run the same command again: the ROI stage of this case is then redone",
            where=self._crop(case_id),
        ) from damage


def _check_frames(frames: ByteArray) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (SIDE, SIDE) or not len(frames):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (slices, {SIDE}, {SIDE})")
    if len(frames) > MAX_SLICES:
        raise CaseError(
            Code.MASK_TOO_LONG,
            f"the ROI spans {len(frames)} slices, at most {MAX_SLICES} are stored; choose a shorter ROI, or exclude it",
        )


def sha256_of(pixels: AnyArray) -> str:
    """Over type, shape and values."""
    state = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode())
    state.update(np.ascontiguousarray(pixels).data)
    return state.hexdigest()


def digest_of(header: Mapping[str, Any]) -> str:
    """Over everything that is kept beside the pixels."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _frames_key(row: int) -> str:
    return f"frames/c/{row}/0/0/0"


def checked_header(content: bytes, case_id: str, stage_digest: str = "") -> dict[str, Any]:
    """The header that a crop's attributes are, unless it is not the one that was written, by this run."""
    header: dict[str, Any] = dict(json.loads(content)["attributes"])
    digest = header.pop("digest", None)
    if digest != digest_of(header) or header["case_id"] != case_id:
        raise _DamageError("its attributes are not the ones that were written")
    if is_of_another_run(header, stage_digest):
        raise _DamageError(OF_ANOTHER_RUN)
    return header


def _consolidate(group: Path) -> None:
    """Have the header of a group tell of its arrays too; zarr's own function warns that not all programs know it."""
    described = json.loads((group / HEADER).read_bytes())
    metadata = {name: json.loads((group / name / HEADER).read_bytes()) for name in _PIXELS}
    described["consolidated_metadata"] = {**_CONSOLIDATED, "metadata": metadata}
    (group / HEADER).write_text(json.dumps(described), encoding="utf-8")


def _consolidated(group: bytes) -> list[bytes]:
    """The metadata of a group's arrays, where its header has them."""
    held = json.loads(group).get("consolidated_metadata")
    return [json.dumps(held["metadata"][name]).encode() for name in _PIXELS] if held else []


def array_of(described: bytes, chunks: Mapping[str, bytes]) -> zarr.Array[Any]:
    """An array of which these chunks, or shards, have been read."""
    make = default_buffer_prototype().buffer.from_bytes
    held = {name: make(content) for name, content in {HEADER: described, **chunks}.items()}
    return zarr.open_array(MemoryStore(held), mode="r")


def same_pixels(name: str, pixels: AnyArray, header: Mapping[str, Any]) -> AnyArray:
    """The pixels, unless they are not the ones that were written."""
    if sha256_of(pixels) != header["sha256"][name]:
        raise _DamageError(f"{name} differs from what was written")
    return pixels


def _image(pixels: AnyArray, header: Mapping[str, Any]) -> sitk.Image:
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(header["spacing_mm"])
    image.SetOrigin(header["origin_mm"])
    image.SetDirection(header["direction"])
    return image
