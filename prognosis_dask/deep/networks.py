"""The networks that engines can run: what goes in, what comes out, and every parameter's name and shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    """

    name: str
    min_length: int
    outputs: dict[str, int]
    parameters: dict[str, tuple[int, ...]]
    aliases: dict[str, str]

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


def _inception_v1(classes: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for unit, cin, cout, kernel in _inception_v1_units():
        shapes[f"{unit}.0.weight"] = (cout, cin, kernel, kernel, kernel)
        for name in ("gamma", "beta", "running_mean", "running_var"):
            shapes[f"{unit}.1.{name}"] = (cout,)
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


NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="i3d_inceptionv1_kinetics400",
            min_length=5,
            outputs={"logits": 400, "pooled": 1024},
            parameters=_inception_v1(classes=400),
            aliases={"head.1.weight": "output.weight", "head.1.bias": "output.bias"},
        ),
    )
}
