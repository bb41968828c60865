"""The page ``docs/configuration.md``, made from the fields of jobs, model specifications and cluster files."""

from __future__ import annotations

from prognosis_dask.config.job import Job
from prognosis_dask.config.page import key_tables
from prognosis_dask.execution.clusters.spec import SPECS, Encryption
from prognosis_dask.modelling.spec import ModelSpec

_HEAD = """# Configuration

<!-- made from the fields of config/job.py, modelling/spec.py and execution/clusters/spec.py in prognosis_dask/:
python -m prognosis_dask.cli.configuration > docs/configuration.md -->

Jobs, model specifications and cluster files are TOML. `--set section.key=value` overrides a key of a job or of a
specification; the value is in TOML's notation, or plain text. A relative path is taken from the folder of the file that
names it, in `--set` from the current folder. A mistake ends the command with one line: the key, what was seen, what was
expected, and the nearest key for a typo. A key of a job that has no effect with the other keys, such as
`deep.batch_size` on a CPU, is named in a warning when the run starts.
"""


def documentation() -> str:
    """The page as a whole."""
    parts = [
        _HEAD,
        "## Job\n\n`prognosis run JOB.toml`; examples are in `jobs/`.\n",
        key_tables(Job, "Keys without a section"),
        "## Model specification\n\n`prognosis fit TABLE --spec FILE.toml`; examples are in `jobs/models/`; what a "
        "procedure does is explained in [procedures](procedures.md).\n",
        key_tables(ModelSpec, "Keys without a section"),
        "## Cluster file\n\n`--cluster FILE.toml`; examples are in `cluster/`. `kind` decides which keys there are.\n",
        *(key_tables(spec, f'`kind = "{kind}"`', without="tls") for kind, spec in SPECS.items()),
        key_tables(Encryption, "`[tls]`, of every kind but kubernetes"),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(documentation(), end="")
