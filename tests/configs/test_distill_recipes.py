"""The recipes with a teacher: it is what the launcher writes for another recipe, and it can teach the student."""

from pathlib import Path

import pytest
import torch

from configs.phases import PhasePlan
from model import make_model
from processor.distill import match_branches
from tests.configs.recipes import RECIPE_FILES, load, name_of
from tools.launch.arguments import parse_args
from tools.launch.plan import plan_launch

TAUGHT = [name for name in map(name_of, RECIPE_FILES) if load(name).DISTILL.TEACHER_RUN]


def recipe_of(run: str, folder: Path) -> str:
    """Return the recipe to whose seed 0 the launcher gives this run folder below its root, here `folder`."""
    for path in (path for path in RECIPE_FILES if path.stem in run):
        (experiment,) = plan_launch(parse_args(["--config", str(path), "--seeds", "0", "--output-root", str(folder)]))
        if f"logs/{experiment.run_folder(0).path.relative_to(folder)}" == run:
            return name_of(path)
    raise AssertionError(f"no recipe is run in {run}")


def test_there_are_recipes_with_a_teacher():
    assert {"Market/deit_small_distill", "VeRi/resnet50_distill"} <= set(TAUGHT)


@pytest.mark.parametrize("name", TAUGHT)
def test_the_teacher_is_another_recipe_s_run_on_the_same_images_and_a_branch_is_compared(name, tmp_path):
    student = load(name)
    teacher = load(recipe_of(student.DISTILL.TEACHER_RUN, tmp_path))
    for key in ("NAMES", "VAL_IDS"):
        assert teacher.DATASETS[key] == student.DATASETS[key]
    with torch.device("meta"):
        own, its = (make_model(cfg, 7, 3, 2, pretrained=False).branches for cfg in (student, teacher))
    assert match_branches(own, its)
    assert PhasePlan(student).at(1).weights["distill"] == 1.0
