"""The networks that engines can run: what goes in, what comes out, and every parameter's name and shape."""

from __future__ import annotations

from dataclasses import dataclass, field

from prognosis_dask.deep.clip_rules import ClipRule
from prognosis_dask.deep.labels import class_labels
from prognosis_dask.deep.parameters import i3d_resnet50, i3d_resnet50_aliases, inception_v1, slowfast_resnet50
from prognosis_dask.errors import JobError


@dataclass(frozen=True)
class Network:
    """A network, described without the library that runs it.

    Attributes
    ----------
    name
        As in GluonCV's model zoo.
    min_length
        The fewest frames of a clip; with fewer, a temporal pooling has nothing left to pool.
    outputs
        Number of values per output: ``logits`` of the classes, ``pooled`` the averaged values before the classifier.
    parameters
        Name and shape of every parameter, in the order of computation. The names are those of GluonCV's weight files.
    aliases
        Other names that a weight file may use, and the parameters they stand for.
    engines
        Those that can run it, the one that ``auto`` prefers first.
    clip
        What its input is made by.
    classes
        The data set whose classes the logits are; see :func:`prognosis_dask.deep.labels.class_labels`.
    """

    name: str
    min_length: int
    outputs: dict[str, int]
    parameters: dict[str, tuple[int, ...]]
    aliases: dict[str, str]
    engines: tuple[str, ...]
    clip: ClipRule = field(default_factory=ClipRule)
    classes: str = "kinetics400"

    def labels(self, output: str) -> tuple[str, ...]:
        """The name of every class where the output is their logits, else none."""
        return class_labels(self.classes) if output == "logits" else ()

    def feature_names(self, output: str) -> tuple[str, ...]:
        """One name per value of an output.

        >>> find_network("i3d_inceptionv1_kinetics400").feature_names("logits")[:2]
        ('logit_000', 'logit_001')
        """
        stem, count = output.removesuffix("s"), self.outputs[output]
        return tuple(f"{stem}_{index:0{len(str(count - 1))}}" for index in range(count))


def find_network(name: str) -> Network:
    """The network of that name.

    Raises
    ------
    JobError
        When there is none; the message lists those there are.
    """
    if name not in NETWORKS:
        raise JobError(f"deep.network is {name!r}, expected one of {', '.join(map(repr, NETWORKS))}")
    return NETWORKS[name]


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
        ),
        Network(
            name="i3d_resnet50_v1_kinetics400",
            min_length=5,
            outputs={"logits": 400, "pooled": 2048},
            parameters=i3d_resnet50(classes=400),
            aliases=i3d_resnet50_aliases(),
            engines=("gluon",),
        ),
        Network(
            name="slowfast_4x16_resnet50_kinetics400",
            min_length=36,
            outputs={"logits": 400, "pooled": 2304},
            parameters=slowfast_resnet50(classes=400, lateral_kernel=5),
            aliases={},
            engines=("gluon",),
            clip=ClipRule(frames=32, slow_step=8),
        ),
        Network(
            name="slowfast_8x8_resnet50_kinetics400",
            min_length=40,
            outputs={"logits": 400, "pooled": 2304},
            parameters=slowfast_resnet50(classes=400, lateral_kernel=7),
            aliases={},
            engines=("gluon",),
            clip=ClipRule(frames=32, slow_step=4),
        ),
    )
}
