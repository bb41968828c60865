"""A case in a notebook: the pages' viewer with image and mask, in one output that needs neither files nor a network."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import SimpleITK as sitk
from markupsafe import Markup

from prognosis_dask.imaging.roi import bounding_box
from prognosis_dask.prediction.page import VIEWER, environment, static_text, vendored
from prognosis_dask.prediction.slices import slice_png, store_slices
from prognosis_dask.prediction.volumes import VOLUMES, shown, volume_file
from prognosis_dask.report.canvas import png_address


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
