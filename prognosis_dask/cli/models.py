"""The commands on models: fit, validate, predict, compare. No logic, as in :mod:`prognosis_dask.cli.main`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prognosis_dask.cli.arguments import Commands, add_command, cluster_argument, local_place, place, repeatable

if TYPE_CHECKING:
    from prognosis_dask.modelling.table_spec import Row, Tables
    from prognosis_dask.workflows.models import ModelResult

_DATA = "a run's folder or address, CSV or XLSX tables, or the folder with the specification's tables"

_SCAN = "tables, a run's folder, or one new scan: its image file, the files of its MR sequences (T1.nii.gz, or \
T1=FILE), or the folder of its DICOM series"


def add_model_commands(commands: Commands) -> None:
    """Add the four commands on models to the parser."""
    fit = add_command(commands, "fit", "compare models on the features of a run or a table, save one, report")
    _arguments(fit, "folder for models/ and report.html (default: the run's)")
    fit.set_defaults(command=_fit)

    compare = add_command(commands, "compare", "test which procedures differ, on the same folds")
    _arguments(compare, "folder for the tables")
    compare.add_argument(
        "--procedures", type=_names, default=(), metavar="A,B", help="compare only these (default: all)"
    )
    compare.set_defaults(command=_compare)

    validate = add_command(commands, "validate", "validate a frozen model on another cohort, or procedures on this one")
    _arguments(
        validate,
        "folder for the tables",
        "MODEL_OR_TABLE",
        f"to validate a frozen model, its folder first; then {_DATA}",
    )
    validate.add_argument(
        "--method", choices=["nested", "bootstrap", "permutation"], help="how to validate procedures on this cohort"
    )
    validate.set_defaults(command=_validate)

    predict = add_command(
        commands, "predict", "predict risk or class of the cases of a table or a run by a frozen model"
    )
    predict.add_argument(
        "model", type=place, metavar="MODEL_DIR", help="folder or address of a run or of fit, with its frozen model"
    )
    predict.add_argument("data", nargs="+", type=place, metavar="TABLE_RUN_OR_SCAN", help=_SCAN)
    predict.add_argument("-o", "--out", required=True, type=local_place, help="a CSV file; for one new scan a folder")
    predict.add_argument(
        "--mask", default="", metavar="FILE", help="for one new scan: the file with the tumour's outline"
    )
    predict.add_argument(
        "--roi",
        default="",
        metavar="NAME",
        help="for one new scan: the structure to use, if the mask file holds several",
    )
    repeatable(predict, "--clinical", "COLUMN=VALUE", "for one new scan: a clinical input")
    predict.add_argument(
        "--dicom",
        action="store_true",
        help="for one new DICOM scan: also write the mask as SEG and the measurements as SR",
    )
    predict.add_argument(
        "--cohort", action="store_true", help="the folder holds many patients; -o is a folder, and gets predictions.csv"
    )
    predict.add_argument("--table", default="", metavar="TABLE", help="with --cohort: the patients' clinical table")
    _spec_arguments(predict)
    cluster_argument(predict)
    predict.set_defaults(command=_predict)


def _arguments(
    parser: argparse.ArgumentParser,
    out: str,
    data: str = "TABLE_OR_RUN",
    what: str = _DATA,
) -> None:
    parser.add_argument("data", nargs="+", type=place, metavar=data, help=what)
    _spec_arguments(parser)
    parser.add_argument("-o", "--out", type=place, metavar="DIR", help=out)
    cluster_argument(parser)


def _spec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spec", type=Path, metavar="FILE.toml", help="columns, endpoint, procedures: see jobs/models/"
    )
    repeatable(parser, "--set", "KEY=VALUE", "override the specification")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _fit(arguments: argparse.Namespace) -> None:
    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.modelling.spec import load_spec
    from prognosis_dask.workflows.models import fit

    spec = load_spec(arguments.spec, arguments.set)
    workers = connect(read_cluster(arguments.cluster, tls=arguments.tls))
    fit(arguments.data, spec, arguments.out, client=workers)


def _compare(arguments: argparse.Namespace) -> None:
    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.modelling.spec import load_spec
    from prognosis_dask.workflows.models import compare

    spec = load_spec(arguments.spec, arguments.set)
    workers = connect(read_cluster(arguments.cluster, tls=arguments.tls))
    _print(compare(arguments.data, spec, arguments.out, procedures=arguments.procedures, client=workers))


def _validate(arguments: argparse.Namespace) -> None:
    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.modelling.saved import is_model
    from prognosis_dask.modelling.spec import load_spec
    from prognosis_dask.storage.place import local_copy
    from prognosis_dask.workflows.models import validate

    method = [f"validation.method={arguments.method}"] if arguments.method else []
    spec = load_spec(arguments.spec, [*arguments.set, *method])
    data = list(map(local_copy, arguments.data))
    model = data.pop(0) if len(data) > 1 and is_model(data[0]) else None
    workers = connect(read_cluster(arguments.cluster, tls=arguments.tls))
    _print(validate(data, spec, arguments.out, model=model, client=workers))


def _predict(arguments: argparse.Namespace) -> None:
    from prognosis_dask.cohort.sequences import is_scan

    if arguments.cohort:
        _predict_cohort(arguments)
        return
    if is_scan(arguments.data[0]):
        _predict_scan(arguments)
        return
    from prognosis_dask.errors import JobError
    from prognosis_dask.workflows.models import predict

    unused = [f"--{name}" for name in ("mask", "roi", "clinical", "dicom") if getattr(arguments, name)]
    first = Path(arguments.data[0])
    held = ("run.json", "features.zarr", "zarr.json")
    if first.is_dir() and not arguments.spec and not any((first / name).exists() for name in held):
        raise JobError(
            f"{first} holds tables, but no run: --cohort predicts the patients whose images lie in it; of a table give "
            "its file"
        )
    if unused:
        raise JobError(f"{arguments.data[0]} is taken for a table or a run; {unused[0]} is for one new scan: omit it")
    if arguments.table:
        raise JobError("--table is for --cohort: give both, or omit it")

    predict(arguments.model, arguments.data, arguments.out, spec=arguments.spec, overrides=arguments.set)
    print(arguments.out)


def _predict_cohort(arguments: argparse.Namespace) -> None:
    from prognosis_dask.errors import JobError
    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.prediction.scan import predict_cohort

    unused = [f"--{name}" for name in ("mask", "roi", "clinical", "dicom", "spec", "set") if getattr(arguments, name)]
    arguments.resumable = True
    if unused or len(arguments.data) > 1:
        raise JobError(f"--cohort takes one folder, {'and no ' + unused[0] if unused else 'which holds all patients'}")
    workers = connect(read_cluster(arguments.cluster, tls=arguments.tls))
    predict_cohort(arguments.model, arguments.data[0], arguments.out, clinical=arguments.table, client=workers)
    print(arguments.out / "predictions.csv")


def _predict_scan(arguments: argparse.Namespace) -> None:
    from prognosis_dask.errors import JobError
    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.prediction.scan import predict_scan

    if arguments.set or arguments.spec:
        raise JobError(
            "a scan is prepared and predicted exactly like the model's own cases: --set and --spec are for tables; "
            "omit them, or run the job again with other settings"
        )
    files = [str(path) for path in arguments.data]
    named = dict(file.split("=", 1) for file in files) if all("=" in file for file in files) else files
    clinical = dict(text.partition("=")[::2] for text in arguments.clinical)
    client = None if arguments.cluster == "local" else connect(read_cluster(arguments.cluster, tls=arguments.tls))
    predict_scan(
        arguments.model,
        named,
        arguments.out,
        mask=arguments.mask,
        roi=arguments.roi,
        clinical=clinical,
        dicom=arguments.dicom,
        client=client,
    )
    print(arguments.out / "scan.html")


def _print(found: ModelResult) -> None:
    print(comparison_text(found.tables))
    if found.folder is not None:
        print(f"{found.folder}/models")


#: What is printed of each procedure, where it was measured; the tables hold more.
_SHOWN = ("harrell_c", "uno_c", "ibs", "calibration_slope", "auc", "balanced_accuracy")
#: The measure whose differences are printed.
_TESTED = ("harrell_c", "auc")


def comparison_text(tables: Tables) -> str:
    """Held-out figures with intervals, in-sample ones beside them, differences with their p-values."""
    parts = [_measures(tables.get("measures", ())), _differences(tables.get("differences", ()))]
    parts += [_plain(rows) for name, rows in tables.items() if name in ("bootstrap", "permutation")]
    return "\n\n".join(part for part in parts if part)


def _measures(rows: Sequence[Row]) -> str:
    lines = [("procedure", "measure", "held out (95 % interval)", "in sample")]
    for row in rows:
        if row["in_sample"] or row["measure"] not in _SHOWN:
            continue
        same = ("procedure", "measure", "horizon_days")
        flattering = next((r for r in rows if r["in_sample"] and all(_equal(r[key], row[key]) for key in same)), None)
        days = row["horizon_days"]
        name = row["measure"] + (f" at {days:g} days" if isinstance(days, int | float) and math.isfinite(days) else "")
        held_out = f"{_number(row['value'])} ({_number(row['lower'])} to {_number(row['upper'])})"
        lines.append((row["procedure"], name, held_out, _number(flattering["value"]) if flattering else ""))
    return _aligned(lines) if len(lines) > 1 else ""


def _differences(rows: Sequence[Row]) -> str:
    lines = [("a", "b", "measure", "a - b (95 % interval)", "p", "p, Wilcoxon")]
    for row in rows:
        if row["measure"] in _TESTED:
            difference = f"{row['difference']:+.3f} ({row['lower']:+.3f} to {row['upper']:+.3f})"
            tests = (_number(row["p"]), _number(row["p_wilcoxon"]))
            lines.append((row["a"], row["b"], row["measure"], difference, *tests))
    return _aligned(lines) if len(lines) > 1 else ""


def _plain(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    body = [tuple(v if isinstance(v, str) else _number(v) for v in row.values()) for row in rows]
    return _aligned([tuple(rows[0]), *body])


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else "-"


def _equal(first: Any, second: Any) -> bool:
    return bool(first == second or (first != first and second != second))
