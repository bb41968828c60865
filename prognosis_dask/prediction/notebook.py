"""A case in a notebook: the pages' viewer with image and mask, in one output that needs neither files nor a network."""

from __future__ import annotations

import base64
import tempfile
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


def show_case(image: sitk.Image, mask: sitk.Image, *, modality: str = "CT", margin_mm: float = 40.0) -> CaseView:
    """Three planes of an image with its mask, as on the page of a scan; without WebGL 2 the slice of the largest area.

    Parameters
    ----------
    image, mask
        On one grid, as :func:`prognosis_dask.load_case` gives them.
    modality
        DICOM's; it decides the windows to choose from.
    margin_mm
        What is shown around the mask: the output holds these voxels.
    """
    box = bounding_box(sitk.GetArrayViewFromImage(mask) > 0)[::-1]
    around = [
        slice(max(0, first - round(margin_mm / step)), min(size, stop + round(margin_mm / step)))
        for (first, stop), step, size in zip(box, image.GetSpacing(), image.GetSize(), strict=True)
    ]
    part, inside = image[tuple(around)], sitk.Cast(mask[tuple(around)] > 0, sitk.sitkUInt8)
    with tempfile.TemporaryDirectory(prefix="prognosis-view-") as folder:
        store = Path(folder) / "slices.zarr"
        view = store_slices(part, inside, modality, store)
        held = shown(store)
        assert held is not None
        page = environment().get_template("notebook.html.j2")
        html = page.render(
            view=asdict(view) | {"outline": True},
            presets=held.presets,
            picture=png_address(slice_png(store, view.slice, view.centre, view.width, outline=True)),
            volumes={name: base64.b64encode(volume_file(store, name).read_bytes()).decode() for name in VOLUMES},
            style=Markup(static_text("page.css")),
            scripts=[Markup(text) for text in (vendored(VIEWER), static_text("volume.js"))],
        )
    return CaseView(html)
