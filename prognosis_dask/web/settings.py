"""What the server keeps to: where it writes, how much it takes, and for how long it keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


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
