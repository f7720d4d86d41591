"""Which key an unknown one is taken for: only one that is close, its last part first."""

import pytest

from configs.guess import did_you_mean

PCB = "; MODEL.PCB has TRUNK, PARTS, PART_DIM, "
ALL = "; docs/config.md lists all keys"


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("MODEL.PCB.PART", "MODEL.PCB.PARTS"),
        ("SOLVER.MAX_EPOCH", "SOLVER.MAX_EPOCHS"),
        ("SOLVER.EPOCHS", "SOLVER.MAX_EPOCHS"),
        ("SOLVER.LR", "SOLVER.BASE_LR"),
        ("DATASET.NAMES", "DATASETS.NAMES"),
        ("DATASETS.ROOT", "DATASETS.ROOT_DIR"),
        ("TEST.RERANKING", "TEST.RE_RANKING"),
        ("RERANK", "TEST.RE_RANKING"),
        ("LOSS.TRIPLETX.MARGN", "LOSS.TRIPLETX.MARGIN"),
        ("TEST.TRACKLET", "TEST.TRACKLETS"),
        ("tMODEL.NAME", "MODEL.NAME"),
        ("test.weight", "TEST.WEIGHT"),
        ("OUTPUT", "OUTPUT_DIR"),
        ("SEED", "SOLVER.SEED"),
    ],
)
def test_a_key_that_is_close_is_guessed(word, key):
    assert did_you_mean(word) == f"; did you mean {key}?"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("MODEL.PCB.STRIPE", PCB),  # GATE shares more letters with it than PARTS
        ("MODEL.PCB.FOO", PCB),
        ("SOLVER.BATCH_SIZE", ALL),  # BASE_LR is no guess, and the section is long
        ("MODEL.IRRA.BASE_LR", ALL),  # that of SOLVER is another thing
        ("FOO.BAR", ALL),
        (".", ALL),
        ("", ALL),
    ],
)
def test_of_what_is_not_close_the_section_is_listed(word, told):
    assert did_you_mean(word).startswith(told)
