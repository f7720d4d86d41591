"""Which training identities are held out, and the query and gallery made of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from datasets.bases import ReIDDataset, Sample, match_findings
from datasets.held_out import hold_out
from utils.errors import DataError


def make_samples(cameras_of: Mapping[int, Sequence[int]]) -> list[Sample]:
    """Return one sample for each (pid, camera in its list), named in this order."""
    return [
        Sample(f"{pid:03d}_{number:02d}.jpg", pid, camid, 0)
        for pid, cameras in cameras_of.items()
        for number, camid in enumerate(cameras)
    ]


@pytest.fixture
def train() -> list[Sample]:
    rng = np.random.default_rng(0)
    return make_samples({pid: rng.integers(0, 4, 6).tolist() for pid in range(0, 80, 2)} | {81: [3, 3, 3]})


def test_train_query_and_gallery_share_no_identity_and_lose_no_image(train):
    held = hold_out(train, 0.2, has_cameras=True)
    kept, drawn = ({sample.pid for sample in samples} for samples in (held.train, held.query + held.gallery))
    assert not kept & drawn and kept | drawn == {sample.pid for sample in train}
    assert len(drawn) == 8  # 20 % of 41
    assert set(held.train) | set(held.query) | set(held.gallery) == set(train)
    assert held.train == [sample for sample in train if sample.pid in kept]  # in their order


def test_every_held_out_query_has_a_match_under_another_camera(train):
    held = hold_out(train, 0.4, has_cameras=True)
    for query in held.query:
        assert any(other.pid == query.pid and other.camid != query.camid for other in held.gallery), query
    assert match_findings(ReIDDataset("held out", [], held.query, held.gallery)) == []


def test_one_query_for_each_identity_and_camera_and_it_is_the_first_by_path():
    train = make_samples({1: [0, 1, 1], 2: [0, 0, 2], 3: [0, 1], 4: [5, 6]})
    held = hold_out(train, 0.5, has_cameras=True)
    drawn = {sample.pid for sample in held.query}
    expected = {1: (["001_00", "001_01"], ["001_00", "001_02"]), 2: (["002_00", "002_02"], ["002_01", "002_02"])}
    expected |= {3: (["003_00", "003_01"],) * 2, 4: (["004_00", "004_01"],) * 2}
    for pid in drawn:
        for samples, names in zip((held.query, held.gallery), expected[pid], strict=True):
            assert [sample.path.removesuffix(".jpg") for sample in samples if sample.pid == pid] == names


def test_the_draw_depends_on_the_identities_alone(train):
    again = hold_out(train[::-1], 0.2, has_cameras=True)
    assert {sample.pid for sample in again.query} == {sample.pid for sample in hold_out(train, 0.2, True).query}


def test_an_identity_of_one_camera_is_never_held_out(train):
    for share in (0.1, 0.3, 0.5):
        assert 81 not in {sample.pid for sample in hold_out(train, share, has_cameras=True).query}


def test_without_cameras_the_first_image_is_the_query_and_no_match_is_junk():
    train = make_samples({pid: [0, 0, 0] for pid in range(10)} | {10: [0]})
    held = hold_out(train, 0.3, has_cameras=False)
    assert len(held.query) == 3 and len(held.gallery) == 6 and 10 not in {sample.pid for sample in held.query}
    assert all(sample.path.endswith("_00.jpg") for sample in held.query)
    assert {sample.camid for sample in held.query} == {0} and {sample.camid for sample in held.gallery} == {1}


@pytest.mark.parametrize("cameras_of", [{1: [0, 1], 2: [0], 3: [0], 4: [0]}, {1: [0, 1], 2: [0, 1], 3: [0, 1]}])
def test_too_few_identities_are_refused_with_the_key(cameras_of):
    with pytest.raises(DataError, match="DATASETS.VAL_IDS 0.5 asks for 2 held-out identities.*or 0"):
        hold_out(make_samples(cameras_of), 0.5, has_cameras=True)
