"""The kinds of cluster: each a context manager of its kind's name, from its definition to a Dask client."""
