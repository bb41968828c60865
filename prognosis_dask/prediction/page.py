"""A prediction as one HTML file, for the command and to download; the viewer of image and mask, in a notebook too."""

from __future__ import annotations

import base64
import gzip
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import nibabel
import numpy as np
import SimpleITK as sitk
import zarr
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prognosis_dask.arrays import NumberArray
from prognosis_dask.errors import expect_kind
from prognosis_dask.imaging.roi import bounding_box
from prognosis_dask.prediction.result import NOTICE
from prognosis_dask.prediction.slices import outline_png, slice_png, store_slices
from prognosis_dask.publish import replacing
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


#: The files of the viewer, and which of the slices' arrays each holds.
VOLUMES: Final[dict[str, Literal["image", "mask"]]] = {"image.nii.gz": "image", "mask.nii.gz": "mask"}
#: Fast: the files go over the network once, and are asked for by somebody who waits.
_LEVEL: Final = 1


@dataclass(frozen=True)
class Shown:
    """What the viewer is told before it opens the volumes: windows by name, and how much it will fetch."""

    presets: tuple[tuple[str, float, float], ...]
    megabytes: float


def shown(slices: Path) -> Shown | None:
    """What can be shown in three planes of slices; None where an earlier version wrote them without their place."""
    group = zarr.open_group(slices, mode="r", use_consolidated=False)
    if "affine" not in group.attrs:
        return None
    presets = tuple((str(name), float(centre), float(width)) for name, centre, width in group.attrs["presets"])
    stored = sum(path.stat().st_size for path in slices.rglob("*") if path.is_file())
    return Shown(presets, stored / 1e6)


def volume_file(slices: Path, name: str) -> Path:
    """The NIfTI file of this name (:data:`VOLUMES`) beside the slices, written when it is first asked for.

    Voxel (i, j, k) is column, row and slice of what is shown as slices, the lowest slice first.
    """
    path = slices.parent / name
    if not path.is_file():
        group = zarr.open_group(slices, mode="r", use_consolidated=False)
        values = np.transpose(_small(np.asarray(group[VOLUMES[name]][:])))
        file = nibabel.Nifti1Image(values, np.asarray(group.attrs["affine"], float))  # type: ignore[no-untyped-call]
        file.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
        with replacing(path) as aside:
            aside.write_bytes(gzip.compress(file.to_bytes(), _LEVEL, mtime=0))
    return path


def _small(values: NumberArray) -> NumberArray:
    """The same values in 16 bits where these hold them all, else in single precision."""
    if values.dtype == np.uint8:
        return values
    least, most = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    if least <= values.min() and values.max() <= most:
        whole = values.astype(np.int16)
        if np.array_equal(whole, values):
            return whole
    return values.astype(np.float32)


@dataclass(frozen=True)
class CaseView:
    """A viewer as an HTML page of its own; a notebook shows it when it is the last line of a cell."""

    html: str

    def _repr_html_(self) -> str:
        frame = 'style="width: 100%; height: 52rem; border: 0" sandbox="allow-scripts" title="Image and mask"'
        return f'<iframe {frame} srcdoc="{escape(self.html)}"></iframe>'


def show_case(
    image: sitk.Image,
    mask: sitk.Image,
    *,
    modality: str = "CT",
    margin_mm: float = 40.0,
    most_voxels: int = 8_000_000,
) -> CaseView:
    """Three planes of an image with its mask, as on the page of a scan; without WebGL 2 the slice of the largest area.

    Parameters
    ----------
    image, mask
        On one grid, as :func:`prognosis_dask.load_case` gives them.
    modality
        DICOM's; it decides the windows to choose from.
    margin_mm
        What is shown around the mask: the output holds these voxels.
    most_voxels
        Of more, every second (third, ...) one is held, along the axes with the least spacing first; the view says so.

    Examples
    --------
    >>> image = sitk.Image(64, 64, 20, sitk.sitkInt16)
    >>> mask = sitk.Image(64, 64, 20, sitk.sitkUInt8)
    >>> mask[20:30, 20:30, 5:9] = 1
    >>> view = show_case(image, mask, margin_mm=5)  # the last line of a cell shows it
    """
    for name, given in (("image", image), ("mask", mask)):
        expect_kind(given, sitk.Image, f"the {name}", "a SimpleITK image, as load_case gives them")
    box = bounding_box(sitk.GetArrayViewFromImage(mask) > 0)[::-1]
    around = [
        slice(max(0, first - round(margin_mm / step)), min(size, stop + round(margin_mm / step)))
        for (first, stop), step, size in zip(box, image.GetSpacing(), image.GetSize(), strict=True)
    ]
    steps = _steps([one.stop - one.start for one in around], image.GetSpacing(), most_voxels)
    held = tuple(slice(one.start, one.stop, step) for one, step in zip(around, steps, strict=True))
    part, inside = image[held], sitk.Cast(mask[held] > 0, sitk.sitkUInt8)
    with tempfile.TemporaryDirectory(prefix="prognosis-view-") as folder:
        store = Path(folder) / "slices.zarr"
        view = store_slices(part, inside, modality, store)
        told = shown(store)
        assert told is not None
        page = environment().get_template("notebook.html.j2")
        html = page.render(
            steps=steps,
            view=asdict(view) | {"outline": True},
            presets=told.presets,
            picture=png_address(slice_png(store, view.slice, view.centre, view.width, outline=True)),
            volumes={name: base64.b64encode(volume_file(store, name).read_bytes()).decode() for name in VOLUMES},
            style=Markup(static_text("page.css")),
            scripts=[Markup(text) for text in (vendored(VIEWER), static_text("volume.js"))],
        )
    return CaseView(html)


def _steps(size: Sequence[int], spacing: Sequence[float], most: int) -> list[int]:
    """Every how many voxels along each axis, so that no more than ``most`` are left.

    >>> _steps((512, 512, 100), (0.9, 0.9, 3.0), 8_000_000), _steps((512, 512, 100), (0.9, 0.9, 3.0), 10**9)
    ([2, 2, 1], [1, 1, 1])
    """
    steps = [1] * len(size)
    while math.prod(math.ceil(n / step) for n, step in zip(size, steps, strict=True)) > most:
        finest = min(range(len(size)), key=lambda axis: steps[axis] * spacing[axis])
        steps[finest] += 1
    return steps
