"""How published data sets lay out their images and masks, and what belongs to what in each."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

import pytest

from prognosis_dask.cohort.headers import FileStamp, VolumeFile
from prognosis_dask.cohort.names import is_mask_name
from prognosis_dask.cohort.pairs import pair_volumes
from prognosis_dask.errors import Code

ROOT = "/data/study/"


@dataclass(frozen=True)
class Layout:
    """Files; per mask its images, patient and ROI; images that have no mask; masks that are a problem."""

    files: tuple[str, ...]
    pairs: dict[str, tuple[tuple[str, ...], str, str]] = field(default_factory=dict)
    alone: tuple[str, ...] = ()
    problems: dict[str, Code] = field(default_factory=dict)


def one(image: str, patient: str, roi: str = "") -> tuple[tuple[str, ...], str, str]:
    return (image,), patient, roi


LAYOUTS = {
    "nnU-Net": Layout(
        (
            "imagesTr/case_001_0000.nii.gz", "imagesTr/case_001_0001.nii.gz", "imagesTr/case_010_0000.nii.gz",
            "labelsTr/case_001.nii.gz", "labelsTr/case_010.nii.gz", "imagesTs/case_002_0000.nii.gz",
        ),
        {
            "labelsTr/case_001.nii.gz":
                (("imagesTr/case_001_0000.nii.gz", "imagesTr/case_001_0001.nii.gz"), "case_001", ""),
            "labelsTr/case_010.nii.gz": one("imagesTr/case_010_0000.nii.gz", "case_010"),
        },
        alone=("imagesTs/case_002_0000.nii.gz",),
    ),
    "BTCV": Layout(
        ("imagesTr/img0001.nii.gz", "imagesTr/img0002.nii.gz", "labelsTr/label0001.nii.gz",
         "labelsTr/label0002.nii.gz", "imagesTs/img0061.nii.gz"),
        {"labelsTr/label0001.nii.gz": one("imagesTr/img0001.nii.gz", "0001"),
         "labelsTr/label0002.nii.gz": one("imagesTr/img0002.nii.gz", "0002")},
        alone=("imagesTs/img0061.nii.gz",),
    ),
    "BTCV in one folder": Layout(
        ("img0001.nii.gz", "img0011.nii.gz", "label0001.nii.gz", "label0011.nii.gz"),
        {"label0001.nii.gz": one("img0001.nii.gz", "0001"), "label0011.nii.gz": one("img0011.nii.gz", "0011")},
    ),
    "MSD": Layout(
        ("Task06_Lung/imagesTr/lung_001.nii.gz", "Task06_Lung/imagesTr/lung_003.nii.gz",
         "Task06_Lung/labelsTr/lung_001.nii.gz", "Task06_Lung/labelsTr/lung_003.nii.gz",
         "Task06_Lung/imagesTs/lung_002.nii.gz"),
        {"Task06_Lung/labelsTr/lung_001.nii.gz": one("Task06_Lung/imagesTr/lung_001.nii.gz", "lung_001"),
         "Task06_Lung/labelsTr/lung_003.nii.gz": one("Task06_Lung/imagesTr/lung_003.nii.gz", "lung_003")},
        alone=("Task06_Lung/imagesTs/lung_002.nii.gz",),
    ),
    "BraTS 2023": Layout(
        tuple(f"BraTS-GLI-0000{n}-000/BraTS-GLI-0000{n}-000-{s}.nii.gz" for n in (0, 2) for s in ("t1n", "t1c", "seg")),
        {
            f"BraTS-GLI-0000{n}-000/BraTS-GLI-0000{n}-000-seg.nii.gz": (
                tuple(f"BraTS-GLI-0000{n}-000/BraTS-GLI-0000{n}-000-{s}.nii.gz" for s in ("t1c", "t1n")),
                f"BraTS-GLI-0000{n}-000", "",
            )
            for n in (0, 2)
        },
    ),
    "BraTS 2020": Layout(
        ("BraTS20_Training_001/BraTS20_Training_001_flair.nii", "BraTS20_Training_001/BraTS20_Training_001_t2.nii",
         "BraTS20_Training_001/BraTS20_Training_001_seg.nii"),
        {"BraTS20_Training_001/BraTS20_Training_001_seg.nii": (
            ("BraTS20_Training_001/BraTS20_Training_001_flair.nii",
             "BraTS20_Training_001/BraTS20_Training_001_t2.nii"), "BraTS20_Training_001", "")},
    ),
    "TotalSegmentator": Layout(
        ("s0001/ct.nii.gz", "s0001/segmentations/liver.nii.gz", "s0001/segmentations/lung_upper_lobe_left.nii.gz",
         "s0002/ct.nii.gz", "s0002/segmentations/liver.nii.gz"),
        {"s0001/segmentations/liver.nii.gz": one("s0001/ct.nii.gz", "s0001", "liver"),
         "s0001/segmentations/lung_upper_lobe_left.nii.gz": one("s0001/ct.nii.gz", "s0001", "lung-upper-lobe-left"),
         "s0002/segmentations/liver.nii.gz": one("s0002/ct.nii.gz", "s0002", "liver")},
    ),
    "KiTS": Layout(
        ("case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz", "case_00001/imaging.nii.gz",
         "case_00001/segmentation.nii.gz"),
        {"case_00000/segmentation.nii.gz": one("case_00000/imaging.nii.gz", "case_00000"),
         "case_00001/segmentation.nii.gz": one("case_00001/imaging.nii.gz", "case_00001")},
    ),
    "KiTS 2021, annotators": Layout(
        ("case_00000/imaging.nii.gz", "case_00000/instances/tumor_instance-1_annotation-2.nii.gz",
         "case_00001/imaging.nii.gz"),
        {"case_00000/instances/tumor_instance-1_annotation-2.nii.gz":
            one("case_00000/imaging.nii.gz", "case_00000", "tumor-instance-1-2")},
        alone=("case_00001/imaging.nii.gz",),
    ),
    "LiTS": Layout(
        ("volume-1.nii", "volume-10.nii", "segmentation-1.nii", "segmentation-10.nii"),
        {"segmentation-1.nii": one("volume-1.nii", "1"), "segmentation-10.nii": one("volume-10.nii", "10")},
    ),
    "CT-ORG": Layout(
        ("volume-0.nii.gz", "volume-3.nii.gz", "labels-0.nii.gz", "labels-3.nii.gz"),
        {"labels-0.nii.gz": one("volume-0.nii.gz", "0"), "labels-3.nii.gz": one("volume-3.nii.gz", "3")},
    ),
    "PROMISE12": Layout(
        ("Case00.mhd", "Case00_segmentation.mhd", "Case01.mhd", "Case01_segmentation.mhd"),
        {"Case00_segmentation.mhd": one("Case00.mhd", "Case00"),
         "Case01_segmentation.mhd": one("Case01.mhd", "Case01")},
    ),
    "pyradiomics": Layout(
        ("brain1_image.nrrd", "brain1_label.nrrd", "brain2_image.nrrd", "brain2_label.nrrd"),
        {"brain1_label.nrrd": one("brain1_image.nrrd", "brain1"),
         "brain2_label.nrrd": one("brain2_image.nrrd", "brain2")},
    ),
    "LIDC as NRRD": Layout(
        ("LIDC-IDRI-0001/LIDC-IDRI-0001_CT.nrrd", "LIDC-IDRI-0001/LIDC-IDRI-0001_nodule_1_annot_2_mask.nrrd",
         "LIDC-IDRI-0003/LIDC-IDRI-0003_CT.nrrd", "LIDC-IDRI-0003/LIDC-IDRI-0003_nodule_mask.nrrd"),
        {"LIDC-IDRI-0003/LIDC-IDRI-0003_nodule_mask.nrrd":
            one("LIDC-IDRI-0003/LIDC-IDRI-0003_CT.nrrd", "LIDC-IDRI-0003", "nodule"),
         "LIDC-IDRI-0001/LIDC-IDRI-0001_nodule_1_annot_2_mask.nrrd":
            one("LIDC-IDRI-0001/LIDC-IDRI-0001_CT.nrrd", "LIDC-IDRI-0001", "nodule-1-2")},
    ),
    "LNDb": Layout(
        ("data/LNDb-0001.mhd", "masks/LNDb-0001_rad1.mhd", "masks/LNDb-0001_rad2.mhd", "data/LNDb-0010.mhd"),
        {"masks/LNDb-0001_rad1.mhd": one("data/LNDb-0001.mhd", "LNDb-0001", "rad1"),
         "masks/LNDb-0001_rad2.mhd": one("data/LNDb-0001.mhd", "LNDb-0001", "rad2")},
        alone=("data/LNDb-0010.mhd",),
    ),
    "HECKTOR": Layout(
        ("imagesTr/CHUM-001__CT.nii.gz", "imagesTr/CHUM-001__PT.nii.gz", "labelsTr/CHUM-001.nii.gz"),
        {"labelsTr/CHUM-001.nii.gz":
            (("imagesTr/CHUM-001__CT.nii.gz", "imagesTr/CHUM-001__PT.nii.gz"), "CHUM-001", "")},
    ),
    "ACDC": Layout(
        ("patient001/patient001_frame01.nii.gz", "patient001/patient001_frame01_gt.nii.gz",
         "patient001/patient001_frame12.nii.gz", "patient001/patient001_frame12_gt.nii.gz"),
        {"patient001/patient001_frame01_gt.nii.gz":
            one("patient001/patient001_frame01.nii.gz", "patient001_frame01"),
         "patient001/patient001_frame12_gt.nii.gz":
            one("patient001/patient001_frame12.nii.gz", "patient001_frame12")},
    ),
    "VerSe, masks in another tree": Layout(
        ("rawdata/sub-verse004/sub-verse004_ct.nii.gz", "rawdata/sub-verse005/sub-verse005_ct.nii.gz",
         "derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz"),
        {"derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz":
            one("rawdata/sub-verse004/sub-verse004_ct.nii.gz", "sub-verse004", "vert")},
        alone=("rawdata/sub-verse005/sub-verse005_ct.nii.gz",),
    ),
    "BIDS": Layout(
        ("sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz", "sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz",
         "derivatives/manual/sub-01/ses-01/anat/sub-01_ses-01_T1w_label-lesion_mask.nii.gz",
         "derivatives/manual/sub-01/ses-02/anat/sub-01_ses-02_T1w_label-lesion_mask.nii.gz"),
        {f"derivatives/manual/sub-01/ses-0{n}/anat/sub-01_ses-0{n}_T1w_label-lesion_mask.nii.gz":
            one(f"sub-01/ses-0{n}/anat/sub-01_ses-0{n}_T1w.nii.gz", "sub-01", "lesion") for n in (1, 2)},
    ),
    "UPENN-GBM": Layout(
        ("images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_FLAIR.nii.gz",
         "images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz",
         "images_segm/UPENN-GBM-00001_11_segm.nii.gz"),
        {"images_segm/UPENN-GBM-00001_11_segm.nii.gz":
            (("images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_FLAIR.nii.gz",
              "images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz"), "UPENN-GBM-00001_11", "")},
    ),
    "MAMA-MIA": Layout(
        ("images/DUKE_001/duke_001_0000.nii.gz", "images/DUKE_001/duke_001_0001.nii.gz",
         "segmentations/expert/duke_001.nii.gz"),
        {"segmentations/expert/duke_001.nii.gz":
            (("images/DUKE_001/duke_001_0000.nii.gz", "images/DUKE_001/duke_001_0001.nii.gz"), "duke_001", "")},
    ),
    "LUNA16": Layout(
        ("subset0/1.3.6.1.4.1.14519.100.mhd", "subset1/1.3.6.1.4.1.14519.100225.mhd",
         "seg-lungs-LUNA16/1.3.6.1.4.1.14519.100.mhd"),
        {"seg-lungs-LUNA16/1.3.6.1.4.1.14519.100.mhd":
            one("subset0/1.3.6.1.4.1.14519.100.mhd", "1.3.6.1.4.1.14519.100")},
        alone=("subset1/1.3.6.1.4.1.14519.100225.mhd",),
    ),
    "Slicer": Layout(
        ("P1/CT.nrrd", "P1/Segmentation.seg.nrrd", "P2/CT.nrrd", "P2/Segmentation_1.seg.nrrd"),
        {"P1/Segmentation.seg.nrrd": one("P1/CT.nrrd", "P1"),
         "P2/Segmentation_1.seg.nrrd": one("P2/CT.nrrd", "P2", "1")},
    ),
    "RibFrac": Layout(
        ("RibFrac1-image.nii.gz", "RibFrac1-label.nii.gz", "RibFrac10-image.nii.gz", "RibFrac10-label.nii.gz"),
        {"RibFrac1-label.nii.gz": one("RibFrac1-image.nii.gz", "RibFrac1"),
         "RibFrac10-label.nii.gz": one("RibFrac10-image.nii.gz", "RibFrac10")},
    ),
    "the same names in images and masks": Layout(
        ("images/P1.nii.gz", "masks/P1.nii.gz", "images/P2.nii.gz", "masks/P2.nii.gz"),
        {"masks/P1.nii.gz": one("images/P1.nii.gz", "P1"), "masks/P2.nii.gz": one("images/P2.nii.gz", "P2")},
    ),
    "scans that are numbered": Layout(
        ("scan01.nii", "scan02.nii", "scan01_mask.nii", "scan02_mask.nii"),
        {"scan01_mask.nii": one("scan01.nii", "scan01"), "scan02_mask.nii": one("scan02.nii", "scan02")},
    ),
    "patients whose names sound like words for masks": Layout(
        ("Segovia01_ct.nii", "Segovia01_mask.nii", "segura_ct.nii", "segura_mask.nii", "Volkmann.nii",
         "Volkmann_seg.nii", "Scanlon_ct.nii", "Scanlon_roi.nii", "Maskell.nii", "Maskell_mask.nii"),
        {"Segovia01_mask.nii": one("Segovia01_ct.nii", "Segovia01"), "segura_mask.nii": one("segura_ct.nii", "segura"),
         "Volkmann_seg.nii": one("Volkmann.nii", "Volkmann"), "Scanlon_roi.nii": one("Scanlon_ct.nii", "Scanlon"),
         "Maskell_mask.nii": one("Maskell.nii", "Maskell")},
    ),
    "patients called seg": Layout(
        ("seg01.nii", "seg01_mask.nii", "seg02.nii", "seg02_mask.nii"),
        {"seg01_mask.nii": one("seg01.nii", "seg01"), "seg02_mask.nii": one("seg02.nii", "seg02")},
    ),
    "umlauts, composed and decomposed": Layout(
        (unicodedata.normalize("NFC", "Müller.nii"), unicodedata.normalize("NFD", "Müller_mask.nii"),
         unicodedata.normalize("NFD", "Möller.nii"), unicodedata.normalize("NFC", "Möller_mask.nii"),
         "Mueller.nii", "Mueller_mask.nii", "Muller.nii", "Muller_mask.nii"),
        {unicodedata.normalize("NFD", "Müller_mask.nii"): one(unicodedata.normalize("NFC", "Müller.nii"), "Müller"),
         unicodedata.normalize("NFC", "Möller_mask.nii"): one(unicodedata.normalize("NFD", "Möller.nii"), "Möller"),
         "Mueller_mask.nii": one("Mueller.nii", "Mueller"), "Muller_mask.nii": one("Muller.nii", "Muller")},
    ),
    "Chinese, Japanese, Korean, Cyrillic": Layout(
        ("张三_ct.nii", "张三_mask.nii", "李四_ct.nii", "李四mask.nii", "山田.nii", "山田_seg.nii", "김철수.nii",
         "김철수_label.nii", "Иванов.nii", "Иванов_mask.nii"),
        {"张三_mask.nii": one("张三_ct.nii", "张三"), "李四mask.nii": one("李四_ct.nii", "李四"),
         "山田_seg.nii": one("山田.nii", "山田"), "김철수_label.nii": one("김철수.nii", "김철수"),
         "Иванов_mask.nii": one("Иванов.nii", "Иванов")},
    ),
    "masks that name their sequence": Layout(
        ("P1_T1.nii", "P1_T2.nii", "P1_T1_mask.nii", "P1_T2_mask.nii"),
        {"P1_T1_mask.nii": one("P1_T1.nii", "P1"), "P1_T2_mask.nii": one("P1_T2.nii", "P1")},
    ),
    "one mask that names its sequence among several": Layout(
        ("P1_T1.nii", "P1_T1ce.nii", "P1_T2.nii", "P1_FLAIR.nii", "P1_T1c_mask.nii"),
        {"P1_T1c_mask.nii": one("P1_T1ce.nii", "P1")},
        alone=("P1_FLAIR.nii", "P1_T1.nii", "P1_T2.nii"),
    ),
    "a mask of a sequence that is not there": Layout(
        ("P1_T1.nii", "P1_T2.nii", "P1_ADC_mask.nii"),
        alone=("P1_T1.nii", "P1_T2.nii"), problems={"P1_ADC_mask.nii": Code.MASK_WITHOUT_SERIES},
    ),
    "folders of modalities": Layout(
        ("P1/CT/image.nii", "P1/CT/mask.nii", "P1/PET/image.nii", "P1/PET/mask.nii",
         "P2/CT/image.nii", "P2/CT/mask.nii"),
        {"P1/CT/mask.nii": one("P1/CT/image.nii", "P1"), "P1/PET/mask.nii": one("P1/PET/image.nii", "P1"),
         "P2/CT/mask.nii": one("P2/CT/image.nii", "P2")},
    ),
    "visits": Layout(
        ("P1/baseline/ct.nii", "P1/baseline/mask.nii", "P1/followup/ct.nii", "P1/followup/mask.nii",
         "P2/baseline/ct.nii", "P2/baseline/mask.nii"),
        {"P1/baseline/mask.nii": one("P1/baseline/ct.nii", "P1"),
         "P1/followup/mask.nii": one("P1/followup/ct.nii", "P1"),
         "P2/baseline/mask.nii": one("P2/baseline/ct.nii", "P2")},
    ),
    "folders of one name": Layout(
        ("P1/nifti/ct.nii", "P1/nifti/mask.nii", "P2/nifti/ct.nii", "P2/nifti/mask.nii"),
        {"P1/nifti/mask.nii": one("P1/nifti/ct.nii", "P1"), "P2/nifti/mask.nii": one("P2/nifti/ct.nii", "P2")},
    ),
    "two sites with the same numbers": Layout(
        ("north/P1.nii", "north/P1_mask.nii", "north/P2.nii", "north/P2_mask.nii", "south/P1.nii", "south/P1_mask.nii",
         "south/P2.nii", "south/P2_mask.nii"),
        {f"{site}/{p}_mask.nii": one(f"{site}/{p}.nii", f"{site}_{p}")
         for site in ("north", "south") for p in ("P1", "P2")},
    ),
    "another patient's mask": Layout(
        ("imagesTr/lung_001.nii.gz", "labelsTr/lung_002.nii.gz"),
        alone=("imagesTr/lung_001.nii.gz",), problems={"labelsTr/lung_002.nii.gz": Code.SERIES_AMBIGUOUS},
    ),
    "another patient's mask, by name": Layout(
        ("Müller.nii", "Möller_mask.nii"),
        alone=("Müller.nii",), problems={"Möller_mask.nii": Code.SERIES_AMBIGUOUS},
    ),
    "one mask, two scans": Layout(
        ("P1_2019.nii", "P1_2021.nii", "P1_mask.nii"),
        alone=("P1_2019.nii", "P1_2021.nii"), problems={"P1_mask.nii": Code.SERIES_AMBIGUOUS},
    ),
    "a mask of a second scan that is not there": Layout(
        ("P1.nii", "P1_2_mask.nii"),
        alone=("P1.nii",), problems={"P1_2_mask.nii": Code.SERIES_AMBIGUOUS},
    ),
    "one image twice": Layout(
        ("P1.nii", "P1.nii.gz", "P1_mask.nii.gz"),
        alone=("P1.nii", "P1.nii.gz"), problems={"P1_mask.nii.gz": Code.SERIES_AMBIGUOUS},
    ),
    "masks that are numbered": Layout(
        ("P1.nii", "P1_seg1.nii", "P1_seg2.nii", "P2.nii", "P2_GTVnodes.nii", "P3/ct.nii", "P3/roi1.nii",
         "P3/roi2.nii"),
        {"P1_seg1.nii": one("P1.nii", "P1", "seg1"), "P1_seg2.nii": one("P1.nii", "P1", "seg2"),
         "P2_GTVnodes.nii": one("P2.nii", "P2", "GTVnodes"), "P3/roi1.nii": one("P3/ct.nii", "P3", "roi1"),
         "P3/roi2.nii": one("P3/ct.nii", "P3", "roi2")},
    ),
    "numbers after a data set's name": Layout(
        ("BTCV_img0001.nii", "BTCV_img0002.nii", "BTCV_label0001.nii", "BTCV_label0002.nii"),
        {"BTCV_label0001.nii": one("BTCV_img0001.nii", "BTCV_img0001"),
         "BTCV_label0002.nii": one("BTCV_img0002.nii", "BTCV_img0002")},
    ),
    "folders of sequences": Layout(
        ("T1/P1.nii", "T2/P1.nii", "T1_masks/P1.nii", "T2_masks/P1.nii"),
        {"T1_masks/P1.nii": one("T1/P1.nii", "P1"), "T2_masks/P1.nii": one("T2/P1.nii", "P1")},
    ),
    "the word for masks first": Layout(
        ("CT_P1.nii", "mask_P1.nii", "CT_P2.nii", "mask_P2.nii"),
        {"mask_P1.nii": one("CT_P1.nii", "P1"), "mask_P2.nii": one("CT_P2.nii", "P2")},
    ),
    "lesions that are numbered": Layout(
        ("P1/T1.nii", "P1/T1_mask_1.nii", "P1/T1_mask_2.nii"),
        {"P1/T1_mask_1.nii": one("P1/T1.nii", "P1", "1"), "P1/T1_mask_2.nii": one("P1/T1.nii", "P1", "2")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_mask_belongs_to_its_own_image(name: str) -> None:
    layout = LAYOUTS[name]
    files = [VolumeFile(FileStamp(ROOT + file, 1, 1), is_mask_name(ROOT + file)) for file in layout.files]
    paired = pair_volumes(files)
    found: dict[str, tuple[tuple[str, ...], str, str]] = {}
    for pair in paired.pairs:
        mask, image = pair.mask.file.path.removeprefix(ROOT), pair.image.file.path.removeprefix(ROOT)
        before = found.get(mask, ((), "", ""))[0]
        found[mask] = tuple(sorted((*before, image))), pair.patient_id, pair.roi
    assert found == layout.pairs
    assert tuple(sorted(image.file.path.removeprefix(ROOT) for _, image in paired.alone)) == layout.alone
    assert {mask.file.path.removeprefix(ROOT): problem.code for mask, problem in paired.masks} == layout.problems
