"""The plain forms of benchmarks/train_step.py: the steps of systems beside TransReID, as their originals go about it.

Each is a function of a model with our weights and names and a batch: (loss, logits of the identity that is read).
Towers make all tokens of all blocks, captions all of their positions; stripes, branches and sets of modalities are
loops. `make_*` binds what the configuration says. Blocks are open_clip's, attention is torch's.
References: Sun et al., PCB, ECCV 2018; Li et al., CLIP-ReID, AAAI 2023; Jiang and Ye, IRRA, CVPR 2023; Zuo et al.,
ReID5o, NeurIPS 2025.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from yacs.config import CfgNode

from benchmarks.step.lineage_step import hardest_pairs
from configs.modalities import TEXT
from datasets.batch import Batch
from processor.stage import Stage
from utils.precision import at_least_float32

Found = tuple[torch.Tensor, torch.Tensor]
Plain = Callable[[nn.Module, Batch], Found]
TINY = 1e-8  # added to target shares before their logarithm, see losses/image_text.py


def make_pcb(cfg: CfgNode, stage: Stage) -> Plain:
    """Return the step of PCB."""
    return pcb_loss


def pcb_loss(model: nn.Module, batch: Batch) -> Found:
    """Return the cross-entropies of all stripes, added up."""
    base, logits = model.base, []
    maps = base.maxpool(base.relu(base.bn1(base.conv1(batch["images"]))))
    maps = base.layer4(base.layer3(base.layer2(base.layer1(maps))))
    for name, stripe in zip(model.reduction, maps.chunk(len(model.reduction), dim=2), strict=True):
        pooled = F.adaptive_max_pool2d(stripe, 1).flatten(1)
        feature = model.dropout(model.bottleneck[name](model.reduction[name](pooled)))
        logits.append(at_least_float32(model.classifier[name](feature)))
    return sum(F.cross_entropy(branch, batch["pids"]) for branch in logits), logits[0]


def make_clip_reid(cfg: CfgNode, stage: Stage) -> Plain:
    """Return the step of CLIP-ReID's stage 2; texts do not change in it and are computed once."""
    settings = {"smoothing": cfg.LOSS.LABEL_SMOOTH_EPS, "margin": cfg.SOLVER.MARGIN}
    return partial(clip_reid_loss, texts=stage.model.prototypes(), weights=stage.plan.at(1).weights, **settings)


def clip_reid_loss(
    model: nn.Module, batch: Batch, texts: torch.Tensor, weights: Mapping[str, float], smoothing: float, margin: float
) -> Found:
    """Return two identity losses, three triplet losses and the identity by text, weighted."""
    labels, visual = batch["pids"], model.image_encoder
    before, tokens = image_tokens(visual, batch["images"])
    normal = visual.ln_post(tokens)
    features = [at_least_float32(x[:, 0]) for x in (before, normal, normal @ visual.proj)]
    necks = [model.bottleneck(features[1]), model.bottleneck_proj(features[2])]
    logits = [
        at_least_float32(head(x)) for head, x in zip((model.classifier, model.classifier_proj), necks, strict=True)
    ]
    identity = partial(F.cross_entropy, target=labels, label_smoothing=smoothing)
    total = weights["i2t"] * identity(at_least_float32(features[2] @ texts.t()))
    total = total + weights["id"] * sum(identity(branch) for branch in logits)
    for feature in features:
        positive, negative = hardest_pairs(feature, labels)
        ones = torch.ones_like(negative)
        total = total + weights["triplet"] * F.margin_ranking_loss(negative, positive, ones, margin)
    return total, logits[0]


def make_irra(cfg: CfgNode, stage: Stage) -> Plain:
    """Return the step of IRRA: one pass over the captions, one over the masked ones, and all of their positions."""
    return partial(irra_loss, scale=1 / cfg.LOSS.TEXT.TEMPERATURE, weights=stage.plan.at(1).weights)


def irra_loss(model: nn.Module, batch: Batch, scale: float, weights: Mapping[str, float]) -> Found:
    """Return SDM, the identity losses of images and captions, and the masked words, weighted."""
    towers, labels, masked = model.base_model, batch["pids"], batch["mlm_ids"]
    _, patches = image_tokens(towers.visual, batch["images"])
    patches = towers.visual.ln_post(patches) @ towers.visual.proj
    read = masked if model.mask_caption else batch["caption_ids"]
    ends = torch.arange(len(read), device=read.device), read.argmax(1)
    image, text = (at_least_float32(x) for x in (patches[:, 0], words_of(towers, read)[ends]))
    logits = [at_least_float32(model.classifier(feature)) for feature in (image, text)]
    words, keys = words_of(towers, masked), model.ln_pre_i(patches)
    words = model.cross_attn(model.ln_pre_t(words), keys, keys, need_weights=False)[0]
    guesses = at_least_float32(model.mlm_head(model.ln_post(model.cross_modal_transformer(words))))
    asked = batch["mlm_labels"].flatten()
    total = weights["sdm"] * sdm(image, text, labels, scale)
    total = total + weights["id"] * sum(F.cross_entropy(branch, labels) for branch in logits) / 2
    return total + weights["mlm"] * F.cross_entropy(guesses.flatten(0, 1), asked, ignore_index=0), logits[0]


