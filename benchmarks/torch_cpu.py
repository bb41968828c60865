"""Seconds per clip of the torch engine on this machine's CPU, beside other ways to run the same network.

    python -m benchmarks.torch_cpu [--frames 32] [--threads 2] [--repeats 7] [--gluon]

Prints one row per way: the best of the repeats, and what that is of the rate at which the same threads multiply two
float32 matrices in the same run. Rows are taken in turns, so that a busy machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from prognosis_dask.config.job import DeepSection
from prognosis_dask.networks.catalogue import find_network
from prognosis_dask.networks.clips import ClipRule
from prognosis_dask.networks.engine import load_engine
from prognosis_dask.networks.torch_engine import TorchEngine, grey_clips
from prognosis_dask.networks.torch_network import GREY_ZERO, ConvolutionUnit, InceptionV1
from prognosis_dask.networks.weights import resolve_weights

NETWORK = find_network("i3d_inceptionv1_kinetics400")
WEIGHTS = resolve_weights("untrained:0", NETWORK)


def unpacked(**layout: torch.memory_format) -> InceptionV1:
    """The network on torch's own convolutions, without the fused ones."""
    network = InceptionV1(WEIGHTS.values, "logits").eval().float()
    if network.classifier is not None:
        network.classifier.double()
    return network.to(**layout) if layout else network


def arithmetic(network: InceptionV1, clip: torch.Tensor) -> float:
    """Floating point operations of the convolutions for one clip: two for each factor of each sum."""
    total = 0.0

    def count(unit: ConvolutionUnit, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2.0 * output.numel() * unit.kernels[0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, ConvolutionUnit)]
    network(clip)
    for hook in hooks:
        hook.remove()
    return total


def engine(precision: str, threads: int) -> TorchEngine:
    return TorchEngine(NETWORK, WEIGHTS, output="logits", device="cpu", precision=precision, rows=1, threads=threads)


def traced(network: InceptionV1, clip: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; it is here to be compared with
        return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network, clip)))


def ways(frames: np.ndarray, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Every way by name. The engine's own rows begin with the uint8 frames, the others with a clip ready made."""
    colour = torch.from_numpy(ClipRule().make(frames))[None]
    grey = (grey_clips(torch.from_numpy(frames)[None]) - GREY_ZERO).float()
    last = torch.channels_last_3d
    plain, plain_last = unpacked(), unpacked(memory_format=last)
    jit = traced(plain, colour)
    ours, half = engine("float32", options.threads), engine("bfloat16", options.threads)
    left, right = torch.randn(2, options.matrix, options.matrix)
    found: dict[str, Callable[[], object]] = {
        "matrix product": lambda: left @ right,
        "torch, three channels": lambda: plain(colour),
        "torch, three channels, channels last": lambda: plain_last(colour.to(memory_format=last)),
        "torch, grey, channels last": lambda: plain_last(grey.to(memory_format=last)),
        "TorchScript frozen, three channels": lambda: jit(colour),
        "engine, three channels": lambda: ours.features(colour.numpy()),
        "engine": lambda: ours.features_of_frames([frames]),
        "frames to grey clip alone": lambda: grey_clips(torch.from_numpy(frames)[None]),
    }
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        found["engine, bfloat16"] = lambda: half.features_of_frames([frames])
    if options.gluon:
        gluon = load_engine(DeepSection(engine="gluon", weights="untrained:0"))
        found["Gluon engine (one thread)"] = lambda: gluon.features_of_frames([frames])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--matrix", type=int, default=3072, help="rows and columns of the matrix product")
    parser.add_argument("--gluon", action="store_true", help="also the Gluon engine, in its one thread")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    frames = np.random.default_rng(0).integers(0, 256, (options.frames, 128, 128)).astype(np.uint8)
    with torch.inference_mode():
        counted = unpacked()
        work = {
            "grey": arithmetic(counted, torch.zeros(1, 1, options.frames, 224, 224)),
            "three channels": arithmetic(counted, torch.zeros(1, 3, options.frames, 224, 224)),
        }
        found = ways(frames, options)
        best = dict.fromkeys(found, float("inf"))
        for repeat in range(options.repeats + 1):
            for name, call in found.items():
                start = time.perf_counter()
                call()
                if repeat:  # the first calls lay out memory
                    best[name] = min(best[name], time.perf_counter() - start)
    rate = 2.0 * options.matrix**3 / best["matrix product"]
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.threads} threads")
    print(f"matrix product {options.matrix}: {rate / 1e9:.0f} GFLOP/s")
    for name, count in work.items():
        print(
            f"one clip of {options.frames} frames, {name}: {count / 1e9:.1f} GFLOP, {count / rate:.3f} s at that rate"
        )
    print("\n| way | seconds a clip | of the matrix product's rate |\n|---|---|---|")
    for name, seconds in best.items():
        if name == "matrix product":
            continue
        count = work["three channels" if "three" in name or "Gluon" in name else "grey"]
        share = "" if "alone" in name else f"{count / seconds / rate:.2f}"
        print(f"| {name} | {seconds:.3f} | {share} |")


if __name__ == "__main__":
    main()
