"""The networks that engines can run, on clips and on cubes: input, outputs, and every parameter's name and shape.

Of a published network on cubes, the entry holds its own preprocessing, as its public code has it; a user's own network
says the same in a TOML file beside it. The network itself is a TorchScript or ONNX file in both cases, or weights as
safetensors of an architecture that the TOML file names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from prognosis_dask.config.fields import AtLeast
from prognosis_dask.config.job import DeepSection
from prognosis_dask.config.reading import build, read_toml
from prognosis_dask.errors import JobError
from prognosis_dask.imaging.cube import CubeRule
from prognosis_dask.networks.clips import ClipRule

SAFETENSORS = ".safetensors"
#: Keys of the TOML file beside weights that say whose they are.
_ARCHITECTURE = ("architecture", "arguments")


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


def split_description(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the TOML file beside a network's file says of its architecture, and the rest.

    Raises
    ------
    JobError
        When it is not there or is not TOML; when a file that is no safetensors has an architecture.
    """
    content = read_toml(path.with_suffix(".toml"), f"{path.name} needs its description {path.with_suffix('.toml')}")
    own = {name: content.pop(name) for name in _ARCHITECTURE if name in content}
    if own and path.suffix != SAFETENSORS:
        raise JobError(
            f"{path.with_suffix('.toml')} names an architecture, but {path.name} holds its own; leave it out"
        )
    return own, content


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


Shapes = dict[str, tuple[int, ...]]

# Inception v1 inflated to 3D (Carreira and Zisserman 2017, arXiv:1705.07750), layer numbers as GluonCV has them.
# Stem: layer, channels in, channels out, kernel.
_STEM = ((0, 3, 64, 7), (2, 64, 64, 1), (3, 64, 192, 3))
# Inception blocks: layer, channels in, then channels out of the four branches: 1; 1 and 3; 1 and 3; pool and 1.
_BLOCKS = (
    (5, 192, 64, 96, 128, 16, 32, 32),
    (6, 256, 128, 128, 192, 32, 96, 64),
    (8, 480, 192, 96, 208, 16, 48, 64),
    (9, 512, 160, 112, 224, 24, 64, 64),
    (10, 512, 128, 128, 256, 24, 64, 64),
    (11, 512, 112, 144, 288, 32, 64, 64),
    (12, 528, 256, 160, 320, 32, 128, 128),
    (14, 832, 256, 160, 320, 32, 128, 128),
    (15, 832, 384, 192, 384, 48, 128, 128),
)


def inception_v1(classes: int) -> Shapes:
    """I3D Inception v1."""
    shapes: Shapes = {}
    for unit, cin, cout, kernel in _inception_v1_units():
        shapes |= _unit(f"{unit}.0", f"{unit}.1", (cout, cin, kernel, kernel, kernel))
    return shapes | {"output.weight": (classes, 1024), "output.bias": (classes,)}


def _inception_v1_units() -> Iterator[tuple[str, int, int, int]]:
    """Name, channels in, channels out and kernel of every convolution and the batch normalisation after it."""
    for layer, cin, cout, kernel in _STEM:
        yield f"features.{layer}", cin, cout, kernel
    for layer, cin, one, narrow_a, wide_a, narrow_b, wide_b, pooled in _BLOCKS:
        yield f"features.{layer}.0.0", cin, one, 1
        yield f"features.{layer}.1.0", cin, narrow_a, 1
        yield f"features.{layer}.1.1", narrow_a, wide_a, 3
        yield f"features.{layer}.2.0", cin, narrow_b, 1
        yield f"features.{layer}.2.1", narrow_b, wide_b, 3
        yield f"features.{layer}.3.1", cin, pooled, 1


# ResNet50 (He et al. 2016, arXiv:1512.03385): blocks of each of its four stages.
_RESNET50 = (3, 4, 6, 3)
# Frames under the first kernel of every block; I3D inflates every second one from the second stage on.
_INFLATED = ((3, 3, 3), (3, 1, 3, 1), (3, 1, 3, 1, 3, 1), (1, 3, 1))
#: Layers of a block's other name in GluonCV, ``bottleneck``.
_BOTTLENECK = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}


def i3d_resnet50(classes: int) -> Shapes:
    """I3D ResNet50 (Wang et al. 2018, arXiv:1711.07971, without the non-local blocks)."""
    shapes = _unit("first_stage.0", "first_stage.1", (64, 3, 5, 7, 7))
    cin = 64
    for stage, kernels in enumerate(_INFLATED):
        shapes |= _resnet_stage(f"res_layers.{stage}", cin, 64 * 2**stage, kernels)
        cin = 256 * 2**stage
    return shapes | {"fc.weight": (classes, cin), "fc.bias": (classes,)}


