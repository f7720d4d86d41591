"""The tree is clean for ruff and within the limits of its style, and the README's commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.floors import modules_of
from tests.limits import helpers_without_annotations, over_the_limits, over_the_limits_of_the_product

ROOT = Path(__file__).parents[1]
PRODUCT_LINES, TEST_LINES = 300, 400  # of a file
EXCEPTIONS = {  # (place, limit) -> why it may be over it
    ("datasets/pixel_cache.py::make_cache", "nesting"): "waits in a loop for the process that holds the lock",
    ("datasets/two_views.py::TwoViews.__init__", "parameters"): "one for each number of the recipe",
    ("losses/tripletx.py::tripletx_anchors", "parameters"): "bound: Model B's function and its keys",
    ("losses/tripletx.py::TripletXLoss.__init__", "parameters"): "bound: Model B's keys",
    ("model/backbones/vit.py::VisionTransformer.__init__", "parameters"): "bound: TransReID's names",
    ("model/pcb.py::PCB.__init__", "parameters"): "bound: the names of its keys",
    ("utils/metrics.py::eval_func", "parameters"): "bound: TransReID's function and the two ways to count AP",
    ("processor/train.py::do_train", "parameters"): "bound: the call that users of TransReID know",
}

SOUND = '"""Words."""\n\n\ndef run(rows: list, *, k: int) -> int:\n    """Words."""\n    return k\n'


@pytest.fixture(scope="module")
def product_findings() -> dict[tuple[str, str], str]:
    """(place, limit) -> words, for all that is over a limit in the product."""
    files = modules_of(ROOT).values()
    checks = [
        *(finding for path in files for finding in over_the_limits(ROOT, path, PRODUCT_LINES)),
        *(finding for path in files for finding in over_the_limits_of_the_product(ROOT, path)),
    ]
    return {(place, limit): words for place, limit, words in checks}


def findings_in(folder: Path, source: str) -> set[tuple[str, str]]:
    """(place, limit) for all that is over a limit of the product in a file a.py of this text."""
    (folder / "a.py").write_text(source)
    checks = [over_the_limits(folder, folder / "a.py", 60), over_the_limits_of_the_product(folder, folder / "a.py")]
    return {(place, limit) for findings in checks for place, limit, _ in findings}


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(command):
    result = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"configs/[\w/]+\.(?:yml|png)", text)) | set(re.findall(r"\b\w+\.py\b", text))
    missing = [name for name in named if not (ROOT / name).exists() and not list(ROOT.rglob(name))]
    assert not missing


def test_no_figure_is_left_blank():
    files = [ROOT / "README.md", *(ROOT / "configs").rglob("*.yml")]
    assert not [path.name for path in files if "@@" in path.read_text()]


def test_product_files_are_within_the_limits_but_for_the_exceptions(product_findings):
    assert {place: words for place, words in product_findings.items() if place not in EXCEPTIONS} == {}


def test_every_exception_is_still_needed(product_findings):
    assert set(EXCEPTIONS) - set(product_findings) == set()


def test_test_files_are_short_and_their_helpers_annotated():
    files = sorted((ROOT / "tests").rglob("*.py"))
    found = [finding for path in files for finding in over_the_limits(ROOT, path, TEST_LINES)]
    found += [finding for path in files for finding in helpers_without_annotations(ROOT, path)]
    assert found == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return k", "\n" * 47 + "    return k", set()),
        ("return k", "\n" * 48 + "    return k", {("a.py::run", "function lines")}),
        ("return k", "return k\n" + "\n" * 54, {("a.py", "file lines")}),
        ("rows: list", ", ".join(f"a{i}: int" for i in range(6)), set()),
        ("rows: list", ", ".join(f"a{i}: int" for i in range(7)), {("a.py::run", "parameters")}),
        ("k: int", "k: int, **options: int", set()),
        ("k: int", "k: int, **options", {("a.py::run", "annotations")}),
        (" -> int", "", {("a.py::run", "annotations")}),
        ("rows: list", "rows", {("a.py::run", "annotations")}),
        ("def run(rows", "def _run(rows", set()),
        ('    """Words."""', "    pass", {("a.py::run", "docstring")}),
        ('"""Words."""\n\n', "import math\n", {("a.py", "docstring")}),
        ("return k", "for a in rows:\n        if a:\n            with a:\n                k = a", set()),
        (
            "return k",
            "for a in rows:\n        if a:\n            with a:\n                while k:\n                    k = a",
            {("a.py::run", "nesting")},
        ),
        ("return k", "".join(f"{word} k:\n        k = 1\n    " for word in ("if", *["elif"] * 4)), set()),
    ],
)
def test_a_limit_that_is_crossed_is_found(tmp_path, old, new, expected):
    assert findings_in(tmp_path, SOUND.replace(old, new, 1)) == expected


def test_methods_and_nested_functions_are_measured_by_themselves(tmp_path):
    method = "    def pick(self, k):\n        def inner(a): return a\n        return inner\n"
    found = findings_in(tmp_path, f'{SOUND}class Sampler:\n    """Words."""\n{method}')
    assert found == {("a.py::Sampler.pick", "annotations"), ("a.py::Sampler.pick.inner", "annotations")}


def test_helpers_of_tests_are_asked_for_annotations_but_tests_are_not(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "def make(k): return k\ndef test_it(k): pass\ndef other(k: int) -> int: return k\n"
    )
    assert [place for place, *_ in helpers_without_annotations(tmp_path, tmp_path / "test_a.py")] == ["test_a.py::make"]
