"""The section `segment` of a job: a network that outlines regions where a cohort has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from prognosis_dask.config.fields import File


@dataclass(frozen=True)
class SegmentSection:
    """A network that outlines the region where a case has no mask; see `cohort.unmasked`."""

    key: ClassVar[str] = "segment"
    enabled: Annotated[bool, "Whether regions are outlined where a case has no mask."] = False
    network: Annotated[
        str,
        File(after="file:"),
        "`file:PATH` of a TorchScript or ONNX file with a TOML file beside it, or an installed program: "
        "`totalsegmentator:TASK`, `nnunet:DATASET`. See docs/networks.md.",
    ] = ""
    regions: Annotated[tuple[str, ...], "Labels of the network that make the region, together; empty: all."] = ()
    weights_sha256: Annotated[str, "SHA-256 that the network's file must have; empty: any."] = ""
    device: Annotated[Literal["cpu", "gpu"], "Where the network runs."] = "cpu"
