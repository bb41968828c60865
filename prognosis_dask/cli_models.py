"""The commands on models: fit, validate, predict, compare. No logic, as in :mod:`prognosis_dask.cli`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prognosis_dask.modelling import ModelResult

ClusterArgument = Callable[[argparse.ArgumentParser], None]
Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"

_DATA = "a run's folder, CSV or XLSX tables, or the folder with the specification's tables"


def add_model_commands(commands: Commands, cluster_argument: ClusterArgument) -> None:
    """Add the four commands to the parser's."""
    fit = commands.add_parser("fit", help="compare models of a run's or a table's features, freeze one, report")
    _arguments(fit, cluster_argument, "folder for models/ and report.html (default: the run's)")
    fit.set_defaults(command=_fit)

    compare = commands.add_parser("compare", help="test which procedures differ, on the same folds")
    _arguments(compare, cluster_argument, "folder for the tables")
    compare.add_argument("--procedures", type=_names, default=(), metavar="A,B", help="these only (default: all)")
    compare.set_defaults(command=_compare)

    validate = commands.add_parser("validate", help="a frozen model on another cohort, or procedures on this one")
    _arguments(validate, cluster_argument, "folder for the tables", data="MODEL_OR_TABLE")
    validate.add_argument(
        "--method", choices=["nested", "bootstrap", "permutation"], help="of procedures on this cohort"
    )
    validate.set_defaults(command=_validate)

    predict = commands.add_parser("predict", help="risk or class of the cases of a table or a run, by a frozen model")
    predict.add_argument("model", type=Path, metavar="MODEL_DIR")
    predict.add_argument("data", nargs="+", type=Path, metavar="TABLE_OR_RUN")
    predict.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.csv")
    _spec_arguments(predict)
    predict.set_defaults(command=_predict)


def _arguments(
    parser: argparse.ArgumentParser, cluster_argument: ClusterArgument, out: str, data: str = "TABLE_OR_RUN"
) -> None:
    parser.add_argument("data", nargs="+", type=Path, metavar=data, help=_DATA)
    _spec_arguments(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help=out)
    cluster_argument(parser)


def _spec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spec", type=Path, metavar="FILE.toml", help="columns, endpoint, procedures: see jobs/models/"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the specification")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _fit(arguments: argparse.Namespace) -> None:
    from prognosis_dask.modelling import fit
    from prognosis_dask.runtime.cluster import connect, read_cluster
    from prognosis_dask.statistics.spec import load_spec

    spec = load_spec(arguments.spec, arguments.set)
    with connect(read_cluster(arguments.cluster, tls=arguments.tls)) as client:
        fit(arguments.data, spec, arguments.out, client=client)


def _compare(arguments: argparse.Namespace) -> None:
    from prognosis_dask.modelling import compare
    from prognosis_dask.runtime.cluster import connect, read_cluster
    from prognosis_dask.statistics.spec import load_spec

    spec = load_spec(arguments.spec, arguments.set)
    with connect(read_cluster(arguments.cluster, tls=arguments.tls)) as client:
        found = compare(arguments.data, spec, arguments.out, procedures=arguments.procedures, client=client)
    _print(found)


def _validate(arguments: argparse.Namespace) -> None:
    from prognosis_dask.modelling import is_model, validate
    from prognosis_dask.runtime.cluster import connect, read_cluster
    from prognosis_dask.statistics.spec import load_spec

    method = [f"validation.method={arguments.method}"] if arguments.method else []
    spec = load_spec(arguments.spec, [*arguments.set, *method])
    model, *data = arguments.data
    if not (data and is_model(model)):
        model, data = None, arguments.data
    with connect(read_cluster(arguments.cluster, tls=arguments.tls)) as client:
        found = validate(data, spec, arguments.out, model=model, client=client)
    _print(found)


def _predict(arguments: argparse.Namespace) -> None:
    from prognosis_dask.modelling import predict

    predict(arguments.model, arguments.data, arguments.out, spec=arguments.spec, overrides=arguments.set)
    print(arguments.out)


def _print(found: ModelResult) -> None:
    from prognosis_dask.report.comparison_text import comparison_text

    print(comparison_text(found.tables))
    if found.folder is not None:
        print(found.folder / "models")
