"""The ``prognosis`` command. No logic: each command parses its arguments and calls the same function as a notebook.

Heavy modules are imported by the command that needs them, so that ``prognosis --help`` is fast.
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from prognosis_dask import __version__
from prognosis_dask.cli.arguments import (
    EXIT_ERROR,
    Commands,
    add_command,
    add_completion,
    cluster_argument,
    out_argument,
    place,
    repeatable,
)
from prognosis_dask.cli.cohort import add_cohort_commands
from prognosis_dask.cli.models import add_model_commands
from prognosis_dask.errors import JobError, PrognosisError, system_reason

EXIT_STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 2 for an error that the user can correct, with 130 after Ctrl-C."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser().parse_args(words or ["--help"])
    sys.unraisablehook = keep_interrupt
    try:
        parsed.command(parsed)
    except PrognosisError as error:
        print(f"prognosis: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:  # a full or missing disk when final files are written
        kept = "Finished work is kept; correct this and run the same command again"
        print(f"prognosis: {system_reason(error)}. {kept}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        kept = " Finished work is kept; run the same command again to resume." if parsed.resumable else ""
        print(f"\nprognosis: stopped.{kept}", file=sys.stderr)
        sys.stderr.flush()
        _leave(EXIT_STOPPED)
    finally:
        atexit.register(_end_zarr)  # the last function registered runs first


def _end_zarr() -> None:
    """Wait for zarr's thread: at exit zarr waits 0.2 s only, and on a busy machine prints a traceback."""
    zarr = sys.modules.get("zarr.core.sync")
    if zarr and zarr.loop[0] and zarr.iothread[0]:
        zarr.loop[0].call_soon_threadsafe(zarr.loop[0].stop)
        zarr.iothread[0].join(10.0)


def _leave(status: int) -> NoReturn:
    """Exit now: threads of the cluster may still wait for a worker in the middle of a case; nothing is lost."""
    started_here = sys.modules.get("prognosis_dask.execution.clusters.started")
    with suppress(Exception):
        if started_here:
            started_here.end_workers()
    os._exit(status)


