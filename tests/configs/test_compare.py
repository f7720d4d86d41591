"""What differs between settings, and which of it makes another training."""

from typing import Any

import pytest
import yaml

from configs.compare import Change, changes_from_defaults, find_changes, find_differences, flatten
from tests.cfgs import cfg_with


def changed(*pairs: object) -> dict[str, Any]:
    return yaml.safe_load(cfg_with(*pairs).dump())


def test_sections_become_dotted_keys_and_tuples_lists():
    assert flatten({"A": {"B": (1, 2), "C": {"D": "x"}}, "E": 3}) == {"A.B": [1, 2], "A.C.D": "x", "E": 3}


def test_changes_hold_keys_of_either_side_by_name():
    changes = find_changes({"b": 1, "a": [1], "same": 0}, {"b": 2, "a": [1], "same": 0, "c": "x"})
    assert changes == [Change("b", 1, 2), Change("c", None, "x")]


def test_the_log_names_what_is_not_default_by_key():
    cfg = cfg_with("TEST.FLIP", True, "INPUT.SIZE_TRAIN", [256, 128])
    assert changes_from_defaults(cfg) == ["INPUT.SIZE_TRAIN [256, 128]", "TEST.FLIP True"]


@pytest.mark.parametrize(
    "pairs",
    [
        ("OUTPUT_DIR", "x"),
        ("DATASETS.ROOT_DIR", "x"),
        ("DATASETS.TESTS", ("market1501", "msmt17")),
        ("DATASETS.VEHICLEID_TEST_SIZE", 2400),
        ("DATALOADER.NUM_WORKERS", 1),
        ("SOLVER.EVAL_PERIOD", 1),
        ("TEST.NECK_FEAT", "before"),
        ("SOLVER.MAX_EPOCHS", 101),
        ("MODEL.CLIP_LOCAL_PATH", "elsewhere/tower.pt"),
    ],
)
def test_paths_workers_periods_tests_and_more_epochs_are_the_same_training(pairs):
    assert find_differences(changed(), changed(*pairs)) == []


def test_all_other_changes_are_named_with_old_and_new_value():
    now = changed("SOLVER.SEED", 1, "SOLVER.MAX_EPOCHS", 99, "INPUT.SIZE_TRAIN", [256, 128])
    assert find_differences(changed(), now) == [
        "INPUT.SIZE_TRAIN [384, 128] -> [256, 128]",
        "SOLVER.MAX_EPOCHS 100 -> 99",
        "SOLVER.SEED 1234 -> 1",
    ]


def test_a_key_younger_than_the_run_counts_with_its_default():
    saved = changed()
    del saved["SOLVER"]["GRAD_CLIP"]
    assert find_differences(saved, changed()) == []
    assert find_differences(saved, changed("SOLVER.GRAD_CLIP", 1.0)) == ["SOLVER.GRAD_CLIP 0.0 -> 1.0"]


@pytest.mark.parametrize(("name", "own"), [("transformer", ("cosine", "halves")), ("clip_reid", ("multistep", "sum"))])
def test_a_value_of_the_system_is_the_same_by_its_name_as_left_open_or_not_yet_known(name, own):
    left_open = changed("MODEL.NAME", name)
    by_name = changed("MODEL.NAME", name, "SOLVER.SCHEDULER", own[0], "LOSS.BRANCHES.REDUCE", own[1])
    older = changed("MODEL.NAME", name)
    del older["LOSS"]["BRANCHES"], older["SOLVER"]["SCHEDULER"]
    assert [find_differences(saved, now) for saved in (left_open, by_name, older) for now in (left_open, by_name)] == (
        [[]] * 6
    )
    other = changed("MODEL.NAME", name, "LOSS.BRANCHES.REDUCE", "mean")
    assert find_differences(older, other) == [f"LOSS.BRANCHES.REDUCE {own[1]} -> mean"]


@pytest.mark.parametrize("choice", ["self", "finetune"])
def test_another_pretrained_run_is_another_training(choice):
    one, other = (changed("MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", path) for path in ("a", "b"))
    assert find_differences(one, other) == ["MODEL.PRETRAIN_PATH a -> b"]


def test_imagenet_weights_may_lie_elsewhere_and_resume_needs_no_path():
    assert find_differences(changed(), changed("MODEL.PRETRAIN_PATH", "b")) == []
    begun = changed("MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", "a")
    assert find_differences(begun, changed("MODEL.PRETRAIN_CHOICE", "resume")) == []
