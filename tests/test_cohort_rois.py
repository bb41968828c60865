"""Rules over names of structures."""

from __future__ import annotations

import pytest

from prognosis_dask.cohort.collections import COLLECTIONS, resolve
from prognosis_dask.cohort.headers import FileStamp, Structure
from prognosis_dask.cohort.rois import Candidate, select
from prognosis_dask.config.job import CohortSection
from prognosis_dask.errors import CaseError, Code


def structure(number: int, *names: str, kind: str = "RTSTRUCT", empty: bool = False, file: str = "") -> Candidate:
    stamp = FileStamp(file or f"/data/{kind}", 1, 1, "0")
    return Candidate(stamp, stamp.path, kind, Structure(number, names, empty=empty), (number,))


def names(candidates: list[Candidate], rules: tuple[str, ...], policy: str) -> list[str]:
    return [selection.name for selection in select(candidates, rules, policy)[0]]  # type: ignore[arg-type]


def code(candidates: list[Candidate], rules: tuple[str, ...], policy: str = "one") -> Code:
    with pytest.raises(CaseError) as caught:
        select(candidates, rules, policy)  # type: ignore[arg-type]
    return caught.value.problem.code


PLAN = [structure(1, "Lung-Left"), structure(2, "gtv-1"), structure(3, "GTV-2"), structure(4, "HTV")]


def test_a_name_matches_as_a_whole_and_without_case() -> None:
    assert names(PLAN, ("GTV-1",), "one") == ["gtv-1"]
    assert code(PLAN, ("GTV",)) == Code.ROI_NOT_FOUND
    assert names(PLAN, ("re:gtv-.",), "each") == ["gtv-1", "GTV-2"]


def test_what_was_seen_is_listed_when_nothing_matches() -> None:
    with pytest.raises(CaseError, match=r"no ROI called 'PTV'; seen: 'GTV-2', 'HTV', 'Lung-Left', 'gtv-1'"):
        select(PLAN, ("PTV",), "one")


def test_earlier_rules_are_preferred() -> None:
    assert names(PLAN, ("GTV", "HTV"), "one") == ["HTV"]
    assert names([*PLAN, structure(5, "GTV")], ("GTV", "HTV"), "one") == ["GTV"]


def test_a_label_map_without_a_name_stands_in_for_no_structure_that_has_it() -> None:
    stamp = FileStamp("/data/mask.nii.gz", 1, 1, "0")
    unnamed = Candidate(stamp, stamp.path, "label map", Structure(0, ("mask",)), (), named=False)
    assert names([unnamed, *PLAN], ("HTV", "GTV-1"), "first") == ["HTV"]
    assert names([unnamed, *PLAN], ("GTV", "GTV-1"), "each") == ["gtv-1"]
    assert names([unnamed, *PLAN], ("PTV",), "one") == ["mask"]


def test_policies_for_several_matches() -> None:
    rules = ("re:gtv.*",)
    assert code(PLAN, rules) == Code.ROI_AMBIGUOUS
    assert names(PLAN, rules, "first") == ["gtv-1"]
    assert names(PLAN, rules, "each") == ["gtv-1", "GTV-2"]
    [merged], _ = select(PLAN, rules, "merge")
    assert (merged.name, merged.labels) == ("gtv-1+GTV-2", (2, 3))
    assert len(names(PLAN, (), "each")) == 4


def test_an_empty_structure_gives_way_to_the_next_rule_and_is_reported() -> None:
    plan = [structure(1, "GTV", empty=True), structure(2, "HTV")]
    selections, problems = select(plan, ("GTV", "HTV"), "one")
    assert [s.name for s in selections] == ["HTV"]
    assert [p.code for p in problems] == [Code.ROI_WITHOUT_CONTOUR]
    assert code(plan, ("GTV",)) == Code.ROI_WITHOUT_CONTOUR
    assert code([structure(1, "GTV", kind="SEG", empty=True)], ("GTV",)) == Code.MASK_EMPTY


def test_the_structure_set_counts_before_the_segmentation_that_was_made_of_it() -> None:
    both = [structure(1, "Neoplasm, Primary", "GTV-1", kind="SEG"), structure(7, "GTV-1")]
    for policy in ("one", "first", "merge"):
        [selection], [warning] = select(both, ("GTV-1",), policy)  # type: ignore[arg-type]
        assert (selection.kind, selection.labels, warning.severity) == ("RTSTRUCT", (7,), "warning")
        assert "the RTSTRUCT /data/RTSTRUCT, which is used, and in the SEG /data/SEG" in warning.reason
    assert select(both[1:], ("GTV-1",), "one")[1] == []
    assert names(both[:1], ("GTV-1",), "one") == ["GTV-1"]
    assert len(names(both, ("GTV-1",), "each")) == 2


def test_two_observers_are_ambiguous_and_cannot_be_merged() -> None:
    two = [structure(1, "GTV-1", file="/data/a"), structure(1, "GTV-1", file="/data/b")]
    assert code(two, ("GTV-1",)) == Code.ROI_AMBIGUOUS
    assert code(two, ("GTV-1",), "merge") == Code.ROI_AMBIGUOUS
    assert len(names(two, ("GTV-1",), "each")) == 2


@pytest.mark.parametrize(
    ("collection", "seen", "chosen"),
    [
        ("lung1", ("Lung-Left", "Spinal-Cord", "GTV-1", "GTV-2"), ["GTV-1"]),
        ("lung4", ("gtv-1", "lungs"), ["gtv-1"]),
        ("opc", ("HTV", "Parotid_L"), ["HTV"]),
        ("opc", ("HTV", "GTV"), ["GTV"]),
        ("hn1", ("GTV-1", "GTV-2"), ["GTV-1"]),
        ("rider", ("GTVp_test_man", "GTVp_test_auto"), ["GTVp_test_man"]),
        ("rider", ("GTVp_retest_auto", "GTVp_retest_man"), ["GTVp_retest_man"]),
        ("sts", ("GTV_Mass", "GTV_Edema"), ["GTV_Mass"]),
        ("sts", ("GTV_Mass_MR_T1",), ["GTV_Mass_MR_T1"]),
        ("abcs", ("Falx", "Brainstem"), ["Falx", "Brainstem"]),
    ],
)
def test_presets_choose_what_their_collection_calls_the_tumour(
    collection: str, seen: tuple[str, ...], chosen: list[str]
) -> None:
    rules = resolve(CohortSection(collection=collection))
    candidates = [structure(number, name) for number, name in enumerate(seen, 1)]
    assert names(candidates, rules.roi, rules.policy) == chosen


def test_a_job_overrides_its_preset() -> None:
    preset = resolve(CohortSection(collection="lung1"))
    assert set(preset.exclude) == {"LUNG1-128"}
    assert len(preset.collection.cautions) == 5
    rules = resolve(
        CohortSection(collection="lung1", roi=("re:gtv.*",), roi_policy="merge", exclude=("LUNG1-014", "LUNG1-007"))
    )
    assert (rules.roi, rules.policy, rules.modalities) == (("re:gtv.*",), "merge", ("CT",))
    assert "16 slices are missing" in rules.exclude["LUNG1-014"]
    assert rules.exclude["LUNG1-007"] == "excluded by the job"
    assert all(rule for collection in COLLECTIONS.values() for rule in collection.roi)
