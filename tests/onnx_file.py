"""A small ONNX file, written as the format says (onnx.proto3), so that no test needs a package to make one."""

from __future__ import annotations

import struct
from pathlib import Path


def write_mean_network(path: Path, shape: tuple[int, ...]) -> None:
    """A network of one operation, the mean of each channel over the other dimensions, for clips of that shape."""
    node = _text(1, "clip") + _text(2, "mean") + _text(4, "GlobalAveragePool")
    graph = _part(1, node) + _text(2, "graph") + _part(11, _value("clip", shape))
    graph += _part(12, _value("mean", (*shape[:2], 1, 1, 1)))
    opset = _text(1, "") + _number(2, 13)
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, opset))


def write_scaled_network(path: Path, shape: tuple[int, ...], *, weights_apart: bool = False, outputs: int = 1) -> None:
    """The mean of each channel times 2; the 2 in the file or in one beside it. A second output: the clip times 2."""
    scale, raw = _number(1, 1) + _number(2, 1) + _text(8, "scale"), struct.pack("<f", 2.0)
    if weights_apart:
        path.with_name(f"{path.name}.data").write_bytes(raw)
        where = {"location": f"{path.name}.data", "offset": "0", "length": "4"}
        scale += b"".join(_part(13, _text(1, key) + _text(2, value)) for key, value in where.items()) + _number(14, 1)
    else:
        scale += _part(9, raw)
    nodes = _part(1, _text(1, "clip") + _text(1, "scale") + _text(2, "scaled") + _text(4, "Mul"))
    nodes += _part(1, _text(1, "scaled") + _text(2, "mean") + _text(4, "GlobalAveragePool"))
    graph = nodes + _text(2, "graph") + _part(5, scale) + _part(11, _value("clip", shape))
    graph += _part(12, _value("mean", (*shape[:2], 1, 1, 1))) + (_part(12, _value("scaled", shape)) * (outputs - 1))
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, _text(1, "") + _number(2, 13)))


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_part(1, _number(1, size)) for size in shape)
    return _text(1, name) + _part(2, _part(1, _number(1, 1) + _part(2, dims)))  # 1: float32


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _part(field, text.encode())
