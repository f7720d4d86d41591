"""The plan of the mutation tests names every file of its modules, and tests that exist."""

from pathlib import Path

from tests.mutation.plan import PLAN

ROOT = Path(__file__).parents[2]


def files_of(module: str) -> set[str]:
    """Return the files of a package, or the one of a module, but an `__init__.py`."""
    paths = (ROOT / module).glob("*.py") if (ROOT / module).is_dir() else [(ROOT / module).with_suffix(".py")]
    return {path.relative_to(ROOT).as_posix() for path in paths} - {f"{module}/__init__.py"}


def test_every_file_of_a_module_is_mutated():
    assert {module: set(files) for module, files in PLAN.items()} == {module: files_of(module) for module in PLAN}


def test_the_tests_of_each_file_exist():
    tests = {path for files in PLAN.values() for paths in files.values() for path in paths}
    assert [path for path in sorted(tests) if not (ROOT / path).is_file()] == []
