"""Pages from templates, and the one file that holds a whole result."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from prognosis_dask.brain.size import SIZE_FEATURES
from prognosis_dask.report.canvas import png_address, svg_address
from prognosis_dask.report.words import number, short_name, with_powers
from prognosis_dask.web.pictures import outline_png, slice_png
from prognosis_dask.web.result import NOTICE

_STATIC = {"serve.css": "text/css", "serve.js": "text/javascript", "viewer.js": "text/javascript"}
#: The one file holds so many slices at most: those of the lesion, evenly chosen where there are more.
_MOST_SLICES = 24


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prognosis_dask.web", package_path="templates"),
        autoescape=True,  # names of structures are text from files that anybody wrote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "short_name": short_name,
        "percent": _percent,
        "figure": _figure,
        "part": _part,
        "with_units": _with_units,
    }
    environment.globals |= {"notice": NOTICE, "states": _STATES}
    return environment


_STATES = {
    "waiting": "waiting",
    "running": "at work",
    "choose": "needs your choice",
    "done": "done",
    "failed": "could not be used",
    "cancelled": "cancelled",
}


def render(template: str, status: int = 200, **content: Any) -> HTMLResponse:
    """A page as an answer."""
    return HTMLResponse(_environment().get_template(template).render(**content), status)


def one_file(result: dict[str, Any], folder: Path, pictures: list[str]) -> str:
    """A result as a page that needs no other file: drawings, pictures and the lesion's slices are held in it."""
    scan = result["scan"]
    held = range(scan["first"], scan["last"] + 1)
    indices = sorted({held[round(i)] for i in _even(len(held), _MOST_SLICES)} | {scan["slice"]})
    store = folder / "slices.zarr"
    slices = [
        {
            "index": index,
            "image": png_address(slice_png(store, index, scan["centre"], scan["width"], outline=False)),
            "outline": png_address(outline_png(store, index)),
        }
        for index in indices
    ]
    addresses = {name: _address(folder / name) for name in pictures}
    template = _environment().get_template("file.html.j2")
    return template.render(
        result=result,
        slices=slices,
        start=indices.index(scan["slice"]),
        pictures=addresses,
        style=Markup(_text("serve.css")),
        script=Markup(_text("viewer.js")),
    )


async def static(request: Request) -> Response:
    """The style sheet and the scripts."""
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404)
    return Response(_text(name), media_type=_STATIC[name], headers={"Cache-Control": "no-cache"})


@lru_cache(maxsize=8)
def _text(name: str) -> str:
    return (files("prognosis_dask.web") / "templates" / name).read_text(encoding="utf-8")


def _even(count: int, most: int) -> list[float]:
    """Places from the first to the last, evenly.

    >>> _even(3, 5), _even(9, 3)
    ([0, 1, 2], [0.0, 4.0, 8.0])
    """
    return list(range(count)) if count <= most else [i * (count - 1) / (most - 1) for i in range(most)]


def _address(path: Path) -> str:
    if path.suffix == ".svg":
        return svg_address(path.read_text(encoding="utf-8"))
    return png_address(path.read_bytes())


def _figure(value: object) -> str:
    """A number to four digits, a whole one as it is; text as text.

    >>> _figure(125204), _figure(358.5325), _figure("CT")
    ('125,204', '358.5', 'CT')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _part(percent: float) -> str:
    """A percentage in a sentence.

    >>> _part(42.3), _part(99.8), _part(0.0)
    ('42 % of', 'all of', 'none of')
    """
    rounded = round(percent)
    return {0: "none of", 100: "all of"}.get(rounded, f"{rounded} % of")


def _with_units(size: dict[str, float]) -> dict[str, float]:
    """The tumour's size with the units in the names.

    >>> _with_units({"size_volume": 3.5, "size_product": 700.0})
    {'size volume (mL)': 3.5, 'size product (mm²)': 700.0}
    """
    units = {name: f"{name.replace('_', ' ')} ({with_powers(unit)})" for name, unit in SIZE_FEATURES.items()}
    return {units.get(name, name): value for name, value in size.items()}


def _percent(share: float) -> str:
    """A share as whole percent, without ever claiming certainty.

    >>> _percent(0.256), _percent(0.9999), _percent(0.001)
    ('26 %', '> 99 %', '< 1 %')
    """
    percent = 100 * share
    if percent > 99:
        return "> 99 %"
    return "< 1 %" if percent < 1 else f"{percent:.0f} %"
