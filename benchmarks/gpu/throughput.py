"""Clips per second of the torch engine against batch size, precision and mode, and each precision's error.

    python -m benchmarks.gpu.throughput [--device gpu] [--frames 26] [--batches 1 8 32 64] [--run RUN_FOLDER]

Modes: ``plain`` (torch's own memory layout), ``channels_last`` (what the engine uses), ``cudagraph`` (the same,
recorded once and replayed), ``compile`` (torch.compile), all on frames that lie on the device already; and ``engine``,
from uint8 frames in this machine's memory to features in it. The share is that of the rate at which the device
multiplies bfloat16 matrices in the same run. Errors are relative to float64, on the frames of the cases of a finished
run (``--run``), else on synthetic ones.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from prognosis_dask.cohort.case import read_cases
from prognosis_dask.networks.catalogue import find_network
from prognosis_dask.networks.torch_engine import TorchEngine, grey_clips, repeatable
from prognosis_dask.networks.torch_network import GREY_ZERO, ConvolutionUnit, InceptionV1
from prognosis_dask.networks.weights import resolve_weights
from prognosis_dask.storage.rois import RoiStore

NETWORK = find_network("i3d_inceptionv1_kinetics400")
MODES = ("plain", "channels_last", "cudagraph", "compile", "engine")
PRECISIONS = {"gpu": ("float32", "tf32", "bfloat16", "float16"), "cpu": ("float32", "bfloat16")}
GPU = torch.device("cuda")


def main() -> None:
    options = _options()
    weights = resolve_weights(options.weights, NETWORK)
    device = GPU if options.device == "gpu" else torch.device("cpu")
    name = torch.cuda.get_device_name() if options.device == "gpu" else platform.machine()
    print(f"{name}, torch {torch.__version__}, clips of {options.frames} frames, weights {weights.spec}")
    rate = matrix_rate(device, options.matrix)
    work = arithmetic(InceptionV1(weights.values, "logits").float(), options.frames)
    print(f"bfloat16 matrix product {options.matrix}: {rate / 1e12:.2f} TFLOP/s; one clip: {work / 1e9:.1f} GFLOP")
    print("\n| precision | mode | batch | clips/s | share of the matrix rate | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for precision, mode, batch in itertools.product(options.precisions, options.modes, options.batches):
        print(
            f"| {precision} | {mode} | {batch} | {_row(options, weights, precision, mode, batch, work, rate)} |",
            flush=True,
        )
    frames = _frames(options.run, options.frames)
    print(f"\nErrors relative to float64, {len(frames)} clips\n")
    print("| precision | largest | root mean square |\n|---|---|---|")
    for precision, largest, rms in errors(weights, options.device, options.precisions, frames):
        print(f"| {precision} | {largest:.1e} | {rms:.1e} |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--frames", type=int, default=26)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--precisions", nargs="+", help="default: all that the device has")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    parser.add_argument("--matrix", type=int, default=8192)
    parser.add_argument("--weights", default="untrained:0")
    parser.add_argument("--run", type=Path, help="folder of a finished run, for the errors on real frames")
    options = parser.parse_args()
    options.precisions = options.precisions or PRECISIONS[options.device]
    return options


def arithmetic(network: InceptionV1, length: int) -> float:
    """Floating point operations of the convolutions of one grey clip: two for each factor of each sum."""
    total = 0.0

    def count(unit: ConvolutionUnit, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2.0 * output.numel() * unit.kernels[0].numel()

    for module in network.modules():
        if isinstance(module, ConvolutionUnit):
            module.register_forward_hook(count)
    with torch.inference_mode():
        if network.classifier is not None:
            network.classifier.double()
        network(torch.zeros(1, 1, length, 224, 224))
    return total


def matrix_rate(device: torch.device, size: int) -> float:
    """Operations per second of a bfloat16 matrix product."""
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    return 2.0 * size**3 * _per_second(lambda: left @ right, device, 2.0)


def _per_second(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(3 if device.type == "cuda" else 1):
        call()
    wait()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not calls:
        for _ in range(10 if device.type == "cuda" else 1):
            call()
            calls += 1
        wait()
    return calls / (time.perf_counter() - start)


def _row(options, weights, precision: str, mode: str, batch: int, work: float, rate: float) -> str:  # noqa: ANN001
    if mode == "cudagraph" and options.device == "cpu":
        return "only on a GPU | |"
    device = torch.device("cuda" if options.device == "gpu" else "cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        engine = TorchEngine(NETWORK, weights, output="logits", device=options.device, precision=precision, rows=batch)
        if mode == "plain":
            engine._network.to(memory_format=torch.contiguous_format)
        frames = [np.full((options.frames, 128, 128), 90 + row, np.uint8) for row in range(batch)]
        with repeatable(tf32=precision == "tf32"):
            call = _call(engine, mode, frames)
            speed = batch * _per_second(call, device, options.seconds)
        if engine.rows < batch:
            return "out of memory | |"
    except (torch.OutOfMemoryError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]} | |"
    memory = f"{torch.cuda.max_memory_allocated() / 1e6:.0f}" if device.type == "cuda" else ""
    return f"{speed:.2f} | {speed * work / rate:.3f} | {memory}"


def _call(engine: TorchEngine, mode: str, frames: list[np.ndarray]) -> Callable[[], object]:
    if mode == "engine":
        return lambda: engine.features_of_frames(frames)
    network = engine._network
    layout = torch.contiguous_format if mode == "plain" else torch.channels_last_3d
    clips = grey_clips(torch.from_numpy(np.stack(frames)).to(engine._device)) - GREY_ZERO
    clips = clips.to(engine._dtype).contiguous(memory_format=layout)
    network(clips)  # works out the borders for this length
    if mode == "compile":
        compiled = torch.compile(network)
        return lambda: compiled(clips)
    if mode == "cudagraph":
        return _recorded(network, clips)
    return lambda: network(clips)


def _recorded(network: InceptionV1, clips: torch.Tensor) -> Callable[[], object]:
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            network(clips)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(clips)
    return graph.replay


def errors(weights, device: str, precisions, frames: list[np.ndarray]):  # noqa: ANN001, ANN201
    """Per precision the largest and the root mean square error of a feature, relative to the largest in float64."""
    exact = InceptionV1(weights.values, "logits").prepare(torch.device("cpu"), torch.float64)
    with torch.inference_mode():
        expected = np.concatenate(
            [exact((grey_clips(torch.from_numpy(one)[None]) - GREY_ZERO).double()).numpy() for one in frames]
        )
    scale = np.abs(expected).max(axis=1, keepdims=True)
    for precision in precisions:
        engine = TorchEngine(NETWORK, weights, output="logits", device=device, precision=precision, rows=1)
        found = np.concatenate([engine.features_of_frames([one]) for one in frames])
        error = np.abs(found - expected) / scale
        yield precision, error.max(), np.sqrt((error**2).mean())


def _frames(run: Path | None, length: int) -> list[np.ndarray]:
    if run:
        store = RoiStore.open(run / "rois.zarr")
        return [store.read_frames(case.case_id) for case in read_cases(run / "cases.csv")[:8]]
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-64:64, -64:64]
    ball = 120 * (rows**2 + columns**2 < 30**2)
    return [(40 + rng.normal(0, 8, (length, 128, 128)) + ball).clip(0, 255).astype(np.uint8)]


if __name__ == "__main__":
    main()
