"""Systems beside TransReID for benchmarks/train_step.py: their recipes, batches, and the plain form beside ours."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from timm.layers import DropPath
from torch import nn
from yacs.config import CfgNode

import processor
from benchmarks.step.batches import in_float64, moved
from benchmarks.step.lineage_step import LoopLevers
from benchmarks.step.ours import CONFIGS, PER_IDENTITY, gradient_gap, left_as_it_is, take_as_they_are
from benchmarks.step.plain_forms import Plain, make_clip_reid, make_irra, make_multimodal, make_pcb
from configs import load_cfg
from configs.keys.clip_reid import STAGE2
from configs.modalities import TEXT
from datasets.batch import Batch
from datasets.tokens import END_ID, MASK_ID, START_ID, mask_tokens
from model import make_model
from processor.stage import Stage
from processor.systems.irra import prepare_pairs
from processor.systems.multimodal import prepare_modalities
from utils.device import autocast

SHORTEST, LONGEST = 15, 40  # words of a caption
VOCABULARY = 49408  # of CLIP, which the loaders' tokens are of
TINY_IMAGE, TINY_IDS = [64, 32], 24
CLIPS = {  # width and layers of the image tower, of the text tower, and width of the space of both
    "base": (768, 12, 512, 12, 512),
    "small": (384, 12, 256, 6, 256),
    "tiny": (64, 2, 64, 2, 64),
}
RESNETS = {"base": "resnet50", "small": "resnet50", "tiny": "resnet18"}
LIMIT = 1e-7  # of the gaps of loss and gradients in float64, over their norms
CHECKED = 4  # images of which they are compared


class System(NamedTuple):
    """A recipe of configs/, one stage of it, and the identities of its data set."""

    file: str
    num_class: int
    plain: Callable[[CfgNode, Stage], Plain]
    opts: tuple = ()
    stage: str = "main"
    clip: bool = True  # its trunk is a CLIP
    compiles: bool = False


SYSTEMS = {
    "pcb": System("Market/pcb_r50.yml", 751, make_pcb, clip=False, compiles=True),
    "clip_reid": System("CLIP-ReID/person_vit_clipreid.yml", 751, make_clip_reid, stage=STAGE2, compiles=True),
    "irra": System("CUHK-PEDES/irra.yml", 11_003, make_irra),
    "multimodal": System(
        "ORBench/multimodal.yml",
        600,
        make_multimodal,
        ("LOSS.ALIGN.START", 1, "LOSS.ALIGN.RAMP", 1, "SOLVER.GRAD_CLIP_QUANTILE", 0.0),
    ),
}


class Pair(NamedTuple):
    """Ours, at the learning rate of the first epoch, and the plain form of the same step."""

    cfg: CfgNode
    stage: Stage
    plain: Plain


class PlainTraining:
    """Steps of a plain form on a copy of our model: one group per tensor, waits, a loss scaler where it is float16."""

    def __init__(self, pair: Pair, levers: LoopLevers) -> None:
        self.model, self.plain, self.levers = copy.deepcopy(pair.stage.model).train(), pair.plain, levers
        self.device = pair.stage.settings.device
        self.optimizer = same_optimizer(pair.stage, self.model, levers.grouped_optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=levers.amp == torch.float16)

    def step(self, batch: Batch) -> float:
        """Take one step on a batch and return the loss, NaN where it does not wait for it."""
        batch = moved(batch, self.device)
        self.optimizer.zero_grad()
        with autocast(self.device, self.levers.amp):
            loss, logits = self.plain(self.model, batch)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.levers.no_sync:
            return float("nan")
        values = loss.item(), (logits.argmax(1) == batch["pids"]).float().mean().item()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return values[0]


def make_pair(
    name: str, size: str, batch_size: int, device: torch.device, opts: tuple = (), dtype: torch.dtype = torch.float32
) -> Pair:
    """Return both forms of a system's step with the same random weights, from one seed; `opts` are KEY, VALUE, ..."""
    system = SYSTEMS[name]
    with TemporaryDirectory() as folder:
        cfg = make_cfg(system, size, batch_size, (*opts, *trunk_opts(system, size, Path(folder))))
        torch.manual_seed(0)
        model = make_model(cfg, TINY_IDS if size == "tiny" else system.num_class, 0, 0).to(device, dtype)
    stage = processor.make_stage(cfg, system.stage, model)
    stage.prepare = preparing(name, device)
    stage.scheduler.step(1)
    return Pair(cfg, stage, system.plain(cfg, stage))


