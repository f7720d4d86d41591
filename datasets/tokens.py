"""Captions as tokens of OpenAI's CLIP, and the words of them that are masked.

References: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021 (the
tokenizer); Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023 (the mask).
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

MASK_ID = 49405  # in CLIP the word "jekyll", its last merge, which no caption has here: see `_tokenizer`
START_ID, END_ID = 49406, 49407
LENGTH = 77  # of the text towers of OpenAI's CLIP
SHORTEST = 2  # start and end
WORD_END = "</w>"  # of the last token of a word, as CLIP's merges spell it
KEPT_WORDS = 2**16  # whose tokens are remembered; all of CUHK-PEDES has about 10,000


def tokenize(caption: str, length: int = LENGTH) -> Tensor:
    """Return the tokens of one caption, int64 [length]; see `tokenize_all`."""
    return tokenize_all([caption], length)[0]


def tokenize_all(captions: Sequence[str], length: int = LENGTH) -> Tensor:
    """Return the tokens of N captions, int64 [N, length]: start, words, end, then zeros.

    What is longer loses its last words, not its end. Raises ValueError for a length without room for start and end.
    """
    if length < SHORTEST:
        raise ValueError(f"length must be at least {SHORTEST}, for start and end, got {length}")
    tokens = np.zeros((len(captions), length), dtype=np.int64)
    for row, caption in zip(tokens, captions, strict=True):
        words = words_of(caption)[: length - 2]
        row[: len(words) + 2] = (START_ID, *words, END_ID)
    return torch.from_numpy(tokens)


def count_tokens(caption: str) -> int:
    """Return how many tokens a caption has, start and end included: beyond the length it is cut."""
    return len(words_of(caption)) + 2


def length_notes(counts: Sequence[int], length: int) -> tuple[str, ...]:
    """Return the note that tells how many captions of these numbers of tokens are cut, nothing where none is."""
    cut = sum(count > length for count in counts)
    if not cut:
        return ()
    return (
        f"{cut:,} of {len(counts):,} captions have more than {length} tokens, and lose the words beyond "
        "(INPUT.TEXT.LENGTH)",
    )


def words_of(caption: str) -> list[int]:
    """Return the tokens of a caption without start and end; none of them is MASK_ID."""
    if caption.isascii() and caption.isprintable() and "&" not in caption:  # no spelling to repair, nothing escaped
        return list(chain.from_iterable(map(_tokens_of_word, caption.lower().split())))
    return _tokenizer().encode(caption)


def spelled(caption: str, length: int = LENGTH) -> list[tuple[str, list[int]]]:
    """Return the words of a caption as CLIP tells them apart, each with the places of its tokens in `tokenize`.

    A word that the length cuts has the tokens that are left of it.
    """
    tokens = words_of(caption)[: length - 2]
    decoder = _tokenizer().decoder
    ends = [place for place, token in enumerate(tokens) if decoder[token].endswith(WORD_END)]
    bounds = sorted({0, *(end + 1 for end in ends), len(tokens)})
    return [
        (_tokenizer().decode(tokens[start:stop]).strip(), [*range(start + 1, stop + 1)])
        for start, stop in pairwise(bounds)
    ]


def mask_tokens(
    ids: Tensor,
    generator: torch.Generator | None = None,
    rate: float = 0.15,
    mask_share: float = 0.8,
    keep_share: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Return (masked tokens, labels), two new int64 tensors of the shape of `ids`, int64 [..., length].

    Each word is asked for with probability `rate`. Of these `mask_share` become MASK_ID and `keep_share` stay, the
    others become any word. Labels hold the words that are asked for, 0 elsewhere. A caption of which no word was drawn
    is asked for its first word, masked; one without words has no label. Start, end and padding always stay. Raises
    ValueError where the shares exceed 1.
    """
    if mask_share + keep_share > 1 + 1e-9:
        raise ValueError(f"mask_share {mask_share} and keep_share {keep_share} exceed 1 together")
    draws = draw_mask(ids.shape, generator, ids.device)
    return apply_mask(ids, *draws, rate, mask_share, keep_share)


def draw_mask(
    shape: Sequence[int], generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return what `mask_tokens` draws for tokens of a shape: float32 in 0..1, and any word, int64."""
    draw = torch.rand(shape, generator=generator, device=device)
    return draw, torch.randint(1, MASK_ID, shape, generator=generator, device=device)


def apply_mask(
    ids: Tensor,
    draw: Tensor,
    any_word: Tensor,
    rate: float,
    mask_share: float,
    keep_share: float,
    at_least_one: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return what `mask_tokens` does, of what `draw_mask` drew: captions of draws of their own are masked together.

    Not `at_least_one`: a caption of which no word was drawn stays as it is, and has no label.
    """
    is_word = (ids > 0) & (ids < MASK_ID)
    asked = is_word & (draw < rate)
    is_first = is_word & (is_word.cumsum(dim=-1) == 1)
    forced = is_first & ~asked.any(dim=-1, keepdim=True) & at_least_one
    masked = forced | (asked & (draw < rate * mask_share))
    replaced = asked & ~masked & (draw < rate * (1 - keep_share))
    mlm_ids = torch.where(masked, MASK_ID, torch.where(replaced, any_word, ids))
    return mlm_ids, torch.where(asked | forced, ids, 0)


@lru_cache(maxsize=KEPT_WORDS)
def _tokens_of_word(word: str) -> list[int]:
    return _tokenizer().encode(word)


@cache
def _tokenizer() -> Any:
    """Return open_clip's tokenizer without its last merge: the word that this makes stays in its two parts."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer: Any = SimpleTokenizer()
    del tokenizer.bpe_ranks[max(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)]
    return tokenizer
