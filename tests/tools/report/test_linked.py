"""The page of a launch links to the pages of its tests, by paths relative to itself, as far as they are there."""

import re
from pathlib import Path
from types import SimpleNamespace

from tests.tools.report.report_files import PAGE_OF_A_TEST
from tools.report.linked import test_pages as links_of
from utils.run_folder import EMA
from utils.test_folder import TestFolder, epoch_folder


def launched(root: Path, epochs: tuple[int, ...], averaged: tuple[int, ...] = ()) -> SimpleNamespace:
    """Return what a launch of seeds 0 and 1 left; seeds in `averaged` have a result of averaged weights."""

    def test_folder(seed: int, epoch: int, stage: str = "") -> TestFolder:
        return epoch_folder(root / f"x_seed{seed}_test" / stage, epoch)

    experiment = SimpleNamespace(root=root, test_folder=test_folder, last_epoch=max(epochs, default=1))
    results = [
        SimpleNamespace(seed=seed, epochs=dict.fromkeys(epochs), further={EMA: None} if seed in averaged else {})
        for seed in (0, 1)
    ]
    return SimpleNamespace(name="a <b>", experiment=experiment, results=results)


def test_each_page_that_is_there_is_linked_with_those_of_further_test_sets(tmp_path):
    for place in ("x_seed0_test/epoch_1", "x_seed0_test/epoch_2/market1501", "x_seed1_test/epoch_2"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "report.html").touch()
    (tmp_path / "x_seed1_test/epoch_1").mkdir()
    links = re.findall(r'<a href="(.*)">(.*)</a>', links_of([launched(tmp_path, (1, 2))]))
    assert links == [
        ("x_seed0_test/epoch_1/report.html", "a &lt;b&gt;, seed 0, epoch 1"),
        ("x_seed0_test/epoch_2/market1501/report.html", "a &lt;b&gt;, seed 0, epoch 2, market1501"),
        ("x_seed1_test/epoch_2/report.html", "a &lt;b&gt;, seed 1, epoch 2"),
    ]
    assert all((tmp_path / link).is_file() and re.fullmatch(PAGE_OF_A_TEST, link) for link, _ in links)


def test_the_page_of_averaged_weights_is_linked_where_their_test_counts(tmp_path):
    names = (
        "x_seed0_test/epoch_2",
        "x_seed0_test/ema/epoch_2",
        "x_seed0_test/ema/epoch_2/veri",
        "x_seed1_test/epoch_2",
    )
    for place in (*names, "x_seed1_test/ema/epoch_2"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "report.html").touch()
    links = re.findall(r'<a href="(.*)">(.*)</a>', links_of([launched(tmp_path, (2,), averaged=(0,))]))
    assert [link for link, _ in links] == [f"{name}/report.html" for name in names]
    assert [title.partition("epoch 2")[2] for _, title in links[:3]] == [
        "",
        ", averaged weights",
        ", averaged weights, veri",
    ]
    assert all(re.fullmatch(PAGE_OF_A_TEST, link) for link, _ in links)


def test_without_pages_a_line_says_so(tmp_path):
    assert "No test left a page" in links_of([launched(tmp_path, ())])
