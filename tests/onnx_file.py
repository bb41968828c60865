"""A small ONNX file, written as the format says (onnx.proto3), so that no test needs a package to make one."""

from __future__ import annotations

from pathlib import Path


def write_mean_network(path: Path, shape: tuple[int, ...]) -> None:
    """A network of one operation, the mean of each channel over the other dimensions, for clips of that shape."""
    node = _text(1, "clip") + _text(2, "mean") + _text(4, "GlobalAveragePool")
    graph = _part(1, node) + _text(2, "graph") + _part(11, _value("clip", shape))
    graph += _part(12, _value("mean", (*shape[:2], 1, 1, 1)))
    opset = _text(1, "") + _number(2, 13)
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, opset))


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
