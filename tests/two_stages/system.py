"""The system `two_stages`, entered into the dicts that each room has: keys, weights, families, stages."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from configs import keys, loss_weights, phases, stages
from configs.keys.key import Key
from configs.phases import PhasePlan
from configs.rules.branches import LAYOUTS
from configs.stages import solver_of
from datasets.batch import Batch
from datasets.make_dataloader import ReIDData
from datasets.sampler import ShuffleSampler
from losses.criterion import Criterion, Reading
from losses.readings import accuracy
from model import ModelOutput
from model.families.transformer import make_transformer
from model.make_model import FAMILIES
from processor import systems
from processor.evaluation.embed import embed, make_embedding
from processor.stage import Stage, StepSettings
from processor.systems.transreid import transreid_stage
from solver import create_scheduler
from solver.update import Updater
from utils.distributed import find_ranks

NAME = "two_stages"
WARM_KEYS = {
    "SOLVER.WARM.MAX_EPOCHS": Key(2, "last epoch of the stage warm", low=1, high=1000),
    "SOLVER.WARM.BASE_LR": Key(0.05, "learning rate of the stage warm", low=0, high=100),
    "SOLVER.WARM.CHECKPOINT_PERIOD": Key(1, "epochs", low=0, high=1000, affects=()),
    "SOLVER.WARM.IMS_PER_BATCH": Key(8, "features", low=1, high=1000),
}


def enter() -> None:
    """Make MODEL.NAME two_stages known; entering twice changes nothing."""
    keys.KEYS.update(WARM_KEYS)
    name = keys.KEYS["MODEL.NAME"]
    keys.KEYS["MODEL.NAME"] = name._replace(choices=tuple(dict.fromkeys((*name.choices, NAME))))
    stages.STAGES[NAME] = ("warm", "main")
    loss_weights.WEIGHTS[NAME] = weights
    LAYOUTS[NAME] = LAYOUTS["transformer"]
    FAMILIES[NAME] = make_transformer
    systems.SYSTEMS[NAME] = make_stage


def weights(cfg: CfgNode, epoch: int, stage: str) -> dict[str, float]:
    """Return the weights of the terms of a stage."""
    return {"id": 1.0} if stage == "warm" else loss_weights.transreid_weights(cfg, epoch, stage)


def make_stage(cfg: CfgNode, name: str, model: nn.Module, data: ReIDData | None) -> Stage:
    """Return a stage of the system."""
    return warm_stage(cfg, model, data) if name == "warm" else transreid_stage(cfg, name, model, data)


class Head(nn.Module):
    """The view of the model that `warm` trains: its neck and classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.bottleneck, self.classifier = model.bottleneck, model.classifier

    def forward(self, features: torch.Tensor) -> ModelOutput:
        """Return the logits of features [B, D]."""
        normal = self.bottleneck(features)
        return ModelOutput([self.classifier(normal)], [features], [normal])


def warm_stage(cfg: CfgNode, model: nn.Module, data: ReIDData | None) -> Stage:
    """Return the stage that fits the head on features, which it takes from the model once."""
    device, solver = next(model.parameters()).device, solver_of(cfg, "warm")
    head = Head(model)
    rates = {"initial_lr": solver.BASE_LR, "lr_scale": 1.0}
    optimizer = torch.optim.SGD([{"params": list(head.parameters()), **rates}], lr=solver.BASE_LR, momentum=0.9)
    criterion = Criterion({"id": identity}, {"acc": Reading(accuracy, of="id")})
    return Stage(
        "warm",
        PhasePlan(cfg, "warm"),
        model,
        head,
        cached_features(cfg, model, data, solver.IMS_PER_BATCH) if data else None,
        partial(to_device, device=device),
        lambda model_or_view, batch: model_or_view(batch["features"]),
        criterion,
        Updater(optimizer),
        create_scheduler(cfg, optimizer, "warm"),
        StepSettings(device, None, log_period=2, gather=False),
        save_every=solver.CHECKPOINT_PERIOD,
    )


def identity(output: ModelOutput, batch: Batch, phase: phases.Phase) -> dict[str, torch.Tensor]:
    """The only term of `warm`."""
    return {"id": F.cross_entropy(output.logits[0], batch["pids"])}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch where the head is."""
    return {name: value.to(device) for name, value in batch.items()}


def cached_features(cfg: CfgNode, model: nn.Module, data: ReIDData, batch_size: int) -> DataLoader:
    """Return batches of the features of all training images, drawn anew each epoch."""
    loader = data.train_loader_normal
    how = make_embedding(cfg, next(model.parameters()).device)._replace(unit=False, flip=False)
    features = embed(model, (loader,), how).feat.cpu().clone()
    samples = loader.dataset.samples
    rows = [
        {"features": feature, "pids": torch.tensor(one.pid)} for feature, one in zip(features, samples, strict=True)
    ]
    ranks = find_ranks(cfg.MODEL.DIST_TRAIN)
    sampler = ShuffleSampler(samples, batch_size, cfg.SOLVER.SEED, ranks.rank, ranks.world_size, True)
    return DataLoader(rows, batch_size=batch_size, sampler=sampler, generator=torch.Generator())
