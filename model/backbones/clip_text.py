"""CLIP's text tower, and the sentences that CLIP-ReID completes by learnt tokens of each identity.

References: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; Li et al.,
CLIP-ReID, AAAI 2023, section 3.2.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

from configs.clip_reid import PLACE
from model.backbones.clip_levels import row_behind
from utils.errors import ConfigError

INIT_STD = 0.02
VOCABULARY = 49408  # tokens of OpenAI's CLIP
PROMPT_KEYS = "MODEL.PROMPT and MODEL.PROMPT_TOKENS"


class Sentence(NamedTuple):
    """The tokens around the learnt ones; positions count from 0."""

    before: tuple[int, ...]  # from the start token on
    after: tuple[int, ...]  # to the end of the context, zeros behind the end token
    end: int  # position of the end token


class TextEncoder(nn.Module):
    """CLIP's text tower behind the token embedding: [n, L, T] -> [n, D], read at the end token and not normalised.

    Its parts are those of `clip`, an open_clip model, and their names too. Where a token sees none behind it, positions
    behind the end token cannot matter and are not computed.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.transformer = clip.transformer
        self.positional_embedding = clip.positional_embedding
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.register_buffer("mask", clip.attn_mask, persistent=False)  # None: each token sees all

    def length(self, end: int) -> int:
        """Return how many positions decide the feature of a sentence with its end token at `end`."""
        return len(self.positional_embedding) if self.mask is None else end + 1

    def forward(self, tokens: torch.Tensor, end: int) -> torch.Tensor:
        """Return the features [n, D] of embedded sentences [n, L, T], L at least `length(end)`."""
        length = self.length(end)
        tokens = tokens[:, :length] + self.positional_embedding[:length]
        mask = None if self.mask is None else self.mask[:length, :length]
        *blocks, last_block = self.transformer.resblocks
        for block in blocks:
            tokens = block(tokens, attn_mask=mask)
        return self.ln_final(row_behind(last_block, tokens, end)) @ self.text_projection


class PromptLearner(nn.Module):
    """The sentences of C identities: `count` learnt tokens each, between the same tokens before and after them."""

    def __init__(self, num_class: int, count: int, sentence: Sentence, embedding: nn.Embedding) -> None:
        super().__init__()
        self.cls_ctx = nn.Parameter(torch.empty(num_class, count, embedding.embedding_dim))
        nn.init.normal_(self.cls_ctx, std=INIT_STD)
        with torch.no_grad():
            self.register_buffer("token_prefix", embedding(torch.tensor([sentence.before])))  # [1, p, T]
            self.register_buffer("token_suffix", embedding(torch.tensor([sentence.after])))  # [1, s, T]
        self.end = sentence.end

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the embedded sentences [n, L, T] of labels [n] int64 in 0..C-1."""
        rows = len(labels), -1, -1
        return torch.cat([self.token_prefix.expand(rows), self.cls_ctx[labels], self.token_suffix.expand(rows)], dim=1)


def check_vocabulary(clip: nn.Module) -> None:
    """Raise ConfigError where the text tower of an open_clip model knows fewer tokens than CLIP's tokenizer."""
    if clip.vocab_size < VOCABULARY:
        raise ConfigError(
            f"MODEL.CLIP_BACKBONE: its text_cfg has a vocabulary of {clip.vocab_size:,}, CLIP's tokenizer has "
            f"{VOCABULARY:,} tokens; set vocab_size {VOCABULARY}"
        )


def make_sentence(prompt: str, count: int, clip: nn.Module) -> Sentence:
    """Return the tokens of a `prompt` with PLACE for `count` learnt tokens, by the tokenizer of OpenAI's CLIP.

    Raises ConfigError where the sentence is longer than what the text tower reads, or the tower has another vocabulary.
    """
    from open_clip.tokenizer import SimpleTokenizer

    check_vocabulary(clip)
    tokenizer: Any = SimpleTokenizer()
    before, after = (tokenizer.encode(part) for part in prompt.split(PLACE))
    end = 1 + len(before) + count + len(after)
    room = clip.context_length - end - 1
    if room < 0:
        raise ConfigError(
            f"{PROMPT_KEYS}: '{prompt}' with {count} learnt tokens has {end + 1} tokens, the text tower reads at most "
            f"{clip.context_length}; shorten it"
        )
    return Sentence((tokenizer.sot_token_id, *before), (*after, tokenizer.eot_token_id, *[0] * room), end)
