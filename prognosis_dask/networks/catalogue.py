"""The networks that engines can run: input, outputs, and every parameter's name and shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

from prognosis_dask.config.job import DeepSection
from prognosis_dask.errors import JobError
from prognosis_dask.networks.clips import ClipRule
from prognosis_dask.networks.cube_networks import CUBE_NETWORKS, network_file
from prognosis_dask.networks.parameters import i3d_resnet50, i3d_resnet50_aliases, inception_v1, slowfast_resnet50


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
        As :func:`find_network`, and :func:`prognosis_dask.networks.cube_networks.network_file`.

    >>> find_engines(DeepSection(network="file:net.onnx")), find_engines(DeepSection())
    (('onnx',), ('torch', 'gluon'))
    """
    path = network_file(section)
    if path is not None:
        return ("onnx",) if path.suffix == ".onnx" else ("torch",)
    return find_network(section.network, section.key).engines


def find_network(name: str, key: str = "deep") -> Network:
    """The network of that name; ``key`` is the section that asks.

    Raises
    ------
    JobError
        When it does not exist; the message lists those that do.
    """
    if name not in NETWORKS:
        known = ", ".join(map(repr, (*NETWORKS, *CUBE_NETWORKS)))
        raise JobError(
            f"{key}.network is {name!r}, expected one of {known}, or 'file:PATH' of a TorchScript or ONNX file"
        )
    return NETWORKS[name]


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
