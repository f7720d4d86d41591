"""From a model and images to embeddings: the one way in which tests, tools and a user's own images are embedded."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import TEXT
from datasets.batch import Batch
from datasets.make_transforms import make_modality_transforms, make_transforms
from datasets.test_set import TestSet
from datasets.transforms import BatchTransform, brightness
from model.layers import packed
from model.layers.kernel import AUTO, choose_attention
from model.layers.packed import packed_linears
from processor.evaluation.cautions import image_sets, kind_of_rows
from processor.evaluation.store import FLOAT32, room_for, rows_of
from utils.device import announce_amp, autocast, resolve_amp
from utils.distributed import gather_shards, num_processes
from utils.errors import ConfigError
from utils.interrupts import check
from utils.progress import over

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}  # by name: the autocast type
MOVED = ("camids", "viewids", "caption_ids")  # of a batch, beside its images
PHOTOS = ("vis", "nir")  # the modalities whose brightness says something of the scene: a drawing's does not
FUSED_AT_ONCE = 1024  # queries or gallery items of several rows

Fuse = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Embedding(NamedTuple):
    """How batches become embeddings; a system may replace any part."""

    encode: Callable[[nn.Module, Batch], torch.Tensor]  # (model, prepared batch) -> [B, D]
    prepare: Callable[[Batch], Batch]  # a loader's batch -> what `encode` reads, on the device, with its brightness
    flip: bool  # average the embeddings of each image and its mirror
    unit: bool  # L2-normalise what is compared: where the model fuses, that is what it makes of the rows
    amp: torch.dtype | None  # the autocast type of the model, None = float32 throughout
    fuse: Fuse | None  # ([Q, n, D], valid [Q, n]) -> [Q, D]: queries of several items, tracklets; None: by the model
    tracklets: str = "mean"  # mean | max of the images of a row
    part_weights: tuple[float, ...] = ()  # of the branches in a similarity, see `weigh_parts`; () = as the model has it
    store: str = FLOAT32  # one of STORES: how the embeddings of all rows are kept
    folder: str = ""  # of the file of store disk
    attention: str = AUTO  # of MODEL.ATTENTION
    linear: str = packed.AUTO  # of TEST.LINEAR


class Embedded(NamedTuple):
    """What the rows of loaders became, in their order."""

    feat: torch.Tensor  # [N, D], float32 or as `Embedding.store` says, on the model's device, or on the CPU where a GPU
    # has no room for them
    luma: np.ndarray  # float32 [N]: brightness of the clean image in 0..1, NaN where there is none
    precision: str  # in which the model ran, a key of PRECISIONS
    fuse: Fuse | None = None  # as in `Embedding`, that of the model where there it is None


def make_embedding(cfg: CfgNode, device: torch.device, exact: bool = False) -> Embedding:
    """Return how TEST.FLIP, FEAT_NORM, PART_WEIGHTS and AMP say that images are embedded; `exact` = float32, no AMP.

    Where the model fuses rows of several modalities, each row is encoded alone and normalised after the fusion only.
    Raises ConfigError for a TEST.AMP that the device cannot compute in.
    """
    if cfg.MODEL.NAME == MULTIMODAL:
        encode, fuse, (_, transforms) = encode_row, None, make_modality_transforms(cfg)
        prepare = functools.partial(prepare_modal_rows, device=device, transforms=transforms)
    else:
        encode, fuse, (_, transform) = encode_by_model, mean_direction, make_transforms(cfg)
        prepare = functools.partial(prepare_rows, device=device, transform=transform)
    return Embedding(
        encode=encode,
        prepare=prepare,
        flip=cfg.TEST.FLIP,
        unit=cfg.TEST.FEAT_NORM == "yes",
        amp=None if exact else resolve_amp(cfg.TEST.AMP, device, "TEST.AMP"),
        fuse=fuse,
        tracklets=cfg.TEST.TRACKLETS,
        part_weights=tuple(cfg.TEST.PART_WEIGHTS),
        store=cfg.TEST.FEATURES,
        folder=cfg.OUTPUT_DIR,
        attention=cfg.MODEL.ATTENTION,
        linear=cfg.TEST.LINEAR,
    )


def announce_precision(cfg: CfgNode, device: torch.device) -> None:
    """Log in which precision images will be embedded; ConfigError as `make_embedding`, before any image is read."""
    announce_amp(cfg.TEST.AMP, device, "TEST.AMP")


def in_precision(how: Embedding, cfg: CfgNode, device: torch.device, name: str) -> Embedding:
    """Return `how` in the precision `name` where TEST.AMP auto leaves that open and the device can, else as it is."""
    can_run = name in PRECISIONS and (name != "float16" or device.type == "cuda")
    return how._replace(amp=PRECISIONS[name]) if cfg.TEST.AMP == "auto" and can_run else how


def precision_name(amp: torch.dtype | None) -> str:
    """Return the key of PRECISIONS whose value is `amp`."""
    return next(name for name, kind in PRECISIONS.items() if kind == amp)


def prepare_rows(batch: Batch, device: torch.device, transform: BatchTransform) -> Batch:
    """Return uint8 images [B, 3, H, W] on the device, normalised in float32, with brightness and what labels there are.

    camids and viewids are int64 [B]; absent or negative = unknown. Of a batch without images, the tokens of captions.
    """
    moved: Batch = {name: batch[name].to(device, non_blocking=True) for name in MOVED if name in batch}
    if "images" not in batch:
        return moved
    images = batch["images"].to(device, non_blocking=True)
    return {"images": transform(images), "brightness": brightness(images), **moved}


def prepare_modal_rows(batch: Batch, device: torch.device, transforms: Mapping[str, BatchTransform]) -> Batch:
    """Return a batch whose `modalities` holds one entry, on the device: normalised images, or tokens as they are.

    Photos come with their brightness, drawings and captions have none.
    """
    moved: Batch = {name: batch[name].to(device, non_blocking=True) for name in MOVED if name in batch}
    ((modality, values),) = batch["modalities"].items()
    values = values.to(device, non_blocking=True)
    if modality in PHOTOS:
        moved["brightness"] = brightness(values)
    return moved | {"modalities": {modality: values if modality == TEXT else transforms[modality](values)}}


def mirrored(batch: Batch) -> Batch | None:
    """Return a prepared batch with its images mirrored; None where it has none."""
    if "images" in batch:
        return batch | {"images": batch["images"].flip(3)}
    images = {name: values for name, values in batch.get("modalities", {}).items() if name != TEXT}
    return batch | {"modalities": {name: values.flip(3) for name, values in images.items()}} if images else None


def encode_row(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return what a model that fuses makes of a prepared batch of one modality, [B, D], before its fusion."""
    return model.encode_batch(batch)


