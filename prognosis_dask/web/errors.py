"""Refusals and failures as sentences for the reader of a page."""

from __future__ import annotations

from collections.abc import Sequence

from prognosis_dask.errors import Code, PrognosisError
from prognosis_dask.prediction.result import without_identifiers


class RefusedError(PrognosisError):
    """The upload cannot be used; ``status`` is that of HTTP's answer where it is refused at once."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


#: Sentences for some problems; the others are shown in their own words.
_SENTENCES = {
    Code.TIME_LIMIT: "The work on this scan took too long and was stopped",
    Code.MEMORY_LIMIT: "This scan needs more memory than a worker has",
    Code.WORKER_LOST: "The program ended while it worked on this scan; the files may be damaged",
    Code.UNEXPECTED: "Unexpected error in these files",
    Code.PATIENT_WITHOUT_MASK: "No outline of a tumour came with the images",
}


def sentence(code: Code, reason: str, secrets: Sequence[str] = ()) -> str:
    """A problem as a sentence without identifiers: no path, no UID, and none of the ``secrets``.

    >>> sentence(Code.SLICE_GAP, "2 slices of 1.2.840.113619.2.5.17 are missing, in /srv/up/Doe", ("Doe",))
    'Slice gap: 2 slices of … are missing, in …'
    """
    if code in _SENTENCES:
        return f"{_SENTENCES[code]} ({code})."
    return f"{code.value.replace('-', ' ').capitalize()}: {without_identifiers(reason, secrets)}"
