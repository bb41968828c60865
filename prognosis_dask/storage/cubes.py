"""The cubes in ``rois.zarr`` that networks read, cut from each case.

Layout (zarr format 3)::

    cubes/<key>/<short hash>    (channel, and the cube's three axes) float32, one array and one chunk for each case
        attributes              case_id, sha256, stage_digest, the caller's ``attributes``, and ``digest``: as of a crop

The key stands for how cubes are cut. An array is written aside and published by one rename; in a bucket both objects
are written at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import zarr

from prognosis_dask.arrays import Float32Array
from prognosis_dask.cohort.case import short_hash
from prognosis_dask.objects.address import is_address, join, parse_address
from prognosis_dask.objects.bucket import bucket_of, several
from prognosis_dask.objects.folders import files_below, put_case
from prognosis_dask.publish import publish_folder, staging
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

_CHUNK = "c/0/0/0/0"


class CubeStore(RoiStore):
    """The cubes of a cohort; see the module. Made with the path of ``rois.zarr``; the cases' rows do not concern it."""

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
