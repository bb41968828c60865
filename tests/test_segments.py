"""Names of the labels in a label map: from its header, or from a table beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from prognosis_dask.cohort.case import Case, read_cases, read_problems
from prognosis_dask.cohort.index import index_cohort
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import Code, collected_warnings
from prognosis_dask.imaging.load import load_case

VALUES = np.zeros((6, 8, 9), np.uint8)
VALUES[1:3, 2:6, 2:5], VALUES[3:5, 2:6, 3:7], VALUES[1:3, 6:8, 6:9] = 1, 2, 3
SIZES = {label: int(np.count_nonzero(label == VALUES)) for label in (1, 2, 3)}


def cohort(folder: Path, mask: str = "P1/mask.nrrd", values: np.ndarray = VALUES, **header: str) -> Path:
    """A patient with an image and a label map, whose header may name segments."""
    (folder / mask).parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 100, VALUES.shape).astype(np.float32))
    sitk.WriteImage(image, str((folder / mask).parent / "ct.nrrd"))
    labels = sitk.GetImageFromArray(values, isVector=values.ndim == 4)
    for key, value in header.items():
        labels.SetMetaData(key, value)
    sitk.WriteImage(labels, str(folder / mask))
    return folder


def slicer(*segments: tuple[str, int, int]) -> dict[str, str]:
    """What Slicer writes of segments: name, label value, layer."""
    keys = {}
    for number, (name, value, layer) in enumerate(segments):
        keys |= {f"Segment{number}_Name": name, f"Segment{number}_LabelValue": str(value)}
        keys |= {f"Segment{number}_Layer": str(layer), f"Segment{number}_ID": f"Segment_{number}"}
    return keys


def found(folder: Path, out: Path, *roi: str, policy: str = "") -> tuple[dict[str, int], list[Code]]:
    """Voxels per ROI, and the codes of the problems."""
    index_cohort([folder], out, CohortSection(roi=roi, roi_policy=policy))  # type: ignore[arg-type]
    cases = read_cases(out / "cases.csv")
    return {case.roi: voxels(case) for case in cases}, [p.code for p in read_problems(out / "problems.csv")]


def voxels(case: Case) -> int:
    return int(sitk.GetArrayFromImage(load_case(case)[1]).sum())


def test_segments_of_a_slicer_file_are_structures(tmp_path: Path) -> None:
    segments = slicer(("GTV", 1, 0), ("Lung", 2, 0), ("Heart", 3, 0))
    folder = cohort(tmp_path / "in", "P1/Segmentation.seg.nrrd", **segments)
    assert found(folder, tmp_path / "1", "GTV") == ({"GTV": SIZES[1]}, [])
    assert found(folder, tmp_path / "2") == ({"GTV": SIZES[1], "Lung": SIZES[2], "Heart": SIZES[3]}, [])
    assert found(folder, tmp_path / "3", "re:lung|heart", policy="merge")[0] == {"Lung+Heart": SIZES[2] + SIZES[3]}
    assert found(folder, tmp_path / "4", "Liver") == ({}, [Code.ROI_NOT_FOUND])


def test_a_segment_without_a_voxel_is_a_problem_by_its_name(tmp_path: Path) -> None:
    segments = slicer(("GTV", 1, 0), ("Lung", 7, 0))
    folder = cohort(tmp_path / "in", "P1/Segmentation.seg.nrrd", **segments)
    assert found(folder, tmp_path / "1", "Lung") == ({}, [Code.MASK_EMPTY])


def test_overlapping_segments_lie_in_layers(tmp_path: Path) -> None:
    layers = np.zeros((*VALUES.shape, 2), np.uint8)
    layers[1:5, 1:7, 1:8, 0] = 1
    layers[2:4, 3:5, 3:6, 1], layers[1:3, 6:8, 6:9, 1] = 1, 2
    segments = slicer(("Lung", 1, 0), ("GTV", 1, 1), ("Node", 2, 1))
    folder = cohort(tmp_path / "in", "P1/Segmentation.seg.nrrd", layers, **segments)
    everything, problems = found(folder, tmp_path / "out")
    assert (everything, problems) == ({"Lung": 168, "GTV": 12, "Node": 12}, [])
    assert [c.labels for c in read_cases(tmp_path / "out" / "cases.csv")] == [(1001,), (1,), (1002,)]
    assert found(folder, tmp_path / "one", "re:gtv|node", policy="merge")[0] == {"GTV+Node": 24}


def test_segments_of_slicer_before_4_11_have_a_layer_each(tmp_path: Path) -> None:
    """Slicer 4.10 writes neither layer nor label value: each segment is 1 in the layer of its number."""
    layers = np.zeros((*VALUES.shape, 2), np.uint8)
    layers[1:5, 1:7, 1:8, 0] = layers[2:4, 3:5, 3:6, 1] = 1
    written = slicer(("Lung", 1, 0), ("GTV", 1, 1))
    old = {key: value for key, value in written.items() if not key.endswith(("Layer", "LabelValue"))}
    assert found(cohort(tmp_path / "in", "P1/Segmentation.seg.nrrd", layers, **old), tmp_path / "out") == (
        {"Lung": 168, "GTV": 12},
        [],
    )


NAMES = {"GTV": 1, "Lung": 2, "Heart": 3, "Liver": 4}
TABLES = {
    "P1/labels.csv": "label,name\n1,GTV\n2,Lung\n3,Heart\n4,Liver\n",
    "P1/mask.tsv": "index\tname\tabbreviation\n1\tGTV\tG\n2\tLung\tL\n3\tHeart\tH\n4\tLiver\tLi\n",
    "P1/itksnap.label": "# ITK-SnAP Label Description File\n"
    + "\n".join(f'{n} 255 0 0 1 1 1 "{name}"' for name, n in [("Clear Label", 0), *NAMES.items()]),
    "P1/Segmentation_label_ColorTable.ctbl": "\n".join(f"{n} {name} 255 0 0 255" for name, n in NAMES.items()),
    "dataset.json": json.dumps({"labels": {"background": 0, **NAMES}}),
    "P1/dataset.json": json.dumps({"labels": {"0": "background"} | {str(n): name for name, n in NAMES.items()}}),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_beside_names_the_labels(tmp_path: Path, table: str) -> None:
    folder = cohort(tmp_path / "in")
    (folder / table).write_text(TABLES[table])
    assert found(folder, tmp_path / "1", "GTV") == ({"GTV": SIZES[1]}, [])
    # the table lists the liver for other files
    assert found(folder, tmp_path / "2") == ({"GTV": SIZES[1], "Lung": SIZES[2], "Heart": SIZES[3]}, [])
    assert found(folder, tmp_path / "3", "Liver") == ({}, [Code.ROI_NOT_FOUND])


def test_regions_of_nnunet_are_unions(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "in", "P1/mask.nii.gz")
    regions = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    (folder / "dataset.json").write_text(json.dumps({"labels": regions, "regions_class_order": [1, 2, 3]}))
    everything, _ = found(folder, tmp_path / "out")
    assert {name: everything[name] for name in ("whole tumour", "core", "enhancing")} == {
        "whole tumour": sum(SIZES.values()), "core": SIZES[2] + SIZES[3], "enhancing": SIZES[3]
    }  # fmt: skip


def test_totalsegmentators_names_are_in_the_nifti_header(tmp_path: Path) -> None:
    import nibabel

    folder = cohort(tmp_path / "in", "P1/mask.nii.gz")
    image = nibabel.load(folder / "P1" / "mask.nii.gz")
    labels = "".join(f'<Label Key="{n}" Red="1"><![CDATA[{name}]]></Label>' for name, n in NAMES.items())
    text = f"<?xml version='1.0'?><CaretExtension><VolumeInformation><LabelTable>{labels}</LabelTable>"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, text.encode()))
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), folder / "P1" / "mask.nii.gz"
    )
    assert found(folder, tmp_path / "out", "gtv") == ({"GTV": SIZES[1]}, [])


def test_tables_that_differ_are_a_problem(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "in")
    (folder / "P1" / "labels.csv").write_text("label,name\n1,GTV\n2,Lung\n")
    (folder / "P1" / "dataset.json").write_text(json.dumps({"labels": {"Lung": 1, "GTV": 2}}))
    everything, problems = found(folder, tmp_path / "out", "GTV")
    assert everything == {}
    assert Code.ROI_AMBIGUOUS in problems


@pytest.mark.parametrize(
    "text", ["patient,label\nA,1\nB,0\n", "name,label\nA,1\nB,1\nC,0\n", "label,name\n1,GTV\n1,Lung\n", "a\n", "{", ""]
)
def test_other_tables_name_nothing(tmp_path: Path, text: str) -> None:
    folder = cohort(tmp_path / "in")
    for name in ("labels.csv", "labels.json", "labels.txt"):
        (folder / "P1" / name).write_text(text)
    with collected_warnings():
        assert found(folder, tmp_path / "out")[0] == {"mask": sum(SIZES.values())}


def test_labels_without_names_are_never_one_roi_where_a_name_is_asked_for(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "in")
    assert found(folder, tmp_path / "1", "GTV") == ({}, [Code.ROI_NOT_FOUND])
    assert found(folder, tmp_path / "2", "label-2") == ({"label-2": SIZES[2]}, [])
    with collected_warnings() as said:
        assert found(folder, tmp_path / "3")[0] == {"mask": sum(SIZES.values())}
    assert [warning.code for warning in said] == [Code.MASK_LABELS_MERGED]
    single = cohort(tmp_path / "single", values=(VALUES == 2).astype(np.uint8))
    assert found(single, tmp_path / "4", "GTV") == ({"mask": SIZES[2]}, [])


def test_a_case_depends_on_the_table_that_names_its_labels(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "in")
    table = folder / "P1" / "labels.csv"
    digests = set()
    for text in ("label,name\n1,GTV\n", "label,name\n1,GTV\n2,Lung\n"):
        table.write_text(text)
        index_cohort([folder], tmp_path / "out", CohortSection(roi=("GTV",)))
        [case] = read_cases(tmp_path / "out" / "cases.csv")
        digests.add(case.digest)
    assert len(digests) == 2
