from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_opplan.data.splits import internal_split


@given(st.lists(st.integers(0, 3), min_size=40, max_size=120), st.integers(0, 5), st.floats(0.1, 0.5))
@settings(max_examples=60, deadline=None)
def test_split_is_stratified_and_complete(labels, seed, share):
    training, validation = internal_split(labels, [None] * len(labels), size=share, seed=seed)
    assert sorted(training + validation) == list(range(len(labels)))
    counts, taken = Counter(labels), Counter(labels[index] for index in validation)
    for label, count in counts.items():
        assert abs(taken[label] - share * count) <= 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=40, max_size=100), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_no_group_is_on_both_sides(rows, seed):
    labels, groups = zip(*rows, strict=True)
    try:
        training, validation = internal_split(labels, groups, size=0.3, seed=seed)
    except ValueError as error:
        assert "one side would be empty" in str(error)  # noqa: PT017 - only some examples are as lumpy as that
        assert len(set(groups)) < 6
        return
    assert not {groups[i] for i in training} & {groups[i] for i in validation}
    assert len(validation) <= round(0.3 * len(rows))


def test_size_can_be_a_count():
    training, validation = internal_split([0, 1] * 50, [None] * 100, size=20, seed=0)
    assert (len(training), len(validation)) == (80, 20)


def test_seed_decides():
    labels, groups = [0, 1] * 50, [None] * 100
    first, again, other = (internal_split(labels, groups, size=0.2, seed=seed)[1] for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("size", [0, 1.0 * 10, 11, -1], ids=["none", "all", "more", "negative"])
def test_sizes_that_leave_a_side_empty_are_refused(size):
    with pytest.raises(ValueError, match="`size` must leave examples on both sides of a set of 10"):
        internal_split([0] * 10, [None] * 10, size=size, seed=0)


def test_groups_too_large_for_the_size_are_refused():
    with pytest.raises(ValueError, match="one side would be empty"):
        internal_split([0] * 10, ["a"] * 10, size=3, seed=0)
