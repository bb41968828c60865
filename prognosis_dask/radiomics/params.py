"""pyradiomics' own parameter file, validated as pyradiomics validates it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prognosis_dask.errors import JobError

#: What an empty path means: pyradiomics' defaults, spelt out.
DEFAULTS: dict[str, Any] = {
    "imageType": {"Original": {}},
    "featureClass": {name: [] for name in ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "shape")},
    "setting": {"binWidth": 25},
}


@dataclass(frozen=True)
class RadiomicsParams:
    """A validated parameter file of pyradiomics. ``text`` is its content as JSON, in the file's own order."""

    text: str

    @property
    def content(self) -> dict[str, Any]:
        """The content as plain dictionaries, with the file's keys: ``imageType``, ``featureClass``, ``setting``."""
        content: dict[str, Any] = json.loads(self.text)
        return content


def read_params(path: str) -> RadiomicsParams:
    """Read a parameter file of pyradiomics; an empty ``path`` stands for its defaults with ``binWidth: 25``.

    Three settings are accepted and have no effect: ``label`` and ``label_channel``, since the case says what its mask
    is, and ``additionalInfo``, since diagnostics are not computed.

    Raises
    ------
    JobError
        When the file is missing, or pyradiomics' schema rejects it (the message names the key), or it asks for local
        binary patterns: pyradiomics 3.0.1 leaves them out in silence without scikit-image and an old SciPy.
    """
    if not path:
        return RadiomicsParams(json.dumps(DEFAULTS))
    if not Path(path).is_file():
        raise JobError(f"radiomics.params: no file at {path}; the project's own are in jobs/params")
    import radiomics
    from pykwalify.core import Core

    logging.getLogger("pykwalify").setLevel(logging.CRITICAL + 1)
    schema, checks = radiomics.getParameterValidationFiles()
    try:
        with quiet():
            content = Core(source_file=path, schema_files=[schema], extensions=[checks]).validate()
    except Exception as error:  # the schema's errors, its added checks' (ValueError, TypeError) and the YAML reader's
        reason = " ".join(str(getattr(error, "msg", None) or error).split())
        raise JobError(f"radiomics.params: {path} is no parameter file of pyradiomics: {reason}") from error
    _check(content, path)
    return RadiomicsParams(json.dumps(content))


def _check(content: dict[str, Any], path: str) -> None:
    """What the schema lets pass and ``execute()`` would trip over in every case."""
    for name in content.get("imageType", {}):
        if name.startswith("LBP"):
            raise JobError(
                f"radiomics.params: {path} asks for imageType.{name}, which pyradiomics 3.0.1 cannot compute"
            )
    spacing = content.get("setting", {}).get("resampledPixelSpacing")
    if spacing is not None and len(spacing) != 3:
        raise JobError(f"radiomics.params: {path} has setting.resampledPixelSpacing {spacing}, expected three numbers")


@contextmanager
def quiet() -> Iterator[None]:
    """Let no warning escape, nor become an exception, which pyradiomics would record as NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def resamples(settings: dict[str, Any]) -> bool:
    """Whether ``execute()`` resamples, by its own test."""
    return settings["interpolator"] is not None and settings["resampledPixelSpacing"] is not None
