"""pyradiomics' features of one case: the values of ``execute()`` on the full images, at a fraction of its time."""

from prognosis_dask.radiomics.columns import column_names, unit
from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.params import RadiomicsParams, read_params

__all__ = ["RadiomicsParams", "column_names", "extract", "read_params", "unit"]
