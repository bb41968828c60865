"""Builds the documentation's site: ``python tools/site.py FOLDER``; ends with 1 where a page or link is wrong.

The pages are laid out as in the checkout, so that their links between folders hold on the site too. Notebooks are run,
and become pages with what came out; a cell that fails ends the build. With ``--quick`` they are shown as they are.
"""

from __future__ import annotations

import base64
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from nbclient import NotebookClient

import prognosis_dask
from prognosis_dask.report.content import Picture
from prognosis_dask.report.page import sections
from prognosis_dask.report.read import read_run

ROOT = Path(__file__).parents[1]
#: The folders, below a notebook's, whose figures are shown.
SHOWN = (("ct_survival", "ct_survival", "run"), ("brain_grade", "brain_grade", "fitted"))
PARTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "benchmarks/README.md", "docs", "cluster", "jobs")


def main() -> None:
    """Build into the folder that is named."""
    quick = "--quick" in sys.argv
    if len(sys.argv) != 2 + quick:
        sys.exit(__doc__)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with TemporaryDirectory() as folder, TemporaryDirectory() as work:
        lay_out(Path(folder))
        for notebook in sorted(Path(folder, "docs", "notebooks").glob("*.ipynb")):
            read = nbformat.read(notebook, as_version=4)
            write_page(notebook, read if quick else executed(read, Path(work, notebook.stem)))
        write_gallery(Path(folder, "docs"), [Path(work, *at) for at in SHOWN])
        target = next(argument for argument in sys.argv[1:] if argument != "--quick")
        config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=folder, site_dir=target, strict=True)
        try:
            build(config)
        except Abort as error:
            sys.exit(str(error))


def lay_out(folder: Path) -> None:
    """Copy the pages and what they link to, and write the reference of what a notebook calls."""
    for part in PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, target)
    (folder / "docs" / "api.md").write_text(reference(), encoding="utf-8")


def executed(content: Any, folder: Path) -> Any:
    """The notebook with what its cells give, run in a new folder.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        Where a cell fails.
    """
    folder.mkdir()
    NotebookClient(content, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    for output in (one for cell in content.cells for one in cell.get("outputs", ())):
        if output.output_type == "stream":
            output.text = output.text.replace(f"{folder}/", "")
    return content


def write_gallery(docs: Path, folders: Sequence[Path]) -> None:
    """Write ``gallery.md``: every figure of the reports of the notebooks' folders, with its caption."""
    parts = ["# Gallery", "Figures of the report, of what the notebooks make; a report holds each with its data."]
    pictures = docs / "gallery"
    pictures.mkdir()
    for folder in folders:
        for section in sections(read_run(folder)) if folder.is_dir() else ():
            for picture in (block for block in section.blocks if isinstance(block, Picture)):
                name = f"{folder.parent.name}-{picture.name}.svg"
                (pictures / name).write_text(picture.svg, encoding="utf-8")
                parts += [f"![{picture.alt}](gallery/{name})", f"**{section.title}.** {picture.caption}"]
    (docs / "gallery.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_page(notebook: Path, content: Any) -> None:
    """Write ``NAME.md`` and its pictures beside the notebook: texts, code, and what was printed, shown and drawn."""
    parts = []
    for cell in content.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts += [f"```python\n{cell.source}\n```", *_shown(notebook, cell)]
        if len(parts) == 1:
            parts.append(f"[The notebook itself]({notebook.name})")
    notebook.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _shown(notebook: Path, cell: Any) -> Iterator[str]:
    printed = "".join(one.text for one in cell.outputs if one.output_type == "stream" and one.name == "stdout")
    if printed.strip():
        yield f"```text\n{printed.rstrip()}\n```"
    for number, output in enumerate(cell.outputs):
        data = output.get("data", {})
        if "image/png" in data:
            picture = notebook.with_name(f"{cell.id}-{number}.png")
            picture.write_bytes(base64.b64decode(data["image/png"]))
            yield f"![What the cell above draws]({picture.name})"
        elif "text/plain" in data:
            yield f"```text\n{data['text/plain']}\n```"


def reference() -> str:
    """The page of the package's functions, from their docstrings."""
    parts = ["# In Python\n\nWhat `import prognosis_dask` offers.\n"]
    for name in prognosis_dask.__all__:
        home = getattr(getattr(prognosis_dask, name), "__module__", None)
        if home is not None:
            parts.append(f"::: {home}.{name}\n    options:\n      heading_level: 2\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
