"""CLIP's two towers with all their tokens in one space: patches of images, words of captions.

References: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; Jiang and
Ye, IRRA, CVPR 2023, section 3.1.
"""

import torch
from torch import nn

from model.backbones.clip_levels import is_resnet, joint_tokens, levels
from model.backbones.clip_text import check_vocabulary
from model.weights.convert import resize_text_positions
from utils.errors import ConfigError


class JointClip(nn.Module):
    """The towers of `clip`, an open_clip model whose image tower is fitted, for captions of `length` tokens at most.

    Its parts are those of `clip`, and their names too; `logit_scale` is none of them. D is the width of the space that
    both towers project into. Raises ConfigError for a CLIP that is none of OpenAI's kind: an image tower that is no
    ViT, a text tower that is not causal or is not read at the end token, another vocabulary.
    """

    def __init__(self, clip: nn.Module, length: int) -> None:
        super().__init__()
        _check(clip)
        self.visual = clip.visual
        self.token_embedding = clip.token_embedding
        self.positional_embedding = nn.Parameter(
            resize_text_positions(clip.positional_embedding.detach(), length).clone()
        )
        self.transformer = clip.transformer
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        mask = torch.full((length, length), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)  # a word sees those before it and itself
        self.vocab_size = clip.vocab_size

    @property
    def width(self) -> int:
        """D, the width of the features of images and captions."""
        return self.text_projection.shape[1]

    @property
    def length(self) -> int:
        """The most tokens of a caption."""
        return len(self.positional_embedding)

    def check_length(self, ids: torch.Tensor) -> None:
        """Raise ValueError for captions [B, L] of more tokens than there are positions."""
        if ids.shape[1] > self.length:
            raise ValueError(
                f"captions of {ids.shape[1]} tokens for a model of {self.length} (INPUT.TEXT.LENGTH); "
                f"datasets.tokens.tokenize(caption, {self.length}) cuts them"
            )

    def remove_image_tower(self) -> None:
        """Remove what images alone go through."""
        del self.visual

    def remove_text_tower(self) -> None:
        """Remove what captions alone go through."""
        del self.token_embedding, self.positional_embedding, self.transformer, self.ln_final, self.text_projection
        del self.mask

    def image_feature(self, images: torch.Tensor) -> torch.Tensor:
        """Return the class token [B, D] of images [B, 3, H, W]."""
        return levels(self.visual, images).projected

    def image_tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Return the class token and the patches [B, 1 + N, D] of images [B, 3, H, W]."""
        return joint_tokens(self.visual, images)

    def text_feature(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the end token [B, D] of captions [B, L] int64, L at most `length`."""
        return self.ln_final(at_rows(self._words(ids), end_of(ids))) @ self.text_projection

    def text_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Return all tokens [B, L, D] of captions [B, L] int64, L at most `length`; padding is among them."""
        return self.ln_final(self._words(ids)) @ self.text_projection

    def _words(self, ids: torch.Tensor) -> torch.Tensor:
        self.check_length(ids)
        length = ids.shape[1]
        tokens = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = self.mask[:length, :length]
        for block in self.transformer.resblocks:
            tokens = block(tokens, attn_mask=mask)
        return tokens


def end_of(ids: torch.Tensor) -> torch.Tensor:
    """Return the place [B] of the end token, the largest of a vocabulary, in captions [B, L]."""
    return ids.argmax(1)


def at_rows(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the token [B, D] at a place [B] of each row of tokens [B, L, D]."""
    return tokens[torch.arange(tokens.shape[0], device=tokens.device), places]


def cut_to_longest(ids: torch.Tensor) -> torch.Tensor:
    """Return captions [B, L] int64 without the columns at their end that are padding, 0, in every row.

    A word sees none behind it, so that no feature changes. It waits for the device of `ids`: cut them on the CPU.
    """
    last = (ids != 0).any(0).nonzero()
    return ids[:, : int(last.max()) + 1] if len(last) else ids[:, :1]


def cut_without_waiting(ids: torch.Tensor) -> torch.Tensor:
    """Return captions cut to the longest where nothing has to wait for that: on the CPU."""
    return cut_to_longest(ids) if ids.device.type == "cpu" and not torch.compiler.is_compiling() else ids


def check_vit(visual: nn.Module) -> None:
    """Raise ConfigError for an image tower that is a ResNet."""
    if is_resnet(visual):
        raise ConfigError("MODEL.CLIP_BACKBONE names a ResNet, which has no class token; take a ViT")


def _check(clip: nn.Module) -> None:
    check_vit(clip.visual)
    check_vocabulary(clip)
    wrong = [
        what
        for what, holds in (
            ("pool_type", clip.text_pool_type == "argmax"),
            ("no_causal_mask", clip.attn_mask is not None),
            ("proj_type", isinstance(clip.text_projection, nn.Parameter)),
        )
        if not holds
    ]
    if wrong:
        raise ConfigError(
            f"MODEL.CLIP_BACKBONE: the {', '.join(wrong)} of its text_cfg make another text tower than OpenAI's, "
            "which reads a caption at its end token and projects it; leave them out, or take another CLIP"
        )
