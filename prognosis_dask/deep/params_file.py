"""Reading MXNet's ``.params`` files without MXNet.

The layout is that of ``NDArray::Save`` (MXNet 1.0 and later), little-endian: a list header, the arrays, their names.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_LIST = 0x112
#: Version 2, and 3 which differs in allowing arrays without dimensions.
_ARRAYS = (0xF993FAC9, 0xF993FACA)
_DENSE = 0
_FLOAT32 = 0


def parse_params(content: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The named float32 arrays in the content of a ``.params`` file.

    Raises
    ------
    ValueError
        When the content is not such a file, or is cut short; the message says what was found where.
    """
    reader = _Reader(content)
    if len(content) < 24 or reader.take("<QQ")[0] != _LIST:
        raise ValueError(f"it does not begin as MXNet's .params files do (its first bytes are {content[:8]!r})")
    (count,) = reader.take("<Q")
    arrays = [reader.array() for _ in range(count)]
    (named,) = reader.take("<Q")
    names = [reader.text() for _ in range(named)]
    if len(names) != len(arrays) or reader.at != len(content):
        raise ValueError(f"it holds {len(arrays)} arrays and {len(names)} names, {len(content) - reader.at} bytes over")
    return dict(zip(names, arrays, strict=True))


class _Reader:
    """A position in the content; nothing is read beyond the end."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def bytes(self, count: int) -> memoryview:
        if count > len(self.content) - self.at:
            raise ValueError(f"it is cut short: at byte {self.at} of {len(self.content)}, {count} more were expected")
        self.at += count
        return memoryview(self.content)[self.at - count : self.at]

    def take(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def text(self) -> str:
        (count,) = self.take("<Q")
        return str(self.bytes(count), "utf-8")

    def array(self) -> npt.NDArray[np.float32]:
        start = self.at
        magic, storage, ndim = self.take("<IiI")
        if magic not in _ARRAYS or storage != _DENSE or ndim > 8:
            raise ValueError(f"at byte {start} there is no dense array of format version 2 or 3 (found {magic:#x})")
        shape = self.take(f"<{ndim}q")
        _device, _device_id, kind = self.take("<iii")
        if kind != _FLOAT32 or any(size < 1 for size in shape):
            raise ValueError(f"at byte {start} there is an array of type {kind}, shape {shape}; expected float32 (0)")
        count = int(np.prod(shape, dtype=object))
        return np.frombuffer(self.bytes(4 * count), "<f4").reshape(shape)
