"""Another program's processor seconds for one image and mask; run by the interpreter of the environment that has it.

    PEER_PYTHON benchmarks/radiomics_peer.py INPUT.npz REPEATS

INPUT has ``image`` and ``mask`` (z, y, x), ``spacing`` (x, y, z; mm), ``bin_width``, ``resampled`` (mm; 0: not) and
``filters`` (whether LoG of 1 and 3 mm and the wavelet are wanted). Prints one JSON line per program that is there:
its name, when it starts, and then with the median of the seconds and how many values it gave. The first call, which
compiles, is not counted.
"""

import importlib.metadata
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def pictologics(data: Mapping[str, Any]) -> Callable[[], int]:
    import numpy as np
    from pictologics import Image, RadiomicsPipeline, set_num_threads

    set_num_threads(1)
    pipeline = RadiomicsPipeline(load_standard=False)
    spacing = tuple(map(float, data["spacing"]))
    of_image = {"spacing": spacing, "origin": (0.0, 0.0, 0.0)}
    image = Image(array=np.ascontiguousarray(data["image"].transpose(2, 1, 0).astype(float)), **of_image)
    mask = Image(array=np.ascontiguousarray(data["mask"].transpose(2, 1, 0)), **of_image)
    before = []
    if data["resampled"]:
        size = (float(data["resampled"]),) * 3
        before = [{"step": "resample", "params": {"new_spacing": size, "interpolation": "cubic"}}]
    filters = [None]
    if data["filters"]:
        filters += [{"type": "log", "sigma_mm": sigma} for sigma in (1.0, 3.0)]
        bands = ["".join(band) for band in itertools.product("LH", repeat=3)]
        filters += [{"type": "wavelet", "wavelet": "coif1", "decomposition": band} for band in bands]
    for number, one in enumerate(filters):
        steps = [*before, *([{"step": "filter", "params": one}] if one else [])]
        bins = {"method": "FBS", "bin_width": float(data["bin_width"]), "min_val": float(image.array.min())}
        if one:
            bins = {"method": "FBN", "n_bins": 32}
        families = ["intensity", "texture", "histogram"] + ([] if one else ["morphology"])
        steps += [
            {"step": "discretise", "params": bins},
            {"step": "extract_features", "params": {"families": families}},
        ]
        pipeline.add_config(str(number), steps)
    return lambda: sum(len(values) for values in pipeline.run(image, mask).values())


def fastrad(data: Mapping[str, Any]) -> Callable[[], int] | None:
    import torch
    from fastrad import FeatureExtractor, FeatureSettings, Mask, MedicalImage

    if data["resampled"] or data["filters"]:
        return None  # it has neither
    torch.set_num_threads(1)
    spacing = tuple(map(float, data["spacing"][::-1]))
    settings = FeatureSettings(bin_width=float(data["bin_width"]), device="cpu", spacing=spacing)
    image = MedicalImage(torch.from_numpy(data["image"].astype("float32")), spacing)
    mask = Mask(torch.from_numpy(data["mask"].astype("float32")), spacing)
    extractor = FeatureExtractor(settings)
    return lambda: len(extractor.extract(image, mask))


def main() -> None:
    import numpy as np

    data = dict(np.load(sys.argv[1]))
    for program in (pictologics, fastrad):
        try:
            version = importlib.metadata.version(program.__name__)
        except importlib.metadata.PackageNotFoundError:
            continue
        run = program(data)
        if run is None:
            continue
        name = f"{program.__name__} {version}"
        print(json.dumps({"name": name}), flush=True)
        values, seconds = run(), []
        for _ in range(int(sys.argv[2])):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        found = {"name": name, "seconds": statistics.median(seconds), "values": values}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
