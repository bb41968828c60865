"""torchvision's video networks R3D-18 and S3D, if torchvision is installed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import JobError, WeightsError, import_extra
from prognosis_dask.networks.catalogue import Network
from prognosis_dask.networks.clip_engine import ClipEngine

#: torchvision's function, its weights, and the layer from pooled values to logits.
_MODELS = {
    "r3d_18_kinetics400": ("r3d_18", "R3D_18_Weights", "fc"),
    "s3d_kinetics400": ("s3d", "S3D_Weights", "classifier"),
}


def torchvision_version() -> str:
    """The version of torchvision.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    if not importlib.util.find_spec("torchvision"):
        import_extra("torchvision", extra="torchvision", feature="this deep.network")
    return importlib.metadata.version("torchvision")


def torchvision_weights(section: DeepSection, network: Network) -> tuple[str, Path | None]:
    """The sha256 of a job's weights, and their file; none for random ones.

    ``kinetics400`` is torchvision's own file, downloaded at first use and checked by torch; ``file:PATH`` a state dict
    of the same network; ``untrained:SEED`` torchvision's initial values after ``torch.manual_seed``.

    Raises
    ------
    WeightsError, JobError, MissingExtraError
        When the file is unavailable, ``deep.weights`` is none of the three, or torchvision is not installed.
    """
    torchvision_version()
    kind, _, rest = section.weights.partition(":")
    if kind == "untrained" and rest.isdecimal():
        return hashlib.sha256(f"{network.name} {torchvision_version()} {section.weights}".encode()).hexdigest(), None
    if section.weights == "kinetics400":
        path = _download(network, section.key)
    elif kind == "file" and rest:
        path = Path(rest)
    else:
        raise JobError(
            f"{section.key}.weights is {section.weights!r}, expected 'kinetics400', 'file:PATH.pth' or 'untrained:SEED'"
        )
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the weight file {path}: {error.strerror}") from error
    if section.weights_sha256 not in ("", found):
        raise WeightsError(
            f"the weights {section.weights} have the sha256 {found}, expected {section.weights_sha256} "
            f"({section.key}.weights_sha256)"
        )
    return found, path


def load_torchvision(section: DeepSection, network: Network, rows: int) -> ClipEngine:
    """Load a network.

    Raises
    ------
    WeightsError, JobError, MissingExtraError, ClusterError
        As :func:`torchvision_weights`; when the file does not hold this network's parameters; when there is no GPU.
    """
    import torch

    from prognosis_dask.networks.torch_support import torch_runner

    _, path = torchvision_weights(section, network)
    function, _, classifier = _MODELS[network.name]
    with torch.random.fork_rng(devices=[]):
        if path is None:
            torch.manual_seed(int(section.weights.partition(":")[2]))
        module = getattr(_video(), function)(weights=None)
    if path is not None:
        try:
            module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # another format, another network, an HTML page instead of the file
            raise WeightsError(f"{path} does not fit torchvision's {function}: {str(error)[:300]}") from error
    if section.output == "pooled":
        setattr(module, classifier, torch.nn.Identity())
    names = network.feature_names(section.output)
    return ClipEngine(torch_runner(module, section.device, section.key), network.clip, names, rows)


def _video() -> Any:
    return import_extra("torchvision.models.video", extra="torchvision", feature="this deep.network")


def _download(network: Network, key: str) -> Path:
    import torch

    url: str = getattr(_video(), _MODELS[network.name][1]).KINETICS400_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=part, progress=False)
        except Exception as error:  # no connection, no space, a wrong checksum
            raise WeightsError(
                f"could not fetch {url}: {error}. On a machine without network, fetch it elsewhere and set "
                f"{key}.weights = 'file:PATH'"
            ) from error
    return path
