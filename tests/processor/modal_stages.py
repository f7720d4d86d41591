"""A stage of several modalities on the smallest model that keeps its contract, batches for it, and its data."""

import torch
from torch import nn
from yacs.config import CfgNode

from configs.modalities import MODALITIES, TEXT, VIS, sets_of
from datasets.make_dataloader import ReIDData
from model import ModelOutput
from model.parts import Part
from processor import make_stage
from processor.stage import Stage
from tests.cfgs import cfg_with
from tests.processor.stage_runs import ENDLESS, failing_data

SIZE, WIDTH, CLASSES, VOCABULARY, LENGTH = (4, 3), 6, 5, 30, 9
START, END = VOCABULARY - 2, VOCABULARY - 1
SAMPLES = 22
CALM = ("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0)


class Sets(nn.Module):
    """One matrix for the pixels of each modality, the sum of the words up to the end, and their mean over a set."""

    def __init__(self, modalities: tuple[str, ...] = MODALITIES) -> None:
        super().__init__()
        self.feat_dim, self.num_class, self.branches = WIDTH, CLASSES, {"global": WIDTH}
        self.modalities, self.sets = modalities, sets_of(modalities)
        images = {name: nn.Linear(3 * SIZE[0] * SIZE[1], WIDTH) for name in modalities if name != TEXT}
        self.images = nn.ModuleDict(images)
        if TEXT in modalities:
            self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.neck = nn.Parameter(torch.full((WIDTH,), 1.5))
        self.classifier = nn.Linear(WIDTH, CLASSES, bias=False)

    def part_of(self, name: str) -> Part:
        return Part("head" if name.startswith("classifier") else "trunk", 0)

    def encode(self, modality: str, x: torch.Tensor) -> torch.Tensor:
        if modality != TEXT:
            return self.images[modality](x.flatten(1))
        places = torch.arange(x.shape[1], device=x.device)
        inside = (places <= x.argmax(1)[:, None])[..., None]
        return (self.words(x) * inside).sum(1)

    def forward(self, inputs: dict[str, torch.Tensor], mask: dict[str, torch.Tensor]) -> ModelOutput:
        there = {name: mask[name].to(self.neck.device)[:, None] for name in self.modalities}
        z = {name: torch.where(there[name], self.encode(name, inputs[name]), 0) for name in self.modalities}
        valid = torch.cat([torch.stack([there[name] for name in names]).all(0) for names in self.sets], 1)
        rows = [sum(z[name] for name in names) / len(names) for names in self.sets]
        rows = [row * valid[:, place, None] for place, row in enumerate(rows)]
        necks = [row * self.neck for row in rows]
        return ModelOutput([self.classifier(row) for row in necks], rows, necks, None, {"valid": valid})


def modal_cfg(*opts: object) -> CfgNode:
    """Return the configuration of a stage on a CPU in float32."""
    cfg = cfg_with(
        *("MODEL.NAME", "multimodal", "MODEL.DEVICE", "cpu", "SOLVER.AMP", "off", "TEST.AMP", "off"),
        *("INPUT.SIZE_TRAIN", SIZE, "INPUT.SIZE_TEST", SIZE, "INPUT.PADDING", 1, "MODEL.METRIC_LOSS_TYPE", "none"),
        *("SOLVER.IMS_PER_BATCH", 8, "SOLVER.EVAL_PERIOD", 0, "LOSS.ALIGN.START", 1, "LOSS.ALIGN.RAMP", 4),
        *("LOSS.FEAT_NORM.TARGET", 3.0, "LOSS.FEAT_NORM.BAND", 0.5),
        *opts,
    )
    cfg.freeze()
    return cfg


def modal_model(cfg: CfgNode, seed: int = 3) -> Sets:
    """Return the model that the configuration asks for; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return Sets(tuple(cfg.MODEL.MULTIMODAL.MODALITIES))


def modal_stage(*opts: object, double: bool = True) -> Stage:
    """Return a stage for batches of the caller, in float64 unless told otherwise."""
    cfg = modal_cfg(*opts)
    model = modal_model(cfg)
    return make_stage(cfg, "main", model.double() if double else model)


def samples(count: int, seed: int = 0, modalities: tuple[str, ...] = MODALITIES) -> list[dict]:
    """Return samples as a loader reads them: four of an identity, query modalities missing here and there."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(low: int, high: int, *size: int) -> torch.Tensor:
        return torch.randint(low, high, size, generator=generator)

    found = []
    for row in range(count):
        inputs = {name: drawn(0, 256, 3, *SIZE).to(torch.uint8) for name in modalities if name != TEXT}
        if TEXT in modalities:
            words = int(drawn(1, 6, 1))
            ids = torch.zeros(LENGTH, dtype=torch.int64)
            ids[: words + 2] = torch.cat([torch.tensor([START]), drawn(2, START, words), torch.tensor([END])])
            inputs[TEXT] = ids
        present = {name: torch.tensor(name == VIS or bool(drawn(0, 4, 1))) for name in modalities}
        labels = {name: torch.tensor(0) for name in ("camids", "viewids")}
        found.append({"modalities": inputs, "present": present, "pids": torch.tensor(row // 4 % CLASSES)} | labels)
    return found


def raw_batch(count: int, seed: int = 0, modalities: tuple[str, ...] = MODALITIES) -> dict:
    """Return a batch of samples as the loader hands it over."""
    return torch.utils.data.default_collate(samples(count, seed, modalities)) | {"paths": [""] * count}


def ready_batch(count: int, seed: int = 0) -> dict:
    """Return a batch as the model reads it, in float64."""
    batch = raw_batch(count, seed)
    changed = {name: x if name == TEXT else x.double() / 255 for name, x in batch["modalities"].items()}
    return batch | {"modalities": changed}


def modal_data(cfg: CfgNode, reads: int = ENDLESS) -> ReIDData:
    """Return data of SAMPLES samples, whose files last for so many reads."""
    return failing_data(cfg, samples(SAMPLES), CLASSES, reads)
