import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_opplan.data.sampling import clip_indices, spaced_offset

first = lambda last: 0  # noqa: E731
final = lambda last: last  # noqa: E731
middle = spaced_offset(0, 1)


@pytest.mark.parametrize(
    ("num_frames", "clip_length", "options", "expected"),
    [
        (20, 4, {"offset": first}, [0, 1, 2, 3]),
        (20, 4, {"offset": middle}, [8, 9, 10, 11]),
        (20, 4, {"offset": final}, [16, 17, 18, 19]),
        (20, 4, {"offset": final, "frame_stride": 2}, [13, 15, 17, 19]),
        (3, 8, {"offset": middle}, [0, 1, 2, 0, 1, 2, 0, 1]),
        (3, 6, {"offset": middle, "short_video": "pad"}, [0, 1, 2, 2, 2, 2]),
        (5, 4, {"offset": middle, "frame_stride": 2}, [0, 2, 4, 1]),
    ],
    ids=["first", "middle", "last", "stride", "loop", "pad", "short-stride"],
)
def test_consecutive_clips(num_frames, clip_length, options, expected):
    assert clip_indices(num_frames, clip_length, sampling="consecutive", **options) == expected


@pytest.mark.parametrize(
    ("num_frames", "clip_length", "offset", "expected"),
    [
        (24, 8, first, [0, 1, 2, 3, 12, 13, 14, 15]),
        (24, 8, middle, [4, 5, 6, 7, 16, 17, 18, 19]),
        (24, 8, final, [8, 9, 10, 11, 20, 21, 22, 23]),
        (25, 8, final, [8, 9, 10, 11, 21, 22, 23, 24]),
        (6, 8, middle, [0, 1, 2, 3, 3, 4, 5, 0]),
        (1, 4, middle, [0, 0, 0, 0]),
    ],
    ids=["first", "middle", "last", "odd", "short", "one-frame"],
)
def test_uniform_clips_take_four_neighbours_per_segment(num_frames, clip_length, offset, expected):
    assert clip_indices(num_frames, clip_length, sampling="uniform", offset=offset) == expected


@given(st.integers(1, 300), st.integers(1, 16), st.sampled_from(["loop", "pad"]), st.randoms(use_true_random=False))
def test_uniform_segments_cover_the_video(num_frames, num_segments, short_video, random):
    chosen = lambda last: random.randint(0, last)  # noqa: E731
    indices = clip_indices(num_frames, 4 * num_segments, sampling="uniform", offset=chosen, short_video=short_video)
    assert len(indices) == 4 * num_segments
    assert all(0 <= index < num_frames for index in indices)
    if num_frames >= 4 * num_segments:
        assert indices == sorted(set(indices))
        for segment in range(num_segments):
            begin, end = segment * num_frames // num_segments, (segment + 1) * num_frames // num_segments
            assert all(begin <= index < end for index in indices[4 * segment : 4 * segment + 4])


@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 4), st.randoms(use_true_random=False))
def test_consecutive_clips_stay_within_the_video(num_frames, clip_length, stride, random):
    chosen = lambda last: random.randint(0, last)  # noqa: E731
    indices = clip_indices(num_frames, clip_length, sampling="consecutive", offset=chosen, frame_stride=stride)
    assert all(0 <= index < num_frames for index in indices)
    if num_frames > (clip_length - 1) * stride:
        assert {b - a for a, b in itertools.pairwise(indices)} <= {stride}


def test_ten_test_clips_run_from_the_first_frame_to_the_last():
    starts = [spaced_offset(view, 10)(90) for view in range(10)]
    assert starts == list(range(0, 91, 10))


def test_random_offsets_reach_every_clip():
    torch.manual_seed(0)
    seen = {
        clip_indices(6, 4, sampling="consecutive", offset=lambda last: int(torch.randint(last + 1, ())))[0]
        for _ in range(60)
    }
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 6), "`clip_length` must be a multiple of 4 for uniform sampling, got 6"),
        ((0, 4), "must be positive, got 0, 4 and 1"),
    ],
    ids=["multiple", "empty"],
)
def test_impossible_clips_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        clip_indices(*arguments, sampling="uniform", offset=first)


def test_view_must_exist():
    with pytest.raises(ValueError, match="`view` must be one of 3 views counted from 0, got 3"):
        spaced_offset(3, 3)
