"""CLIP-ReID: stage 1 fits prompts to cached features, stage 2 the image tower to the texts; `main` has no text.

Reference: Li et al., CLIP-ReID, AAAI 2023, section 3.3.
"""

import logging
from functools import partial
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from configs.keys.clip_reid import STAGE1, STAGE2
from configs.phases import PhasePlan
from configs.readings import CHANCE, FIT
from configs.stages import solver_of, stages_of
from datasets.batch import Batch
from datasets.features import Distinct, feature_loader
from datasets.make_dataloader import ReIDData
from losses.clip_reid import make_image_loss, make_prompt_loss
from losses.cross_modal import I2T, IMAGE, TEXT, image_text_logits
from model import ModelOutput
from processor.evaluation.embed import embed, make_embedding
from processor.evaluation.store import FLOAT32
from processor.provenance import read_run
from processor.stage import Stage
from processor.systems.transreid import assemble, forward_images, step_settings
from solver import create_scheduler
from solver.update import make_updater
from utils.distributed import find_ranks
from utils.errors import DataError
from utils.paths import user_path

logger = logging.getLogger(__name__)

TEXT_SIDE = ("text_encoder.", "prompt_learner.")
PROMPTS = "prompt_learner.cls_ctx"
FROZEN_BIASES = ("bottleneck.bias", "bottleneck_proj.bias")
CHUNK = 4096  # images whose logits are computed together


def clip_reid_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None) -> Stage:
    """Return a stage of CLIP-ReID, see `processor.make_stage`; it sets what of the model learns.

    Raises DataError where stage 2 alone goes on from prompts of other training identities.
    """
    for weight_name, weight in model.named_parameters():
        weight.requires_grad_(_learns(weight_name, name))
    return _prompt_stage(cfg, model, data) if name == STAGE1 else _image_stage(cfg, name, model, data)


def _learns(weight_name: str, stage: str) -> bool:
    if stage == STAGE1:
        return weight_name == PROMPTS
    return not weight_name.startswith(TEXT_SIDE) and weight_name not in FROZEN_BIASES


class Prompts(nn.Module):
    """The view of a ClipReID that stage 1 trains: features [n, D] and labels [n] -> both sides of the pairs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.prompt_learner, self.text_encoder = model.prompt_learner, model.text_encoder

    def forward(self, features: torch.Tensor, pids: torch.Tensor, distinct: Distinct | None = None) -> ModelOutput:
        """Return `image` and `text` [n, D] in `extra`; the text of each identity in `distinct` is computed once."""
        labels, place = (pids, None) if distinct is None else distinct
        texts = self.text_encoder(self.prompt_learner(labels), self.prompt_learner.end)
        return ModelOutput([], [], [], extra={IMAGE: features, TEXT: texts if place is None else texts[place]})


def _prompt_stage(cfg: CfgNode, model: nn.Module, data: ReIDData | None) -> Stage:
    device, solver = next(model.parameters()).device, solver_of(cfg, STAGE1)
    criterion = make_prompt_loss(cfg).to(device)
    updater = make_updater(cfg, STAGE1, model, criterion, device)
    settings = step_settings(cfg, STAGE1, device)
    loader = measure = None
    if data is not None:
        features, pids = _cached_features(cfg, model, data, device)
        ranks = find_ranks(cfg.MODEL.DIST_TRAIN)
        loader = feature_loader(features, pids, solver.IMS_PER_BATCH, cfg.SOLVER.SEED, ranks.rank, ranks.world_size)
        measure = partial(_accuracy, cfg, model, features, pids.to(device))
    return Stage(
        STAGE1,
        PhasePlan(cfg, STAGE1),
        model,
        Prompts(model),
        loader,
        partial(_to_device, device=device),
        _forward_pairs,
        criterion,
        updater,
        create_scheduler(cfg, updater.optimizer, STAGE1),
        # the contrast is that of the whole batch, and there are no images to count or to compile for
        settings._replace(gather=True, sync_bn=False, compile=False, image_size=None),
        save_every=solver.CHECKPOINT_PERIOD,
        measure=measure,
    )


def _cached_features(
    cfg: CfgNode, model: nn.Module, data: ReIDData, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return f_p [N, D] of all training images, not augmented and without side information, and their pids [N]."""
    how = make_embedding(cfg, device)._replace(
        encode=_encode_plain, flip=False, unit=False, part_weights=(), store=FLOAT32
    )
    features = embed(model, (data.train_loader_normal,), how).feat.clone()  # of inference mode: no gradient may use it
    samples = data.train_loader_normal.dataset.samples
    return features, torch.tensor([sample.pid for sample in samples])


