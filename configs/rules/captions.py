"""Rules between the keys of captions, for all systems that read some."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.phases import Problem

MASKS = tuple(f"INPUT.TEXT.{name}" for name in ("MASK_RATE", "MASK_SHARE", "KEEP_SHARE"))  # which words are masked


def find_caption_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    text = cfg.INPUT.TEXT
    if text.MASK_SHARE + text.KEEP_SHARE > 1:
        yield (
            ("INPUT.TEXT.MASK_SHARE", "INPUT.TEXT.KEEP_SHARE"),
            f"INPUT.TEXT.MASK_SHARE {text.MASK_SHARE} and KEEP_SHARE {text.KEEP_SHARE} are shares of the same tokens; "
            "together they are at most 1",
        )
