"""A prediction as one HTML file: the command's page, and the page that the web offers to download."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prognosis_dask.prediction.result import NOTICE
from prognosis_dask.prediction.slices import outline_png, slice_png
from prognosis_dask.report.canvas import png_address, svg_address
from prognosis_dask.report.words import number, short_name, span, with_powers

#: The drawings and pictures of a prediction, where they apply, and their type.
PICTURES = {
    "survival.svg": "image/svg+xml",
    "place.svg": "image/svg+xml",
    "epitome.png": "image/png",
    "quality.png": "image/png",
}
#: NiiVue's script, among those of others.
VIEWER: Final = "niivue.js"
#: The one file holds so many slices at most: those of the lesion, evenly chosen where there are more.
_MOST_SLICES = 24
#: How the tumour was outlined, in words.
_MASKS = {
    "drawn": "outlined by hand",
    "interpolated": "outlined by hand on some slices, interpolated by shape between them",
    "automatic": "found automatically: check its outline before anything is concluded from it",
}


def environment(*packages: str) -> Environment:
    """The templates of this package, and those of others that build on them."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "prognosis_dask.prediction")]),
        autoescape=True,  # names of structures are text from files that anybody wrote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "short_name": short_name,
        "span": span,
        "percent": _percent,
        "figure": _figure,
        "part": _part,
        "unit": with_powers,
        "file_name": lambda path: Path(path).name,
    }
    made.globals |= {"notice": NOTICE, "masks": _MASKS}
    return made


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return environment()


def one_file(plain: Mapping[str, Any], folder: Path) -> str:
    """A prediction as a page that needs no other file: drawings, pictures and the lesion's slices are held in it.

    Parameters
    ----------
    plain
        The content of its JSON.
    folder
        Where its slices, drawings and pictures lie.
    """
    view = plain["view"]
    held = range(view["first"], view["last"] + 1)
    indices = sorted({held[round(i)] for i in _even(len(held), _MOST_SLICES)} | {view["slice"]})
    store = folder / "slices.zarr"
    slices = [
        {
            "index": index,
            "image": png_address(slice_png(store, index, view["centre"], view["width"], outline=False)),
            "outline": png_address(outline_png(store, index)),
        }
        for index in indices
    ]
    return (
        _environment()
        .get_template("file.html.j2")
        .render(
            result=plain,
            slices=slices,
            start=indices.index(view["slice"]),
            pictures={name: _address(folder / name) for name in pictures_in(folder)},
            style=Markup(static_text("page.css")),
            script=Markup(static_text("viewer.js")),
        )
    )


def pictures_in(folder: Path) -> list[str]:
    """The names of the drawings and pictures that a folder holds."""
    return [name for name in PICTURES if (folder / name).is_file()]


@lru_cache(maxsize=8)
def static_text(name: str, package: str = "prognosis_dask.prediction") -> str:
    """A style sheet or script that lies beside a package's templates."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


@lru_cache(maxsize=2)
def vendored(name: str) -> str:
    """A script of others, as it was published (``vendor/README.md``)."""
    return (files("prognosis_dask.prediction") / "vendor" / name).read_text(encoding="utf-8")


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

    >>> _figure(125204), _figure(-358.5325), _figure("CT")
    ('125,204', '−358.5', 'CT')
    """
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return f"{value:,}" if isinstance(value, int) else str(value)


def _part(percent: float) -> str:
    """A percentage in a sentence.

    >>> _part(42.3), _part(99.8), _part(0.0)
    ('42 % of', 'all of', 'none of')
    """
    rounded = round(percent)
    return {0: "none of", 100: "all of"}.get(rounded, f"{rounded} % of")


def _percent(share: float) -> str:
    """A share as whole percent, without ever claiming certainty.

    >>> _percent(0.256), _percent(0.9999), _percent(0.001)
    ('26 %', '> 99 %', '< 1 %')
    """
    percent = 100 * share
    if percent > 99:
        return "> 99 %"
    return "< 1 %" if percent < 1 else f"{percent:.0f} %"
