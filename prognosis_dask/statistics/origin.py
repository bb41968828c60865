"""What features were made with, in words: for who meets a model and a table that do not go together."""

from __future__ import annotations

#: What a table's ``source`` may name: what it is, and where a job file says it.
_KNOWN = {
    "radiomics.parameters": ("radiomics parameters", "radiomics.params"),
    "radiomics.image": ("image settings", "[image]"),
    "deep.frames": ("frames", "[image] and [frames]"),
    "deep.network": ("network", "deep.network"),
    "deep.output": ("output of the network", "deep.output"),
    "deep.weights_sha256": ("weights of the network", "deep.weights"),
    "network.sha256": ("trained network", ""),
}


def made_with(what: str) -> str:
    """What a key of a table's ``source`` is.

    >>> made_with("radiomics.parameters"), made_with("deep.scanner")
    ('radiomics parameters', 'deep scanner')
    """
    return _KNOWN.get(what, (what.replace(".", " "), ""))[0]


def other_origin(what: str, seen: str, expected: str, table: str = "the table", model: str = "the model") -> str:
    """Which of the two was made with which, and what to do.

    >>> message = other_origin("radiomics.parameters", "99", "01", "b.csv", "the model in runs/a")
    >>> print(message.replace("; ", ";" + chr(10)))
    the features of b.csv were made with other radiomics parameters (99) than those of the model in runs/a (01);
    make both with the same ones (radiomics.params in the job file) and the same version of prognosis_dask
    """
    place = _KNOWN.get(what, ("", ""))[1]
    return (
        f"the features of {table} were made with other {made_with(what)} ({seen}) than those of {model} ({expected}); "
        f"make both with the same ones{f' ({place} in the job file)' if place else ''} and the same version of "
        "prognosis_dask"
    )
