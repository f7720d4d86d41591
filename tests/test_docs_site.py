"""The site of docs/ builds without a warning, every link in it leads somewhere, and it asks nobody else for a file."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from tests.pages import PAGES, ROOT, anchor_of, headings_of

QUIET = {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme's successor


class Page(HTMLParser):
    """The ids, links and loaded files of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {values.get("id"), values.get("name")} - {None}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if values.get("src") or (tag == "link" and values.get("href")):
            self.loaded.append(values.get("src") or values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as strictly as mkdocs can; read only."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | QUIET, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """The pages of the site by their files."""
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_and_anchor_of_the_site_leads_somewhere(pages):
    dead = []
    for path, page in pages.items():
        for target in (*page.links, *page.loaded):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = unquote(target).partition("#")
            other = (path.parent / name).resolve() if name else path
            if not other.is_file() or (anchor and other in pages and anchor not in pages[other].ids):
                dead.append(f"{path.name}: {target}")
    assert dead == [] and len(pages) > len(PAGES)


def test_no_page_loads_a_file_from_elsewhere(site, pages):
    assert [name for page in pages.values() for name in page.loaded if re.match(r"[a-z]+:|//", name)] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles and not any(re.search(r"url\(['\"]?(?:https?:)?//", style) for style in styles)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != ROOT], ids=lambda page: page.stem)
def test_headings_have_the_anchors_of_github(page, site, pages):
    built = pages[site / page.relative_to(ROOT / "docs").with_suffix(".html")]
    assert {anchor_of(text) for _, text in headings_of(page)} <= built.ids


def test_code_in_sentences_and_tables_looks_as_on_github(pages):
    texts = [re.sub(r"<pre>.*?</pre>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL) for path in pages]
    codes = [code for text in texts for code in re.findall(r"<code>(.*?)</code>", text, re.DOTALL)]
    assert [code for code in codes if "\\|" in code] == []
    assert sum("worst|best|pid|random" in code for code in codes) == 1
    assert [code for code in codes if re.search(r"(?<![>-])--\w", code)] == []  # a line may end after the dashes


def test_every_page_has_its_place_in_the_navigation():
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    nav = yaml.safe_load(text)["nav"]
    named = [
        name
        for part in nav
        for value in part.values()
        for entry in ([value] if isinstance(value, str) else value)
        for name in ([entry] if isinstance(entry, str) else entry.values())
    ]
    docs = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.parent != ROOT}
    assert docs <= set(named) and len(named) == len(set(named))
    assert [next(iter(part)) for part in nav][:3] == ["Home", "First steps", "Tutorials"]


def test_the_search_knows_the_keys_and_the_tutorials(site):
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "LOSS.TRIPLETX.CROSS_CAM_POS" in index and "tutorials/new_loss.html" in index