def i3d_resnet50_aliases() -> dict[str, str]:
    """GluonCV's files name most of its parameters twice."""
    names = {"head.1.weight": "fc.weight", "head.1.bias": "fc.bias"}
    for name in i3d_resnet50(classes=400):
        *block, layer, value = name.split(".")
        if layer in _BOTTLENECK:
            names[".".join([*block, "bottleneck", str(_BOTTLENECK[layer]), value])] = name
    return names


def slowfast_resnet50(classes: int, *, lateral_kernel: int) -> Shapes:
    """SlowFast ResNet50 (Feichtenhofer et al. 2019, arXiv:1812.03982): the fast path has an eighth of the channels."""
    shapes = _unit("fast_conv1", "fast_bn1", (8, 3, 5, 7, 7))
    fast = {"p1": 8} | {f"res{stage + 2}": 32 * 2**stage for stage in range(4)}
    for stage, (blocks, cin) in enumerate(zip(_RESNET50, fast.values(), strict=False)):
        shapes |= _resnet_stage(f"fast_res{stage + 2}", cin, 8 * 2**stage, (3,) * blocks)
    for name, channels in list(fast.items())[:-1]:
        lateral = f"lateral_{name}"
        shapes |= _unit(f"{lateral}.0", f"{lateral}.1", (2 * channels, channels, lateral_kernel, 1, 1))
    shapes |= _unit("slow_conv1", "slow_bn1", (64, 3, 1, 7, 7))
    for stage, blocks in enumerate(_RESNET50):
        # the path's own channels and those that come across, twice the fast path's
        cin = 80 if stage == 0 else 10 * 32 * 2 ** (stage - 1)
        shapes |= _resnet_stage(f"slow_res{stage + 2}", cin, 64 * 2**stage, (1 if stage < 2 else 3,) * blocks)
    return shapes | {"fc.weight": (classes, 2304), "fc.bias": (classes,)}


def _resnet_stage(name: str, cin: int, width: int, kernels: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for index, frames in enumerate(kernels):
        block = f"{name}.{index}"
        before = 4 * width if index else cin
        shapes |= _unit(f"{block}.conv1", f"{block}.bn1", (width, before, frames, 1, 1))
        shapes |= _unit(f"{block}.conv2", f"{block}.bn2", (width, width, 1, 3, 3))
        shapes |= _unit(f"{block}.conv3", f"{block}.bn3", (4 * width, width, 1, 1, 1))
        if index == 0:
            down = f"{block}.downsample"
            shapes |= _unit(f"{down}.0", f"{down}.1", (4 * width, cin, 1, 1, 1))
    return shapes


def _unit(convolution: str, normalisation: str, shape: tuple[int, ...]) -> Shapes:
    """A convolution without bias and the batch normalisation after it."""
    values = ("gamma", "beta", "running_mean", "running_var")
    return {f"{convolution}.weight": shape, **{f"{normalisation}.{name}": (shape[0],) for name in values}}


@dataclass(frozen=True)
class Network:
    """A network, described without the library that runs it.

    Attributes
    ----------
    name
        As in GluonCV's model zoo; torchvision's with the data set that its weights were trained on.
    min_length
        The fewest frames of a clip; with fewer, a temporal pooling would have no input.
    outputs
        Number of values per output: ``logits`` of the classes, ``pooled`` averages before the classifier.
    parameters
        Name and shape of every parameter, in the order of computation. The names are those of GluonCV's weight files.
    aliases
        Other names that a weight file may use, with the parameters they mean.
    engines
        Engines that can run it, in the order of preference of ``auto``.
    clip
        How its input is prepared.
    classes
        The data set of the classes; see :func:`prognosis_dask.networks.catalogue.class_labels`.
    library
        The library of network and weights. For torchvision's networks ``parameters`` is empty.
    published_sha1
        Of GluonCV's file of pretrained weights, as its model store lists it; the file's name ends in the first eight.
    """

    name: str
    min_length: int
    outputs: dict[str, int]
    parameters: dict[str, tuple[int, ...]]
    aliases: dict[str, str]
    engines: tuple[Literal["torch", "gluon", "onnx"], ...]
    clip: ClipRule = field(default_factory=ClipRule)
    classes: str = "kinetics400"
    library: Literal["gluoncv", "torchvision"] = "gluoncv"
    published_sha1: str = ""

    def labels(self, output: str) -> tuple[str, ...]:
        """The class names if the output is logits, else none."""
        return class_labels(self.classes) if output == "logits" else ()

    def feature_names(self, output: str) -> tuple[str, ...]:
        """One name per value of an output.

        >>> find_network("i3d_inceptionv1_kinetics400").feature_names("logits")[:2]
        ('logit_000', 'logit_001')
        """
        stem, count = output.removesuffix("s"), self.outputs[output]
        return tuple(f"{stem}_{index:0{len(str(count - 1))}}" for index in range(count))


def find_engines(section: DeepSection) -> tuple[Literal["torch", "gluon", "onnx"], ...]:
    """The engines that can run a job's network.

    Raises
    ------
    JobError
        As :func:`find_network`, and :func:`prognosis_dask.networks.catalogue.network_file`.

    >>> find_engines(DeepSection(network="file:net.onnx")), find_engines(DeepSection())
    (('onnx',), ('torch', 'gluon'))
    """
    path = network_file(section)
    if path is not None:
        return ("onnx",) if path.suffix == ".onnx" else ("torch",)
    return find_network(section.network, section.key).engines


def find_network(name: str, key: str = "deep") -> Network:
    """The network of that name; ``key`` is the section that asks, empty where a command does.

    Raises
    ------
    JobError
        When an engine does not build it; the message names those that it does.
    """
    if name in CUBE_NETWORKS:
        raise JobError(
            f"{name!r} is read from its own TorchScript or ONNX file, which is used as it is: name it as "
            f"{key or 'deep'}.weights = 'file:PATH'"
        )
    if name not in NETWORKS:
        raise unknown_network(name, key, (*NETWORKS, *CUBE_NETWORKS) if key else tuple(NETWORKS))
    return NETWORKS[name]


def unknown_network(name: str, key: str, every: Sequence[str]) -> JobError:
    """The error that a name is none of these, with the nearest one or, where none is near, all of them."""
    near = get_close_matches(name, every, n=1)
    known = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(map(repr, every))}"
    own = ", or 'file:PATH' of a TorchScript or ONNX file" if key and not near else ""
    return JobError(f"{key}.network is {name!r}, {known}{own}" if key else f"no network {name!r}, {known}")


