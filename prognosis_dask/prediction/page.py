"""What is said of one new scan: ``scan.json`` for programs and ``scan.html`` for readers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from prognosis_dask.brain.size import TumourSize
from prognosis_dask.config.folders import expect_writable
from prognosis_dask.errors import StoreError
from prognosis_dask.modelling.worth import Worth
from prognosis_dask.publish import publish_folder, staging
from prognosis_dask.report.canvas import png_address, png_size
from prognosis_dask.report.content import Block, Picture, Rows, Section, Table, Text
from prognosis_dask.report.page import KeyFigure, render_page
from prognosis_dask.report.words import listed, number

_RESULT = "scan.json"
#: How the tumour was found, as the page says it.
_MASKS = {
    "drawn": "outlined by hand",
    "interpolated": "outlined by hand on some slices, interpolated by shape between them",
    "automatic": "found automatically: look at it before anything is made of it",
}


@dataclass(frozen=True)
class ScanResult:
    """All that is said of a scan.

    Attributes
    ----------
    name
        What the scan is called.
    files
        The sequences' files.
    probability
        Of each class, by its name; they add up to 1.
    model
        What made the prediction, for the reader: its name, how many cases it learnt from, how good it was.
    mask
        Whether the tumour was ``drawn``, ``interpolated`` between outlined slices, or found (``automatic``).
    confidence
        Of an automatic mask, from 0 to 1; None of others.
    size
        Of the tumour.
    slices
        Indices of the slices in the mosaic, counted from 0, and what each one shows; the page counts from 1.
    mosaic
        The tumour's epitome, PNG.
    quality
        Numbers of the preprocessing, by name.
    warnings
        What a reader has to know.
    worth
        What the model is worth; its warnings are among ``warnings``.
    before_after
        The image as scanned and as prepared, with the outlines of brain and tumour, PNG; empty: not shown.
    """

    name: str
    files: Mapping[str, str]
    probability: Mapping[str, float]
    model: Mapping[str, str]
    mask: str
    confidence: float | None
    size: TumourSize
    slices: Mapping[int, str]
    mosaic: bytes
    quality: Mapping[str, float]
    warnings: Sequence[str] = ()
    worth: Worth | None = None
    before_after: bytes = b""

    @property
    def predicted(self) -> str:
        """The most probable class."""
        return max(self.probability, key=lambda name: self.probability[name])


def expect_room(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds something else than an earlier scan, which would be lost.

    Raises
    ------
    StoreError
        Saying so.
    """
    expect_writable(folder)
    if not (folder / _RESULT).is_file() and folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder} holds something else, which would be lost; choose another folder with --out")


