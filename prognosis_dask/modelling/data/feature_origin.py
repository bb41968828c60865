"""What features were made with (parameters, network, weights), and how a table's and a model's origins differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    "network.sha256": ("trained network", ""),
}


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
        found = next((settings[key] for key in known if key in settings), None)
        if found is not None:
            own[_PARAMETERS if len(modalities) == 1 else known[0]] = found
    return own


def made_with(what: str) -> str:
    """What a key of a table's ``source`` is.

    >>> made_with("radiomics.parameters"), made_with("radiomics.parameters.PT"), made_with("deep.scanner")
    ('radiomics parameters', 'radiomics parameters of PT', 'deep scanner')
    """
    key, modality = _known(what)
    return _KNOWN.get(key, (what.replace(".", " "), ""))[0] + (f" of {modality}" if modality else "")


def _known(what: str) -> tuple[str, str]:
    """The key without a modality, and the modality."""
    own = what.removeprefix(f"{_PARAMETERS}.")
    return (_PARAMETERS, own) if own != what else (what, "")


def other_origin(what: str, seen: str, expected: str, table: str = "the table", model: str = "the model") -> str:
    """Which of the two was made with which, and what to do.

    >>> message = other_origin("radiomics.parameters", "99", "01", "b.csv", "the model in runs/a")
    >>> print(message.replace("; ", ";" + chr(10)))
    the features of b.csv were made with other radiomics parameters (99) than those of the model in runs/a (01);
    make both with the same ones (radiomics.params in the job file) and the same version of prognosis_dask
    """
    place = _KNOWN.get(_known(what)[0], ("", ""))[1]
    return (
        f"the features of {table} were made with other {made_with(what)} ({seen}) than those of {model} ({expected}); "
        f"make both with the same ones{f' ({place} in the job file)' if place else ''} and the same version of "
        "prognosis_dask"
    )
