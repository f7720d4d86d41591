"""Sentences of any length as batches of tokens."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from datasets.tokens import SHORTEST, count_tokens, length_notes, tokenize_all
from utils.errors import DataError
from utils.progress import over

logger = logging.getLogger(__name__)


def token_batches(texts: Sequence[str], length: int, size: int) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (rows of `texts`, their tokens int64 [B, L]), at most `size` at once and L at most `length`.

    Texts of alike length come together, so that no short one is padded for a long one. How many are cut is logged.
    Raises DataError naming the first text that is none or has no words, before the first batch.
    """
    counts = np.array([_tokens_in(text, row) for row, text in enumerate(texts)], dtype=np.int64)
    for note in length_notes(counts.tolist(), length):
        logger.warning("%s", note)
    order = counts.argsort(kind="stable")
    for start in over(range(0, len(texts), size), "embed"):
        rows = order[start : start + size].tolist()
        longest = min(int(counts[rows[-1]]), length)
        yield rows, tokenize_all([texts[row] for row in rows], longest)


def _tokens_in(text: str, row: int) -> int:
    """Return how many tokens the text number `row` has; DataError where it is none, or has no words."""
    if not isinstance(text, str):
        raise DataError(f"text {row} (from 0) is of type {type(text).__name__}; give a sentence")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a character, as bytes that are no UTF-8 leave it
        raise DataError(f"text {row} (from 0), {text!r}, is no Unicode text ({error.reason}); correct it") from error
    count = count_tokens(text)
    if count <= SHORTEST:
        raise DataError(f"text {row} (from 0), {text!r}, has no words; leave it out")
    return count
