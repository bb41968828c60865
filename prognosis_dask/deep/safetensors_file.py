"""Reading and writing float32 arrays as safetensors, without a library for it.

The format is a JSON header behind its length, then the arrays' bytes, little-endian:
https://huggingface.co/docs/safetensors, section "Format". Torch and others read it too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_METADATA = "__metadata__"


def write_safetensors(arrays: Mapping[str, npt.NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """The content of a file with these arrays, in their order."""
    header: dict[str, object] = {_METADATA: dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(array.astype("<f4").tobytes() for array in arrays.values())])


def parse_safetensors(content: bytes) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, str]]:
    """The named float32 arrays in the content of a file, and its metadata.

    Raises
    ------
    ValueError
        When the content is not such a file, is cut short or holds other numbers; the message says what was found.
    """
    size = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else len(content)
    if size > len(content) - 8:
        raise ValueError(f"it does not begin as safetensors files do, or is cut short ({len(content)} bytes)")
    data = memoryview(content)[8 + size :]
    try:
        header = json.loads(content[8 : 8 + size])
        metadata = header.pop(_METADATA, {})
        arrays = {name: _array(name, entry, data) for name, entry in header.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its header is not that of a safetensors file ({type(error).__name__}: {error})") from error
    return arrays, metadata


def _array(name: str, entry: Mapping[str, Any], data: memoryview) -> npt.NDArray[np.float32]:
    (start, end), shape = entry["data_offsets"], entry["shape"]
    if entry["dtype"] != "F32":
        raise ValueError(f"{name} is of type {entry['dtype']}; expected F32 (float32)")
    if not 0 <= start <= end <= len(data) or end - start != 4 * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{name} of shape {shape} lies at bytes {start} to {end} of {len(data)}: it is cut short")
    return np.frombuffer(data[start:end], "<f4").reshape(shape)
