"""What features were made with (parameters, network, weights), and how a table's and a model's origins differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prognosis_dask.features.stage import TOLD
from prognosis_dask.radiomics.params import OTHERS

#: The key of the parameters; each modality's own has its name behind a point, that of all others OTHERS.
_PARAMETERS = "radiomics.parameters"
#: What a table's ``source`` may name: what it is, and where a job file says it.
_KNOWN = {
    "radiomics.parameters": ("radiomics parameters", "radiomics.params"),
    "radiomics.image": ("image settings", "[image]"),
    "deep.frames": ("frames", "[image] and [frames]"),
    "deep.network": ("network", "deep.network"),
    "deep.output": ("output of the network", "deep.output"),
    "deep.weights_sha256": ("weights of the network", "deep.weights"),
    "deep.cube": ("cubes", "the TOML file beside deep.network"),
    "ibsi.parameters": ("settings of IBSI's features", "[ibsi] and [image]"),
    "segment.network": ("network that outlines regions", "[segment]"),
    "network.sha256": ("trained network", ""),
}
#: Settings that a message lists at most.
_LISTED = 6


def origin_of(settings: Mapping[str, str], modalities: Sequence[str]) -> dict[str, str]:
    """What the features of cases of these modalities depend on: of parameters by modality only theirs.

    Those of one modality alone go by the same key as those that hold for all, so that a job which names a file by
    modality and one which names it for all agree where the file is the same.

    >>> origin_of({"radiomics.parameters.CT": "1", "radiomics.parameters.default": "2"}, ["CT"])
    {'radiomics.parameters': '1'}
    >>> origin_of({"radiomics.parameters": "1"}, ["CT", "PT"])
    {'radiomics.parameters.CT': '1', 'radiomics.parameters.PT': '1'}
    """
    own = {key: value for key, value in settings.items() if not key.startswith(_PARAMETERS)}
    for modality in modalities:
        known = (f"{_PARAMETERS}.{modality}", f"{_PARAMETERS}.{OTHERS}", _PARAMETERS)
        found = next((key for key in known if key in settings), None)
        if found is not None:
            name = _PARAMETERS if len(modalities) == 1 else known[0]
            own |= {f"{name}{end}": settings[f"{found}{end}"] for end in ("", TOLD) if f"{found}{end}" in settings}
    return own


def digests(source: Mapping[str, str]) -> dict[str, str]:
    """What has to agree: a table's ``source`` without the settings that are told behind the digests.

    Where a network's file lies need not agree: the digest of its content says which network it is.

    >>> digests({"deep.network": "file:/data/net.onnx", "deep.weights_sha256": "1f", "deep.output": "pooled"})
    {'deep.weights_sha256': '1f', 'deep.output': 'pooled'}
    """
    in_files = {
        what
        for what, value in source.items()
        if what.endswith(".network")
        and value.startswith("file:")
        and f"{what.removesuffix('network')}weights_sha256" in source
    }
    return {what: value for what, value in source.items() if not what.endswith(TOLD) and what not in in_files}


def source_label(what: str) -> str:
    """What a key of a table's ``source`` is.

    >>> source_label("radiomics.parameters"), source_label("radiomics.parameters.PT"), source_label("deep.scanner")
    ('radiomics parameters', 'radiomics parameters of PT', 'deep scanner')
    """
    key, modality = _known(what)
    return _KNOWN.get(key, (what.replace(".", " "), ""))[0] + (f" of {modality}" if modality else "")


def _known(what: str) -> tuple[str, str]:
    """The key without a modality, and the modality."""
    own = what.removeprefix(f"{_PARAMETERS}.")
    return (_PARAMETERS, own) if own != what else (what, "")


def other_origin(
    what: str, seen: Mapping[str, str], expected: Mapping[str, str], table: str = "the table", model: str = "the model"
) -> str:
    """Which of the two was made with which settings, and what to do.

    Parameters
    ----------
    what
        The key in which they differ.
    seen, expected
        The ``source`` of the table, and of the model.
    table, model
        What the message calls them.

    Examples
    --------
    >>> told = "radiomics.parameters.told"
    >>> a = {"radiomics.parameters": "01", told: '{"version": "2", "setting": {"binWidth": 25}}'}
    >>> b = {"radiomics.parameters": "99", told: '{"version": "2", "setting": {"binWidth": 10, "force2D": true}}'}
    >>> print(other_origin("radiomics.parameters", b, a, "b.csv", "the model in runs/a").replace("; ", ";" + chr(10)))
    the features of b.csv were made with other radiomics parameters than those of the model in runs/a: \
setting.binWidth 10 instead of 25, setting.force2D true instead of not set;
    make both with the same ones (radiomics.params in the job file) and the same version of prognosis_dask

    Where one of them does not tell its settings, digests stand for them:

    >>> print(other_origin("radiomics.parameters", {"radiomics.parameters": "99"}, a).partition(";")[0])
    the features of the table were made with other radiomics parameters (99) than those of the model (01)
    """
    place = _KNOWN.get(_known(what)[0], ("", ""))[1]
    told = [source.get(f"{what}{TOLD}", "") for source in (seen, expected)]
    differing = list(_differing(*map(json.loads, told))) if all(told) else []
    of = ["", ""] if differing else [f" ({source[what]})" for source in (seen, expected)]
    more = f" and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
    named = f": {', '.join(differing[:_LISTED])}{more}" if differing else ""
    return (
        f"the features of {table} were made with other {source_label(what)}{of[0]} than those of {model}{of[1]}"
        f"{named}; make both with the same ones{f' ({place} in the job file)' if place else ''} and the same version "
        "of prognosis_dask"
    )


def _differing(seen: Any, expected: Any, name: str = "") -> Iterator[str]:
    """The settings in which two differ, with both values."""
    if isinstance(seen, dict) and isinstance(expected, dict):
        for key in dict.fromkeys([*expected, *seen]):
            yield from _differing(seen.get(key, _Unset), expected.get(key, _Unset), f"{name}.{key}" if name else key)
    elif seen != expected:
        yield f"{name} {_shown(seen)} instead of {_shown(expected)}"


class _Unset:
    """In the place of a setting that is not there."""


def _shown(value: Any) -> str:
    return "not set" if value is _Unset else json.dumps(value, ensure_ascii=False)
