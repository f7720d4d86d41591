"""The recipe below a recipe."""

from pathlib import Path

import pytest

from configs import get_cfg_defaults, load_cfg
from configs.base import DEFAULTS_NAME, base_of, base_path
from configs.compare import flatten
from utils.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_base_is_the_file_that_the_yaml_names(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "low.yml", "MODEL: {NAME: transformer}\n")
    high = write(tmp_path / "sub" / "high.yml", "_BASE_: ../low.yml\nSOLVER: {MAX_EPOCHS: 3}\n")
    assert base_path(high) == tmp_path / "low.yml" and base_path(tmp_path / "low.yml") is None


def test_a_recipe_differs_from_its_base_in_what_it_sets():
    base = base_of("configs/Synthetic/phased.yml")
    assert base.name == "configs/Synthetic/conditional_pk.yml"
    assert base.settings == flatten(load_cfg(base.name))


OWN = {"SOLVER.SCHEDULER": "cosine", "LOSS.BRANCHES.REDUCE": "halves"}  # what '' stands for, of this model


def test_a_recipe_without_a_base_is_compared_with_the_defaults(tmp_path):
    base = base_of(write(tmp_path / "a.yml", "MODEL: {NAME: transformer}\n"))
    assert base == (DEFAULTS_NAME, flatten(get_cfg_defaults()) | OWN)


@pytest.mark.parametrize("text", [None, "- a\n- b\n", "a: [", "\xff"])
def test_a_file_that_is_gone_or_no_yaml_is_named(tmp_path, text):
    path = tmp_path / "a.yml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a\.yml"):
        base_path(path)
