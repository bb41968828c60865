"""The sections `[radiomics]`, `[ibsi]` and `[maps]` of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from prognosis_dask.config.fields import AtLeast, File, Unit, Window


@dataclass(frozen=True)
class RadiomicsSection:
    """Radiomic features, as pyradiomics defines them."""

    enabled: Annotated[bool, "Whether radiomic features are computed."] = True
    params: Annotated[
        str | tuple[str, ...] | dict[str, str | tuple[str, ...]],
        File(),
        "Parameter file of pyradiomics (YAML), or a list of several, or those of each modality in `[radiomics.params]` "
        "(`CT`, `MR`, `PT`, `default`); empty: pyradiomics' defaults with binWidth 25. Features of a list's further "
        "files are called `FILE.` and their name.",
    ] = ""


@dataclass(frozen=True)
class IbsiSection:
    """Radiomic features as the Image Biomarker Standardisation Initiative defines them; see docs/ibsi.md."""

    enabled: Annotated[bool, "Whether IBSI's features are computed."] = False
    spacing_mm: Annotated[
        float, AtLeast(0), Unit("mm"), "Edge of the voxels to which images are resampled; 0: as they are."
    ] = 0.0
    interpolator: Annotated[
        Literal["linear", "spline"], "How images are resampled (`spline`: cubic); masks linearly, from half a voxel on."
    ] = "linear"
    by_slice: Annotated[
        bool, "Whether slices stay as they are and textures are those within them, as `2D` and `2_5D`; else in `3D`."
    ] = False
    intensity_range: Annotated[
        tuple[float, ...], Window(), "Intensities that stay in the region, lowest and highest; empty: all."
    ] = ()
    outlier_sigma: Annotated[
        float, AtLeast(0), "Of these, only those within this number of standard deviations of their mean; 0: all."
    ] = 0.0
    bin_width: Annotated[
        float, AtLeast(0), "Width of grey levels, from the range's lower limit on; 0: `bin_count` levels instead."
    ] = 0.0
    bin_count: Annotated[int, AtLeast(2), "Number of grey levels of each region, where no width is given."] = 32
    ivh_bin_width: Annotated[
        float,
        AtLeast(0),
        "Width of the intensity-volume histogram's levels; 0: 1 for CT, else 1,000 levels.",
    ] = 0.0
    ivh_bin_count: Annotated[int, AtLeast(0), "Number of its levels instead; 0: by `ivh_bin_width`."] = 0
    filters: Annotated[
        tuple[str, ...],
        "Filters whose response maps are described by statistics as well, such as `log:1.5`; see docs/ibsi.md.",
    ] = ()


@dataclass(frozen=True)
class MapsSection:
    """Feature maps: pyradiomics' features of each voxel's neighbourhood, kept as images."""

    enabled: Annotated[bool, "Whether maps are written, to `maps/` of the run."] = False
    params: Annotated[
        str,
        File(),
        "Parameter file of pyradiomics with the features to map, and its `voxelSetting`; empty: pyradiomics' defaults, "
        "which take minutes a case.",
    ] = ""
    radius: Annotated[
        int, AtLeast(0), Unit("voxels"), "Radius of the neighbourhood; 0: the file's `kernelRadius`, by default 1."
    ] = 0
