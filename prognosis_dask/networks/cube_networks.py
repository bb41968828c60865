"""Networks that read a cube around the region: what each takes and gives, and where its weights come from.

A published network's entry holds its own preprocessing, as its public code has it; a user's own network says the same
in a TOML file beside it. The network itself is a TorchScript or ONNX file in both cases, or weights as
safetensors of an architecture that the TOML file names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from prognosis_dask.config.fields import AtLeast
from prognosis_dask.config.job import DeepSection
from prognosis_dask.config.reading import build
from prognosis_dask.errors import JobError
from prognosis_dask.imaging.cube import CubeRule
from prognosis_dask.networks.architecture import split_description


@dataclass(frozen=True)
class CubeNetwork:
    """A network that reads a cube, described without the file that holds it; as a file ``NETWORK.toml`` has it."""

    cube: CubeRule
    output: Annotated[Literal["embedding", "pooled", "logits"], "What its values are called."] = "embedding"
    values: Annotated[int, AtLeast(0), "How many values it gives; 0: as many as it does."] = 0
    licence: Annotated[str, "Licence of code and weights."] = ""
    weights: Annotated[str, "Where the weights come from."] = ""
    citation: Annotated[str, "What to cite."] = ""
    modalities: Annotated[tuple[str, ...], "DICOM modalities of the images that it takes; empty: any."] = ()


#: As their public code prepares images. MONAI's ``Spacing`` interpolates linearly without smoothing, and its voxels are
#: counted from a corner of the image; the lesion's middle is cut to a whole voxel of these.
CUBE_NETWORKS = {
    # fmcib/preprocessing of AIM-Harvard/foundation-cancer-image-biomarker
    "fmcib": CubeNetwork(
        cube=CubeRule(
            voxels=(50, 50, 50),
            spacing_mm=(1.0, 1.0, 1.0),
            intensity="window",
            outside=-1024.0,
            window=(-1024.0, 3072.0),
            orientation="SPL",
            axes="patient",
            centre="centroid",
            lattice="RAS",
        ),
        values=4096,
        licence="code MIT; weights as their Zenodo record says",
        weights="zenodo.org/records/10528450, model_weights.torch",
        citation="Pai et al., Nature Machine Intelligence 2024, doi:10.1038/s42256-024-00807-9",
        modalities=("CT",),
    ),
    # extract_feat_LP.py of project-lighter/CT-FM, with masks; it pads before it scales, so with 0 HU
    "ct_fm": CubeNetwork(
        cube=CubeRule(
            voxels=(160, 160, 160),
            spacing_mm=(1.0, 1.0, 1.0),
            intensity="window",
            outside=0.0,
            window=(-1024.0, 2048.0),
            orientation="SPL",
            axes="image",
            centre="centroid",
            lattice="SPL",
        ),
        values=512,
        licence="as the model card of the weights says",
        weights="huggingface.co/project-lighter/ct_fm_feature_extractor",
        citation="Pai et al. 2025, arXiv:2501.09001",
        modalities=("CT",),
    ),
    # merlin/data/monai_transforms.py of StanfordMIMI/Merlin: the middle of the scan, wherever the lesion is
    "merlin": CubeNetwork(
        cube=CubeRule(
            voxels=(224, 224, 160),
            spacing_mm=(1.5, 1.5, 3.0),
            intensity="window",
            outside=-1000.0,
            window=(-1000.0, 1000.0),
            orientation="RAS",
            axes="image",
            centre="image",
            lattice="RAS",
        ),
        values=2048,
        licence="MIT",
        weights="huggingface.co/stanfordmimi/Merlin",
        citation="Blankemeier et al., Nature 2026, doi:10.1038/s41586-026-10181-8",
        modalities=("CT",),
    ),
}

_FILE = "file:"


def network_file(section: DeepSection) -> Path | None:
    """The file that holds a job's network with its weights; None for a network that an engine builds itself.

    Raises
    ------
    JobError
        When a published network is named without its file.

    >>> network_file(DeepSection(network="file:net.onnx")), network_file(DeepSection())
    (PosixPath('net.onnx'), None)
    """
    spec = section.weights if section.network in CUBE_NETWORKS else section.network
    if spec.startswith(_FILE) and spec != _FILE:
        return Path(spec.removeprefix(_FILE))
    if section.network not in CUBE_NETWORKS:
        return None
    network = CUBE_NETWORKS[section.network]
    raise JobError(
        f"{section.key}.weights is {section.weights!r}, expected 'file:PATH' of {section.network} as a TorchScript "
        f"(.pt) or ONNX file: export it by its own package with the weights of {network.weights}; nothing is downloaded"
    )


def network_files(section: DeepSection) -> list[Path]:
    """The files that a job names for its network, and the descriptions beside them, whether they are there or not.

    >>> [path.name for path in network_files(DeepSection(network="file:net.onnx"))]
    ['net.onnx', 'net.toml']
    """
    named = [Path(spec.removeprefix(_FILE)) for spec in (section.network, section.weights) if spec.startswith(_FILE)]
    return [path for one in named for path in (one, one.with_suffix(".toml"))]


def is_cube_network(network: str, input_shape: Sequence[int]) -> bool:
    """Whether a network reads a cube, by the job alone: of clips for a file the job says the shape.

    >>> is_cube_network("fmcib", ()), is_cube_network("file:net.onnx", (3, 16, 112, 112))
    (True, False)
    """
    return network in CUBE_NETWORKS or (network.startswith(_FILE) and not input_shape)


def cube_network(section: DeepSection) -> CubeNetwork | None:
    """What a job's network says of its cube; None where it reads clips.

    Raises
    ------
    JobError
        When the TOML file beside a network's file does not describe a cube.
    """
    if section.network in CUBE_NETWORKS:
        return CUBE_NETWORKS[section.network]
    path = network_file(section)
    beside = path and path.with_suffix(".toml")
    if not path or not beside or not beside.is_file():
        return None
    found = build(CubeNetwork, split_description(path)[1], str(beside))
    found.cube.check(f"{beside}: cube")
    return found
