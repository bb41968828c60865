"""A glioma's grade, IDH and 1p/19q as tables spell them: one class where that is plain, told; never two in silence."""

from __future__ import annotations

import numpy as np
import pytest

from prognosis_dask.errors import StatisticsError
from prognosis_dask.modelling.data.columns import SourceColumn
from prognosis_dask.modelling.data.outcomes import Outcomes, read_outcomes
from prognosis_dask.modelling.spec import EndpointRule
from prognosis_dask.tables.values import glioma_levels, read_level


def read(heading: str, cells: list[str], *classes: str) -> Outcomes:
    columns = {heading: SourceColumn(heading, cells, "table.csv")}
    return read_outcomes(columns, (heading,), EndpointRule(label=heading, classes=classes))


@pytest.mark.parametrize(
    ("heading", "two", "three"),
    [
        ("Grade", ["2", "2.0", "II", "ii", "G2", "g2", "Grade II", "grade 2", "WHO II", "WHO grade 2", "Grad II"],
         ["3", "III", "G3", "WHO III", "CNS WHO grade 3", "gr. 3", "III°"]),
        ("neoplasm_histologic_grade", ["G2"], ["G3"]),  # TCGA
        ("WHO CNS Grade", ["2"], ["3"]),  # UCSF-PDGM
        ("IDH", ["wildtype", "wild type", "wild-type", "wt", "IDH-wildtype", "IDHwt", "WT"],
         ["mutated", "Mutant", "mut", "IDH-mutant", "IDH1 R132H", "R132H", "IDH1 p.R132H", "IDH2 p.R172K",
          "mutated (NOS)", "IDH1/2 mutant", "mutiert", "mut (R132C)", "R132H mutation", "R132H positive", "mut+"]),
        ("IDH status", ["WT"], ["Mutant"]),  # TCGA
        *((heading, ["2", "II"], ["3", "III"]) for heading in (
            "WHO_Grade_2016", "Tumor Grade (WHO)", "Grade_WHO", "WHO_CNS_grade_2021", "WHO-Grad 2016", "Grade OMS")),
        ("1p/19q", ["n/n"], ["d/d"]),  # LGG-1p19qDeletion
        ("1p/19q codeletion", ["non-codel", "non-codeleted", "intact", "not co-deleted", "1p/19q intact"],
         ["codel", "co-deleted", "codeleted", "1p/19q codeleted", "co-deletion"]),  # TCGA, UCSF-PDGM
    ],
)  # fmt: skip
def test_spellings_of_one_class_are_one_class_and_told(heading: str, two: list[str], three: list[str]) -> None:
    found = read(heading, [*two, *three], two[-1], three[-1])
    np.testing.assert_array_equal(found.values[0], [0] * len(two) + [1] * len(three))
    assert found.names == (two[-1], three[-1])
    if len(two) > 1:
        (note,) = found.notes
        assert all(repr(text) in note for text in (*two, *three))
    else:
        assert found.notes == ()
    unnamed = read(heading, [*two, *three])
    assert len(unnamed.names) == 2
    assert not any(unnamed.faults)


@pytest.mark.parametrize(
    ("heading", "other", "classes"),
    [
        # high grade is 3 or 4; a glioblastoma is a type; a range is both
        ("Grade", ["HGG", "LGG", "GBM", "II-III", "2/3", "2 or 3", "NOS", "4"], ("2", "3")),
        ("IDH", ["nicht mutiert", "keine Mutation", "pas de mutation", "sin mutación", "nonmutated", "nonmutant",
                 "mut neg", "mut-", "mutation: none", "mutation 0", "R132H neg", "R132H IHC -", "mutation pending",
                 "mutation test failed", "R132H-", "R132R", "wt?", "wildtype pending", "nicht wildtype"],
         ("wildtype", "mutated")),
        ("IDH", ["NOS", "not mutated", "R132H negative", "Mutant?", "no mutation", "1"], ("wildtype", "mutated")),
        # one arm alone is no codeletion, and not intact; a relative loss is its own finding
        ("1p/19q", ["d/n", "n/d", "relative co-deletion", "1p deleted", "yes"], ("n/n", "d/d")),
        ("MGMT", ["methylatd", "1"], ("methylated", "unmethylated")),
    ],
)  # fmt: skip
def test_what_may_mean_either_is_left_out_with_its_words(heading: str, other: list[str], classes: tuple[str]) -> None:
    found = read(heading, [*classes, *other], *classes)
    assert list(found.faults) == ["", "", *["other-class"] * len(other)]
    (note,) = found.notes
    assert all(f"{text!r} in 1 row" in note for text in other)
    assert f"is none of the classes {', '.join(classes)} and was left out" in note


def test_classes_of_two_markers_stay_apart() -> None:
    cells = ["IDHmut-codel", "IDHmut-non-codel", "IDHwt"]
    for heading in ("IDH.codel.subtype", "IDH_CODEL_SUBTYPE", "IDH 1p19q Subtype"):
        assert set(read(heading, cells).names) == set(cells)
        assert glioma_levels(heading) == {}


def test_what_was_not_tested_is_not_known() -> None:
    found = read("IDH", ["wt", "mut", "not tested", "not done", "unknown", "NA"], "wt", "mut")
    assert list(found.faults) == ["", "", *["no-endpoint"] * 4]
    assert "'not tested' in 1 row" in found.notes[0]


def test_one_class_in_two_spellings_is_no_pair_of_classes() -> None:
    with pytest.raises(StatisticsError, match="one class twice: 2, II"):
        read("Grade", ["2", "II"], "2", "II")


@pytest.mark.parametrize(
    "classes", [("R132H", "R132C"), ("IDH1 mut", "IDH2 mut"), ("mutated", "R132H"), ("IDH1 R132H", "IDH1 R132S")]
)
def test_two_mutations_can_be_the_classes_and_what_says_only_mutated_is_left_out(classes: tuple[str, str]) -> None:
    found = read("IDH", [*classes, "mutant", classes[0].lower()], *classes)
    assert found.names == classes
    np.testing.assert_array_equal(found.values[0], [0, 1, np.nan, 0])
    assert "'mutant' in 1 row is none of the classes" in found.notes[0]


@pytest.mark.parametrize("classes", [("mut", "mutated"), ("R132H", "IDH1 p.R132H"), ("wt", "wild-type")])
def test_one_mutation_in_two_spellings_is_no_pair_of_classes(classes: tuple[str, str]) -> None:
    with pytest.raises(StatisticsError, match="one class twice"):
        read("IDH", list(classes), *classes)


def test_of_many_words_that_are_no_class_the_most_frequent_are_told() -> None:
    found = read("stage", ["a", "b", *(f"x{i}" for i in range(30)), "x7"], "a", "b")
    assert found.notes[0].startswith("Of stage 'x7' in 2 rows, 'x0' in 1 row, ")
    assert "and 10 more is none of the classes" in found.notes[0]


def test_no_other_column_is_read_so() -> None:
    assert read_level(glioma_levels("stage"), "II") == "II"
    assert read("stage", ["II", "2"]).names == ("2", "II")
