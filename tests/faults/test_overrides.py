"""KEY VALUE pairs: text stays text, numbers lie in bounds that have a reason, and any plan is judged at once."""

import math
import random
import time

import pytest

import test as test_command
import train
from configs import find_notices, load_cfg
from configs.keys import KEYS
from configs.phases import PhasePlan, resolve, segments_of
from configs.values import parse_value, value_of
from solver.preview import schedule_table
from tests.configs.recipes import FILES
from tests.faults.mistakes import refusal
from tests.faults.tally import Count
from utils.errors import ConfigError

pytestmark = pytest.mark.fault("bad input: overrides")
RECIPE = "configs/VeRi/deit_transreid_stride_baseline.yml"
PATIENCE = 2.0  # seconds of this process


OPEN = [name for name, key in KEYS.items() if not key.choices and not key.instead]
NUMERIC = [name for name in OPEN if type(KEYS[name].item) in (int, float)]


def refused(*opts: object) -> str:
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_cfg(RECIPE, opts)
    assert time.process_time() - started < PATIENCE
    return str(caught.value)


@pytest.mark.parametrize("text", ["0012", "1_0", "1e5", "yes", "2024-01-01", "0x10", "10", "True", "None", "[a", "x'y"])
def test_text_on_the_command_line_stays_as_it_is(text):
    assert text == load_cfg(RECIPE, ["OUTPUT_DIR", text]).OUTPUT_DIR


def test_a_python_string_on_the_command_line_is_read_as_yacs_does():
    cfg = load_cfg(RECIPE, ["OUTPUT_DIR", "('veri')", "DATASETS.NAMES", "('veri')", "DATASETS.VIEW_FILES", "['\"a\"']"])
    assert (cfg.OUTPUT_DIR, cfg.DATASETS.NAMES, cfg.DATASETS.VIEW_FILES) == ("veri", ("veri",), ('"a"',))


