"""Both reports in headless Chromium, on a desktop and on a phone."""

import json
from pathlib import Path

import pytest

from configs import load_cfg
from tests.tools.report.browser import CHROMIUM, Browser, browser
from tests.tools.report.report_files import (
    blank_chart,
    make_analysis,
    make_images,
    make_launch,
    make_summary,
    write_folder,
)
from tools.report import write_launch_report, write_test_report
from tools.report.places import ANYWHERE
from utils.ranking.branches import BranchScore, write_branches
from utils.test_folder import TestFolder

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs chromium")

FOLDER = Path("configs/Synthetic")
RECIPE = str(FOLDER / "phased.yml")
SEVEN = ("baseline", "conditional_pk", "phased", "routed", "supcon", "tripletx", "ssl_pretrain")


def write_test_page(folder: Path) -> Path:
    """Write the report of a test with all its files."""
    config = json.loads(json.dumps(load_cfg(RECIPE)))
    config["TEST"]["BRANCHES"] = True
    summary = make_summary(config, RECIPE, ranking={"ap": "trapezoid"})  # whose heads of tables are the widest
    write_folder(folder, summary, make_analysis(make_images(folder / "images", 40)))
    write_branches(folder / "branches.csv", [BranchScore("global", 48, 0.25, 0.5, 0.125, 0.25)])
    return write_test_report(TestFolder(folder), ANYWHERE)


def write_launch_page(folder: Path) -> Path:
    """Write the report of a launch of seven experiments, with a wide ablation table."""
    launch = make_launch(folder, [str(FOLDER / f"{name}.yml") for name in SEVEN], [0])
    return write_launch_report(folder / "ablation_report.html", *launch, "python run_phased_loss.py " + 200 * "x")


WIDER = """[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, .ranks, nav, pre')
    && one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 200))"""
VISIBLE = "[...document.querySelectorAll('.chart svg')].filter(one => one.getBoundingClientRect().width > 0)"
LETTERS = f"{VISIBLE}.map(one => Math.round(900 * one.getScreenCTM().a) / 100)"  # pixels of 9 points


@pytest.mark.parametrize("write", [write_test_page, write_launch_page])
def test_chromium_shows_the_page_without_an_error_or_a_sideways_scroll(write, tmp_path, monkeypatch):
    if write is write_launch_page:  # drawing seven times the charts of the other page takes most of the time
        monkeypatch.setattr("tools.svg.to_svg", blank_chart)
    page = write(tmp_path / "logs")
    with browser(tmp_path) as window:
        for width in (1280, 390):
            window.resize(width)
            window.open(page)
            assert window.ask("document.documentElement.scrollWidth") <= width == window.ask("innerWidth")
            assert window.ask(WIDER) == []
            captions = "[...document.querySelectorAll('caption')].map(caption => caption.getBoundingClientRect().right)"
            assert window.ask(f"Math.max(0, ...{captions})") <= width
            if write is write_test_page:
                assert_charts_fill_their_rows_with_letters_of_one_size(window)
        if write is write_launch_page:
            place = "document.querySelector('table.cards td.number.lead').getBoundingClientRect()"
            assert window.ask(f"{place}.right") <= 390, "mAP is in sight on a phone"
        else:
            assert_dark_pages_have_dark_charts(window)
            assert_a_click_enlarges_a_picture_and_another_ends_that(window)
        assert window.ask("document.images.length") > 0
        assert window.ask("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert not window.console()


def assert_charts_fill_their_rows_with_letters_of_one_size(window: Browser) -> None:
    sizes = window.ask(LETTERS)
    assert max(sizes) - min(sizes) < 0.02 * max(sizes) and min(sizes) > 9
    rows = """[...document.querySelectorAll('.charts')].map(one => [one.getBoundingClientRect().right,
        Math.max(...[...one.querySelectorAll('.chart')].map(chart => chart.getBoundingClientRect().right))])"""
    assert all(abs(row - chart) < 1 for row, chart in window.ask(rows))


def assert_dark_pages_have_dark_charts(window: Browser) -> None:
    """Letters are light and nothing large is white; and the other way round on a light page."""
    for scheme, is_light in (("dark", True), ("light", False)):
        window.prefer(scheme)
        texts = f"{VISIBLE}.flatMap(one => [...one.querySelectorAll('text')])"
        colours = window.ask(f"{texts}.map(one => getComputedStyle(one).fill)")
        fixed = {"rgb(254, 254, 254)", "rgb(11, 11, 11)"}  # within cells whose colours stay
        letters = {colour for colour in colours if colour not in fixed}
        assert letters and all((brightness_of(colour) > 128) == is_light for colour in letters), (scheme, letters)
        cards = window.ask(f"{VISIBLE}.map(one => getComputedStyle(one.querySelector('path')).fill)")
        assert all((brightness_of(colour) < 128) == is_light for colour in cards), (scheme, cards)


def brightness_of(colour: str) -> float:
    """Return the mean of the channels of `rgb(r, g, b)`, 0..255."""
    channels = [float(one) for one in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(channels) / 3


def assert_a_click_enlarges_a_picture_and_another_ends_that(window: Browser) -> None:
    width = "document.querySelector('.zoom img').getBoundingClientRect().width"
    small = window.ask(width)
    window.ask("document.querySelector('.zoom summary').click()")
    assert window.ask(width) > 3 * small and window.ask(WIDER) == []
    window.ask("document.querySelector('.zoom summary').click()")
    assert window.ask(width) == small
