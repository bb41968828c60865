"""The parameters of pyradiomics as plain data: one file's, and those of a job, by modality."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prognosis_dask.errors import JobError

#: The parameters for an empty path: pyradiomics' defaults, written out.
DEFAULTS: dict[str, Any] = {
    "imageType": {"Original": {}},
    "featureClass": {name: [] for name in ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "shape")},
    "setting": {"binWidth": 25},
}
#: The key of a job's parameters for all modalities that are not named.
OTHERS = "default"


@dataclass(frozen=True)
class RadiomicsParams:
    """A validated parameter file of pyradiomics, and further ones that a case is measured with as well.

    Attributes
    ----------
    text
        Its content as JSON, in the file's own order.
    more
        The further files by name; their features are called ``NAME.`` and pyradiomics' name.
    """

    text: str
    more: tuple[tuple[str, RadiomicsParams], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, RadiomicsParams], ...]:
        """The file itself, without a name, and the further ones."""
        return (("", RadiomicsParams(self.text)), *self.more)

    @property
    def identity(self) -> tuple[object, ...]:
        """What values depend on, as JSON holds it: of a single file its content."""
        return (self.content, *([name, params.content] for name, params in self.more))

    @property
    def content(self) -> dict[str, Any]:
        """The content as plain dictionaries, with the file's keys: ``imageType``, ``featureClass``, ``setting``."""
        content: dict[str, Any] = json.loads(self.text)
        return content

    @property
    def settings(self) -> dict[str, Any]:
        """The content's ``setting``; empty if absent."""
        settings: dict[str, Any] = self.content.get("setting", {})
        return settings

    @property
    def planar(self) -> bool:
        """Whether textures are computed within axial planes, so that a mask on one slice has them too."""
        settings = [params.settings for _, params in self.parts]
        return all(one.get("force2D") and one.get("force2Ddimension", 0) == 0 for one in settings)


@dataclass(frozen=True)
class ModalityParams:
    """The parameters of a job: by DICOM modality, and those of :data:`OTHERS` for all that are not named."""

    by_modality: tuple[tuple[str, RadiomicsParams], ...]

    def of(self, modality: str) -> RadiomicsParams:
        """The parameters of a modality's cases.

        Raises
        ------
        JobError
            When the job has none for it; the message lists those it has.
        """
        known = dict(self.by_modality)
        found = known.get(modality) or known.get(OTHERS)
        if found is None:
            raise JobError(
                f"radiomics.params has no parameter file for {modality}, only for {', '.join(known)}; add "
                f'{modality} = "FILE" or {OTHERS} = "FILE" to [radiomics.params], or keep to cohort.modalities = '
                f"{json.dumps(list(known))}"
            )
        return found

    @classmethod
    def alike(cls, params: RadiomicsParams) -> ModalityParams:
        """The same parameters for every modality."""
        return cls(((OTHERS, params),))


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings; as exceptions pyradiomics would record them as NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def resamples(settings: dict[str, Any]) -> bool:
    """Whether ``execute()`` resamples, by the same test."""
    return settings["interpolator"] is not None and settings["resampledPixelSpacing"] is not None
