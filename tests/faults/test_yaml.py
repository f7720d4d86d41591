"""A YAML says what stands in it, or one line says what is wrong with it, in bounded time."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from configs import load_cfg
from configs.base import base_path
from configs.yaml_settings import MAX_BYTES
from tests.faults.tally import Count
from utils.errors import ConfigError
from utils.yaml_text import MAX_DEPTH

pytestmark = pytest.mark.fault("bad input: YAML")
RESNET = "MODEL:\n  NAME: resnet50\n"
PATIENCE = 3.0  # seconds of this process; the slowest takes one
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").rglob("*.yml"))


def refused(path: Path | str, *opts: str) -> str:
    """Return the one or more lines of the ConfigError, which came in time."""
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    assert time.process_time() - started < PATIENCE
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"MODEL:\n  NAME: a\x00b\n", ":2: holds a NUL character"),
        ("MODEL: {NAME: resnet50}\n".encode("utf-16"), "not UTF-8"),
        ("MODEL: {NAME: resnet50}\n".encode("utf-16-le"), "holds a NUL character"),
        ("MODEL: {NAME: résnet}\n".encode("latin-1"), ":1: not UTF-8"),
        (b"MODEL:\n  NAME: a\x01b\n", ":2: holds the character '\\x01'; remove it"),
        (b"MODEL:\n  NAME: a\x1b[31mb\n", ":2: holds the character '\\x1b'; remove it"),
        (b"MODEL:\n\tNAME: resnet50\n", ":2: not valid YAML"),
        (b"MODEL:\n\tNAME: resnet50\n", "indent with spaces"),
        (b"MODEL: {NAME: resnet50}\n---\nSOLVER: {SEED: 1}\n", "keep one of the parts that '---' divides"),
        (b"MODEL: [NAME\n", ":2: not valid YAML"),
        (b"MODEL: a: b\n", "put text that holds ': ' in quotes"),
        (b"MODEL: *x\n", "not valid YAML (found undefined alias"),
        (b"", "holds no KEY: value lines"),
        (b"# nothing\n", "holds no KEY: value lines"),
        (b"- a\n- b\n", "holds no KEY: value lines"),
        (b"text\n", "holds no KEY: value lines"),
        (b"1: 2\n", ":1: unknown key 1"),
        (b"yes: 2\n", ":1: unknown key yes"),
        (b"? [a, b]\n: c\n", ":1: a list or section stands where a key is meant"),
        (b"? {a: b}\n: c\n", ":1: a list or section stands where a key is meant"),
        (b"~: 1\n", ":1: unknown key ~"),
        (b": 1\n", ":1: not valid YAML"),
        (b"MODEL: {NAME: resnet50}\nMODEL: {NAME: resnet50}\n", ":2: MODEL stands twice"),
        (b"MODEL: {NAME: resnet50, NAME: transformer}\n", ":1: NAME stands twice"),
        (b"MODEL: {NAME: resnet50}\nMODEL.NAME: transformer\n", ":2: MODEL.NAME stands twice"),
        (b"MODEL: {NAME: resnet50}\nSOLVER: 3\n", ":2: SOLVER is a section"),
        (b"MODEL: {NAME: resnet50}\nSOLVER: ~\n", ":2: section SOLVER is empty"),
        (b"MODEL: {NAME: resnet50}\nSOLVER: {<<: 3}\n", ":2: << takes a section"),
        (b"MODEL: {NAME: resnet50}\nDATASETS: {NAMES: [veri, ~]}\n", ":2: a list holds ~ or null"),
        (b"MODEL: {NAME: resnet50}\nDATASETS: {NAMES: [{a: b}]}\n", ":2: a section stands in a list"),
        (b"MODEL: {NAME: resnet50}\nDATASETS: {NAMES: [[veri]]}\n", ":2: DATASETS.NAMES got"),
        (b"!!python/object:os.x {a: b}\n", "not read"),
        (b"MODEL: &m\n  NAME: resnet50\n  X: *m\n", "lead round in a circle"),
        (b"a: &a [*a]\n", "lead round in a circle"),
        (b"a: &a {b: *a}\n", "lead round in a circle"),
        (b"a: &a\n  <<: *a\n", "lead round in a circle"),
        (BOMB.encode(), "aliases repeat too much"),
        (b"a: " + b"[" * 3000, f"more than {MAX_DEPTH} levels"),
        (b"a: " + b"{b: " * 100, f"more than {MAX_DEPTH} levels"),
        ("\n".join(f"{' ' * depth}a:" for depth in range(1000)).encode(), f"more than {MAX_DEPTH} levels"),
        (b"- " * 3000 + b"a\n", f"more than {MAX_DEPTH} levels"),
        ("".join(f"k{number}: 1\n" for number in range(5000)).encode(), "more than 6,000 keys and values"),
        ("".join(f"k{number}: 1\n" for number in range(1000)).encode(), "... and 981 more"),
        (b"#" * (MAX_BYTES + 1), "has at most 1,000,000"),
        (b"a: " + b"x" * 100_000, "a line of 100,003 characters"),
        (b"_BASE_: [a.yml]\n", "_BASE_ got ['a.yml'], expected the path of one YAML file"),
        (b"_BASE_: ~\n", "_BASE_ got '~', expected the path"),
        (b"_BASE_:\n", "_BASE_ got None, expected the path"),
        (b"_BASE_: no.yml\n", ":1: _BASE_ names 'no.yml', but there is no"),
        (b"_BASE_: .\n", "is a folder, expected a file"),
        (b'_BASE_: "a\\0.yml"\n', ":1: _BASE_: the path 'a\\x00.yml' holds a NUL character"),
        (b"_BASE_: ~nobody_of_this_name/a.yml\n", "names a home folder that does not exist"),
        (b"_BASE_: " + b"x" * 300 + b".yml\n", "cannot be used"),
        (b"_BASE_: x.yml\n", "leads back to this file"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_clear_error(tmp_path, content, words):
    path = tmp_path / "x.yml"
    path.write_bytes(content)
    assert words in refused(path)
    with pytest.raises(ConfigError):  # the page of a report looks for the base alone
        base_path(path)
        load_cfg(path)


def test_only_one_settings_wins_in_a_merge_and_none_is_lost(tmp_path):
    text = "MODEL: {NAME: resnet50}\nX: &x {SEED: 1, GAMMA: 0.5}\n"
    (tmp_path / "x.yml").write_text(text.replace("X:", "SOLVER:").replace("&x {", "&x {<<: [{SEED: 7, MARGIN: 0.1}], "))
    solver = load_cfg(tmp_path / "x.yml").SOLVER
    assert (solver.SEED, solver.GAMMA, solver.MARGIN) == (1, 0.5, 0.1)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_dangling(path: Path) -> None:
    path.symlink_to("gone.yml")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "is a folder, expected a file"),
        (make_pipe, "is a pipe, expected a file"),
        (make_loop, "cannot be used"),
        (make_dangling, "no config file"),
    ],
)
def test_what_is_no_file_is_no_configuration(tmp_path, make: Callable[[Path], None], words):
    make(tmp_path / "x.yml")
    assert words in refused(tmp_path / "x.yml")
    (tmp_path / "y.yml").write_text("_BASE_: x.yml\n")
    assert "_BASE_" in refused(tmp_path / "y.yml")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "not a .yml file"),
        ("a\0.yml", "holds a NUL character"),
        ("~nobody_of_this_name/x.yml", "names a home folder that does not exist"),
        (f"{'x' * 300}.yml", "cannot be used"),
        ("configs/VeRi", "not a .yml file"),
        ("train.py", "configurations are YAML, never code"),
        ("no\ud800.yml", "no config file|no path of this system"),
        ("/dev/null", "not a .yml file"),
    ],
)
def test_a_name_that_no_file_has(name, words):
    assert any(part in refused(name) for part in words.split("|"))


def test_bases_may_stand_below_each_other_but_not_without_end(tmp_path):
    (tmp_path / "0.yml").write_text(RESNET)
    for number in range(1, 31):
        (tmp_path / f"{number}.yml").write_text(f"_BASE_: {number - 1}.yml\nSOLVER: {{SEED: {number}}}\n")
    assert load_cfg(tmp_path / "15.yml").SOLVER.SEED == 15
    assert "is reached by 20 _BASE_ lines" in refused(tmp_path / "30.yml")


def test_a_circle_of_bases_through_links_is_found(tmp_path):
    (tmp_path / "real.yml").write_text("_BASE_: a/real.yml\n")
    (tmp_path / "a").symlink_to(".")
    (tmp_path / "b.yml").symlink_to("real.yml")
    assert "leads back to this file" in refused(tmp_path / "b.yml")


def test_a_mistyped_path_looks_beside_it_and_among_the_recipes_alone(tmp_path, monkeypatch):
    searched = []
    glob = Path.glob

    def seen(self: Path, pattern: str) -> Iterator[Path]:
        searched.append((str(self), pattern))
        return glob(self, pattern)

    monkeypatch.setattr(Path, "glob", seen)
    refused("/nowhere_at_all/configs/VeRi/vit_base.yml")
    refused(tmp_path / "x.yml")
    assert {folder for folder, _ in searched} == {"configs", str(tmp_path)}
    assert not [pattern for _, pattern in searched if "**" in pattern]
    assert "did you mean 'configs/VeRi/vit_base.yml'?" in refused("configs/VeRi/vit_bas.yml")
    assert "_tiny.yml'" not in refused("configs/tiny.yml") and "_model_b.yml'" not in refused(
        "configs/VeRi/model_b.yml"
    )


TOKENS = (
    *(
        "\n",
        "  ",
        "\t",
        ":",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "'",
        '"',
        "#",
        "|\n",
        ">\n",
    ),
    *("~", "0120", "1:2", "1e999", "yes", "_BASE_: ", "---\n", "...\n", "%YAML 1.2\n", "\x00", "\x1b", "é", "?", ","),
)


def mutated(text: str, rng: random.Random) -> str:
    """Return a recipe with a few tokens put in, cut out or doubled."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.randrange(12))
        middle = rng.choice((rng.choice(TOKENS), "", text[start:end] * 2, chr(rng.randrange(0x250))))
        text = text[:start] + middle + text[end:]
    return text


def fuzz(folder: Path, seed: int, number: int) -> tuple[int, int]:
    """Return (tried, held) of mutated recipes: each gives a configuration or a ConfigError, in time."""
    rng, held = random.Random(seed), 0
    texts = [path.read_text(encoding="utf-8") for path in RECIPES]
    path = folder / "x.yml"
    for _ in range(number):
        path.write_bytes(mutated(rng.choice(texts), rng).encode("utf-8", "surrogatepass"))
        started = time.process_time()
        try:
            load_cfg(path)
        except ConfigError as error:
            assert str(error)
        held += time.process_time() - started < PATIENCE
    return number, held


def test_a_mutated_recipe_is_a_configuration_or_one_error(tmp_path, tally: Count):
    tried, held = fuzz(tmp_path, 0, 60)
    tally("bad input: YAML, mutated", tried, held)
    assert held == tried


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_mutated_recipes_are_configurations_or_errors(tmp_path, tally: Count, seed):
    tried, held = fuzz(tmp_path, seed, 500)
    tally("bad input: YAML, mutated", tried, held)
    assert held == tried