def _encode_plain(model: nn.Module, batch: Batch) -> torch.Tensor:
    return model.encode_image(batch["images"])


@torch.no_grad()
def _accuracy(cfg: CfgNode, model: nn.Module, features: torch.Tensor, pids: torch.Tensor) -> dict[str, float]:
    """Return the share of the training images whose identity has the nearest text, and what chance gives."""
    logits = partial(_logits, texts=model.prototypes(), cfg=cfg)
    pairs = zip(features.split(CHUNK), pids.split(CHUNK), strict=True)
    right = torch.stack([(logits(images).argmax(1) == own).sum() for images, own in pairs]).sum()
    return {FIT: float(right) / len(pids), CHANCE: 1 / model.num_class}


def _logits(images: torch.Tensor, texts: torch.Tensor, cfg: CfgNode) -> torch.Tensor:
    return image_text_logits(images, texts, cfg.LOSS.I2T.NORMALISE, cfg.LOSS.I2T.TEMPERATURE)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    moved = {
        key: value.to(device, non_blocking=True) for key, value in batch.items() if isinstance(value, torch.Tensor)
    }
    if "distinct" in batch:
        moved["distinct"] = Distinct(*(value.to(device, non_blocking=True) for value in batch["distinct"]))
    return moved


def _forward_pairs(model: nn.Module, batch: Batch) -> ModelOutput:
    """Run the prompts of a batch of features; `model` is the view, a wrapper of it, or the whole model."""
    view = Prompts(model) if hasattr(model, "encode_text") else model
    return view(batch["features"], batch["pids"], batch.get("distinct"))


def _image_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None) -> Stage:
    device = next(model.parameters()).device
    if data is not None and list(stages_of(cfg)) == [STAGE2] and cfg.MODEL.PRETRAIN_CHOICE == "finetune":
        _check_identities(user_path(cfg.MODEL.PRETRAIN_PATH, "MODEL.PRETRAIN_PATH"), data)
    criterion = make_image_loss(cfg, name, model.num_class, model.feat_dim).to(device)
    updater = make_updater(cfg, name, model, criterion, device)
    stage = assemble(cfg, name, model, data, criterion, updater, create_scheduler(cfg, updater.optimizer, name))
    if name == STAGE2:
        stage.forward_batch = partial(_forward_with_texts, texts=model.prototypes(), cfg=cfg)
    return stage


def _forward_with_texts(model: nn.Module, batch: Batch, texts: torch.Tensor, cfg: CfgNode) -> ModelOutput:
    """Run the images, and compare them with the texts [C, D] of all identities."""
    output = forward_images(model, batch)
    return output._replace(extra={**output.extra, I2T: _logits(output.pre_bn[1], texts, cfg)})


def _check_identities(path: Path, data: ReIDData) -> None:
    """Raise DataError where a file tells that its prompts are of other training images than these.

    One that does not tell may number the identities in another order, of which a warning is logged.
    """
    if not path.is_file():
        return
    told = read_run(path)
    if told is None:
        logger.warning(
            "MODEL.PRETRAIN_PATH '%s' does not tell on which images it was trained: that its prompts number the %d "
            "identities as this training set does, in the order of their sorted names, cannot be verified",
            *(path, data.num_classes),
        )
    elif told["train_fingerprint"] != data.fingerprint:
        raise DataError(
            f"MODEL.PRETRAIN_PATH '{path}' was trained on {', '.join(told['datasets'])} with the fingerprint "
            f"{told['train_fingerprint']}, the training set here has {data.fingerprint}: its prompts are of other "
            "identities; train stage1 on this set first"
        )
