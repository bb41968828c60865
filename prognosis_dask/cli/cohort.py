"""The commands on images and tables of cases: init, index, features, maps, synth. No logic, as in the others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prognosis_dask.cli.arguments import EXIT_ERROR, Commands, add_command, cluster_argument, out_argument, repeatable
from prognosis_dask.errors import JobError, Problem, collected_warnings, count


def add_cohort_commands(commands: Commands) -> None:
    """Add the commands to the parser."""
    _add_init(commands)
    _add_index(commands)
    _add_features(commands)
    _add_maps(commands)
    _add_synth(commands)


def _add_init(commands: Commands) -> None:
    init = add_command(commands, "init", "look at a folder and write a job with what was found, to edit and run")
    init.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="folder of images, or idc:COLLECTION")
    out_argument(init, "where the job and its params/ go (default: the current folder)", default=Path())
    init.set_defaults(command=_init)


def _add_index(commands: Commands) -> None:
    index = add_command(commands, "index", "crawl folders of images and masks into a table of cases")
    index.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="folder of downloads, pyradiomics CSV, s3://BUCKET/PREFIX, gs://..., idc:COLLECTION[/PATIENT], manifest",
    )  # fmt: skip
    out_argument(index, "where cases.csv and problems.csv go; required unless --dry-run is given")
    index.add_argument("--collection", default="generic", help="preset of ROI names and clinical columns")
    index.add_argument("--clinical", default="", metavar="TABLE", help="CSV or XLSX with a row per patient")
    index.add_argument(
        "--id-column", default="", metavar="NAME", help="column of the clinical table with the patients' IDs"
    )
    index.add_argument("--time-column", default="", metavar="NAME", help="column with the survival time")
    index.add_argument("--event-column", default="", metavar="NAME", help="column with the event")
    index.add_argument(
        "--event-codes",
        type=_codes,
        default={},
        metavar="VALUE=1,VALUE=0",
        help="which values of the event column mean an event (1) or censored (0)",
    )
    index.add_argument("--time-unit", default="", choices=["days", "weeks", "months", "years"], help="unit of time")
    repeatable(index, "--roi", "NAME", "ROI name, or re:REGEX")
    index.add_argument(
        "--roi-policy", default="", choices=["first", "merge", "each"], help="what to do when several ROIs match"
    )
    index.add_argument(
        "--licence", default="", choices=["commercial"], help="IDC only: leave out what excludes commercial use"
    )
    index.add_argument("--limit", type=int, default=0, metavar="N", help="IDC only: at most N patients")
    index.add_argument("--dry-run", action="store_true", help="IDC only: print what would be indexed; read nothing")
    repeatable(index, "--set", "cohort.KEY=VALUE", "override a setting, as in a job; also idc.KEY")
    cluster_argument(index)
    index.set_defaults(command=_index)


def _add_features(commands: Commands) -> None:
    features = add_command(commands, "features", "radiomics of one image and its mask, without a job")
    features.add_argument(
        "image", type=Path, metavar="IMAGE", help="image file, folder of a DICOM series, or pyradiomics CSV"
    )
    features.add_argument(
        "mask",
        nargs="?",
        default="",
        metavar="MASK",
        help="label map, RTSTRUCT or SEG; not needed if the image's folder holds it",
    )
    features.add_argument("--params", default="", metavar="FILE.yaml", help="parameter file of pyradiomics")
    repeatable(features, "--label", "N", "label in the label map", type=int)
    repeatable(features, "--roi", "NAME", "ROI name, or re:REGEX")
    features.add_argument("--diagnostics", action="store_true", help="add pyradiomics' diagnostics_* columns")
    repeatable(features, "--set", "image.KEY=VALUE", "override a setting, as in a job")
    features.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write to this .csv or .json file (default: CSV on the terminal)"
    )
    features.add_argument(
        "--format", default="", choices=["csv", "json"], help="output format, whatever the file is called"
    )
    features.set_defaults(command=_features)


def _add_maps(commands: Commands) -> None:
    maps = add_command(commands, "maps", "radiomics of each voxel's neighbourhood, as images on the scan's grid")
    maps.add_argument("table", type=Path, metavar="CASES.csv", help="written by `prognosis index`")
    out_argument(maps, "a folder of maps for each case", required=True)
    maps.add_argument(
        "--params", default="", metavar="FILE.yaml", help="parameter file of pyradiomics, with voxelSetting"
    )
    repeatable(maps, "--case", "ID", "only this case")
    maps.add_argument(
        "--radius", type=int, metavar="N", help="radius of the neighbourhood in voxels (default: the file's, else 1)"
    )
    maps.add_argument("--zarr", action="store_true", help="write a zarr group for each case instead of NRRD files")
    maps.set_defaults(command=_maps)


def _add_synth(commands: Commands) -> None:
    synth = add_command(commands, "synth", "write a synthetic cohort: images, masks and a clinical table")
    synth.add_argument("folder", type=Path, metavar="DIR", help="target folder: new or empty")
    synth.add_argument("--patients", type=int, default=60, metavar="N", help="number of patients (default: 60)")
    synth.add_argument("--seed", type=int, default=0, help="a different cohort for each seed (default: 0)")
    synth.add_argument("--study", default="chest", choices=["chest", "brain"], help="kind of cohort (default: chest)")
    synth.add_argument(
        "--signal",
        type=float,
        default=1.0,
        help="how strongly images and outcome are related; 0: not at all (default: 1)",
    )
    synth.add_argument("--no-bad-cases", action="store_true", help="omit the damaged patients")
    synth.add_argument(
        "--matrix",
        type=int,
        default=256,
        metavar="N",
        help="brain only: voxels per row of a slice; 64 is fast (default: 256)",
    )
    synth.set_defaults(command=_synth)


def _init(arguments: argparse.Namespace) -> None:
    from prognosis_dask.workflows.init import init_job

    job = init_job(arguments.folder, arguments.out)
    print(job.read_text(encoding="utf-8"))
    print(f"{job}\nprognosis run {job}")


def _index(arguments: argparse.Namespace) -> None:
    from prognosis_dask.cohort.case import read_problems
    from prognosis_dask.cohort.clinical import clinical_table
    from prognosis_dask.cohort.collections import resolve
    from prognosis_dask.cohort.index import index_cohort
    from prognosis_dask.cohort.sources import expect_source, names_series, sort_sources
    from prognosis_dask.cohort.summary import expect_cases
    from prognosis_dask.config.job import IdcSection, index_sections
    from prognosis_dask.execution.cluster import connect, map_on, read_cluster
    from prognosis_dask.publish import expect_writable

    named = ("collection", "clinical", "roi", "roi_policy", *(f"{name}_column" for name in ("id", "time", "event")))
    given = {name: getattr(arguments, name) for name in (*named, "event_codes", "time_unit")}
    idc = {name: value for name in ("licence", "limit") if (value := getattr(arguments, name))}
    rules, wanted = index_sections({"cohort": given, "idc": idc}, arguments.set)
    resolved = resolve(rules)
    for source in arguments.sources:
        expect_source(source, "SOURCE")
    if (arguments.dry_run or wanted != IdcSection()) and not any(map(names_series, arguments.sources)):
        raise JobError(
            "--dry-run, --limit, --licence and idc.KEY choose among series of the Imaging Data Commons, and no SOURCE "
            "is of these (idc:COLLECTION, or a manifest): omit them"
        )
    if arguments.dry_run:
        print(
            sort_sources(
                arguments.sources, wanted, resolved.modalities, automatic=resolved.automatic or resolved.unmasked
            ).idc
        )
        return
    if arguments.out is None:
        raise JobError("-o is missing: name the folder in which cases.csv and problems.csv are to be written")
    clinical_table(rules, resolved.collection)
    expect_writable(arguments.out)
    with connect(read_cluster(arguments.cluster, tls=arguments.tls)) as client:
        found = index_cohort(arguments.sources, arguments.out, rules, map=map_on(client), idc=wanted)
    problems = arguments.out / "problems.csv"
    print(f"{found}\n{arguments.out / 'cases.csv'}\n{problems}")
    if not found.cases:
        expect_cases((), read_problems(problems), ", ".join(arguments.sources), arguments.out)


def _codes(text: str) -> dict[str, int]:
    codes = dict(part.rpartition("=")[::2] for part in text.split(","))
    if not all(value.strip() and code in ("0", "1") for value, code in codes.items()):
        raise argparse.ArgumentTypeError(f"{text!r}, expected what each value means, 1 or 0: dead=1,alive=0")
    return {value.strip(): int(code) for value, code in codes.items()}


def _features(arguments: argparse.Namespace) -> None:
    from prognosis_dask.config.job import image_section
    from prognosis_dask.prediction.extract import PROBLEM, extract_features, write_features
    from prognosis_dask.publish import expect_writable

    settings = image_section(arguments.set)
    if arguments.out and not arguments.format and arguments.out.suffix.lower() not in (".csv", ".json"):
        raise JobError(
            f"-o {arguments.out}: expected a name that ends in .csv or .json, or --format to say which it is"
        )
    expect_writable(arguments.out and arguments.out.parent)
    with _printed_warnings():
        rows = extract_features(
            arguments.image,
            arguments.mask,
            params=arguments.params,
            label=arguments.label,
            roi=arguments.roi,
            settings=settings,
            diagnostics=arguments.diagnostics,
        )
    print(write_features(rows, arguments.out, arguments.format) or arguments.out, end="\n" if arguments.out else "")
    failed = rows[rows[PROBLEM].notna()] if PROBLEM in rows else rows[:0]
    for row in failed.to_dict("records"):
        print(f"prognosis: {row['mask'] or row['image']}: {row[PROBLEM]}", file=sys.stderr)
    if len(failed):
        sys.exit(EXIT_ERROR)


@contextmanager
def _printed_warnings() -> Iterator[None]:
    """Print what is warned of inside, also where it ends in an error."""
    found: list[Problem] = []
    try:
        with collected_warnings() as found:
            yield
    finally:
        for warning in found:
            print(f"prognosis: warning: {warning.code}: {warning.reason}", file=sys.stderr)


def _maps(arguments: argparse.Namespace) -> None:
    from prognosis_dask.errors import CaseError
    from prognosis_dask.radiomics.maps import write_maps
    from prognosis_dask.radiomics.parameter_file import read_params

    if arguments.radius is not None and arguments.radius < 1:
        raise JobError(f"--radius {arguments.radius}, expected 1 voxel or more")
    written = write_maps(
        arguments.table,
        arguments.out,
        read_params(arguments.params),
        cases=arguments.case,
        radius=arguments.radius,
        zarr=arguments.zarr,
    )
    failed = False
    for case_id, found in written:
        failed |= isinstance(found, CaseError)
        print(f"{case_id}: {found}", file=sys.stderr if isinstance(found, CaseError) else sys.stdout, flush=True)
    if failed:
        sys.exit(EXIT_ERROR)


def _synth(arguments: argparse.Namespace) -> None:
    from prognosis_dask.config.job import SynthSection
    from prognosis_dask.synthetic import make_cohort

    settings = SynthSection(
        arguments.patients,
        arguments.seed,
        arguments.signal,
        not arguments.no_bad_cases,
        arguments.study,
        arguments.matrix,
    )
    cohort = make_cohort(arguments.folder, settings)
    damaged = f" and {cohort.bad_patients} damaged" if cohort.bad_patients else ""
    print(f"{count(cohort.patients, 'patient')}{damaged}, {count(cohort.files, 'file')} in {cohort.images}")
    print(cohort.clinical)
