"""Each YAML in configs/ becomes model, losses, optimizer and schedule by the code that trains, without any memory."""

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from configs import find_notices, load_cfg
from configs.phases import segments_of
from configs.stages import stages_of
from model import make_model
from processor.systems import make_stage
from solver.preview import schedule_table
from tests.configs.recipes import FILES, ROOT
from tests.model import clips

CLASSES, CAMERAS, VIEWS = 7, 3, 2
NAMES = [path.relative_to(ROOT / "configs").as_posix() for path in FILES]


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> clips.Sources:
    """Return tiny CLIP towers on disk, for recipes that would read theirs from the hub."""
    return clips.write_sources(tmp_path_factory.mktemp("clip"))


def load(path: Path, request: pytest.FixtureRequest) -> CfgNode:
    """Return a recipe; one whose tower is frozen, or described on the hub alone, has a tiny tower in its place.

    A teacher, the run of another recipe, is left out: `test_distill_recipes` looks at what it can teach.
    """
    cfg = load_cfg(path)
    if cfg.DISTILL.TEACHER_RUN:
        return load_cfg(path, ["DISTILL.TEACHER_RUN", ""])
    frozen = not cfg.MODEL.CLIP_FINETUNE or cfg.MODEL.CLIP_FUSION == "concat"
    if not cfg.MODEL.USE_CLIP or (cfg.MODEL.CLIP_IMPL == "open_clip" and not frozen):
        return cfg
    towers = request.getfixturevalue("towers")
    own = ["MODEL.CLIP_BACKBONE", towers.json, "MODEL.CLIP_LOCAL_PATH", towers.weights]
    return load_cfg(path, own if cfg.MODEL.CLIP_IMPL == "open_clip" else ["MODEL.CLIP_LOCAL_PATH", towers.hf])


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_recipe_builds_all_that_a_training_needs(path, request):
    cfg = load(path, request)
    with torch.device("meta"):
        model = make_model(cfg, CLASSES, CAMERAS, VIEWS, pretrained=False)
    for name in stages_of(cfg):  # one after the other: a stage says what of the model learns
        with torch.device("meta"):
            stage = make_stage(cfg, name, model)
        assert stage.max_epochs == stage.plan.max_epochs >= 1
        weights = {name for first, _ in segments_of(cfg, stage.name) for name in first.weights}
        trained = {id(weight) for group in stage.optimizer.param_groups for weight in group["params"]}
        wanted = {id(weight) for weight in model.parameters() if weight.requires_grad}
        assert weights and trained and trained <= wanted | {id(weight) for weight in stage.criterion.parameters()}
        rates = []
        for epoch in (1, stage.max_epochs):
            stage.scheduler.step(epoch)
            rates.append(max(group["lr"] for group in stage.optimizer.param_groups))
        assert all(0 < rate < 1 for rate in rates)
    assert schedule_table(cfg) and isinstance(find_notices(cfg), list)
