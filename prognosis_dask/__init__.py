"""Cohort-scale imaging prognosis on Dask."""

__version__ = "0.1.0"