def write_scan(result: ScanResult, folder: Path) -> Path:
    """Write ``scan.json``, ``scan.html`` and ``epitome.png`` into a folder (replaced as a whole); the page's path."""
    with staging(folder) as work:
        staged = work / folder.name
        staged.mkdir()
        (staged / _RESULT).write_text(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (staged / "scan.html").write_text(_page(result), encoding="utf-8")
        (staged / "epitome.png").write_bytes(result.mosaic)
        publish_folder(staged, folder)
    return folder / "scan.html"


def _plain(result: ScanResult) -> dict[str, object]:
    return {
        "scan": result.name,
        "files": dict(result.files),
        "class": result.predicted,
        "probability": dict(result.probability),
        "model": dict(result.model),
        "worth": dict(result.worth.figures) if result.worth else None,
        "tumour": {"mask": result.mask, "confidence": result.confidence, **asdict(result.size)},
        "epitome": {
            "slices": [{"index": index, "shows": shows} for index, shows in result.slices.items()],
            "mosaic_png_base64": base64.b64encode(result.mosaic).decode("ascii"),
        },
        "quality": dict(result.quality),
        "warnings": list(result.warnings),
    }


def _page(result: ScanResult) -> str:
    size = result.size
    return render_page(
        title=result.name,
        origin=f"Predicted from {listed([f'{name} ({Path(file).name})' for name, file in result.files.items()])}.",
        key_figures=[
            KeyFigure(
                "most probable class", result.predicted, f"probability {number(result.probability[result.predicted])}"
            ),
            KeyFigure("tumour volume", f"{number(size.volume_ml, 1)} ml"),
            KeyFigure(
                "largest axial diameters",
                f"{number(size.axial_diameter_mm, 0)} × {number(size.perpendicular_mm, 0)} mm",
            ),
        ],
        sections=[
            Section("prediction", "Prediction", _prediction(result)),
            Section("tumour", "The tumour", _tumour(result)),
            Section(
                "preprocessing",
                "Preprocessing",
                _preprocessing(result),
            ),
        ],
    )


def _prediction(result: ScanResult) -> list[Block]:
    shares = [(name, number(share)) for name, share in result.probability.items()]
    warnings: list[Block] = [Text(warning, "warning") for warning in result.warnings]
    return [
        *warnings,
        _table("Probability of each class, as the model has it.", ("class", "probability"), shares),
        *([Text(result.worth.sentence)] if result.worth else []),
        _table("The model that says so.", ("", "model"), list(result.model.items())),
    ]


def _tumour(result: ScanResult) -> list[Block]:
    size = result.size
    found = _MASKS[result.mask]
    if result.confidence is not None:
        found += f" (confidence {number(result.confidence)})"
    rows = [
        ("volume", f"{number(size.volume_ml, 1)} ml"),
        ("largest axial diameter", f"{number(size.axial_diameter_mm, 1)} mm"),
        ("diameter at a right angle to it, same slice", f"{number(size.perpendicular_mm, 1)} mm"),
        ("their product (RANO)", f"{number(size.product_mm2, 0)} mm²"),
        ("slice of these diameters", str(size.slice_index + 1)),
        ("largest diameter in 3D", f"{number(size.diameter_3d_mm, 1)} mm"),
        ("centre, patient x, y, z", _place(size.centre_mm)),
    ]
    if size.template_mm is not None:
        rows.append(("centre in the template (ICBM152)", _place(size.template_mm)))
    role = "warning" if result.mask == "automatic" else "plain"
    return [
        Text(f"The tumour was {found}.", role),
        _mosaic(result),
        _table("Size and place of the tumour.", ("", "tumour"), rows),
    ]


def _mosaic(result: ScanResult) -> Picture:
    numbers = [index + 1 for index in result.slices]
    slices = pd.DataFrame({"slice": numbers, "shows": list(result.slices.values())})
    shown = listed([f"{at} ({shows})" for at, shows in zip(numbers, result.slices.values(), strict=True)])
    return Picture(
        "epitome",
        _svg(result.mosaic),
        slices,
        f"Mosaic of {len(slices)} axial slices with the tumour's outline: slices {shown}.",
        f"The tumour's epitome: the slices that show it best. From the left: slices {shown}; "
        "slice 1 is the lowest. Below, the tumour from near. The patient's left is on the right.",
    )


def _preprocessing(result: ScanResult) -> list[Block]:
    numbers = _quality(result)
    table = _table("Numbers of the preprocessing.", ("", "value"), numbers)
    if not result.before_after:
        return [table]
    picture = Picture(
        "preprocessing",
        _svg(result.before_after),
        pd.DataFrame(numbers, columns=["figure", "value"]),
        "Slices of the head before and after the preparation, with the outlines of brain and tumour.",
        "Slices from the brain’s foot to its top as scanned (above) and prepared (below), brain in blue, tumour in "
        "yellow. Is the brain whole, the skull gone, the outline where the tumour is?",
    )
    return [picture, table]


def _svg(png: bytes) -> str:
    """A PNG as a drawing of its size."""
    width, height = png_size(png)
    address = png_address(png)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="{address}"/></svg>'
    )


def _quality(result: ScanResult) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), f"{value:.4g}") for name, value in result.quality.items()]


def _table(caption: str, head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> Table:
    return Table(caption, head, "ll", [Rows("", rows)])


def _place(at: Sequence[float]) -> str:
    return ", ".join(number(value, 0) for value in at) + " mm"
