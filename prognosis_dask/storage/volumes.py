"""What networks take of each case: ``volumes.zarr`` for the grade network, and the cubes in ``rois.zarr``.

Layout of ``volumes.zarr`` (zarr format 3)::

    volume    (case, slice, row, column) float32, one file per case, with a checksum; NaN where a case has none
    case_id   (case) text

In a bucket, the table of cases and the volumes asked for are fetched, and one that is written is put there whole.

Layout of the cubes::

    cubes/<key>/<short hash>    (channel, and the cube's three axes) float32, one array and one chunk for each case
        attributes              case_id, sha256, stage_digest, the caller's ``attributes``, and ``digest``: as of a crop

The key stands for how cubes are cut. An array is written aside and published by one rename; in a bucket both objects
are written at once.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from prognosis_dask.arrays import Float32Array
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.errors import CaseError, Code, StoreError, count
from prognosis_dask.objects.address import Address, is_address, join, parse_address
from prognosis_dask.objects.bucket import bucket_of, several
from prognosis_dask.objects.files import fetch_folder, files_below, put_case, replace_folder
from prognosis_dask.publish import publish_folder, staging
from prognosis_dask.storage.brains import OF_ANOTHER_RUN
from prognosis_dask.storage.rois import (
    DIMS,
    HEADER,
    PACKED,
    RoiStore,
    array_of,
    checked_header,
    digest_of,
    same_pixels,
    sha256_of,
)

#: What says which case has which row; of a store that is whole, the first is there.
_TABLE = ("zarr.json", "volume/zarr.json")


def create_volumes(path: Path | str, case_ids: Sequence[str], shape: tuple[int, int, int]) -> None:
    """Make the store, unless it is there for these cases and this shape. For the driver, before the tasks.

    Volumes of cases that an older store of that shape holds are kept.
    """
    if not is_address(path):
        _create(Path(path), case_ids, shape)
        return
    address = parse_address(str(path))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "volumes.zarr"
        fetch_folder(address, copy, _TABLE[0])
        if _create(copy, case_ids, shape):
            replace_folder(copy, address, _TABLE[0])


def _create(path: Path, case_ids: Sequence[str], shape: tuple[int, int, int]) -> bool:
    """Whether a store was made."""
    held: dict[str, Float32Array] = {}
    if path.exists():
        old = list(_case_ids(path))
        volume = _open(path, "r")["volume"]
        if old == list(case_ids) and volume.shape[1:] == shape:
            return False
        if volume.shape[1:] == shape:
            wanted = set(case_ids)
            for row, name in enumerate(old):
                if name in wanted:
                    with suppress(StoreError):  # a damaged one is made anew
                        held[name] = _volume(path, volume, row, name)
    with staging(path) as folder:
        group = zarr.create_group(store=folder / "store")
        made = group.create_array(
            "volume",
            shape=(len(case_ids), *shape),
            chunks=(1, *shape),
            dtype="float32",
            compressors=(ZstdCodec(), Crc32cCodec()),
            fill_value=float("nan"),
            dimension_names=("case", "slice", "row", "column"),
        )
        names = group.create_array(
            "case_id", shape=(len(case_ids),), chunks=(4096,), dtype=str, dimension_names=("case",)
        )
        names[:] = np.array(case_ids, dtype=object)
        for row, name in enumerate(case_ids):
            if name in held:
                made[row] = held[name]
        publish_folder(folder / "store", path)
    return True


def write_volume(path: Path | str, case_id: str, volume: Float32Array) -> str:
    """Write one case's volume, replacing what it had; the digest of its content."""
    with _local(path) as here:
        row = _case_ids(here)[case_id]
        _open(here, "r+")["volume"][row] = volume
        if is_address(path):
            put_case({_volume_key(row): here / _volume_key(row)}, parse_address(str(path)))
    return digest_of_volume(volume)


def digest_of_volume(volume: Float32Array) -> str:
    """Over its values."""
    return hashlib.sha256(np.ascontiguousarray(volume).data).hexdigest()


def read_volumes(path: Path | str, case_ids: Sequence[str], contents: Mapping[str, str] | None = None) -> Float32Array:
    """The volumes of these cases, shape (cases, slice, row, column).

    ``contents``: by case the digest that :func:`write_volume` gave.

    Raises
    ------
    StoreError
        When there is no such store, it lacks a case, or a volume is not what was written, or what another run wrote.
    """
    with _local(path, case_ids) as here:
        known, volume = _case_ids(here), _open(here, "r")["volume"]
        volumes = np.full((len(case_ids), *volume.shape[1:]), np.nan, np.float32)
        for row, name in enumerate(case_ids):
            if name in known:
                volumes[row] = _volume(path, volume, known[name], name)
    lost = [name for name, one in zip(case_ids, volumes, strict=True) if np.isnan(one).any()]
    if lost:
        raise StoreError(
            f"{path} holds no volume of {count(len(lost), 'case')} ({', '.join(lost[:3])}); run the job again"
        )
    for name, one in zip(case_ids, volumes, strict=True):
        if (contents or {}).get(name, "") not in ("", digest_of_volume(one)):
            raise StoreError(f"{path}, the volume of {name}: {OF_ANOTHER_RUN}; run the job again")
    return volumes


