"""Settings of a result that is older than some keys: these count with their defaults and are no difference."""

import re

from configs import load_cfg
from configs.compare import flatten
from tests.pages import ROOT
from tools.report.settings import base_changes, experiment_changes, settings_of

CONFIG = str(ROOT / "configs" / "Synthetic" / "baseline.yml")
YOUNG = ("MODEL.MULTIMODAL.RANK", "SOLVER.EMA", "TEST.AP_DEPTH")


def recorded(without: tuple[str, ...] = ()) -> dict:
    """Return the resolved configuration of CONFIG, as a result records it, without some keys."""
    config: dict = {}
    for key, value in flatten(load_cfg(CONFIG, [])).items():
        *sections, name = key.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        if key not in without:
            place[name] = value
    return config


def keys_in(table: str) -> list[str]:
    return re.findall(r'<th scope="row"[^>]*>(.*?)</th>', table)


def test_a_key_that_is_younger_than_a_result_is_no_change_of_its_recipe():
    assert base_changes(CONFIG, recorded(YOUNG)) == base_changes(CONFIG, recorded())
    assert "DATASETS.NAMES" in keys_in(base_changes(CONFIG, recorded(YOUNG)))


def test_it_is_no_difference_between_experiments_either_and_a_real_one_is_told():
    assert "All experiments have the same settings." in experiment_changes([recorded(YOUNG), recorded()], ["a", "b"])
    other = recorded()
    other["SOLVER"]["EMA"] = 0.999
    table = experiment_changes([recorded(YOUNG), other], ["a", "b"])
    assert keys_in(table) == ["SOLVER.EMA"] and "0.999" in table


def test_a_key_that_is_gone_is_told():
    old = recorded()
    old["SOLVER"]["GONE"] = 3
    assert "(no such key)" in experiment_changes([old, recorded()], ["a", "b"])
    assert settings_of(old)["SOLVER.GONE"] == 3


def test_places_are_no_difference_between_experiments():
    other = recorded()
    other["OUTPUT_DIR"] = "logs/other"
    assert "All experiments have the same settings." in experiment_changes([recorded(), other], ["a", "b"])
