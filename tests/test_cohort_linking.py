"""Geometry as a witness of which series a structure belongs to, on series made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prognosis_dask.cohort.headers import FileStamp, ImageHeader, MaskHeader, Point, Structure
from prognosis_dask.cohort.linking import Catalogue, Link, outlined_share
from prognosis_dask.cohort.series import SeriesListing, group_series
from prognosis_dask.errors import CaseError, Code

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def header(uid: str, position: Point, orientation: tuple[float, ...] = AXIAL, frame: str = "1.9") -> ImageHeader:
    sop = f"{uid}.{abs(hash(position))}"
    return ImageHeader(
        file=FileStamp(f"/data/{sop}", 1000, 1),
        sop_uid=sop,
        series_uid=uid,
        study_uid="1.8",
        patient_id="P1",
        modality="CT",
        frame_of_reference_uid=frame,
        description=uid,
        position=position,
        orientation=orientation,
        pixel_spacing=(2.0, 1.0),
        size=(50, 100),
    )


def axial(uid: str, start: float, gap: float, count: int) -> SeriesListing:
    [listing], problems = group_series(header(uid, (0.0, 0.0, start + gap * i)) for i in reversed(range(count)))
    assert problems == []
    return listing


def mask(points: list[Point], *, series: tuple[str, ...] = (), seen: frozenset[str] = frozenset()) -> MaskHeader:
    structure = Structure(1, ("GTV",), tuple(points), seen)
    stamp = FileStamp("/data/rs", 1, 1, "0")
    return MaskHeader(stamp, "RTSTRUCT", "2.1", " p1", frozenset({"1.9"}), series, frozenset(), (structure,))


def link(listings: list[SeriesListing], of: MaskHeader) -> Link:
    return Catalogue(listings).link(of, of.structures[0], ("CT",))


def contours(start: float, gap: float, count: int) -> list[Point]:
    return [(40.0, 40.0, start + gap * i) for i in range(count)]


def test_a_structure_belongs_to_the_series_whose_planes_it_lies_on() -> None:
    ours, shifted = axial("1.1", 0, 3, 20), axial("1.2", 1.5, 3, 20)
    assert link([shifted, ours], mask(contours(9, 3, 5))) == Link("1.1", by_geometry=True)


def test_contours_on_every_slice_tell_a_thick_series_from_a_thin_one() -> None:
    thin, thick = axial("1.1", 0, 1, 60), axial("1.2", 0, 3, 20)
    assert link([thin, thick], mask(contours(9, 3, 5))).series_uid == "1.2"
    assert link([thin, thick], mask(contours(9, 1, 15))).series_uid == "1.1"


def test_equal_series_are_ambiguous_and_both_are_named() -> None:
    with pytest.raises(CaseError, match=r"1\.1.*1\.2") as caught:
        link([axial("1.1", 0, 3, 20), axial("1.2", 0, 3, 30)], mask(contours(9, 3, 5)))
    assert caught.value.problem.code == Code.SERIES_AMBIGUOUS


def test_a_structure_beyond_the_slab_or_beside_the_image_fits_nowhere() -> None:
    series = axial("1.1", 0, 3, 20)
    assert outlined_share(contours(9, 3, 5), series) == 1.0
    assert outlined_share(contours(90, 3, 5), series) == 0.0
    # columns are 1 mm apart (100 mm), rows 2 mm (100 mm): the last row's centre is at 98
    assert outlined_share([(99.4, 98.9, 9.0)], series) == 1.0
    assert outlined_share([(99.6, 40.0, 9.0)], series) == 0.0
    with pytest.raises(CaseError) as caught:
        link([series], mask(contours(90, 3, 5)))
    assert caught.value.problem.code == Code.MASK_WITHOUT_SERIES


def test_uids_count_before_geometry_and_a_contour_s_own_image_before_the_mask_s_series() -> None:
    one, two = axial("1.1", 0, 3, 20), axial("1.2", 0, 3, 20)
    points = contours(9, 3, 5)
    assert link([one, two], mask(points, series=("1.2",))) == Link("1.2", by_geometry=False)
    seen = frozenset({one.slices[3].sop_uid})
    assert link([one, two], mask(points, series=("1.2",), seen=seen)) == Link("1.1", by_geometry=False)
    # references to files that do not exist are of no use
    assert link([one], mask(points, series=("9.9",), seen=frozenset({"9.8"}))) == Link("1.1", by_geometry=True)


def test_a_structure_drawn_on_a_slice_that_cannot_be_used_is_refused_and_not_read_without_that_slice() -> None:
    whole = [header("1.1", (0.0, 0.0, 3.0 * i)) for i in range(20)]
    faulty = replace(whole[-1], fault="49911 values a pixel", position=())
    [listing], _ = group_series(whole[:-1])
    seen = frozenset(one.sop_uid for one in whole[15:])
    drawn = mask(contours(45, 3, 5), series=("1.1",), seen=seen)
    with pytest.raises(CaseError, match=r"1 image of its series that cannot be used: 49911 values a pixel \(/data/"):
        Catalogue([listing], [faulty]).link(drawn, drawn.structures[0], ("CT",))
    # contours that do not name their images: the mask names them all, and one contour lies on none that is left
    nameless = replace(mask(contours(45, 3, 5), series=("1.1",)), sop_uids=frozenset(one.sop_uid for one in whole))
    with pytest.raises(CaseError, match="1 image of its series that cannot be used"):
        Catalogue([listing], [faulty]).link(nameless, nameless.structures[0], ("CT",))
    # another structure of the mask does not need the slice
    other = mask(contours(9, 3, 5), series=("1.1",), seen=frozenset(one.sop_uid for one in whole[3:8]))
    assert Catalogue([listing], [faulty]).link(other, other.structures[0], ("CT",)) == Link("1.1", by_geometry=False)


def test_of_several_series_that_a_mask_names_the_wanted_modality_counts() -> None:
    ct, pet = axial("1.1", 0, 3, 20), replace(axial("1.2", 0, 3, 20), modality="PT")
    assert link([ct, pet], mask(contours(9, 3, 5), series=("1.2", "1.1"))) == Link("1.1", by_geometry=False)
    # the one series that it names stands, wanted or not
    assert link([ct, pet], mask(contours(9, 3, 5), series=("1.2",))) == Link("1.2", by_geometry=False)


def test_a_series_of_two_patients_is_not_used() -> None:
    mixed = [header("1.1", (0.0, 0.0, 1.0)), replace(header("1.1", (0.0, 0.0, 2.0)), patient_id="P2")]
    listings, problems = group_series(mixed)
    assert listings == []
    assert [(problem.code, problem.patient_id) for problem in problems] == [
        (Code.SERIES_MIXED, "P1"),
        (Code.SERIES_MIXED, "P2"),
    ]


def test_a_scout_among_the_slices_is_a_stack_of_its_own() -> None:
    slices = [header("1.1", (0.0, 0.0, 3.0 * i)) for i in range(9)]
    [listing, scout], _ = group_series([header("1.1", (50.0, 0.0, 400.0), SAGITTAL), *slices])
    assert [s.position[2] for s in listing.slices] == [3.0 * i for i in range(9)]
    assert len(scout.slices) == 1
    assert outlined_share(contours(9, 3, 4), listing) == 1.0
    assert link([listing, scout], mask(contours(9, 3, 4), series=("1.1",))).series_uid == listing.key


def test_sagittal_slices_are_ordered_along_their_own_normal() -> None:
    # row direction y, column direction -z: the normal is -x
    [listing], _ = group_series(header("1.1", (float(x), 0.0, 0.0), SAGITTAL) for x in (3, 1, 2))
    assert [s.position[0] for s in listing.slices] == [3.0, 2.0, 1.0]


def test_images_of_two_modalities_in_one_series_are_two_stacks() -> None:
    """A PET that was given the CT's SeriesInstanceUID would continue its slices as Hounsfield units."""
    ct = [header("1.1", (0.0, 0.0, 3.0 * i)) for i in range(6)]
    pet = [replace(header("1.1", (0.0, 0.0, 18.0 + 3 * i)), modality="PT") for i in range(4)]
    listings, _ = group_series([*ct, *pet])
    assert [(one.modality, len(one.slices), one.stack) for one in listings] == [
        ("CT", 6, "CT 1 of 2"),
        ("PT", 4, "PT 2 of 2"),
    ]


def test_a_series_in_two_frames_of_reference_is_told() -> None:
    images = [header("1.1", (0.0, 0.0, 3.0 * i), frame=f"1.{9 + i // 3}") for i in range(6)]
    [listing], [told] = group_series(images)
    assert (len(listing.slices), told.code, told.severity) == (6, Code.SERIES_MIXED, "warning")
    assert "name 2 frames of reference" in told.reason
