"""What a batch may hold: the one list of its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

    from datasets.features import Distinct
    from model import ModelOutput


class Batch(TypedDict, total=False):
    """B samples; every tensor, also inside dicts, has B rows. Each system says which keys its batches have."""

    images: Tensor  # [B, 3, H, W]: uint8 from a loader, normalised float32 where the model sees it
    pids: Tensor  # int64 [B], as camids and viewids
    camids: Tensor  # from 0, -1 = unknown to the model
    viewids: Tensor  # from 0, -1 = unknown to the model
    paths: list[str]
    brightness: Tensor  # float32 [B] in 0..1
    features: Tensor  # [B, D], cached
    distinct: Distinct  # the identities of a batch of features, each once
    image_ids: Tensor  # int64 [B]: which captions belong to one image
    caption_ids: Tensor  # int64 [B, length]: tokens
    mlm_ids: Tensor  # int64 [B, length]: tokens, some of them masked
    mlm_labels: Tensor  # int64 [B, length]: what the masked ones were
    modalities: dict[str, Tensor]  # by name: images [B, 3, H, W] or tokens [B, length]
    present: dict[str, Tensor]  # by name: bool [B], False = this sample lacks the modality
    teacher: ModelOutput  # of the same images
    step: int  # of the run, from 1, set by the loop
    epoch: int  # of the stage, from 1, set by the loop
