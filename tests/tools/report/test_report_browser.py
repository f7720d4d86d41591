"""Both reports in headless Chromium, on a desktop and on a phone."""

import json
from pathlib import Path

import pytest

from configs import load_cfg
from tests.tools.report.browser import CHROMIUM, DRIVER, browser
from tests.tools.report.report_files import (
    blank_chart,
    make_analysis,
    make_images,
    make_launch,
    make_summary,
    write_folder,
)
from tools.report import write_launch_report, write_test_report
from utils.ranking.branches import BranchScore, write_branches
from utils.test_folder import TestFolder

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

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
    return write_test_report(TestFolder(folder))


def write_launch_page(folder: Path) -> Path:
    """Write the report of a launch of seven experiments, with a wide ablation table."""
    launch = make_launch(folder, [str(FOLDER / f"{name}.yml") for name in SEVEN], [0])
    return write_launch_report(folder / "ablation_report.html", *launch, "python run_phased_loss.py " + 200 * "x")


@pytest.mark.parametrize("write", [write_test_page, write_launch_page])
def test_chromium_shows_the_page_without_an_error_or_a_sideways_scroll(write, tmp_path, monkeypatch):
    if write is write_launch_page:  # drawing seven times the charts of the other page takes most of the time
        monkeypatch.setattr("tools.charts.to_svg", blank_chart)
    page = write(tmp_path / "logs")
    with browser(tmp_path) as window:
        for width in (1280, 390):
            window.resize(width)
            window.open(page)
            assert window.ask("document.documentElement.scrollWidth") <= width == window.ask("innerWidth")
            captions = "[...document.querySelectorAll('caption')].map(caption => caption.getBoundingClientRect().right)"
            assert window.ask(f"Math.max(0, ...{captions})") <= width
        assert window.ask("document.images.length") > 0
        assert window.ask("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert not window.console()
