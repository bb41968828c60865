"""Enhanced multi-frame images: each frame as if it were an image of its own.

A frame's attributes are in functional groups, its own and those shared by all frames (DICOM PS3.3 C.7.6.16). Taken out
of them and put beside what the file says of all, it reads like the header of an image with one frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Enhanced CT, MR and PET, and legacy converted ones.
ENHANCED = (
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.128.1",
)
_SHARED, _OWN = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
#: What enhanced images call otherwise than others do.
_CALLED = {
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameType": "ImageType",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
}


def frames_of(dataset: Dataset) -> Iterator[Dataset]:
    """The header of each frame of an enhanced image, in the order of its pixels."""
    common = _common(dataset)
    for own in dataset.get(_OWN) or ():
        yield _with(common, own)


def transformation_of(dataset: Dataset, number: int) -> Dataset:
    """Where the slope of a frame (its number from 1) stands: in its own group, in all frames' or outside of them."""
    for groups in (dataset[_OWN].value[number - 1], *(dataset.get(_SHARED) or ())):
        for values in groups.get("PixelValueTransformationSequence") or ():
            own: Dataset = values
            return own
    return dataset


def _common(dataset: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    common = Dataset()
    left_out = (_SHARED, _OWN, "NumberOfFrames", "PixelData")
    for element in dataset.values():
        resolved = dataset[element.tag]
        if resolved.keyword not in left_out:
            common.add(resolved)
    shared = dataset.get(_SHARED)
    return _with(common, shared[0]) if shared else common


def _with(common: Dataset, groups: Dataset) -> Dataset:
    """What is common, and what the functional groups say, which counts."""
    from pydicom.dataset import Dataset

    header = Dataset(common)
    for group in groups:
        if group.VR == "SQ" and group.value:
            for element in group.value[0]:
                header.add(element)
                if element.keyword in _CALLED:
                    setattr(header, _CALLED[element.keyword], element.value)
    return header