def sdm(image: torch.Tensor, text: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the similarity distribution matching of pairs [N, D], both ways."""
    cosines = at_least_float32(F.normalize(image, dim=1) @ F.normalize(text, dim=1).t())  # fp16 has no TINY
    same = (labels[:, None] == labels[None, :]).to(cosines.dtype)
    targets = (same / same.sum(1, keepdim=True) + TINY).log()
    total = 0
    for logits in (scale * cosines, scale * cosines.t()):
        shares = logits.softmax(1)
        total = total + (shares * (logits.log_softmax(1) - targets)).sum(1).mean()
    return total


def make_multimodal(cfg: CfgNode, stage: Stage) -> Plain:
    """Return the step of several modalities: each set goes through fusion, classifier and losses alone."""
    sets = [[stage.model.modalities.index(name) for name in names] for names in stage.model.sets]
    align, norm = cfg.LOSS.ALIGN, cfg.LOSS.FEAT_NORM
    return partial(
        multimodal_loss,
        sets=sets,
        weights=stage.plan.at(1).weights,
        smoothing=cfg.LOSS.LABEL_SMOOTH_EPS,
        temperature=align.T,
        band=(norm.TARGET - norm.BAND, norm.TARGET + norm.BAND),
    )


def multimodal_loss(
    model: nn.Module,
    batch: Batch,
    sets: Sequence[Sequence[int]],
    weights: Mapping[str, float],
    smoothing: float,
    temperature: float,
    band: tuple[float, float],
) -> Found:
    """Return identity, alignment and penalty on lengths of all sets, weighted; every modality is there."""
    labels, inputs = batch["pids"], batch["modalities"]
    given = "features" in batch  # then there is nothing to encode
    z = batch["features"] if given else torch.stack([encode(model, name, inputs[name]) for name in model.modalities], 1)
    z = z if model.semantic is None else model.semantic(z)
    fused = []
    for places in sets:
        there = torch.zeros(z.shape[:2], dtype=torch.bool, device=z.device)
        there[:, places] = True
        fused.append(at_least_float32(model.fusion(z, there)))
    neck = model.bottleneck
    statistics = (neck.running_mean, neck.running_var, neck.weight, neck.bias, True, neck.momentum, neck.eps)
    rows = F.batch_norm(torch.cat(fused), *statistics).chunk(len(sets))  # the statistics are those of all rows
    logits = [at_least_float32(model.classifier(model.head_dropout(row))) for row in rows]
    identity = [F.cross_entropy(branch, labels, label_smoothing=smoothing) for branch in logits]
    total = weights["id"] * sum(identity) / len(sets)
    by_size: dict[int, list[torch.Tensor]] = {}
    for places, row in zip(sets[1:], rows[1:], strict=True):
        by_size.setdefault(len(places), []).append(alignment(row, rows[0], labels, temperature))
    total = total + weights["align"] * sum(sum(part) / len(part) for part in by_size.values()) / len(by_size)
    lengths = torch.stack([row.norm(dim=1) for row in rows])
    outside = F.relu(lengths - band[1]).square() + F.relu(band[0] - lengths).square()
    return total + weights["norm"] * outside.mean(), logits[0]


def alignment(query: torch.Tensor, gallery: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the contrast of rows [B, D] with those of RGB, both ways, of which all of an identity are right."""
    cosines = at_least_float32(F.normalize(query, dim=1) @ F.normalize(gallery, dim=1).t()) / temperature
    same = (labels[:, None] == labels[None, :]).to(cosines.dtype)
    shares = same / same.sum(1, keepdim=True)
    ways = [-(shares * logits.log_softmax(1)).sum(1).mean() for logits in (cosines, cosines.t())]
    return sum(ways) / 2


def encode(model: nn.Module, modality: str, x: torch.Tensor) -> torch.Tensor:
    """Return the features [B, D] of images or captions of one modality, by all blocks and for all tokens."""
    if modality == TEXT:
        return at_least_float32(words_of(model.text, x)[torch.arange(len(x), device=x.device), x.argmax(1)])
    vision = model.vision
    tokens = vision.tokenizers[modality](x)
    for block in vision.blocks:
        normal = block.ln_1(tokens)
        q, k, v = (
            layer(normal, modality).unflatten(2, (block.heads, -1)).transpose(1, 2)
            for layer in (block.q, block.k, block.v)
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + block.drop_1(block.ls_1(block.out(seen, modality)))
        hidden = block.activation(block.fc1(block.ln_2(tokens), modality))
        tokens = tokens + block.drop_2(block.ls_2(block.fc2(hidden, modality)))
    return at_least_float32((vision.ln_post(tokens) @ vision.proj)[:, 0])


def image_tokens(visual: nn.Module, images: torch.Tensor) -> Found:
    """Return all tokens [B, 1 + N, W] before the last block of open_clip's ViT, and behind it."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches], 1)
    tokens = visual.ln_pre(tokens + visual.positional_embedding)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        tokens = block(tokens)
    return tokens, last(tokens)


def words_of(towers: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Return all tokens [B, L, D] of captions [B, L], of which L are all that the tower has positions for."""
    tokens = towers.token_embedding(ids) + towers.positional_embedding
    for block in towers.transformer.resblocks:
        tokens = block(tokens, attn_mask=towers.mask)
    return towers.ln_final(tokens) @ towers.text_projection
