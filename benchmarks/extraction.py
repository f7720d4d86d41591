"""Images per second from uint8 batches to features: float32 against bfloat16, embedded as test.py embeds.

DeiT at 256x128, stride 16, random weights; decoding is left out (see input_pipeline.py). Prints how near the embeddings
of both precisions are, too.

python benchmarks/extraction.py      (GPU: DeiT-B, batch 256, 10,240 images; CPU: DeiT-S, 16 images, one thread)
python benchmarks/extraction.py --size base
"""

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, alternate, keep, make_parser
from configs import load_cfg
from model import make_model
from processor.evaluation.embed import embed, make_embedding, precision_name
from utils.device import resolve_amp, resolve_device, seed_everything
from utils.errors import run_command

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "Market" / "vit_transreid.yml"
NUM_CLASS, CAMERAS = 751, 6  # of Market-1501
IMAGES_PER_SECOND = Bar("global branch in bfloat16 on an H200", 14_000, 20_000, "images/s", at_least=True)
BAR_GPU = "H200"  # the bar of images per second was set for it
PRECISIONS = {"float32": "off", "bfloat16": "bf16"}  # TEST.AMP


class Size(NamedTuple):
    """A trunk and how many images go through it."""

    opts: tuple
    batch_size: int
    batches: int
    repeats: int


SIZES = {
    "tiny": Size(
        (
            *("MODEL.TRANSFORMER_TYPE", "deit_tiny_patch16_224_TransReID", "MODEL.VIT.DEPTH", 2),
            *("MODEL.VIT.EMBED_DIM", 32, "MODEL.VIT.NUM_HEADS", 2),
        ),
        *(2, 2, 1),
    ),
    "small": Size(("MODEL.TRANSFORMER_TYPE", "deit_small_patch16_224_TransReID"), 8, 2, 5),
    "base": Size(("MODEL.TRANSFORMER_TYPE", "deit_base_patch16_224_TransReID"), 256, 40, 5),
}


class Batches:
    """What `embed` reads of a loader: batches of random images that lie in memory, pinned where there is a GPU."""

    def __init__(self, size: Size, image: tuple[int, int]) -> None:
        self.dataset = self.sampler = range(size.batch_size * size.batches)
        pinned = torch.cuda.is_available()
        generator = torch.Generator().manual_seed(0)
        shape = (size.batch_size, 3, *image)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned).random_(256, generator=generator)
        camids = torch.arange(size.batch_size) % CAMERAS
        labels = {"camids": camids, "viewids": torch.zeros_like(camids)}
        labels = {name: values.pin_memory() if pinned else values for name, values in labels.items()}
        self.batch, self.count = {"images": images, **labels}, size.batches

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter([self.batch] * self.count)


def make_cfg(size: Size, mode: str, jigsaw: bool) -> CfgNode:
    """Return the recipe's configuration at a size, with TEST.AMP `mode` and with or without the local branches."""
    return load_cfg(RECIPE, (*size.opts, "MODEL.PRETRAIN_CHOICE", "none", "MODEL.JPM", jigsaw, "TEST.AMP", mode))


def compare(size: Size, jigsaw: bool, device: torch.device) -> tuple[list[dict], float]:
    """Time both precisions in turns; return a row of the table for each, and the smallest cosine between them."""
    title = "with local branches" if jigsaw else "global branch"
    cfgs = {name: make_cfg(size, mode, jigsaw) for name, mode in PRECISIONS.items()}
    seed_everything(0)
    model = make_model(cfgs["float32"], NUM_CLASS, CAMERAS, 1, pretrained=False).to(device)
    batches = Batches(size, cfgs["float32"].INPUT.SIZE_TEST)
    ways = {name: make_embedding(cfg, device) for name, cfg in cfgs.items()}
    functions = {f"{title}, {name}": lambda how=how: embed(model, [batches], how).feat for name, how in ways.items()}
    on_gpu = device.type == "cuda"  # one thread and CPU time where the machine may be shared
    options = {"threads": None, "clock": time.perf_counter} if on_gpu else {}
    times = alternate(functions, size.repeats, **options)
    speeds = [len(batches.dataset) / statistics.median(seconds) for seconds in times.values()]
    rows = [
        {"model": title, "precision": name, "images/s": round(speed, 1), "times faster": round(speed / speeds[0], 2)}
        for name, speed in zip(cfgs, speeds, strict=True)
    ]
    features = [function() for function in functions.values()]
    return rows, float(F.cosine_similarity(*features).min())


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/extraction.py", __doc__)
    parser.add_argument("--size", choices=SIZES, help="of the model (default: base on a GPU, small on a CPU)")
    args = parser.parse_args(argv)
    device = resolve_device("auto", "0")
    default = "base" if device.type == "cuda" else "small"
    size = SIZES[args.size or default]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    auto = precision_name(resolve_amp("auto", device))
    print(f"{size.batches} batches of {size.batch_size} images on {where}, where TEST.AMP auto is {auto}")
    found = [compare(size, jigsaw, device) for jigsaw in (False, True)]
    rows = [row for part, _ in found for row in part]
    for row in rows:
        print("{model}, {precision}: {images/s} images/s, {times faster}x float32".format(**row))
    facts = {"rows": rows, "smallest cosine to float32": min(cosine for _, cosine in found)}
    if BAR_GPU in where and size is SIZES["base"]:
        print(IMAGES_PER_SECOND.judge(rows[1]["images/s"]))
        facts["bars"] = [IMAGES_PER_SECOND.facts(rows[1]["images/s"])]
    print(f"smallest cosine to float32: {facts['smallest cosine to float32']:.6f}")
    if args.size != "tiny":
        variant = "" if device.type == "cpu" and size is SIZES["small"] else f"{device.type}-{args.size or default}"
        keep("extraction", facts, variant)


if __name__ == "__main__":
    sys.exit(run_command(main))