@torch.inference_mode()
def fuse_by_model(feat: torch.Tensor, valid: torch.Tensor, model: nn.Module, unit: bool) -> torch.Tensor:
    """Return what the model makes of the valid [Q, n] items of features [Q, n, D], [Q, D], where these lie.

    `unit` L2-normalises it. In float32 throughout: next to the encoding it costs nothing.
    """
    device = next(model.parameters()).device
    fused = model.fuse(feat.to(device), valid.to(device)).float()
    return (F.normalize(fused, dim=1) if unit else fused).to(feat.device)


@torch.inference_mode()
def vectors(embedded: Embedded, rows: np.ndarray) -> torch.Tensor:
    """Return what is compared of queries or gallery items, [Q, D]: `rows` are [Q], or [Q, n] that are fused.

    What is fused is float32; single rows are as they are kept, and no copy where they follow one another.
    """
    if rows.ndim == 1:
        return rows_of(embedded.feat, rows)
    parts = torch.from_numpy(rows).to(embedded.feat.device).split(FUSED_AT_ONCE)
    return torch.cat([embedded.fuse(embedded.feat[part.clamp(min=0)].float(), part >= 0) for part in parts])


def encode_by_model(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the embeddings [B, D] of a prepared batch as the model makes them."""
    return model.embed_batch(batch)


def weigh_parts(feat: torch.Tensor, branches: Mapping[str, int], weights: Sequence[float]) -> torch.Tensor:
    """Return features [B, D] whose branches are L2-normalised and multiplied by the roots of their weights.

    `branches` are the widths of the branches in their order, of sum D. The inner product of two such features is the
    weighted sum of the cosines of their branches. Raises ConfigError for another number of weights.
    """
    if len(weights) != len(branches):
        raise ConfigError(
            f"TEST.PART_WEIGHTS {list(weights)} has {len(weights)} weights, the embedding has {len(branches)} "
            f"branches: {', '.join(branches)}; give one weight for each, or ()"
        )
    parts = feat.split(list(branches.values()), dim=1)
    return torch.cat([weight**0.5 * F.normalize(part, dim=1) for part, weight in zip(parts, weights, strict=True)], 1)


def mean_direction(feat: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the L2-normalised mean [Q, D] of the valid [Q, n] items of features [Q, n, D]."""
    return F.normalize(torch.where(valid[..., None], feat, 0).sum(1), dim=1)  # a sum has the direction of the mean


@torch.inference_mode()
def embed(model: nn.Module, loaders: Sequence[DataLoader], how: Embedding) -> Embedded:
    """Embed the rows of all loaders, one after the other; they count on.

    Nothing waits for a GPU before the last batch. Processes that share a loader each get the features of all its rows.
    The model is left in eval mode.
    """
    model.eval()
    device = next(model.parameters()).device
    total = sum(len(loader.sampler) for loader in loaders)
    luma = torch.full((total,), torch.nan, device=device)
    feat, stop = None, 0
    with packed_linears(model, device, how.amp, how.linear):
        for prepared in _prepared(loaders, how):
            part = embed_batch(model, prepared, how)
            start, stop = stop, stop + len(part)
            feat = room_for(part, total, how.store, how.folder) if feat is None else feat
            feat[start:stop].copy_(part, non_blocking=True)
            if "brightness" in prepared:
                luma[start:stop] = prepared["brightness"]
    luma = _gather(luma, loaders).cpu().numpy()  # waits for the GPU, so `feat` is whole from here on
    feat = _gather(feat, loaders)
    for images in image_sets(loaders):
        images.tell_damage()
    precision = precision_name(how.amp)
    embedded = " and ".join(f"{len(loader.dataset)} {kind_of_rows(loader)}" for loader in loaders)
    logger.info("%s embedded in %s on %s", embedded, precision, device)
    fuse = how.fuse or functools.partial(fuse_by_model, model=model, unit=how.unit)
    return Embedded(feat, luma, precision, fuse)


@torch.inference_mode()
def embed_batch(model: nn.Module, batch: Batch, how: Embedding) -> torch.Tensor:
    """Return the embeddings float32 [B, D] of a batch that `how` prepared; the model is in eval mode, on its device.

    Of a model that fuses they are what it fuses, not normalised.
    """
    device = next(model.parameters()).device
    choose_attention(model, device, how.amp, training=False, choice=how.attention)
    with autocast(device, how.amp):
        feat = how.encode(model, batch).float()
        other = mirrored(batch) if how.flip else None
        if other is not None:
            feat = (feat + how.encode(model, other).float()) / 2
    if how.part_weights:
        feat = weigh_parts(feat, model.branches, how.part_weights)
    return F.normalize(feat, dim=1) if how.unit and how.fuse is not None else feat


def embed_test(model: nn.Module, test: TestSet, how: Embedding) -> Embedded:
    """Return what the rows of a test set become: of a tracklet what `how` makes of its frames' embeddings."""
    if test.lengths is None:
        return embed(model, test.loaders, how)
    embedded = pool_images(embed(model, test.loaders, how._replace(unit=False)), test.lengths, how.tracklets)
    return embedded._replace(feat=F.normalize(embedded.feat, dim=1)) if how.unit else embedded


@torch.inference_mode()
def pool_images(embedded: Embedded, lengths: np.ndarray, pool: str) -> Embedded:
    """Return one embedding for each row of `lengths` [N] images, one after the other: their mean or max, by `pool`.

    The brightness of a row is the mean over its images.
    """
    counts = torch.from_numpy(lengths)
    feat = torch.segment_reduce(embedded.feat.float(), pool, lengths=counts.to(embedded.feat.device))
    luma = torch.segment_reduce(torch.from_numpy(embedded.luma), "mean", lengths=counts).numpy()
    return embedded._replace(feat=feat.to(embedded.feat.dtype), luma=luma)


def _prepared(loaders: Sequence[DataLoader], how: Embedding) -> Iterator[Batch]:
    """Yield the batches of all loaders as `how` prepares them."""
    for loader in loaders:
        for batch in over(loader, "embed"):
            check()
            yield how.prepare(batch)


def _gather(values: torch.Tensor, loaders: Sequence[DataLoader]) -> torch.Tensor:
    """Return the rows [N, ...] of all loaders, of which the processes hold shards, loader by loader."""
    if num_processes() == 1:
        return values
    parts = values.split([len(loader.sampler) for loader in loaders])
    return torch.cat([gather_shards(part, len(loader.dataset)) for part, loader in zip(parts, loaders, strict=True)])
