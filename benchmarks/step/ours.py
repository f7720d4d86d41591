"""What benchmarks/train_step.py times as ours: the recipes' own models, losses and loop, as train.py builds them."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from yacs.config import CfgNode

import processor
from benchmarks.step.lineage_model import LineageModel, Sizes
from benchmarks.step.lineage_step import Rates, total_loss
from configs import load_cfg
from model import make_model
from processor.epoch import train_epoch
from processor.stage import Stage
from processor.step.batch import BatchSettings, prepare_batch
from processor.systems.transreid import forward_images

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PER_IDENTITY = 4  # images of an identity in a batch
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3  # of a tensor's gradient, over its norm
EMBEDDING_TOLERANCE = 1e-4


class Recipe(NamedTuple):
    """A recipe of configs/ and the counts of its data set."""

    file: str
    num_class: int
    cameras: int
    views: int
    tiny_image: tuple[int, int]  # y, x of --size tiny


RECIPES = {
    "veri": Recipe("VeRi/deit_transreid_stride.yml", 575, 20, 8, (64, 64)),
    "market": Recipe("Market/vit_transreid.yml", 751, 6, 1, (64, 32)),
}
SIZES = {
    "large": (
        *("MODEL.TRANSFORMER_TYPE", "deit_base_patch16_224_TransReID"),
        *("MODEL.VIT.EMBED_DIM", 1024, "MODEL.VIT.DEPTH", 24, "MODEL.VIT.NUM_HEADS", 16),
    ),
    "base": ("MODEL.TRANSFORMER_TYPE", "deit_base_patch16_224_TransReID"),
    "small": ("MODEL.TRANSFORMER_TYPE", "deit_small_patch16_224_TransReID"),
    "tiny": (
        *("MODEL.TRANSFORMER_TYPE", "deit_tiny_patch16_224_TransReID"),
        *("MODEL.VIT.EMBED_DIM", 32, "MODEL.VIT.DEPTH", 3, "MODEL.VIT.NUM_HEADS", 2),
    ),
}


def make_cfg(recipe: str, size: str, batch_size: int, opts: tuple = ()) -> CfgNode:
    """Return the recipe's configuration at a size, with random weights."""
    image = list(RECIPES[recipe].tiny_image)
    small = ("INPUT.SIZE_TRAIN", image, "INPUT.SIZE_TEST", image) if size == "tiny" else ()
    return load_cfg(
        CONFIGS / RECIPES[recipe].file,
        (
            *(*SIZES[size], *small, "MODEL.PRETRAIN_CHOICE", "none", "SOLVER.IMS_PER_BATCH", batch_size),
            *("DATALOADER.NUM_INSTANCE", min(PER_IDENTITY, batch_size // 2), *opts),
        ),
    )


def make_ours(cfg: CfgNode, recipe: str, device: torch.device) -> nn.Module:
    """Return the model of the recipe on its device."""
    counts = RECIPES[recipe]
    return make_model(cfg, counts.num_class, counts.cameras, counts.views).to(device)


def make_batch(cfg: CfgNode, recipe: str, device: torch.device) -> dict:
    """Return one fixed random batch: images as the transform would leave them, labels as P x K."""
    counts, generator = RECIPES[recipe], torch.Generator().manual_seed(0)
    size, each = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    pids = torch.randperm(counts.num_class, generator=generator)[: size // each].repeat_interleave(each)
    batch = {
        "images": torch.randn(size, 3, *cfg.INPUT.SIZE_TRAIN, generator=generator),
        "pids": pids,
        "camids": torch.randint(counts.cameras, (size,), generator=generator),
        "viewids": torch.randint(counts.views, (size,), generator=generator),
    }
    return {name: values.to(device) for name, values in batch.items()}


def sizes_of(cfg: CfgNode, model: nn.Module, recipe: str) -> Sizes:
    """Return what the reference network needs to be the same one."""
    base, counts = model.base, RECIPES[recipe]
    return Sizes(
        width=base.feat_dim,
        depth=len(base.blocks),
        heads=base.blocks[0].attn.num_heads,
        patch=base.patch_embed.proj.kernel_size[0],
        stride=cfg.MODEL.STRIDE_SIZE[0],
        image=tuple(cfg.INPUT.SIZE_TRAIN),
        num_class=counts.num_class,
        cameras=counts.cameras,
        views=counts.views if cfg.MODEL.SIE_VIEW else 1,
        sie_coe=cfg.MODEL.SIE_COE,
        branches=cfg.MODEL.DEVIDE_LENGTH,
        shift=cfg.MODEL.SHIFT_NUM,
        groups=cfg.MODEL.SHUFFLE_GROUP,
        drop_path=cfg.MODEL.DROP_PATH,
    )


def make_stage(cfg: CfgNode, model: nn.Module) -> Stage:
    """Return what train.py hands to the loop, at the learning rate of the first epoch."""
    stage = processor.make_stage(cfg, "main", model)
    stage.scheduler.step(1)
    return stage


def rates_of(cfg: CfgNode, stage: Stage) -> Rates:
    """Return the settings of SGD for the reference."""
    lr = stage.optimizer.param_groups[0]["lr"]
    return Rates(lr, cfg.SOLVER.BIAS_LR_FACTOR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.MOMENTUM)


def take_as_they_are(images: torch.Tensor) -> torch.Tensor:
    """Take the place of the device transform: the images of the fixed batch are normalised already."""
    return images


def left_as_it_is(device: torch.device) -> Callable[[dict], dict]:
    """Return what takes the fixed batch to the device as the loop does, its images as they are."""
    return partial(prepare_batch, device=device, transform=take_as_they_are, settings=BatchSettings())


def make_loop(stage: Stage, model: nn.Module) -> Callable[[Collection[dict]], dict[str, float]]:
    """Return a function that trains one step on each of the batches by processor.epoch and returns its last reading.

    `model` is stage.model or what wraps it; the stage prepares the batches.
    """
    phase = stage.plan.at(1)

    def train(batches: Collection[dict]) -> dict[str, float]:
        readings = {}

        def on_log(_: int, means: dict[str, float]) -> None:
            readings.update(means)

        stage.loader = batches
        train_epoch(stage, model, phase, on_log)
        return readings

    return train


def check_same(cfg: CfgNode, recipe: str, batch: dict) -> dict[str, float]:
    """Assert that both networks are one and the same in float32 without dropping: loss, gradients and embedding.

    Returns the differences. The configuration is one with MODEL.DROP_PATH 0.
    """
    ours = make_ours(cfg, recipe, batch["images"].device)
    lineage = LineageModel(sizes_of(cfg, ours, recipe)).to(batch["images"].device)
    lineage.load_state_dict(ours.state_dict())
    stage = make_stage(cfg, ours)
    output = forward_images(ours, batch)
    loss, _ = stage.criterion(output, batch, stage.plan.at(1))
    expected = total_loss(*lineage(batch["images"], batch["camids"], batch["viewids"]), batch["pids"])
    loss.backward()
    expected.backward()
    gaps = {"loss": abs(loss.item() - expected.item()), "gradients": gradient_gap(ours, lineage)}
    ours.eval()
    lineage.eval()
    with torch.inference_mode():
        embedding = lineage(batch["images"], batch["camids"], batch["viewids"])
        gaps["embedding"] = (forward_images(ours, batch) - embedding).abs().max().item()
    limits = {"loss": LOSS_TOLERANCE, "gradients": GRADIENT_TOLERANCE, "embedding": EMBEDDING_TOLERANCE}
    beyond = {name: gap for name, gap in gaps.items() if not gap <= limits[name]}
    assert not beyond, f"the reference step is not the same as ours: {beyond}, allowed {limits}"
    return gaps


def gradient_gap(ours: nn.Module, lineage: nn.Module) -> float:
    """Return the largest difference of a tensor's gradient over its norm; both models have gradients of the same ones.

    Norms below a thousandth of the largest count as that: some gradients (of key biases) are rounding and nothing else.
    """
    expected = {name: weight.grad for name, weight in lineage.named_parameters() if weight.grad is not None}
    found = {name: weight.grad for name, weight in ours.named_parameters() if weight.grad is not None}
    assert found.keys() == expected.keys(), f"gradients of {sorted(found.keys() ^ expected.keys())} in one model only"
    least = max(grad.norm() for grad in expected.values()) / 1000
    return max(((found[name] - grad).norm() / max(grad.norm(), least)).item() for name, grad in expected.items())
