"""What the server keeps to: where it writes, how much it takes and for how long, and in which words it refuses more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prognosis_dask.errors import Code, PrognosisError
from prognosis_dask.prediction.result import without_identifiers


@dataclass(frozen=True)
class Limits:
    """What one upload, one browser and the queue may take.

    Attributes
    ----------
    upload_bytes
        Of one upload, as it is sent.
    unpacked_bytes
        Of its archives together, unpacked.
    files
        Of one upload, those in archives among them.
    ratio
        An archive's member that grows by more than this is no image: a bomb.
    voxels
        Of an image file.
    scans_per_browser, queue
        Scans that wait or run.
    case_seconds
        That a step may take.
    keep_upload_seconds
        After which an upload's files are removed.
    """

    upload_bytes: int = 2_000_000_000
    unpacked_bytes: int = 4_000_000_000
    files: int = 5_000
    ratio: int = 200
    voxels: int = 400_000_000
    scans_per_browser: int = 5
    queue: int = 100
    case_seconds: float = 900.0
    keep_upload_seconds: float = 3600.0


@dataclass(frozen=True)
class Settings:
    """Where the server listens and writes. ``token`` is empty only on this machine's own address."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""
    limits: Limits = field(default_factory=Limits)


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
