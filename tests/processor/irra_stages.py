"""A stage of IRRA on the smallest model that keeps its contract, batches for it, and the formulas of its losses."""

import torch
from torch import nn
from yacs.config import CfgNode

from datasets.make_dataloader import ReIDData
from model import ModelOutput
from model.parts import Part
from processor import make_stage
from processor.stage import Stage
from tests.cfgs import cfg_with
from tests.processor.stage_runs import ENDLESS, failing_data
from tests.reference import slow_image_text as slow

SIZE, WIDTH, CLASSES, VOCABULARY, LENGTH = (4, 3), 6, 5, 30, 9
START, END, MASK = VOCABULARY - 2, VOCABULARY - 1, 1
ALL = ["sdm", "itc", "cmpm", "id", "mlm"]


class Pairs(nn.Module):
    """Pixels and the sum of words up to the end, each through one matrix; every masked word is guessed from both."""

    def __init__(self, names: list[str], mask_caption: bool = False) -> None:
        super().__init__()
        self.feat_dim, self.num_class, self.branches = WIDTH, CLASSES, {"global": WIDTH}
        self.mask_caption = mask_caption
        self.image = nn.Linear(3 * SIZE[0] * SIZE[1], WIDTH)
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        if "id" in names:
            self.classifier = nn.Linear(WIDTH, CLASSES)
        if "mlm" in names:
            self.mlm_head = nn.Linear(WIDTH, VOCABULARY)

    def part_of(self, name: str) -> Part:
        return Part("head" if name.startswith(("classifier", "mlm_head")) else "trunk", 0)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        inside = (places <= ids.argmax(1)[:, None])[..., None]
        return (self.words(ids) * inside).sum(1)

    def forward(
        self,
        images: torch.Tensor,
        caption_ids: torch.Tensor,
        mlm_ids: torch.Tensor | None = None,
        mlm_labels: torch.Tensor | None = None,
    ) -> ModelOutput:
        read = mlm_ids if self.mask_caption and mlm_ids is not None else caption_ids
        pair = [self.image(images.flatten(1)), self.encode_text(read)]
        logits = [self.classifier(side) for side in pair] if hasattr(self, "classifier") else []
        extra = {}
        if hasattr(self, "mlm_head") and mlm_labels is not None:
            rows, columns = (place.to(images.device) for place in mlm_labels.nonzero(as_tuple=True))
            guessed = self.mlm_head(self.words(mlm_ids[rows, columns]) + pair[0][rows])
            extra = {"mlm_logits": guessed, "mlm_targets": mlm_labels.to(images.device)[rows, columns]}
        return ModelOutput(logits, pair, pair, None, extra)


def irra_cfg(*opts: object) -> CfgNode:
    """Return the configuration of a stage on a CPU in float32."""
    cfg = cfg_with(
        *("MODEL.NAME", "irra", "MODEL.DEVICE", "cpu", "SOLVER.AMP", "off", "TEST.AMP", "off"),
        *("INPUT.SIZE_TRAIN", SIZE, "INPUT.PADDING", 1, "DATALOADER.SAMPLER", "softmax", "SOLVER.SCHEDULER", "cosine"),
        *("MODEL.METRIC_LOSS_TYPE", "none", "SOLVER.IMS_PER_BATCH", 8, "SOLVER.EVAL_PERIOD", 0),
        *opts,
    )
    cfg.freeze()
    return cfg


def irra_model(cfg: CfgNode, seed: int = 3) -> Pairs:
    """Return the model that the configuration asks for; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return Pairs(list(cfg.LOSS.TEXT.NAMES), cfg.INPUT.TEXT.MASK_CAPTION)


def irra_stage(*opts: object, double: bool = True) -> Stage:
    """Return a stage for batches of the caller, in float64 unless told otherwise."""
    cfg = irra_cfg(*opts)
    model = irra_model(cfg)
    return make_stage(cfg, "main", model.double() if double else model)


def samples(count: int, seed: int = 0, masked: bool = True) -> list[dict]:
    """Return samples as a loader reads them; two captions an image, two images an identity, at most 7 words."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(low: int, high: int, *size: int) -> torch.Tensor:
        return torch.randint(low, high, size, generator=generator)

    found = []
    for row in range(count):
        words = int(drawn(2, 8, 1))
        ids = torch.zeros(LENGTH, dtype=torch.int64)
        ids[: words + 2] = torch.cat([torch.tensor([START]), drawn(2, START, words), torch.tensor([END])])
        one = {"images": drawn(0, 256, 3, *SIZE).to(torch.uint8), "pids": torch.tensor(row // 4 % CLASSES)}
        one |= {"image_ids": torch.tensor(row // 2), "caption_ids": ids}
        if masked:
            places = 1 + torch.randperm(words, generator=generator)[: row % 3]  # of 0, 1 and 2 words
            masks, labels = ids.clone(), torch.zeros_like(ids)
            masks[places], labels[places] = MASK, ids[places]
            one |= {"mlm_ids": masks, "mlm_labels": labels}
        found.append(one)
    return found


def raw_batch(count: int, seed: int = 0, masked: bool = True) -> dict:
    """Return a batch of samples as the loader hands it over."""
    rows = samples(count, seed, masked)
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]} | {"paths": [""] * count}


def ready_batch(count: int, seed: int = 0, masked: bool = True) -> dict:
    """Return a batch as the model reads it, in float64."""
    batch = raw_batch(count, seed, masked)
    return batch | {"images": batch["images"].double() / 255}


def slow_parts(output: ModelOutput, batch: dict, soft_label: float = 1.0, target: str = "l1") -> dict:
    """Return every loss by its formula of what the model gave."""
    image, text = output.pre_bn
    pids, image_ids = batch["pids"].tolist(), batch["image_ids"].tolist()
    return {
        "sdm": slow.sdm(image, text, pids, 50.0, image_ids, soft_label),
        "itc": slow.itc(image, text, 50.0),
        "cmpm": slow.cmpm(image, text, pids, target),
        "id": sum(slow.cross_entropy(logits, pids) for logits in output.logits) / 2,
        "mlm": slow.cross_entropy(output.extra["mlm_logits"], output.extra["mlm_targets"].tolist()),
    }


def pairs_data(cfg: CfgNode, reads: int = ENDLESS) -> ReIDData:
    """Return data of 24 pairs, whose files last for so many reads."""
    return failing_data(cfg, samples(24), CLASSES, reads)
