"""The kinds of cluster, one file each: from its definition to a Dask client."""
