"""Every data set has a name for tables that no other release or test list shares."""

import pytest

from configs import get_cfg_defaults
from configs.clip_reid import prompt_of
from configs.keys import KEYS
from configs.titles import dataset_title, names_of_tests


def test_every_data_set_of_the_choices_has_a_title_of_its_own():
    titles = [dataset_title(name, 800) for name in KEYS["DATASETS.NAMES"].choices]
    assert len(set(titles)) == len(titles) and all(titles)


def test_releases_and_test_lists_are_told_apart():
    assert dataset_title("msmt17", 800) == "MSMT17 V1" and dataset_title("msmt17_v2", 800) == "MSMT17 V2"
    assert dataset_title("VehicleID", 1600) == "VehicleID 1600"


def test_the_tests_are_those_named_or_the_first_training_set():
    cfg = get_cfg_defaults()
    cfg.DATASETS.NAMES = ["msmt17", "veri"]
    assert names_of_tests(cfg) == ("msmt17",)
    cfg.DATASETS.TESTS = ["market1501", "veri"]
    assert names_of_tests(cfg) == ("market1501", "veri")


@pytest.mark.parametrize(
    ("names", "kind"),
    [(["veri_wild_5000"], "vehicle"), (["atrw", "wildlife"], "animal"), (["veri", "mars"], "person")],
)
def test_the_sentence_of_a_prompt_says_what_the_data_sets_show(names, kind):
    cfg = get_cfg_defaults()
    cfg.DATASETS.NAMES = names
    assert prompt_of(cfg) == f"A photo of a {{}} {kind}."
