"""The patches of each local branch."""

from hypothesis import given
from hypothesis import strategies as st

from model.layers.jigsaw import Jigsaw, branch_tokens, rearranged


def test_ten_patches_are_rearranged_as_in_the_released_code():
    assert [1 + patch for patch in rearranged(10, shift=5, groups=2)] == [5, 10, 6, 1, 7, 2, 8, 3, 9, 4]


def test_odd_number_of_patches_repeats_the_last_but_one():
    # shifted by 2: 2 3 4 0 1; the last but one, 0, is appended; rows 2 3 4 / 0 1 0 are read by columns
    assert rearranged(5, shift=3, groups=2) == [2, 0, 3, 1, 4, 0]


def test_three_groups_are_padded_as_often_as_needed():
    # 19 = 3 * 6 + 1 needs two copies; the released code appends one and fails
    order = rearranged(19, shift=1, groups=3)
    assert len(order) == 21
    assert sorted(order) == sorted([*range(19), 17, 17])


def test_branches_share_the_class_token_and_divide_the_rest():
    assert branch_tokens(10, Jigsaw(branches=3, rearrange=False)) == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 9]]


@given(patches=st.integers(1, 120), branches=st.integers(1, 8), shift=st.integers(1, 130), groups=st.integers(1, 9))
def test_every_branch_is_full_and_no_patch_is_lost(patches, branches, shift, groups):
    if patches < branches:
        return
    order = rearranged(patches, shift, groups)
    assert set(order) == set(range(patches)) and len(order) == patches + -patches % groups
    tokens = branch_tokens(patches, Jigsaw(branches, shift, groups))
    assert [len(part) for part in tokens] == [1 + patches // branches] * branches
    assert all(part[0] == 0 and min(part[1:]) >= 1 and max(part) <= patches for part in tokens)


@given(patches=st.integers(2, 60), groups=st.integers(1, 6))
def test_neighbours_in_the_order_come_from_different_groups(patches, groups):
    order = rearranged(patches, 1, groups)
    length = len(order) // groups
    padded = [*range(patches), *[patches - 2] * (-patches % groups)]
    assert all(order[k * groups + j] == padded[j * length + k] for k in range(length) for j in range(groups))
