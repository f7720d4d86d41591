from pathlib import Path

import numpy as np
import pytest

from datasets.caption_checks import (
    caption_match_findings,
    caption_table,
    check_images,
    doubtful_captions,
    published_caption_findings,
)
from datasets.captions import CUHK_PEDES, ICFG_PEDES, RSTP_REID, CaptionDataset, CaptionTest, Layout, Pair, Published
from utils.errors import DataError


def pairs(ids: int, images: int, captions: int) -> list[Pair]:
    """Return training pairs with these counts: images and captions are dealt to the identities in turn."""
    return [Pair(f"{row % images}.jpg", row % images % ids, row % images, f"caption {row}") for row in range(captions)]


def searched(ids: int, images: int, captions: int, first: int = 0) -> CaptionTest:
    rows = pairs(ids, images, captions)
    return CaptionTest(
        [f"test/{row}.jpg" for row in range(images)],
        first + np.arange(images) % ids,
        [pair.caption for pair in rows],
        first + np.array([pair.pid for pair in rows]),
        np.array([pair.image_id for pair in rows]),
    )


def made(layout: Layout, **counts: tuple[int, int, int]) -> CaptionDataset:
    """Return a data set with the published figures of `layout` and (ids, images, captions) by split."""
    tests = {split: searched(*counts[split]) if split in counts else None for split in ("val", "test")}
    return CaptionDataset(layout.name, pairs(*counts["train"]), **tests, published=layout.published)


def toy(train: list[Pair], test: CaptionTest | None = None) -> CaptionDataset:
    return CaptionDataset("toy", train, None, test or searched(1, 1, 1))


CUHK = {"train": (11_003, 34_054, 68_126), "val": (1_000, 3_078, 6_158), "test": (1_000, 3_074, 6_156)}
ICFG = {"train": (3_102, 34_674, 34_674), "test": (1_000, 19_848, 19_848)}
RSTP = {"train": (3_701, 18_505, 37_010), "val": (200, 1_000, 2_000), "test": (200, 1_000, 2_000)}


@pytest.mark.parametrize(("layout", "counts"), [(CUHK_PEDES, CUHK), (ICFG_PEDES, ICFG), (RSTP_REID, RSTP)])
def test_the_published_counts_are_no_finding(layout, counts):
    assert published_caption_findings(made(layout, **counts)) == []


def test_each_count_that_differs_is_named_with_the_published_one():
    findings = published_caption_findings(made(CUHK_PEDES, **CUHK | {"train": (11_003, 34_053, 68_125)}))
    assert [line.split(";")[0] for line in findings] == [
        "CUHK-PEDES train: expected 34,054 images (published), found 34,053",
        "CUHK-PEDES train: expected 68,126 or 68,108 captions (published), found 68,125",
    ]
    assert len(published_caption_findings(made(RSTP_REID, train=RSTP["train"], test=RSTP["test"]))) == 3  # no val


def test_images_of_an_identity_and_captions_of_an_image_are_counted():
    data = made(RSTP_REID, **RSTP)
    moved = [pair._replace(pid=1) if pair.image_id == 0 else pair for pair in data.train]
    (line,) = published_caption_findings(data._replace(train=moved))
    assert line.startswith("RSTPReid train: 2 of 3,701 identities do not have 5 images, as published;")
    (line,) = published_caption_findings(data._replace(train=[data.train[0]._replace(path="9.jpg"), *data.train[1:]]))
    assert line.startswith("RSTPReid train: 2 of 18,505 images do not have 2 captions, as published;")


def test_a_set_without_published_figures_and_one_for_tests_alone_have_no_findings():
    assert published_caption_findings(made(RSTP_REID, **RSTP)._replace(published=Published())) == []
    assert published_caption_findings(made(ICFG_PEDES, **ICFG)._replace(train=[], no_train="none")) == []


def test_the_table_counts_identities_images_and_captions_of_every_split():
    lines = caption_table([made(RSTP_REID, train=(2, 6, 12), test=(1, 1000, 2000))]).splitlines()
    assert [line.split() for line in lines] == [
        ["data", "set", "split", "ids", "images", "captions"],
        ["-" * len(lines[0])],
        ["RSTPReid", "train", "2", "6", "12"],
        ["RSTPReid", "val", "0", "0", "0"],
        ["RSTPReid", "test", "1", "1,000", "2,000"],
    ]


def test_captions_whose_identity_is_not_searched_are_counted():
    test = searched(2, 2, 4)
    assert caption_match_findings(toy([], test)) == []
    (line,) = caption_match_findings(toy([], test._replace(caption_pids=np.array([0, 1, 8, 1]))))
    assert line.startswith("toy: 1 of 4 captions have no image of their identity") and "'caption 2'" in line


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (None, "toy: no image of split test has a caption"),
        (searched(1, 1, 1)._replace(captions=[]), "toy: no image of split test has a caption"),
        (searched(2, 2, 4)._replace(pids=np.array([8, 9])), "toy: no caption's identity is among those of the images"),
    ],
)
def test_a_test_that_can_find_nothing_is_an_error(test, message):
    with pytest.raises(DataError, match=message):
        caption_match_findings(CaptionDataset("toy", [], None, test))


def test_missing_images_are_counted_over_all_splits_and_the_first_are_named(tmp_path):
    (tmp_path / "0.jpg").write_text("")
    paths = [f"{tmp_path}/{row}.jpg" for row in range(6)]
    train = [Pair(paths[row], 0, row, caption) for row in (0, 1) for caption in "ab"]
    test = CaptionTest(paths[2:], np.zeros(4, np.int64), ["x"], np.zeros(1, np.int64), np.zeros(1, np.int64))
    with pytest.raises(DataError) as error:
        check_images([toy(train, test)])
    assert str(error.value).startswith(
        f"toy: 5 of 6 images do not exist: '{paths[1]}', '{paths[2]}', '{paths[3]}', ...; unpack the images again"
    )
    for path in paths:
        Path(path).write_text("")
    check_images([toy(train, test)])


def test_empty_repeated_and_cut_captions_and_images_listed_twice_are_told():
    captions = [("a.jpg", "a man in red"), ("a.jpg", " "), ("b.jpg", "red"), ("b.jpg", "red"), ("c.jpg", "")]
    train = [Pair(path, 0, "abc".index(path[0]), caption) for path, caption in captions]
    twice = searched(1, 2, 2)._replace(paths=["t.jpg", "t.jpg"])
    assert [line.split(";")[0] for line in doubtful_captions(toy(train, twice), 5)] == [
        "toy train: 2 captions are empty, e.g. of 'a.jpg'",
        "toy train: 1 of 5 captions have more than 5 tokens and lose their last words, e.g. of 'a.jpg'",
        "toy train: 1 captions stand twice at their image, e.g. of 'b.jpg'",
        "toy test: 1 images are listed twice, e.g. of 't.jpg'",
    ]
    assert list(doubtful_captions(toy(train[:1]), 6)) == []


def test_equal_captions_of_images_that_are_not_searched_are_not_repeated():
    test = searched(1, 1, 2)._replace(captions=["red", "red"], caption_images=np.array([-1, -1]))
    assert list(doubtful_captions(toy([], test), 77)) == []
