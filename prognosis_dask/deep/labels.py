"""The names of the classes that a network's logits stand for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def class_labels(name: str) -> tuple[str, ...]:
    """The class names of a data set in the order of the logits; none where ``name`` is empty.

    ``kinetics400``: the 400 actions of Kay et al. 2017, arXiv:1705.06950, in alphabetical order, as GluonCV and
    torchvision number them.

    >>> class_labels("kinetics400")[:2], class_labels("")
    (('abseiling', 'air drumming'), ())
    """
    if not name:
        return ()
    return tuple(files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8").splitlines())
