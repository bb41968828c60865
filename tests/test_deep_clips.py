import numpy as np
import pytest
import scipy.ndimage

from prognosis_dask.errors import CaseError, Code
from prognosis_dask.networks.clips import ClipRule, clip_length

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def study_clip(frames):
    """The reference study's steps, one frame and channel at a time."""
    shown = [frame for frame in frames for _ in range(5 if len(frames) < 6 else 1)]
    clip = np.empty((3, len(shown), 224, 224))
    for position, frame in enumerate(shown):
        large = scipy.ndimage.zoom(frame, 2, order=1).astype(float)
        for channel in range(3):
            clip[channel, position] = (large[16:240, 16:240] / 255 - MEAN[channel]) / STD[channel]
    return clip.astype(np.float32)


@pytest.mark.parametrize("n_slices", [1, 5, 6, 9])
def test_clip_is_the_studys_to_the_last_bit(n_slices):
    frames = np.random.default_rng(n_slices).integers(0, 256, (n_slices, 128, 128)).astype(np.uint8)
    clip = ClipRule().make(frames)
    assert clip.dtype == np.float32
    assert clip.flags.c_contiguous
    np.testing.assert_array_equal(clip, study_clip(frames))


def test_clip_of_the_brightest_frames_does_not_overflow():
    frames = np.full((6, 128, 128), 255, np.uint8)
    np.testing.assert_array_equal(ClipRule().make(frames), study_clip(frames))


def test_clip_length_is_that_of_the_clip():
    for n_slices in (1, 4, 5, 6, 7):
        assert ClipRule().make(np.zeros((n_slices, 128, 128), np.uint8)).shape[1] == clip_length(n_slices)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 128, 128), np.uint8),
        np.zeros((9, 128, 127), np.uint8),
        np.zeros((128, 128), np.uint8),
        np.zeros((9, 128, 128), np.float32),
    ],
)
def test_frames_of_another_kind_are_a_problem_of_the_case(frames):
    with pytest.raises(CaseError, match="expected uint8") as caught:
        ClipRule().make(frames)
    assert caught.value.problem.code is Code.CLIP_INVALID
    assert str(frames.shape) in caught.value.problem.reason
