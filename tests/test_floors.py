"""The packages stand on floors: no import runs up, none goes in a circle, no package holds a third of the code."""

from pathlib import Path

import pytest

from tests.floors import FLOORS, circles, climbing, imports_of, modules_of, shares

ROOT = Path(__file__).parents[1]
NO_PRODUCT = {"tests", "docs"}


@pytest.fixture(scope="module")
def modules() -> dict[str, Path]:
    """Dotted name -> file of every product module."""
    return modules_of(ROOT)


def write_tree(root: Path, **sources: str) -> dict[str, Path]:
    """Write modules (dots as __) below `root`, their packages beside them; return what the checker finds there."""
    for name, text in sources.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != root:
            (path.parent / "__init__.py").touch()
        path.write_text(text)
    return modules_of(root)


def test_every_package_and_script_stands_on_a_floor():
    found = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")}
    assert found - NO_PRODUCT == set(FLOORS)


def test_no_import_runs_up(modules):
    assert climbing(imports_of(modules)) == []


def test_no_import_goes_round_in_a_circle(modules):
    assert circles(imports_of(modules)) == []


def test_no_package_holds_more_than_a_third_of_the_lines(modules):
    assert {top: share for top, share in shares(modules).items() if share > 1 / 3} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from processor.train import do_train",
        "from processor import train",
        "import processor.train",
        "def build():\n    from processor.train import do_train",
        "try:\n    import processor.train as loop\nexcept ImportError:\n    loop = None",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from processor.train import do_train",
    ],
)
def test_an_import_that_runs_up_is_found(tmp_path, text):
    modules = write_tree(tmp_path, solver__scheduler=text, processor__train="")
    line = 1 + next(at for at, words in enumerate(text.splitlines()) if "processor" in words)
    assert climbing(imports_of(modules)) == [f"solver.scheduler:{line} imports processor.train"]


def test_packages_on_one_floor_may_not_name_each_other(tmp_path):
    modules = write_tree(tmp_path, losses__triplet="import model.heads", model__heads="")
    assert climbing(imports_of(modules)) == ["losses.triplet:1 imports model.heads"]


@pytest.mark.parametrize(
    "text",
    [
        "import torch\nfrom utils.errors import ConfigError",
        "from . import heads\nfrom .heads import Head",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from processor.train import do_train",
        "import typing\nif typing.TYPE_CHECKING:\n    import processor.train",
    ],
)
def test_an_import_down_or_beside_or_for_annotations_alone_is_allowed(tmp_path, text):
    modules = write_tree(tmp_path, model__make="", model__heads="", processor__train="", utils__errors="")
    modules["model.make"].write_text(text)
    assert climbing(imports_of(modules)) == []


def test_a_circle_through_relative_and_lazy_imports_is_told_once(tmp_path):
    modules = write_tree(
        tmp_path,
        tools__a="from . import b",
        tools__b="def run():\n    from tools.c import go",
        tools__c="from .a import start\nimport tools.d",
        tools__d="",
    )
    assert circles(imports_of(modules)) == ["tools.a -> tools.b -> tools.c -> tools.a"]


def test_a_package_that_names_its_own_module_back_and_forth_is_a_circle(tmp_path):
    modules = write_tree(tmp_path, configs__load="from configs import KEYS")
    modules["configs"].write_text("from configs.load import load_cfg")
    assert circles(imports_of(modules)) == ["configs -> configs.load -> configs"]


def test_shares_are_counted_in_lines(tmp_path):
    modules = write_tree(tmp_path, utils__a="x = 1\n" * 3, train="x = 1\n")
    assert shares(modules) == {"utils": 0.75, "train": 0.25}
