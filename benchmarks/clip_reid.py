"""An epoch of CLIP-ReID's stage 1, which fits prompts to cached features: ours against the plain form.

The plain form runs the text tower once for every image of a batch and over all 77 positions. Ours runs it once for each
identity of the batch and over the positions up to the end token, behind which nothing can matter; of the last block it
computes the end token alone. Loss and gradient of a batch are asserted to agree before anything is timed. The features
are random: images take no part in an epoch. CPU seconds of one thread, in turns.

python benchmarks/clip_reid.py               (a text tower of width 512 with 2 layers, 2 minutes)
python benchmarks/clip_reid.py --size full   (that of ViT-B/16, 12 layers, and Market-1501's identities; 10 minutes)
python benchmarks/clip_reid.py 512 2 64 512 64   (width, layers, identities, images, batch)
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, alternate, keep_size, limited_threads, ratio, read_size
from configs import get_cfg_defaults
from configs.keys.clip_reid import STAGE1
from datasets.batch import Batch
from datasets.features import feature_loader
from losses.cross_modal import IMAGE, TEXT
from model import ModelOutput, make_model
from processor import make_stage
from processor.stage import Stage
from utils.errors import run_command

SIZES = {"small": (512, 2, 64, 512, 64), "full": (512, 12, 751, 512, 64)}
MEANING = "width and layers of the text tower, identities, images, batch"
HEAD_WIDTH, CONTEXT, VOCABULARY = 64, 77, 49408
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 64, "layers": 2}  # takes no part
REPEATS, SEED = 3, 0
BAR = Bar("epoch of stage 1, times faster than the plain form", 5, 8, "x", at_least=True)
TOLERANCE = 1e-4  # of the loss, and of the gradient's largest value
Forward = Callable[[Batch], ModelOutput]


def make_parts(width: int, layers: int, identities: int) -> Stage:
    """Return stage 1 of a CLIP-ReID with random weights; what it learns is in its model's prompts."""
    text = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": width, "layers": layers}
    text["heads"] = max(1, width // HEAD_WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.json"
        clip = {"embed_dim": width, "vision_cfg": VISION, "text_cfg": text, "quick_gelu": True}
        path.write_text(json.dumps(clip), encoding="utf-8")
        cfg = make_cfg(path)
        torch.manual_seed(SEED)
        return make_stage(cfg, STAGE1, make_model(cfg, identities, 0, 0))


def make_cfg(clip: Path) -> CfgNode:
    """Return a configuration of both stages on the CLIP that a file describes."""
    cfg = get_cfg_defaults()
    cfg.MODEL.NAME, cfg.MODEL.CLIP_BACKBONE, cfg.MODEL.CLIP_PRETRAIN = "clip_reid", str(clip), ""
    cfg.MODEL.PRETRAIN_CHOICE, cfg.MODEL.DEVICE = "none", "cpu"
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [32, 32]
    cfg.SOLVER.STAGES, cfg.SOLVER.AMP = ["stage1", "stage2"], "off"
    return cfg


def plain_forward(stage: Stage, batch: Batch) -> ModelOutput:
    """Return images and texts of a batch; every row has a sentence of its own, and all its positions are computed."""
    prompts, encoder = stage.model.prompt_learner, stage.model.text_encoder
    tokens = prompts(batch["pids"]) + encoder.positional_embedding
    for block in encoder.transformer.resblocks:
        tokens = block(tokens, attn_mask=encoder.mask)
    texts = encoder.ln_final(tokens)[:, prompts.end] @ encoder.text_projection
    return ModelOutput([], [], [], extra={IMAGE: batch["features"], TEXT: texts})


def our_forward(stage: Stage, batch: Batch) -> ModelOutput:
    """Return the same as training computes it."""
    return stage.forward_batch(stage.trained, stage.prepare(batch))


def run_epoch(stage: Stage, forward: Forward, batches: Iterable[Batch]) -> None:
    """Take the steps of an epoch."""
    for batch in batches:
        total, _ = stage.criterion(forward(batch), batch, stage.plan.at(1))
        stage.updater.backward(total, 1, 1)
        stage.updater.step()


def check_equal(stage: Stage, forwards: dict[str, Forward], batch: Batch) -> None:
    """Assert that all forms give the same loss and the same gradient of the prompts."""
    prompts, found = stage.model.prompt_learner.cls_ctx, []
    for forward in forwards.values():
        total, _ = stage.criterion(forward(batch), batch, stage.plan.at(1))
        found.append((total.detach(), *torch.autograd.grad(total, prompts)))
    (loss, gradient), *others = found
    for other_loss, other_gradient in others:
        torch.testing.assert_close(other_loss, loss, rtol=TOLERANCE, atol=0)
        torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=TOLERANCE * float(gradient.abs().max()))


def main(argv: list[str] | None = None) -> None:
    size = read_size(argv, "benchmarks/clip_reid.py", __doc__, SIZES, MEANING)
    width, layers, identities, images, batch_size = size
    stage = make_parts(width, layers, identities)
    generator = torch.Generator().manual_seed(SEED)
    pids = torch.randint(identities, (images,), generator=generator)
    features = torch.randn(images, width, generator=generator) / width**0.5
    loader = feature_loader(features, pids, batch_size, SEED, rank=0, world_size=1)
    forwards = {"plain": partial(plain_forward, stage), "ours": partial(our_forward, stage)}
    batches = list(loader)
    with limited_threads(1):
        check_equal(stage, forwards, batches[0])
    print("equal: loss and gradient of both forms")
    epochs = {name: partial(run_epoch, stage, forward, batches) for name, forward in forwards.items()}
    times = alternate(epochs, REPEATS)
    sentences = {"plain": images, "ours": sum(len(batch["distinct"].labels) for batch in batches)}
    positions = {"plain": CONTEXT, "ours": stage.model.prompt_learner.end + 1}
    rows = [
        {"way": name, "sentences": sentences[name], "positions": positions[name], "s an epoch": median(seconds)}
        for name, seconds in times.items()
    ]
    value = ratio(times["plain"], times["ours"])
    print(BAR.judge(value))
    facts = {"text width": width, "layers": layers, "identities": identities, "images": images, "batch": batch_size}
    keep_size("clip_reid", {**facts, "rows": rows, "bars": [BAR.facts(value)]}, size, SIZES)


if __name__ == "__main__":
    sys.exit(run_command(main))
