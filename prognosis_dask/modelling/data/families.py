"""What a column is, from its name: image features, clinical, molecular, volume, stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from prognosis_dask.cohort.clinical import key
from prognosis_dask.features.registry import families

#: More columns than this are no clinical ones, unless their names say so; a single numbered one is no row of features.
_FEW_COLUMNS, _FEWEST_NUMBERED = 30, 2
_RADIOMICS = re.compile(
    r"([A-Za-z0-9-]+\.)?(original|wavelet-\w+|log-sigma-[\w.-]+|square|squareroot|logarithm|exponential|gradient|lbp-[\w-]+)"
    r"_(shape|shape2D|firstorder|glcm|glrlm|glszm|gldm|ngtdm)_\w+"
)
_DEEP = re.compile(r"(deep|logit|pooled|cnn|embedding)_?\d+")
_DEEP_2 = re.compile(r"deep_2_\w+")
_VOLUME = re.compile(r"(tumou?r|gtv|lesion|roi)?volume(ml|cc|cm3)?")
_STAGE = re.compile(r".*stage|.*stage(group(ing)?)?(ajcc|uicc)?|ajcc.*|uicc.*|tnm")
_CLINICAL = re.compile(
    r"age(at\w+)?|sex|gender|histology|grade|smok\w+|ecog\w*|performance\w*|karnofsky\w*|kps|bmi|weight|height|"
    r"treatment|chemo\w*|surgery|hpv\w*|p16|race|ethnicity|site|subsite|packyears|alcohol\w*"
)
_MOLECULAR = re.compile(
    r"ens[gt]\d+.*|rs\d{3,}.*|cg\d{6,}|(hsa-)?(mir|let)-\d+\w*.*|.*[ _.-](expr(ession)?|mut(ation|ated)?|methyl\w*|cnv|"
    r"amplification|tpm|fpkm|rpkm)|(mut|expr|gene|cnv|methyl)[_.-].*|idh1?2?([ _-]?(status|mut\w*))?|mgmt.*|1p/?19q.*|"
    r"egfr|kras|braf|alk|tp53|pik3ca|brca[12]|ki-?67|her2|pd-?l1|msi|tmb",
    re.IGNORECASE,
)


def computed_families() -> tuple[str, ...]:
    """Families of many columns that programs compute from images: nobody types their values in."""
    return tuple(family.name for family in families() if not family.handful)


def image_families() -> tuple[str, ...]:
    """Families of many columns, made from images: a case without any of them cannot be used."""
    return (*computed_families(), "features")


def measured_families() -> tuple[str, ...]:
    """Families that are measured on an image, whatever their values are."""
    return (*(family.name for family in families()), "volume")


@lru_cache(maxsize=1 << 18)
def family_of(name: str, default: str = "") -> str:
    """What a column most probably is, from its name: pyradiomics' names, this project's, a volume, a stage.

    >>> family_of("original_shape_Sphericity"), family_of("Overall.Stage"), family_of("GTV volume (ml)")
    ('radiomics', 'stage', 'volume')
    """
    plain = key(name)
    for family, rule, text in (
        ("radiomics", _RADIOMICS, name),
        ("deep", _DEEP, name),
        ("deep_2", _DEEP_2, name),
        ("molecular", _MOLECULAR, name),
        ("volume", _VOLUME, plain),
        ("stage", _STAGE, plain),
        ("clinical", _CLINICAL, plain),
    ):
        if rule.fullmatch(text):
            return family
    return default


def plain_family(names: Sequence[str]) -> str:
    """What columns are that no name tells apart: few with names of their own are clinical, else image features.

    >>> plain_family(["fin", "wexp", "prio"]), plain_family(["f1", "f2", "f3"]), plain_family(["t5"])
    ('clinical', 'features', 'clinical')
    """
    unknown = [name for name in names if not family_of(name)]
    numbered = sum(name[-1:].isdigit() for name in unknown)
    measured = any(family_of(name) in image_families() for name in names)
    few = len(unknown) <= _FEW_COLUMNS and (2 * numbered <= len(unknown) or numbered < _FEWEST_NUMBERED)
    return "clinical" if few and not measured else "features"


def is_of_images(family: str) -> bool:
    """Whether a family, with or without its modality, is one of many columns made from images.

    >>> is_of_images("radiomics CT"), is_of_images("size"), is_of_images("clinical")
    (True, False, False)
    """
    return kind_of(family) in image_families()


def is_measured(family: str) -> bool:
    """Whether a family is measured on an image, or holds features whose names say nothing."""
    return family in (*measured_families(), "features")


def kind_of(family: str) -> str:
    """A family without the modality and region that it was measured on.

    >>> kind_of("radiomics CT"), kind_of("radiomics"), kind_of("deep PT GTV")
    ('radiomics', 'radiomics', 'deep')
    """
    kind = family.partition(" ")[0]
    return kind if kind in image_families() else family
