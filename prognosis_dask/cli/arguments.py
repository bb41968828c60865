"""What several commands share: how a command is added, and the options that several have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Exit status for a mistake that the user can correct.
EXIT_ERROR = 2


def add_command(commands: Commands, name: str, what: str) -> argparse.ArgumentParser:
    """Add a command; ``what`` is its line in the list of commands and heads its own help."""
    return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")


def place(text: str) -> Path | str:
    """A path, or an address of objects as it is: ``Path`` would take one of its slashes."""
    return text if "://" in text else Path(text)


def out_argument(parser: argparse.ArgumentParser, what: str, **more: Any) -> None:
    """Add ``-o``."""
    parser.add_argument("-o", "--out", metavar="DIR", help=what, **{"type": Path, **more})


def cluster_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--cluster`` and ``--tls``."""
    parser.add_argument(
        "--cluster",
        default="local",
        metavar="CLUSTER",
        help="local, cuda, tcp://HOST:PORT, or a cluster file, see cluster/ (default: local)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt with the cluster file's certificates, or a temporary set"
    )