@pytest.mark.parametrize("name", NUMERIC)
def test_every_number_has_two_finite_bounds_with_a_reason(name):
    key = KEYS[name]
    assert key.low is not None and key.high is not None and math.isfinite(key.low) and math.isfinite(key.high)
    assert key.why or (key.low >= 0 and key.high <= 10), "a wide bound needs its reason"
    above = key.high * 2 if isinstance(KEYS[name].item, float) else int(key.high) + 1
    is_list = isinstance(key.default, (list, tuple))
    for value in (above, key.low - 1):
        assert f"{name} got" in refused(name, [value] * (key.length or 1) if is_list else value)
    for value in ("nan", "inf", "9" * 5000, "0120", "1:2", "10**3", "1e5x"):
        with pytest.raises(ValueError, match="expected"):
            parse_value(value, KEYS[name].item)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_shipped_recipe_lies_inside_the_bounds(path):
    opts = ["MODEL.TRANSFORMER_TYPE", "vit_base_patch16_224_TransReID"] if path.stem in ("_foundation",) else []
    cfg = load_cfg(path, opts)
    for name in NUMERIC:
        value = value_of(cfg, name)
        items = value if isinstance(value, (list, tuple)) else [value]
        assert all(KEYS[name].low <= item <= KEYS[name].high for item in items)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SOLVER.MAX_EPOCHS", "1e12"], "expected a whole number"),
        (["SOLVER.MAX_EPOCHS", "1000000000000"], "allowed: 1 to 100000"),
        (["SOLVER.MAX_EPOCHS", "0120"], "write 120 or 0o120"),
        (["INPUT.SIZE_TRAIN", "[0120, 64]"], "expected a list"),
        (["INPUT.SIZE_TRAIN", "1:2"], "write it without ':'"),
        (["INPUT.SIZE_TRAIN", "4096", "INPUT.SIZE_TEST", "4096", "SOLVER.IMS_PER_BATCH", "65536"], "GiB of pixels"),
        (["INPUT.SIZE_TRAIN", "4000", "INPUT.SIZE_TEST", "4000", "TEST.IMS_PER_BATCH", "65536"], "GiB of pixels"),
        (["INPUT.SIZE_TRAIN", "4096", "INPUT.SIZE_TEST", "4096"], "116,281 patches, allowed: at most 65,536"),
        (["INPUT.PIXEL_STD", "1e-300"], "a divisor"),
        (["INPUT.PIXEL_MEAN", "[123.675, 116.28, 103.53]"], "divide a mean of 0 to 255 by 255"),
        (["MODEL.VIT.EMBED_DIM", "8192", "MODEL.VIT.DEPTH", "200"], "billion parameters"),
        (["MODEL.VIT.MLP_RATIO", "1e-9"], "leaves the MLP no width"),
        (["SOLVER.CENTER_LOSS_WEIGHT", "1e-300"], "overflows"),
        (["LOSS.PHASED.W_SUP_SPEC", "['const:1e38']"], ""),
        (["LOSS.PHASED.BOUNDARIES", str(list(range(1, 5000)))], "has 4,999 entries, allowed: at most 1,000"),
        (["DATASETS.VIEW_FILES", str(["x"] * 1001)], "has 1,001 entries"),
        (["MODEL.DEVICE_ID", "x"], "expected the index of a CUDA device"),
        (["MODEL.DEVICE_ID", ""], "expected the index of a CUDA device"),
        (["MODEL.DEVICE_ID", "-1"], "expected the index of a CUDA device"),
        (["MODEL.DEVICE_ID", "cuda:7"], "expected the index of a CUDA device"),
        (["MODEL.DEVICE_ID", "²"], "expected the index of a CUDA device"),
        (["MODEL.DEVICE_ID", "9" * 30], "expected the index of a CUDA device"),
        (["MODEL.DEVICE", "cuda:7"], "allowed: auto, cuda, mps, cpu; did you mean cuda?"),
        (["MODEL.DEVICE", "tpu"], "allowed: auto, cuda, mps, cpu"),
        (["SOLVER.STEPS", "(1, 2"], "expected a list"),
        (["SOLVER.STEPS", "{1, 2}"], "expected a list"),
        (["SOLVER.STEPS", "[[1]]"], "expected a list of numbers"),
        (["SOLVER.STEPS", "[1, None]"], "expected a list of numbers"),
        (["INPUT.SIZE_TRAIN", "(" * 5000], "expected a list"),
        (["INPUT.SIZE_TRAIN", "[" * 60_000], "expected a list"),
        (["INPUT.SIZE_TRAIN", "-" * 60_000 + "1"], "expected a list"),
        (["INPUT.SIZE_TRAIN", "1" * 200_000], "expected a list"),
        (["SOLVER.BASE_LR", "9" * 4000], "too large"),
        (["SOLVER.BASE_LR", "0o7" + "7" * 3000], "too large"),
        (["SOLVER.MAX_EPOCHS", 1 << 60_000], "too large"),
        (["SOLVER.MAX_EPOCHS", "0x" + "f" * 20_000], "too large"),
        (["SOLVER.MAX_EPOCHS", "\0"], "expected a whole number"),
        (["SOLVER.MAX_EPOCHS", ""], "expected a whole number"),
        (["SOLVER.MAX_EPOCHS", "３"], "expected a whole number"),
        (["SOLVER", "x"], "SOLVER is a section"),
        (["SOLVER.", "1"], "unknown key SOLVER."),
        (["", "1"], "unknown key"),
        (["_BASE_", "x.yml"], "unknown key _BASE_"),
        (["X" * 5000, "1"], "unknown key"),
        (["SOLVER.MAX_EPOCHS"], "expected KEY VALUE pairs, got 1 words"),
        (["SOLVER.MAX_EPOCHS=3"], "write 'SOLVER.MAX_EPOCHS 3', without '='"),
        (["DATASETS.TESTS", "market1501,veri"], "a list in text; write [market1501, veri] in a YAML"),
        (["DATASETS.NAMES", "(market1501)"], "a list in text; write [market1501] in a YAML"),
        (["DATASETS.TESTS", "[veri, market1501]"], "\"['veri', 'market1501']\" in a shell"),
        (["DATASETS.TESTS", "veri;VehicleID"], "a list in text; write [veri, VehicleID] in a YAML"),
        (["DATASETS.TESTS", "veri776"], "did you mean veri?"),
        (["MODEL.TRANSFORMER_TYPE", "None"], "MODEL.TRANSFORMER_TYPE is not set, allowed: "),
    ],
)
def test_a_wrong_pair_is_refused_at_once_with_what_is_allowed(opts, words):
    if opts[0] == "LOSS.PHASED.W_SUP_SPEC":
        opts, words = [*opts, "LOSS.PHASED.ENABLE", "True"], "allowed: weights up to 1e+06"
    assert words in refused(*opts)


def test_hundreds_of_problems_are_counted_and_the_first_ones_shown():
    lines = refused(*(word for number in range(300) for word in (f"NO.KEY_{number}", "1"))).splitlines()
    assert lines[0] == "300 problems:" and len(lines) == 22 and lines[-1] == "  ... and 280 more"


@pytest.mark.parametrize("main", [train.main, test_command.main])
@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["OUTPUT_DIR"], "expected KEY VALUE pairs"),
        (["SOLVER.MAX_EPOCHS", "x" * 5000], "more characters"),
        (["SOLVER.MAX_EPOCHS", "1\n2"], "expected a whole number"),
        (["SOLVER.MAX_EPOCHS", "\x1b[31m"], "expected a whole number"),
        (["--no-such-flag"], "unrecognized arguments"),
        (["--config-file=x.yml"], "'--config-file' is unknown, did you mean --config_file?"),
        (["TEST.WEIGHT", "x", "OUTPUT_DIR"], "got 3 words: TEST.WEIGHT x OUTPUT_DIR"),
        (["--local_rank", "9" * 5000], "invalid int value"),
    ],
)
def test_a_command_says_it_in_one_line(main, opts, words, capsys):
    assert words in refusal(main, "--config_file", RECIPE, *opts, capsys=capsys)


