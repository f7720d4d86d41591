"""IRRA: images and captions in one space, and words that are guessed from both.

Reference: Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from model.backbones.clip_joint import JointClip, at_rows, cut_without_waiting, end_of
from model.layers.words import heads_of, make_cross_attention, make_cross_blocks, make_word_head, padding_mask
from model.outputs import GLOBAL, ModelOutput
from model.parts import Part
from model.weights.irra import TOWERS, IrraRules
from model.weights.load import LoadReport, WeightRules, load_param
from utils.errors import ConfigError
from utils.precision import at_least_float32

CLASSIFIER_STD = 0.001
IMAGE = "visual."
BLOCKS = "transformer.resblocks."
BEFORE_THE_BLOCKS = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.", "token_embedding.")
HEADS, NEW = ("classifier.", "mlm_head."), "cross"


class Irra(nn.Module):
    """Images [B, 3, H, W] and captions [B, L] int64 -> ModelOutput in training mode; images -> [B, D] in evaluation.

    `towers` are CLIP's. With `classifies`, one classifier of `num_class` identities serves both; with `cross_depth`
    above 0, words at labelled places are guessed by a cross encoder of that many blocks. `mask_padding`: its blocks
    attend to the tokens of a caption alone, not to its padding. `mask_caption`: the feature of a caption is read from
    its masked tokens, where there are any. The names of all weights are those of IRRA's checkpoints.

    Features are those of the class token and of the end token, not normalised, at least float32. In training mode
    `extra` holds `mlm_logits` [M, vocabulary] and `mlm_targets` [M] int64 of the labelled words, row by row. Without
    labels nothing is guessed, and there are no targets: M is 0, and the gradient of all that guesses is 0.
    """

    side_counts, side_rows = (0, 0), 0  # there is no side information

    def __init__(
        self,
        towers: JointClip,
        num_class: int,
        classifies: bool = True,
        cross_depth: int = 4,
        mask_padding: bool = False,
        mask_caption: bool = False,
    ) -> None:
        super().__init__()
        self.base_model = towers
        self.num_class, self.classifies, self.cross_depth = num_class, classifies, cross_depth
        self.mask_padding, self.mask_caption = mask_padding, mask_caption
        self.feat_dim = width = towers.width
        self.branches = {GLOBAL: width}
        if classifies:
            self.classifier = nn.Linear(width, num_class)
            nn.init.normal_(self.classifier.weight, std=CLASSIFIER_STD)
            nn.init.zeros_(self.classifier.bias)
        if cross_depth:
            self.cross_attn = make_cross_attention(width, cross_depth)
            self.cross_modal_transformer = make_cross_blocks(width, cross_depth)
            self.ln_pre_t, self.ln_pre_i, self.ln_post = (nn.LayerNorm(width) for _ in range(3))
            self.mlm_head = make_word_head(width, cross_depth, towers.vocab_size)

    def forward(
        self,
        images: torch.Tensor,
        caption_ids: torch.Tensor | None = None,
        mlm_ids: torch.Tensor | None = None,
        mlm_labels: torch.Tensor | None = None,
    ) -> ModelOutput | torch.Tensor:
        """Return ModelOutput (training) or the embedding [B, D] of images [B, 3, H, W] (evaluation).

        Captions and their masked tokens are [B, L] int64, L at most the length of captions; so are the labels, 0 where
        no word is asked for. Labels on the CPU cost no wait for the device, which cannot tell how many there are.
        Raises ValueError for longer captions, and for labels without masked tokens.
        """
        if self.training:
            return self.forward_output(images, caption_ids, mlm_ids, mlm_labels)
        return self.encode_image(images)

    def forward_output(
        self,
        images: torch.Tensor,
        caption_ids: torch.Tensor,
        mlm_ids: torch.Tensor | None = None,
        mlm_labels: torch.Tensor | None = None,
    ) -> ModelOutput:
        """Return ModelOutput in either mode; arguments and errors as in `forward`."""
        if mlm_labels is not None and mlm_ids is None:
            raise ValueError("mlm_labels without mlm_ids: there are no masked captions to guess their words from")
        read = mlm_ids if self.mask_caption and mlm_ids is not None else caption_ids
        if not self.cross_depth or mlm_labels is None:
            pair = [self.encode_image(images), self._encode_cut(read)]
            extra = {"mlm_logits": self._no_guess()} if self.cross_depth else {}
            return ModelOutput(self._logits(pair), pair, pair, None, extra)
        mlm_ids, mlm_labels = self._fit(mlm_ids, mlm_labels)
        places = mlm_labels.flatten().nonzero().squeeze(1)  # first of all: it waits for the device of the labels
        targets = mlm_labels.flatten()[places].to(images.device, non_blocking=True)
        places = places.to(images.device, non_blocking=True)
        patches, words = self.base_model.image_tokens(images), self.base_model.text_tokens(mlm_ids)
        text = at_least_float32(at_rows(words, end_of(mlm_ids))) if read is not caption_ids else self._encode_cut(read)
        pair = [at_least_float32(patches[:, 0]), text]
        related = self._relate(words, patches, end_of(mlm_ids)).flatten(0, 1)[places]
        extra = {"mlm_logits": self.mlm_head(self.ln_post(related)), "mlm_targets": targets}
        return ModelOutput(self._logits(pair), pair, pair, None, extra)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features [B, D] of images [B, 3, H, W], not normalised, at least float32."""
        return at_least_float32(self.base_model.image_feature(images))

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the features [B, D] of captions [B, L] int64, not normalised, at least float32.

        Raises ValueError for L above the length of captions, INPUT.TEXT.LENGTH.
        """
        return at_least_float32(self.base_model.text_feature(ids))

    def embed_batch(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the embedding [B, D] of a batch: of its `images`, or of its `caption_ids` where it has no images."""
        return self.encode_image(batch["images"]) if "images" in batch else self._encode_cut(batch["caption_ids"])

    def word_attention(self, images: torch.Tensor, caption_ids: torch.Tensor) -> torch.Tensor:
        """Return how words look at patches, [B, L, N]: the mean over heads, the rest to 1 is the class token's.

        Raises ConfigError for a model that guesses no words, which has no such attention.
        """
        if not self.cross_depth:
            raise ConfigError("words have no weights on patches: LOSS.TEXT.NAMES has no mlm, which trains them")
        words, patches = self.base_model.text_tokens(caption_ids), self.base_model.image_tokens(images)
        patches = self.ln_pre_i(patches)
        return self.cross_attn(self.ln_pre_t(words), patches, patches, need_weights=True)[1][..., 1:]

    def _relate(self, words: torch.Tensor, patches: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Return words [B, L, D] as the cross encoder relates them to patches [B, 1 + N, D], before its last norm."""
        patches = self.ln_pre_i(patches)
        words = self.cross_attn(self.ln_pre_t(words), patches, patches, need_weights=False)[0]
        mask = padding_mask(ends, words.shape[1], heads_of(self.feat_dim)) if self.mask_padding else None
        return self.cross_modal_transformer(words, attn_mask=mask)

    def _no_guess(self) -> torch.Tensor:
        """Return guesses [0, vocabulary], of no word, through which every weight that guesses has a gradient of 0.

        None would be another: several processes wait for a gradient, and an optimizer decays what has one of 0.
        """
        parts = (self.cross_attn, self.cross_modal_transformer, self.mlm_head)
        weights = [w for part in (*parts, self.ln_pre_t, self.ln_pre_i, self.ln_post) for w in part.parameters()]
        return torch.stack([w.flatten()[:0].sum() for w in weights]).sum().expand(0, self.base_model.vocab_size)

    def _fit(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return masked tokens and labels with all the padding that the cross encoder sees, or with the least."""
        self.base_model.check_length(ids)
        if self.mask_padding:
            ids = cut_without_waiting(ids)
            return ids, labels[:, : ids.shape[1]]
        missing = (0, self.base_model.length - ids.shape[1])
        return F.pad(ids, missing), F.pad(labels, missing)

    def _encode_cut(self, ids: torch.Tensor) -> torch.Tensor:
        self.base_model.check_length(ids)
        return self.encode_text(cut_without_waiting(ids))

    def _logits(self, pair: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self.classifier(features) for features in pair] if self.classifies else []

    def keep_embedding_only(self) -> None:
        """Remove what training alone reads: classifier, cross encoder, its head."""
        if self.classifies:
            del self.classifier
        if self.cross_depth:
            del self.cross_attn, self.cross_modal_transformer, self.ln_pre_t, self.ln_pre_i, self.ln_post, self.mlm_head
        self.classifies, self.cross_depth = False, 0

    def keep_image_tower_only(self) -> None:
        """Remove all but what embeds images."""
        self.keep_embedding_only()
        self.base_model.remove_text_tower()

    def keep_text_tower_only(self) -> None:
        """Remove all but what embeds captions."""
        self.keep_embedding_only()
        self.base_model.remove_image_tower()

    @property
    def depth(self) -> int:
        """Number of blocks of the image tower."""
        return len(self.base_model.visual.transformer.resblocks)

    def part_of(self, name: str) -> Part:
        """Return the part of the model in which a parameter is; see `Part`. Layers of a tower count from its input.

        The three norms around the cross encoder are new and yet of the trunk: they learn at its rate.
        """
        last = self.depth + 1
        if not name.startswith(TOWERS):
            return Part("head" if name.startswith(HEADS) else "new" if name.startswith(NEW) else "trunk", last)
        name = name.removeprefix(TOWERS).removeprefix(IMAGE)
        if name.startswith(BLOCKS):
            return Part("trunk", int(name.removeprefix(BLOCKS).split(".")[0]) + 1)
        return Part("trunk", 0 if name.startswith(BEFORE_THE_BLOCKS) else last)

    def load_param(self, path: str | Path, key: str = "TEST.WEIGHT") -> LoadReport:
        """Load a trained checkpoint, ours or IRRA's `best.pth`; see `model.weights.load.load_param`."""
        return load_param(self, self.weight_rules(), path, key)

    def weight_rules(self) -> WeightRules:
        """Return what is known about checkpoints for this model."""
        return IrraRules(self)
