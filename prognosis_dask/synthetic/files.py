"""Write all files of one synthetic patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prognosis_dask.arrays import FloatArray
from prognosis_dask.synthetic.ct import write_ct
from prognosis_dask.synthetic.faults import FAULTS, PatientFiles
from prognosis_dask.synthetic.patient import LESION_ROI, Patient
from prognosis_dask.synthetic.phantom import CORD, LUNG_LEFT, LUNG_RIGHT, Ellipse, Phantom, make_phantom
from prognosis_dask.synthetic.rtstruct import DrawnStructure, outlines, write_rtstruct
from prognosis_dask.synthetic.seg import write_seg


def write_patient(images: Path, patient: Patient) -> int:
    """Write one patient's series and mask, damage them for a bad case; returns the number of files."""
    phantom = make_phantom(patient)
    ct = write_ct(images, patient, phantom)
    datasets = [ds for _, ds in ct]
    if patient.mask_format == "SEG":
        mask = write_seg(images, patient, LESION_ROI, phantom.mask, datasets)
    else:
        mask = write_rtstruct(images, patient, _structures(phantom), datasets)
    files = PatientFiles(images / patient.patient_id, tuple(path for path, _ in ct), mask)
    for fault in FAULTS:
        if fault.patient_id == patient.patient_id:
            fault.damage(files)
    return sum(path.is_file() for path in (*files.ct, files.mask))


def _structures(phantom: Phantom) -> list[DrawnStructure]:
    """The lesion and the organs around it."""
    every = range(len(phantom.image_hu))
    corner = phantom.origin_mm[:2]
    return [
        DrawnStructure("Lung-Left", "ORGAN", [(i, _ring(LUNG_LEFT)) for i in every]),
        DrawnStructure("Lung-Right", "ORGAN", [(i, _ring(LUNG_RIGHT)) for i in every]),
        DrawnStructure("Spinal-Cord", "ORGAN", [(i, _ring(CORD)) for i in every]),
        DrawnStructure(LESION_ROI, "GTV", outlines(phantom.level_mm, phantom.spacing_mm, corner)),
    ]


def _ring(organ: Ellipse, points: int = 24) -> FloatArray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack(
        [organ.x_mm + organ.a_mm * np.cos(angle), organ.y_mm + organ.b_mm * np.sin(angle)],
        axis=1,
    )