#: torchvision's, of Kinetics.
_MEAN = (0.43216, 0.394666, 0.37645)
_STD = (0.22803, 0.22145, 0.216989)

NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="i3d_inceptionv1_kinetics400",
            min_length=5,
            outputs={"logits": 400, "pooled": 1024},
            parameters=inception_v1(classes=400),
            aliases={"head.1.weight": "output.weight", "head.1.bias": "output.bias"},
            engines=("torch", "gluon"),
            published_sha1="81e0be1043ea4c68a4a0a439918c7b888ee5545b",
        ),
        Network(
            name="i3d_resnet50_v1_kinetics400",
            min_length=5,
            outputs={"logits": 400, "pooled": 2048},
            parameters=i3d_resnet50(classes=400),
            aliases=i3d_resnet50_aliases(),
            engines=("gluon",),
            published_sha1="568a722eb61da663e11b582886ddbef9ef8f6ac6",
        ),
        Network(
            name="slowfast_4x16_resnet50_kinetics400",
            min_length=36,
            outputs={"logits": 400, "pooled": 2304},
            parameters=slowfast_resnet50(classes=400, lateral_kernel=5),
            aliases={},
            engines=("gluon",),
            clip=ClipRule(frames=32, slow_step=8),
            published_sha1="9d650f5186ffc08348f8d7384d6994a8f39a03b1",
        ),
        Network(
            name="slowfast_8x8_resnet50_kinetics400",
            min_length=40,
            outputs={"logits": 400, "pooled": 2304},
            parameters=slowfast_resnet50(classes=400, lateral_kernel=7),
            aliases={},
            engines=("gluon",),
            clip=ClipRule(frames=32, slow_step=4),
            published_sha1="d6b253398615a21d8b2a827ddfb09c0d8827f79c",
        ),
        # frames, size and normalisation that the weights were trained with (torchvision's documentation of them; 64
        # frames for S3D: Xie et al. 2018, arXiv:1712.04851)
        Network(
            name="r3d_18_kinetics400",
            min_length=16,
            outputs={"logits": 400, "pooled": 512},
            parameters={},
            aliases={},
            engines=("torch",),
            clip=ClipRule(frames=16, resized=(128, 128), size=(112, 112), mean=_MEAN, std=_STD),
            library="torchvision",
        ),
        Network(
            name="s3d_kinetics400",
            min_length=64,
            outputs={"logits": 400, "pooled": 1024},
            parameters={},
            aliases={},
            engines=("torch",),
            clip=ClipRule(frames=64, mean=_MEAN, std=_STD),
            library="torchvision",
        ),
    )
}


@cache
def class_labels(name: str) -> tuple[str, ...]:
    """The class names of a data set in the order of the logits; none if ``name`` is empty.

    ``kinetics400``: the 400 actions of Kay et al. 2017, arXiv:1705.06950, in alphabetical order, as GluonCV and
    torchvision number them.

    >>> class_labels("kinetics400")[:2], class_labels("")
    (('abseiling', 'air drumming'), ())
    """
    if not name:
        return ()
    return tuple(files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8").splitlines())
