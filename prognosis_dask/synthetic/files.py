"""All files of one made patient."""

from __future__ import annotations

from pathlib import Path

from prognosis_dask.synthetic.ct import write_ct
from prognosis_dask.synthetic.faults import FAULTS, PatientFiles
from prognosis_dask.synthetic.patient import Patient
from prognosis_dask.synthetic.phantom import make_phantom
from prognosis_dask.synthetic.rtstruct import write_rtstruct
from prognosis_dask.synthetic.seg import write_seg


def write_patient(images: Path, patient: Patient) -> int:
    """Write one patient's series and mask, spoil them where the patient is a bad case; the number of files left."""
    phantom = make_phantom(patient)
    ct = write_ct(images, patient, phantom)
    write_mask = write_seg if patient.mask_format == "SEG" else write_rtstruct
    mask = write_mask(images, patient, phantom, [ds for _, ds in ct])
    files = PatientFiles(images / patient.patient_id, tuple(path for path, _ in ct), mask)
    for fault in FAULTS:
        if fault.patient_id == patient.patient_id:
            fault.spoil(files)
    return sum(path.is_file() for path in (*files.ct, files.mask))