def test_a_plan_of_very_many_epochs_is_judged_at_once():
    phased = ["LOSS.PHASED.ENABLE", "True", "LOSS.SUPCON.ENABLE", "True", "SOLVER.MAX_EPOCHS", "100000"]
    for opts in (phased, [*phased, "LOSS.PHASED.W_SUP_SPEC", "['linear:0.3->-0.3']"]):
        started = time.process_time()
        cfg = load_cfg(RECIPE, opts)
        find_notices(cfg)
        assert time.process_time() - started < 1
        assert len(schedule_table(cfg).splitlines()) < 10


@pytest.mark.slow
def test_a_plan_of_very_many_phases_is_judged_soon():
    phased = ["LOSS.PHASED.ENABLE", "True", "LOSS.SUPCON.ENABLE", "True", "SOLVER.MAX_EPOCHS", "100000"]
    started = time.process_time()
    find_notices(load_cfg(RECIPE, [*phased, "LOSS.PHASED.BOUNDARIES", str(list(range(2, 1002)))]))
    assert time.process_time() - started < 5


NUMBERS = ("0", "1", "-1", "0.3", "1e-9", "1e400", "nan", "", ".", "1.2.3", "１", "+2", "1e3", "1_0", "0x1")


def random_spec(rng: random.Random) -> str:
    """Return a weight specification, right or wrong."""
    kind = rng.choice(("const", "linear", "CONST ", "cosine", "", "linear:"))
    numbers = "->".join(rng.choice(NUMBERS) for _ in range(rng.randrange(4)))
    return rng.choice((f"{kind}:{numbers}", f" {kind} : {numbers} ", numbers, kind + numbers))


def random_plan(rng: random.Random) -> list[str]:
    """Return KEY VALUE pairs of a plan of phases, mostly one that can be followed."""
    epochs = rng.choice((1, 2, 7, 40, 100))
    sound = rng.random() < 0.7
    boundaries = sorted(rng.sample(range(1, 2 * epochs + 4), rng.randrange(4)))
    line = f"linear:{rng.uniform(-1, 1):.2f}->{rng.uniform(-1, 1):.2f}"
    specs = [line if sound else random_spec(rng) for _ in range(3)]
    return [
        *("SOLVER.MAX_EPOCHS", str(epochs), "LOSS.PHASED.ENABLE", "True", "LOSS.SUPCON.ENABLE", "True"),
        *("LOSS.TRIPLETX.ENABLE", "True", "DATALOADER.PHASED.ENABLE", rng.choice(("True", "False"))),
        *("LOSS.PHASED.BOUNDARIES", str(boundaries if sound else boundaries[::-1])),
        *("LOSS.PHASED.METRIC_SEQ", str(rng.choices(("triplet", "tripletx", "none"), k=rng.randint(1, 4)))),
        *("LOSS.PHASED.W_SUP_SPEC", str(specs[: rng.randrange(4)])),
        *("LOSS.PHASED.TRIPLETX_END", str(rng.randint(-1, 2 * epochs))),
        *("LOSS.SUPCON.DECAY_TYPE", rng.choice(("const", "linear", "exp"))),
        *("LOSS.SUPCON.DECAY_START", str(rng.randint(0, epochs)), "LOSS.SUPCON.DECAY_END", str(rng.randint(1, 90))),
        *("LOSS.PHASED.W_TERMS", str([f"id={'|'.join(specs[:2])}"] if rng.random() < 0.3 else [])),
    ]


def fuzz(seed: int, number: int) -> tuple[int, int]:
    """Return (tried, held): a plan is refused, or its segments are what looking at each epoch shows."""
    rng, held = random.Random(seed), 0
    for _ in range(number):
        started = time.process_time()
        try:
            cfg = load_cfg(RECIPE, random_plan(rng))
        except ConfigError:
            held += time.process_time() - started < PATIENCE
            continue
        each = [resolve(cfg, epoch) for epoch in range(1, PhasePlan(cfg).max_epochs + 1)]
        signs = [tuple(weight > 0 for weight in one.weights.values()) for one in each]
        kinds = [(one.index, one.num_instance, one.routed, sign) for one, sign in zip(each, signs, strict=True)]
        firsts = [epoch for epoch in range(1, len(each) + 1) if epoch == 1 or kinds[epoch - 1] != kinds[epoch - 2]]
        held += [first.epoch for first, _ in segments_of(cfg)] == firsts
    return number, held


def test_segments_are_what_each_epoch_shows_or_the_plan_is_refused(tally: Count):
    tried, held = fuzz(0, 30)
    tally("bad input: phase plans", tried, held)
    assert held == tried


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_many_plans_of_phases(tally: Count, seed):
    tried, held = fuzz(seed, 300)
    tally("bad input: phase plans", tried, held)
    assert held == tried
