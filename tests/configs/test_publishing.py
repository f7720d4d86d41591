"""A published configuration names no place, and is one that loads."""

import pytest

from configs import restore_cfg
from configs.keys import KEYS
from configs.keys.key import Key
from configs.publishing import CLIP_FILE, KNOWN_WEIGHTS, PATH_KEYS, file_name, places_in, without_places
from configs.values import value_of
from tests.cfgs import cfg_with

NO_PLACES = {  # keys of free text that name no file
    *("MODEL.TRANSFORMER_TYPE", "MODEL.LORA.TARGETS", "MODEL.CLIP_PRETRAIN", "MODEL.CLIP_HF_ID", "MODEL.PROMPT"),
    *("SOLVER.STAGES", "LOSS.PHASED.W_SUP_SPEC", "LOSS.PHASED.W_TERMS", "TEST.QUERY_SETS", "TEST.DIST_MAT"),
    *("SOLVER.STAGE1.WARMUP_METHOD", "SOLVER.STAGE2.WARMUP_METHOD", "SOLVER.WARMUP_METHOD"),
    *("MODEL.MULTIMODAL.MODALITIES", "TEST.GALLERY_SET", "LOSS.PHASED.METRIC_SEQ", "LOSS.TEXT.NAMES"),
}
PLACES = {
    **{key: "/home/jane/x" for key in PATH_KEYS},
    "DATASETS.VIEW_FILES": ("/home/jane/view.txt",),
    "MODEL.DEVICE": "cuda",
    "MODEL.DEVICE_ID": "card 3",
    "MODEL.CLIP_BACKBONE": "/home/jane/clip_of_mine.json",
    "DISTILL.TEACHER_WEIGHT": "",  # TEACHER_RUN is the other way to name one
    "DISTILL.TEACHER_CONFIG": "",
}


def test_every_key_of_free_text_is_known_to_name_a_file_or_not():
    def is_free(key: Key) -> bool:
        return isinstance(key.item, str) and not key.choices

    free = {name for name, key in KEYS.items() if is_free(key)}
    assert free - NO_PLACES - set(PATH_KEYS) == set(), "sort new keys into configs/publishing.py or NO_PLACES"


def test_places_and_devices_are_gone_and_the_rest_is_as_it_was():
    cfg = cfg_with(*(part for pair in PLACES.items() for part in pair), "DATASETS.NAMES", ("table",))
    public = without_places(cfg)
    assert "jane" not in public.dump() and public.MODEL.DEVICE == "auto"
    assert public.MODEL.CLIP_BACKBONE == CLIP_FILE and public.DATASETS.TABLE == "table.csv"
    assert places_in(public) == {} and set(places_in(cfg)) == {key for key, value in PLACES.items() if value}
    kept = set(KEYS) - set(PATH_KEYS) - {"MODEL.CLIP_PRETRAIN"}
    assert {key for key in kept if value_of(cfg, key) != value_of(public, key)} == set()


@pytest.mark.parametrize(
    "opts",
    [
        ("DATASETS.NAMES", ("table",), "DATASETS.TABLE", "/home/jane/pets.csv"),
        ("DATASETS.NAMES", ("wildlife",), "DATASETS.WILDLIFE", "pets.csv"),
        ("MODEL.PRETRAIN_CHOICE", "finetune", "MODEL.PRETRAIN_PATH", "/home/jane/best.pth"),
        ("DISTILL.TEACHER_WEIGHT", "/home/jane/t.pth", "DISTILL.TEACHER_CONFIG", "t.yml", "DISTILL.W_FEAT", 1.0),
    ],
)
def test_where_a_rule_asks_for_a_file_a_name_stands_for_it(opts):
    public = without_places(restore_cfg(cfg_with(*opts).dump(), "a run"))
    restored = restore_cfg(public.dump(), "published")
    assert restored == public and "jane" not in restored.dump()


def test_files_that_the_whole_field_knows_keep_their_names():
    for name in KNOWN_WEIGHTS:
        assert name == without_places(cfg_with("MODEL.PRETRAIN_PATH", f"/home/jane/{name}")).MODEL.PRETRAIN_PATH


@pytest.mark.parametrize("path", ["a/b/c.pth", "c.pth", "/c.pth", "C:\\a\\c.pth", "~/c.pth"])
def test_the_last_part_of_a_path_is_its_file_name_on_any_system(path):
    assert file_name(path) == "c.pth"
