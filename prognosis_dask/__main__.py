"""``python -m prognosis_dask`` is the ``prognosis`` command."""

from prognosis_dask.cli.main import main

if __name__ == "__main__":
    main()
