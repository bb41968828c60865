"""Clips per second of the deep features, beside GluonCV's network as it comes.

    python -m benchmarks.deep [--lengths 16 26 32] [--batches 1 2 4 8] [--repeats 3]

Prints one row per clip length and batch size: the best of the repeats, first calls left out. The engine computes in
one thread (more workers, not more threads, use more cores); GluonCV's network runs in the same process and thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from prognosis_dask.config.job import DeepSection
from prognosis_dask.networks.clips import ClipRule
from prognosis_dask.networks.engine import load_engine
from prognosis_dask.networks.gluon_import import import_gluon


def best(call: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest call after a first one."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 26, 32])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    start = time.perf_counter()
    engine = load_engine(DeepSection(weights="untrained:0"))
    print(f"load the engine: {time.perf_counter() - start:.1f} s")
    import mxnet as mx

    plain = import_gluon().model_zoo.get_model("i3d_inceptionv1_kinetics400", pretrained=False, pretrained_base=False)
    plain.hybridize()
    print("slices  batch  clips made/s  engine clips/s  GluonCV clips/s")
    for length in options.lengths:
        frames = np.random.default_rng(0).integers(0, 256, (length, 128, 128)).astype(np.uint8)
        made = 1 / best(lambda frames=frames: ClipRule().make(frames), options.repeats)
        for count in options.batches:
            clips = np.stack([ClipRule().make(frames)] * count)
            ours = count / best(lambda clips=clips: engine.features(clips), options.repeats)
            given = mx.nd.from_numpy(clips.copy(), zero_copy=False)
            theirs = count / best(lambda given=given: plain(given).asnumpy(), options.repeats)
            print(f"{length:6d} {count:6d} {made:12.1f} {ours:15.2f} {theirs:16.2f}", flush=True)


if __name__ == "__main__":
    main()