def keep_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
    """Repeat Ctrl-C that Python would drop in a destructor; each finished task runs one."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prognosis",
        description="Cohort-scale imaging prognosis on Dask.",
        epilog="To begin: prognosis init FOLDER (your images); without images: prognosis synth cohort",
    )
    parser.add_argument("--version", action="version", version=f"prognosis {__version__}")
    parser.set_defaults(resumable=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_cohort_commands(commands)
    _add_run(commands)
    add_model_commands(commands)
    _add_weights(commands)
    _add_serve(commands)
    _add_bench(commands)
    _add_reproducibility(commands)
    _add_robustness(commands)
    add_completion(commands, parser)
    return parser


def _add_run(commands: Commands) -> None:
    run = add_command(commands, "run", "run a job up to its report; repeat the command to resume")
    run.add_argument("job", type=Path, metavar="JOB.toml", help="job file; jobs/ holds those of the project")
    out_argument(run, "the run's folder, or s3://BUCKET/PREFIX, gs://... (default: runs/<job name>)", type=place)
    repeatable(run, "--set", "SECTION.KEY=VALUE", "override the job file")
    run.add_argument(
        "--cache", default="", metavar="DIR", help="folder on each worker that caches what is read from buckets"
    )
    run.add_argument("--cache-size", type=_gigabytes, metavar="50GB", help="size of the cache, at most (default: 50GB)")
    cluster_argument(run)
    run.add_argument("--performance-report", type=Path, metavar="FILE", help="write Dask's report of the run (HTML)")
    run.set_defaults(command=_run, resumable=True)

    status = add_command(commands, "status", "show done, failed and waiting cases per stage, also during a run")
    status.add_argument("folder", type=place, metavar="DIR", help="a run's folder or address")
    status.add_argument("--watch", action="store_true", help="redraw every two seconds until the run has ended")
    status.set_defaults(command=_status)

    report = add_command(commands, "report", "rewrite DIR/report.html and DIR/figures/ of a run or of models")
    report.add_argument(
        "folder", type=place, metavar="DIR", help="folder or address of a run, or of fit, compare or validate"
    )
    report.add_argument("--identifiers", action="store_true", help="show patients' IDs and whole paths")
    report.set_defaults(command=_report)


def _add_weights(commands: Commands) -> None:
    weights = add_command(commands, "weights", "convert or check a network's weight files")
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    convert = actions.add_parser("convert", help="write a GluonCV .params file as .safetensors")
    convert.add_argument("source", type=Path, metavar="IN.params")
    convert.add_argument("target", type=Path, metavar="OUT.safetensors")
    convert.add_argument("--network", default="i3d_inceptionv1_kinetics400", metavar="NAME")
    convert.set_defaults(command=_convert)
    keras = actions.add_parser("keras", help="convert the brain study's network from Keras; predict a run's brains")
    keras.add_argument("source", type=Path, metavar="IN.h5")
    keras.add_argument("target", type=Path, metavar="OUT.safetensors")
    keras.add_argument(
        "--axes", default="", help="axes of its input: z slices, y rows, x columns (default: yxz or zyx)"
    )
    keras.add_argument(
        "--shape", type=_shape, metavar="A,B,C", help="lengths of these axes, if the file holds only weights"
    )
    keras.add_argument(
        "--run", type=place, metavar="DIR", help="write the probability for each prepared brain of this run: OUT.csv"
    )
    keras.set_defaults(command=_keras)
    check = actions.add_parser(
        "check", help="check whether a file holds a network's weights: by hashes and a known example"
    )
    check.add_argument("network", metavar="NETWORK", help="as in deep.network; `file` for a network's own file")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument(
        "--example",
        nargs=2,
        type=Path,
        default=(None, None),
        metavar=("INPUT", "VALUES"),
        help="frames or a cube (.npy, or a video of the frames), and a text file with the expected values",
    )
    check.add_argument("--hold", type=int, default=1, metavar="N", help="a video shows each frame N times (default: 1)")
    check.set_defaults(command=_check)


def _add_serve(commands: Commands) -> None:
    serve = add_command(commands, "serve", "web pages to upload one scan and predict it by frozen models")
    repeatable(
        serve,
        "--model",
        "DIR",
        "folder or address of a run or of fit, with its frozen model",
        required=True,
        type=place,
    )
    cluster_argument(serve)
    serve.add_argument("--port", type=_port, default=8080, help="port to listen on; 0: any free one (default: 8080)")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but the default needs a token (default: 127.0.0.1)",
    )
    serve.add_argument(
        "--token", default="", help="token that visitors need (default: none on 127.0.0.1, else a new one)"
    )
    out_argument(serve, "folder for uploads and results (default: runs/serve)", default=Path("runs/serve"))
    serve.set_defaults(command=_serve, resumable=True)


def _add_bench(commands: Commands) -> None:
    bench = add_command(commands, "bench", "measure patients per minute, images to features, on this machine")
    bench.add_argument("source", type=Path, metavar="JOB_OR_DIR", help="a job file, or a folder of downloads")
    bench.add_argument(
        "--virtual", type=int, default=0, metavar="N", help="repeat the cases, under other names, up to N"
    )
    bench.add_argument(
        "--workers", type=_numbers, default=(1, 2), metavar="N,N", help="numbers of workers to try (default: 1,2)"
    )
    bench.add_argument(
        "--cases-per-task",
        type=_numbers,
        default=(0,),
        metavar="N,N",
        help="numbers to try; 0: chosen by the runner (default: 0)",
    )
    out_argument(bench, "folder for the table, the plot and the runs (default: runs/bench)", default=Path("runs/bench"))
    repeatable(bench, "--set", "SECTION.KEY=VALUE", "override the job")
    bench.set_defaults(command=_bench)


def _add_reproducibility(commands: Commands) -> None:
    agree = add_command(
        commands, "reproducibility", "which features agree between two measurements of the same patients"
    )
    agree.add_argument(
        "first",
        type=place,
        metavar="RUN_OR_TABLE",
        help="two measurements; one alone: compares the two series of each patient",
    )
    agree.add_argument("second", nargs="?", type=place, metavar="RUN_OR_TABLE")
    out_argument(agree, "folder for the tables and the violin plot", type=place)
    agree.add_argument(
        "--threshold", type=float, default=0.85, help="concordance from which a feature is reproducible (default: 0.85)"
    )
    agree.add_argument(
        "--modalities",
        type=_names,
        default=(),
        metavar="A,B",
        help="compare the cases of modality A with those of B, as in CT,MR",
    )
    agree.add_argument(
        "--columns",
        type=_id_columns,
        metavar="PART=NAME,...",
        help="columns of a table that hold patient, case, run, roi, modality",
    )
    agree.add_argument(
        "--pooled", action="store_true", help="analyse all regions of interest together, by a mixed model"
    )
    agree.set_defaults(command=_reproducibility)


def _add_robustness(commands: Commands) -> None:
    robust = add_command(commands, "robustness", "which features of a run survive small changes of image and mask")
    robust.add_argument("run", type=place, metavar="RUN", help="a finished run's folder or address, with its rois.zarr")
    out_argument(robust, "folder for the tables (default: RUN/robustness)", type=place)
    robust.add_argument("--repeats", type=int, default=10, metavar="N", help="perturbations of each case (default: 10)")
    robust.add_argument(
        "--threshold", type=float, default=0.9, help="ICC(1,1) from which a feature is robust (default: 0.9)"
    )
    for name, default, what in (
        ("degrees", 10.0, "largest rotation within the slices, in degrees"),
        ("voxels", 0.5, "largest translation along each axis, in voxels"),
        ("noise", 1.0, "noise added, in standard deviations of the image's own"),
        ("volume", 0.2, "largest gain or loss of volume, as a share"),
    ):
        robust.add_argument(f"--{name}", type=float, default=default, help=f"{what} (default: {default:g})")
    robust.add_argument("--no-contour", action="store_true", help="do not redraw contours along supervoxels")
    robust.add_argument("--seed", type=int, default=0, help="seed of the random perturbations (default: 0)")
    cluster_argument(robust)
    robust.set_defaults(command=_robustness)


def _run(arguments: argparse.Namespace) -> None:
    from prognosis_dask.config.job import load_job

    cache = [f"run.cache={arguments.cache}"] if arguments.cache else []
    size = [f"run.cache_gb={arguments.cache_size}"] if arguments.cache_size else []
    job = load_job(arguments.job, [*arguments.set, *cache, *size])

    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.workflows.run import run

    workers = connect(read_cluster(arguments.cluster, tls=arguments.tls))
    result = run(job, client=workers, out=arguments.out, performance_report=arguments.performance_report)
    print(result.report)


def _status(arguments: argparse.Namespace) -> None:
    from prognosis_dask.report.status import status, watch

    if arguments.watch:
        watch(arguments.folder)
    else:
        print(status(arguments.folder))


def _report(arguments: argparse.Namespace) -> None:
    from prognosis_dask.report.page import rewrite_report

    print(rewrite_report(arguments.folder, identifiers=arguments.identifiers))


def _convert(arguments: argparse.Namespace) -> None:
    from prognosis_dask.networks.catalogue import find_network
    from prognosis_dask.networks.weights import convert_weights

    converted = convert_weights(arguments.source, arguments.target, find_network(arguments.network, key=""))
    print(f"{converted.source_sha256}  {arguments.source}\n{converted.sha256}  {arguments.target}")


def _keras(arguments: argparse.Namespace) -> None:
    from prognosis_dask.workflows.grade import import_network

    imported = import_network(
        arguments.source, arguments.target, axes=arguments.axes, shape=arguments.shape, run=arguments.run
    )
    print(f"{imported.sha256}  {arguments.target}")
    if arguments.run:
        print(arguments.target.with_suffix(".csv"))


def _check(arguments: argparse.Namespace) -> None:
    from prognosis_dask.networks.engine import check_weights

    example, expected = arguments.example
    found = check_weights(arguments.network, arguments.file, example=example, expected=expected, hold=arguments.hold)
    print("\n".join(found.lines))
    if not found.agrees:
        sys.exit(EXIT_ERROR)


def _reproducibility(arguments: argparse.Namespace) -> None:
    from prognosis_dask.workflows.reproducibility import reproducibility

    found = reproducibility(
        arguments.first,
        arguments.second,
        arguments.out,
        threshold=arguments.threshold,
        modalities=arguments.modalities,
        columns=arguments.columns,
        pooled=arguments.pooled,
    )
    print(found)


def _robustness(arguments: argparse.Namespace) -> None:
    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.radiomics.perturbation import Extent
    from prognosis_dask.workflows.robustness import robustness

    for name in ("degrees", "voxels", "noise", "volume"):
        if not 0 <= getattr(arguments, name) < (1 if name == "volume" else 180):
            raise JobError(f"--{name} {getattr(arguments, name):g}, expected zero or more, of the volume below one")
    extent = Extent(
        arguments.degrees, arguments.voxels, arguments.noise, arguments.volume, contour=not arguments.no_contour
    )
    found = robustness(
        arguments.run,
        arguments.out,
        extent=extent,
        repeats=arguments.repeats,
        threshold=arguments.threshold,
        seed=arguments.seed,
        client=connect(read_cluster(arguments.cluster, tls=arguments.tls)),
    )
    print(found)


def _id_columns(text: str) -> Any:
    from dataclasses import fields

    from prognosis_dask.modelling.data.pairing import IdColumns

    named = dict(part.partition("=")[::2] for part in text.split(","))
    known = [one.name for one in fields(IdColumns)]
    if not set(named) <= set(known) or not all(named.values()):
        raise argparse.ArgumentTypeError(f"{text!r}, expected {'=NAME, '.join(known)}=NAME, or some of them")
    return IdColumns(**named)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    if not all(number.strip().isdecimal() for number in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}, expected whole numbers such as 1,2,4")
    return tuple(int(number) for number in text.split(","))


def _gigabytes(text: str) -> float:
    number, unit = text.upper().rstrip("B")[:-1], text.upper().rstrip("B")[-1:]
    if unit not in ("M", "G", "T") or not number.strip().replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}, expected a size such as 50GB or 500MB")
    return float(number) * {"M": 0.001, "G": 1.0, "T": 1000.0}[unit]


def _shape(text: str) -> tuple[int, int, int]:
    lengths = [int(part) for part in text.split(",") if part.isdecimal()]
    if len(lengths) != 3 or text.count(",") != 2:
        raise argparse.ArgumentTypeError(f"{text!r}, expected three lengths such as 64,64,20")
    return lengths[0], lengths[1], lengths[2]


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 0 to 65535")
    return int(text)


def _serve(arguments: argparse.Namespace) -> None:
    from prognosis_dask.execution.cluster import connect, read_cluster
    from prognosis_dask.web.settings import Settings
    from prognosis_dask.web.start import serve

    settings = Settings(arguments.out, arguments.host, arguments.port, arguments.token)
    serve(arguments.model, connect(read_cluster(arguments.cluster, tls=arguments.tls)), settings)


def _bench(arguments: argparse.Namespace) -> None:
    from prognosis_dask.workflows.bench import bench_job, sweep, write_tables

    job = bench_job(arguments.source, arguments.out, arguments.set)
    index_seconds, runs = sweep(
        job,
        arguments.out,
        virtual=arguments.virtual,
        workers=arguments.workers,
        cases_per_task=arguments.cases_per_task,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(write_tables(runs, index_seconds, arguments.out))
