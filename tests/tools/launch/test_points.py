"""Which points a sweep has, what they are called, and what is refused before one is made."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.keys import KEYS
from tools.launch.points import (
    Axis,
    Span,
    count_points,
    name_words,
    points_of,
    read_axes,
    read_spans,
    short_name,
    spelt,
    value_word,
)
from tools.launch.search import rounded
from utils.errors import ConfigError

LR, MARGIN, NAME = "SOLVER.BASE_LR", "SOLVER.MARGIN", "SOLVER.OPTIMIZER_NAME"


def test_points_are_all_combinations_and_the_last_key_runs_fastest():
    axes = read_axes([[LR, "1e-3", "0.01"], [MARGIN, "0.3", "0.5"]])
    assert points_of(axes) == [
        {LR: "0.001", MARGIN: "0.3"},
        {LR: "0.001", MARGIN: "0.5"},
        {LR: "0.01", MARGIN: "0.3"},
        {LR: "0.01", MARGIN: "0.5"},
    ]
    assert points_of([]) == [{}] and count_points([]) == 1


@given(st.lists(st.integers(1, 4), max_size=4))
def test_points_are_those_of_a_product(sizes):
    axes = [Axis(f"A.K{n}", tuple(f"v{n}{i}" for i in range(size))) for n, size in enumerate(sizes)]
    expected = [
        dict(zip([axis.key for axis in axes], values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]
    assert points_of(axes) == expected and count_points(axes) == len(expected)


def test_values_are_read_in_the_type_of_their_key_and_told_in_one_spelling():
    (axis,) = read_axes([["INPUT.SIZE_TRAIN", "[256,128]", "(128, 64)", "64"]])
    assert axis.values == ("[256, 128]", "[128, 64]", "[64, 64]")
    assert read_axes([["LOSS.SUPCON.ENABLE", "yes", "False"]])[0].values == ("True", "False")
    assert read_axes([["SOLVER.MAX_EPOCHS", "1_0"]])[0].values == ("10",)
    assert spelt(0.1) == "0.1" and spelt((1, 2)) == "[1, 2]"


def test_names_hold_key_and_value():
    assert name_words({LR: "0.001", NAME: "SGD"}) == ("BASE_LR0p001", "OPTIMIZER_NAMESGD")
    assert name_words({LR: "1e-05", NAME: "AdamW"}) == ("BASE_LR1e-05", "OPTIMIZER_NAMEAdamW")
    assert name_words({"INPUT.SIZE_TRAIN": "[256, 128]"}) == ("SIZE_TRAIN256-128",)


VALUES = [
    *("", "none", "SGD", "True", "a/b.pth", "a b.pth", "a-b-pth", "appth", "a.pth", "x" * 24, "x" * 99, "x" * 98, " x"),
    *(
        "0.5",
        "-0.5",
        "0p5",
        "1e-05",
        "1e+16",
        "10",
        "[0.5]x",
        "[1, -2]",
        "[1, 2]",
        "[1.5, 0.2]",
        "é",
        "e",
        "..",
        "../x",
    ),
    *(spelt([f"const:{weight}"] * 3) for weight in (0.0, 0.3)),
    *(spelt(words) for words in (["a", "b"], ["a, b"], ["a', 'b"])),
]


def test_values_of_a_key_never_share_a_word_which_is_a_part_of_a_name():
    words = [value_word(value) for value in VALUES]
    assert len({*words}) == len(words)
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,31}", word) for word in words)


def test_a_key_is_called_by_as_much_as_tells_it_from_all_others():
    assert [short_name(key) for key in (LR, MARGIN, "SOLVER.STAGE1.MAX_EPOCHS", "LOSS.SUPCON.ENABLE")] == [
        *("BASE_LR", "MARGIN", "STAGE1.MAX_EPOCHS", "SUPCON.ENABLE")
    ]
    assert short_name("OUTPUT_DIR") == "OUTPUT_DIR"
    assert len({short_name(key) for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        ([["SOLVER.BASE_LRR", "1"]], "unknown key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR?"),
        ([["SOLVER", "1"]], "unknown key SOLVER"),
        ([[LR]], "names no value"),
        ([[LR, "fast"]], "SOLVER.BASE_LR got 'fast', expected a number"),
        ([[LR, "1e-3", "0.001"]], "'0.001' stands there twice"),
        ([[LR, "0.0", "-0"]], "'-0' stands there twice"),
        ([[LR, "1"], [LR, "2"]], "SOLVER.BASE_LR is swept twice"),
        ([["SOLVER.LOG_PERIOD", "1", "2"]], "no result depends on SOLVER.LOG_PERIOD"),
        ([["OUTPUT_DIR", "a", "b"]], "no result depends on OUTPUT_DIR"),
        ([["TEST.EVAL", "True"]], "nothing reads TEST.EVAL; SOLVER.EVAL_PERIOD says"),
    ],
)
def test_a_grid_that_cannot_be_is_one_clear_line(grids, said):
    with pytest.raises(ConfigError, match="^--grid") as caught:
        read_axes(grids)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_ranges_of_numbers_are_read():
    spans = read_spans([[LR, "1e-5", "1e-2", "log"], ["SOLVER.WARMUP_EPOCHS", "0", "5"]])
    assert spans[0] == (LR, 1e-5, 1e-2, True, False) and spans[1] == ("SOLVER.WARMUP_EPOCHS", 0, 5, False, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([NAME, "a", "b"], "SOLVER.OPTIMIZER_NAME is no number of a range; name its values with --grid"),
        (["DATASETS.VEHICLEID_TEST_SIZE", "800", "1600"], "is no number of a range"),  # three choices
        (["LOSS.SUPCON.ENABLE", "0", "1"], "is no number"),
        (["INPUT.SIZE_TRAIN", "1", "2"], "is no number"),
        ([LR, "1e-5"], "expected KEY LOW HIGH"),
        ([LR, "1e-5", "1e-2", "lin"], "expected KEY LOW HIGH, and 'log'"),
        ([LR, "1e-2", "1e-5"], "expected LOW at most HIGH, both within 0 to 100"),
        ([LR, "0.1", "1e9"], "both within 0 to 100"),
        ([LR, "0.1", "0.1"], "is one value alone"),
        ([LR, "0", "0.1", "log"], "'log' needs a LOW above 0"),
        ([LR, "low", "0.1"], "--range SOLVER.BASE_LR low 0.1: got 'low', expected a number"),
        (["SOLVER.WARMUP_EPOCHS", "0", "1.5"], "expected a whole number"),
        (["SOLVER.GAMM", "0", "1"], "did you mean SOLVER.GAMMA?"),
        ([MARGIN, "0", "1"], "SOLVER.MARGIN is swept twice"),
    ],
)
def test_a_range_that_cannot_be_is_one_clear_line(words, said):
    with pytest.raises(ConfigError, match="^--range") as caught:
        read_spans([words], [Axis(MARGIN, ("0.3",))])
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("drawn", "low", "high", "expected"),
    [
        (0.003238025806737733, 1e-4, 1e-2, 0.003238),
        (123456.7, 1.0, 1e6, 123500.0),
        (0.00012345, 0.00012345, 1.0, 0.00012345),  # rounding leads out of the range
        (0.99996, 0.1, 0.99996, 0.99996),
    ],
)
def test_a_drawn_number_has_four_digits_and_stays_in_its_range(drawn, low, high, expected):
    assert rounded(drawn, Span("SOLVER.BASE_LR", low, high, log=False, whole=False)) == expected


def test_a_drawn_whole_number_keeps_its_digits():
    assert rounded(123456, Span("SOLVER.MAX_EPOCHS", 1, 10**6, log=False, whole=True)) == 123456