def _volume(path: Path | str, volume: zarr.Array, row: int, case_id: str) -> Float32Array:
    try:
        found: Float32Array = volume[row]
    except (ValueError, RuntimeError) as error:  # the checksum, and what else codecs say of damaged bytes
        where = f"{path}/{_volume_key(row)}"
        raise StoreError(f"{where}: the volume of {case_id} is damaged ({error}); run the job again") from error
    return found


@contextmanager
def _local(path: Path | str, case_ids: Sequence[str] = ()) -> Iterator[Path]:
    """The store on this machine; of one in a bucket a copy of its table, and of these cases' volumes."""
    if not is_address(path):
        yield Path(path)
        return
    address = parse_address(str(path))
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _fetch(address, here, _TABLE)
        fetch_folder(address / "case_id", here / "case_id")
        rows = _case_ids(here) if case_ids else {}
        _fetch(address, here, [_volume_key(rows[name]) for name in case_ids if name in rows])
        yield here


def _fetch(address: Address, folder: Path, names: Sequence[str]) -> None:
    """Copy those objects that are there."""

    def get(name: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            (folder / name).write_bytes(bucket_of(address).get((address / name).key))
        except CaseError as error:
            if error.problem.code is not Code.OBJECT_MISSING:
                raise

    for _ in several(get, names):
        pass


def _volume_key(row: int) -> str:
    return f"volume/c/{row}/0/0/0"


def _open(path: Path, mode: str) -> zarr.Group:
    try:
        return zarr.open_group(path, mode=mode, use_consolidated=False)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise StoreError(f"no store of volumes at {path} ({error}); `prognosis run` makes one") from error


def _case_ids(path: Path) -> dict[str, int]:
    return {str(name): row for row, name in enumerate(_open(path, "r")["case_id"][:])}


_CHUNK = "c/0/0/0/0"


class CubeStore(RoiStore):
    """The cubes of a cohort; see above. Made with the path of ``rois.zarr``; the cases' rows do not concern it."""

    def keep(self, keys: Collection[str]) -> set[str]:
        """Remove the cubes of all other keys. For the driver, before the tasks; gives the keys of which there are some.

        Raises
        ------
        BucketError
            When the bucket cannot be listed.
        """
        folder = join(self.path, "cubes")
        if is_address(folder):
            address = parse_address(folder)
            bucket = bucket_of(address)
            below = len(address.key) + 1
            of_key = {stat.key: stat.key[below:].partition("/")[0] for stat in bucket.list(address.key)}
            for _ in several(bucket.delete, [name for name, key in of_key.items() if key not in keys]):
                pass
            return set(of_key.values()).intersection(keys)
        held = {path.name for path in Path(folder).glob("*")}
        for key in held.difference(keys):
            shutil.rmtree(Path(folder) / key)
        return held.intersection(keys)

    def write_cube(
        self, case_id: str, key: str, cube: Float32Array, attributes: Mapping[str, Any], stage_digest: str = ""
    ) -> None:
        """Write one case's cube (channel, and its three axes), replacing what it had; the others as of a case."""
        header = {
            "case_id": case_id,
            "sha256": {"cube": sha256_of(cube)},
            "attributes": dict(attributes),
            "stage_digest": stage_digest,
        }
        with staging(self.path) as folder:
            zarr.create_array(
                folder / "cube",
                data=cube,
                chunks=cube.shape,
                dimension_names=("channel", *DIMS),
                attributes={**header, "digest": digest_of(header)},
                **PACKED,
            )
            final = join(self.path, f"cubes/{key}/{short_hash(case_id)}")
            if is_address(final):
                put_case(files_below(folder / "cube"), parse_address(final))
            else:
                publish_folder(folder / "cube", Path(final))

    def read_cube(self, case_id: str, key: str, stage_digest: str = "") -> tuple[Float32Array, dict[str, Any]]:
        """One case's cube, exactly as written, and the attributes; ``stage_digest`` as above.

        Raises
        ------
        CaseError
            ``STORE_DAMAGED`` when it is missing, or is not what was written.
        """

        def read() -> tuple[Float32Array, dict[str, Any]]:
            below = f"cubes/{key}/{short_hash(case_id)}"
            described, content = self._read(f"{below}/{HEADER}", f"{below}/{_CHUNK}")
            header = checked_header(described, case_id, stage_digest)
            return same_pixels("cube", array_of(described, {_CHUNK: content})[...], header), header["attributes"]

        return self._look(case_id, read)
