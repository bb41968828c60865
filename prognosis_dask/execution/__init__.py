"""Cluster, runner, worker set-up and progress: what knows Dask."""