def make_cfg(system: System, size: str, batch_size: int, opts: tuple) -> CfgNode:
    """Return the recipe's configuration at a size, with random weights."""
    small = ("INPUT.SIZE_TRAIN", TINY_IMAGE, "INPUT.SIZE_TEST", TINY_IMAGE) if size == "tiny" else ()
    if not system.clip and size == "tiny":
        small = ("INPUT.SIZE_TRAIN", [96, 32], "INPUT.SIZE_TEST", [96, 32])  # six stripes of a map of six rows
    per_identity = ("DATALOADER.NUM_INSTANCE", min(PER_IDENTITY, batch_size // 2))
    solver = "SOLVER.STAGE2" if system.stage == STAGE2 else "SOLVER"
    keys = (*small, *per_identity, "MODEL.PRETRAIN_CHOICE", "none", f"{solver}.IMS_PER_BATCH", batch_size)
    return load_cfg(CONFIGS / system.file, (*keys, *system.opts, *opts))


def trunk_opts(system: System, size: str, folder: Path) -> tuple:
    """Return the keys of a trunk of a size; a CLIP is described by a file in `folder`."""
    if not system.clip:
        return "MODEL.PCB.TRUNK", RESNETS[size]
    width, layers, text_width, text_layers, embed = CLIPS[size]
    heads = max(1, text_width // 64)
    clip = {
        "embed_dim": embed,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "patch_size": 16, "width": width, "layers": layers, "head_width": 64},
        "text_cfg": {"context_length": 77, "vocab_size": VOCABULARY, "width": text_width, "heads": heads},
    }
    clip["text_cfg"]["layers"] = text_layers
    path = folder / "clip.json"
    path.write_text(json.dumps(clip), encoding="utf-8")
    return "MODEL.CLIP_BACKBONE", str(path), "MODEL.CLIP_PRETRAIN", ""


def preparing(name: str, device: torch.device) -> Callable[[Batch], Batch]:
    """Return what takes a batch of `make_batch` to the device as the stage's own would, images left as they are."""
    if name == "multimodal":
        transforms = dict.fromkeys(("vis", "nir", "sk", "cp"), take_as_they_are)
        return partial(prepare_modalities, device=device, transforms=transforms)
    prepare = left_as_it_is(device)
    return partial(prepare_pairs, prepare=prepare) if name == "irra" else prepare


def make_batch(name: str, pair: Pair, device: torch.device) -> Batch:
    """Return one fixed random batch: images on the device as transforms leave them, the rest where a loader has it."""
    cfg, generator = pair.cfg, torch.Generator().manual_seed(0)
    size = cfg.SOLVER.STAGE2.IMS_PER_BATCH if SYSTEMS[name].stage == STAGE2 else cfg.SOLVER.IMS_PER_BATCH
    each, (height, width) = cfg.DATALOADER.NUM_INSTANCE, cfg.INPUT.SIZE_TRAIN

    def draw() -> torch.Tensor:
        return torch.randn(size, 3, height, width, generator=generator).to(device)

    pids = torch.randperm(pair.stage.model.num_class, generator=generator)[: size // each].repeat_interleave(each)
    batch: dict[str, Any] = {"pids": pids, **{key: torch.zeros_like(pids) for key in ("camids", "viewids")}}
    if name == "multimodal":
        captions = draw_captions(size, cfg.INPUT.TEXT.LENGTH, generator)
        names = pair.stage.model.modalities
        batch["modalities"] = {key: captions if key == TEXT else draw() for key in names}
        batch["present"] = {key: torch.ones(size, dtype=torch.bool) for key in names}
    else:
        batch["images"] = draw()
    if name == "irra":
        captions = draw_captions(size, cfg.INPUT.TEXT.LENGTH, generator)
        masked, labels = mask_tokens(captions, generator)
        batch |= {"caption_ids": captions, "mlm_ids": masked, "mlm_labels": labels, "image_ids": torch.arange(size)}
    return batch


def draw_captions(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Return captions int64 [count, length] of random words: start, words, end, zeros."""
    words = torch.randint(SHORTEST, min(LONGEST, length - 2) + 1, (count,), generator=generator)
    ids = torch.randint(1, MASK_ID, (count, length), generator=generator)
    places = torch.arange(length)
    ids[:, 0] = START_ID
    ids = torch.where(places == words[:, None] + 1, END_ID, ids)
    return torch.where(places > words[:, None] + 1, 0, ids)


def same_optimizer(stage: Stage, model: nn.Module, grouped: bool) -> torch.optim.Optimizer:
    """Return our optimizer for a copy of our model: unfused with a group per tensor, or fused with our groups."""
    names = {id(weight): name for name, weight in stage.model.named_parameters()}
    copies, groups = dict(model.named_parameters()), []
    for group in stage.optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in ("params", "fused", "foreach")}
        weights = [copies[names[id(weight)]] for weight in group["params"]]
        parts = [weights] if grouped else [[weight] for weight in weights]
        groups += [{**settings, "params": part, "fused": grouped} for part in parts]
    return type(stage.optimizer)(groups, lr=groups[0]["lr"])


def check_same(name: str, size: str, device: torch.device) -> dict[str, float]:
    """Assert in float64, without dropping, that both forms give the same loss and gradients; return the gaps."""
    pair = make_pair(name, size, CHECKED, device, ("SOLVER.AMP", "off", "MODEL.DEVICE", device.type), torch.float64)
    ours = without_chance(pair.stage.model).train()
    plain = copy.deepcopy(ours)
    batch = in_float64(make_batch(name, pair, device))
    expected, _ = pair.plain(plain, moved(batch, device))
    ready = pair.stage.prepare(batch)
    loss, _ = pair.stage.criterion(pair.stage.forward_batch(ours, ready), ready, pair.stage.plan.at(1))
    loss.backward()
    expected.backward()
    gaps = {"loss": abs(loss.item() - expected.item()) / abs(expected.item()), "gradients": gradient_gap(ours, plain)}
    beyond = {key: gap for key, gap in gaps.items() if not gap <= LIMIT}
    assert not beyond, f"the plain step is not the same as ours: {beyond}, allowed {LIMIT}"
    return gaps


def without_chance(model: nn.Module) -> nn.Module:
    """Return the model, in place without dropout and stochastic depth."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return model
