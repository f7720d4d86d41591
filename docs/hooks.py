"""What mkdocs does beside building docs/: it takes in linked files from outside; headings and code are as on GitHub.

The pages are read on GitHub too, so they link to each other as the repository lies: `../README.md`, `docs/data.md`. On
the site a file of docs/ keeps its place and any other one lies below project/.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]
DOCS, OUTSIDE = "docs/", "project/"  # of the repository; of the site
START = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "README.md", "README.zh-CN.md", "benchmarks/README.md")
LINK = re.compile(r"\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")
CONTENTS = re.compile(r"^(?:- \[[^\]\n]+\]\(#[^)\n]+\)\n)+\n", re.MULTILINE)  # the site has its own beside each page
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(?<!<span></span>)<code>(.*?)</code>", re.DOTALL)  # that of a block follows an empty span
FLAG = re.compile(r"--\w[\w-]*")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that they have on GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside docs/: the pages of START, and all that any page links to."""
    waiting = [*START, *(DOCS + file.src_uri for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith(DOCS):
            files.append(File.generated(config, site_of(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            new = set(linked_files((ROOT / path).read_text(encoding="utf-8"), path)) - seen
            seen |= new
            waiting += sorted(name for name in new if not name.startswith(DOCS))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Write the links of a page as its place on the site wants them, and leave out its list of sections."""
    return rewritten(CONTENTS.sub("", markdown, count=1), repository_of(page.file.src_uri))


def on_page_content(html: str, **_: object) -> str:
    """Show code in a sentence or a table as GitHub does: `\\|` of a cell is a bar, and no line ends within a flag."""
    return INLINE_CODE.sub(lambda match: f"<code>{shown(match[1])}</code>", html)


def shown(code: str) -> str:
    """Return the HTML of inline code with the bars of tables taken back and each flag in one piece."""
    return FLAG.sub(r'<span class="flag">\g<0></span>', code.replace("\\|", "|"))


def site_of(path: str) -> str:
    """Return where a file of the repository lies on the site."""
    return path.removeprefix(DOCS) if path.startswith(DOCS) else OUTSIDE + path


def repository_of(uri: str) -> str:
    """Return which file of the repository a page of the site is."""
    return uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else DOCS + uri


def linked_files(markdown: str, path: str) -> list[str]:
    """Return the files of the repository that a page at `path` links to or shows."""
    targets = [target_of(match[1], path) for match in LINK.finditer(FENCE.sub("", markdown))]
    return [target for target in targets if (ROOT / target).is_file()]


def rewritten(markdown: str, path: str) -> str:
    """Return the text of a page at `path` of the repository with its links to files as the site has them."""

    def on_site(match: re.Match) -> str:
        target = target_of(match[1], path)
        if not (ROOT / target).is_file():
            return match[0]
        place = posixpath.relpath(site_of(target), posixpath.dirname(site_of(path)) or ".")
        return f"]({place}{match[2]})"

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):  # code stays as it is
        parts += [LINK.sub(on_site, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join((*parts, LINK.sub(on_site, markdown[end:])))


def target_of(link: str, path: str) -> str:
    """Return the path in the repository of what a page at `path` names; a URL is the name of no file."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
