"""Radiomic features as the Image Biomarker Standardisation Initiative (IBSI) defines them."""

from prognosis_dask.radiomics.ibsi.measure import measure, names, unit

__all__ = ["measure", "names", "unit"]
