"""Rules between the keys of data sets."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.phases import Problem
from configs.stages import solver_key, solver_of
from configs.values import value_of

TABLE_COLUMNS = {  # of a data set of one's own, by MODEL.NAME: others than those of images
    IRRA: "path,pid,split,caption",
    MULTIMODAL: "path,pid,modality,caption,split",
}
MOST_TURNS = 0.5  # of the hue, to either side
MOST_GIB = 64  # of the pixels of one batch, in float32


def find_data_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    names = cfg.DATASETS.NAMES
    if not names or len(set(names)) != len(names):
        yield ("DATASETS.NAMES",), f"DATASETS.NAMES got {names}, expected one or several different data sets"
    tests = cfg.DATASETS.TESTS
    if len(set(tests)) != len(tests):
        yield ("DATASETS.TESTS",), f"DATASETS.TESTS got {tests}, expected different data sets"
    period_key = solver_key(cfg, "EVAL_PERIOD")
    if cfg.DATASETS.VAL_IDS and not solver_of(cfg).EVAL_PERIOD:
        yield (
            ("DATASETS.VAL_IDS", period_key),
            f"DATASETS.VAL_IDS {cfg.DATASETS.VAL_IDS} holds identities out to pick an epoch by, but {period_key} 0 "
            "never looks at them; set a period, or VAL_IDS 0",
        )
    if cfg.DATASETS.VAL_IDS and cfg.MODEL.TRAINING_MODE == "self_supervised":
        yield (
            ("DATASETS.VAL_IDS", "MODEL.TRAINING_MODE"),
            f"DATASETS.VAL_IDS {cfg.DATASETS.VAL_IDS} needs identities, which MODEL.TRAINING_MODE self_supervised does "
            "not use; set it to 0",
        )
    if "table" in (*names, *tests) and not cfg.DATASETS.TABLE:
        columns = TABLE_COLUMNS.get(cfg.MODEL.NAME, "path,pid,camid,viewid,split")
        yield (
            ("DATASETS.NAMES", "DATASETS.TABLE"),
            f"the data set 'table' needs the CSV's path in DATASETS.TABLE (columns {columns})",
        )
    if "wildlife" in (*names, *tests) and not cfg.DATASETS.WILDLIFE:
        yield (
            ("DATASETS.NAMES", "DATASETS.WILDLIFE"),
            "the data set 'wildlife' needs the CSV's path in DATASETS.WILDLIFE (columns image_id,identity,path,...)",
        )
    lowest, highest = cfg.INPUT.RE_AREA
    if lowest > highest or lowest == 1:
        yield (
            ("INPUT.RE_AREA",),
            f"INPUT.RE_AREA got {cfg.INPUT.RE_AREA}, expected [lowest, highest] with a lowest below 1: a rectangle is "
            "smaller than its image",
        )
    for key in ("INPUT.JITTER", "INPUT.SSL.JITTER"):
        hue = value_of(cfg, key)[3]
        if hue > MOST_TURNS:
            yield (key,), f"{key} got hue {hue}, expected 0 to {MOST_TURNS} turns"
    yield from _memory_problems(cfg)


def _memory_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield a problem where the pixels of one batch alone fill a machine."""
    for size_key, batch_key, border in (
        ("INPUT.SIZE_TRAIN", solver_key(cfg, "IMS_PER_BATCH"), 2 * cfg.INPUT.PADDING),
        ("INPUT.SIZE_TEST", "TEST.IMS_PER_BATCH", 0),
    ):
        (height, width), batch = value_of(cfg, size_key), value_of(cfg, batch_key)
        gib = (height + border) * (width + border) * 3 * 4 * batch / 2**30
        if gib > MOST_GIB:
            yield (
                (size_key, batch_key),
                f"{batch_key} {batch} of {size_key} [{height}, {width}] are {gib:,.0f} GiB of pixels, allowed: at most "
                f"{MOST_GIB}",
            )
