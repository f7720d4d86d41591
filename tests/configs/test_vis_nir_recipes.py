"""The recipes of SYSU-MM01, RegDB and LLCM: what they share, their data, and the figures that they quote."""

import re

import pytest

from configs import find_notices, load_cfg
from tests.configs.recipes import RECIPE_FILES, ROOT, header, load, raw, resolve_recipe

DATA = {"SYSU-MM01": "sysu_mm01", "RegDB": "regdb", "LLCM": "llcm"}
FIGURES = {  # Rank-1 and mAP of the score's set, of AGW and of DEEN
    "SYSU-MM01": ("47.50 / 47.65", "74.7 / 71.8"),
    "RegDB": ("70.05 / 66.37", "91.1 / 85.1"),
    "LLCM": ("49.13 / 55.80", "55.52 / 62.07"),
}
OWN = {"DATASETS.NAMES", "OUTPUT_DIR", "SOLVER.MAX_EPOCHS", "SOLVER.WARMUP_EPOCHS", "SOLVER.CHECKPOINT_PERIOD"}


def test_each_set_has_its_recipe():
    told = {path.parent.name: raw(path).get("DATASETS.NAMES") for path in RECIPE_FILES if path.name == "vis_nir.yml"}
    assert {name: data for name, data in told.items() if data is not None} == DATA


@pytest.mark.parametrize("name", DATA)
def test_a_recipe_trains_both_kinds_of_images_on_its_own_set_and_sets_nothing_idle(name):
    cfg = load(f"{name}/vis_nir")
    assert (tuple(cfg.DATASETS.NAMES), tuple(cfg.MODEL.MULTIMODAL.MODALITIES)) == ((DATA[name],), ("vis", "nir"))
    assert list(cfg.INPUT.SIZE_TRAIN) == list(cfg.INPUT.SIZE_TEST) == [288, 144]
    assert find_notices(cfg) == []


def test_recipes_differ_in_data_and_length_alone():
    values = [resolve_recipe(f"{name}/vis_nir") for name in DATA]
    for other in values[1:]:
        assert {key for key in other if other[key] != values[0][key]} <= OWN


@pytest.mark.parametrize(
    ("name", "opts", "idle"),
    [
        ("SYSU-MM01", ["TEST.QUERY_SETS", "NIR"], ["TEST.QUERY_SETS: not used, what searches what is fixed by"]),
        ("LLCM", ["DATASETS.TRIAL", "2"], ["DATASETS.TRIAL: not used, regdb alone has trials"]),
        ("RegDB", ["DATASETS.TRIAL", "2"], []),
        ("SYSU-MM01", ["TEST.QUERY_SETS", "NIR", "DATASETS.VAL_IDS", "0.1", "SOLVER.CHECKPOINT_PERIOD", "5"], []),
    ],
)
def test_keys_that_a_protocol_decides_are_told_to_be_idle(name, opts, idle):
    notices = find_notices(load_cfg(ROOT / "configs" / name / "vis_nir.yml", opts))
    assert len(notices) == len(idle) and all(map(str.startswith, notices, idle))


@pytest.mark.parametrize("name", DATA)
def test_a_header_quotes_figures_of_the_field_as_not_reproduced(name):
    words = " ".join(header(ROOT / f"configs/{name}/vis_nir.yml").replace("#", " ").split())
    agw, deen = FIGURES[name]
    assert re.search(rf"Expected: not measured\..*AGW {agw}.*DEEN {deen}.*not reproduced here", words)
