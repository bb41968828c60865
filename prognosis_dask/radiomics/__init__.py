"""pyradiomics' features of one case: the values of ``execute()`` on the full images, at a fraction of its time."""

from prognosis_dask.radiomics.extraction import extract
from prognosis_dask.radiomics.parameter_file import column_names, job_params, read_params, unit
from prognosis_dask.radiomics.params import ModalityParams, RadiomicsParams

__all__ = ["ModalityParams", "RadiomicsParams", "column_names", "extract", "job_params", "read_params", "unit"]
