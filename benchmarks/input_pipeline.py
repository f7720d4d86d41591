"""CPU time of a training image: the lineage's chain in the worker against ours, without and with DATALOADER.CACHE.

python benchmarks/input_pipeline.py                  (VeRi-like and Market-like JPEG files, under a minute)
python benchmarks/input_pipeline.py --images 1024    (more files; cached pixels then come from memory, not from the L3)

Everything runs in one process and thread, in turns, up to the whole batch; its way from a worker to the main process is
left out, on which ours is a quarter of the bytes. Ours leaves flip, crop, normalisation and erasing to the device, a
few kernels a batch; what they would cost on this CPU is printed beside.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, alternate, keep, make_parser, ratio
from datasets.bases import Sample
from datasets.image_files import decode, read_file
from datasets.torch_datasets import ImageDataset
from datasets.transforms import BatchTransform
from utils.commands import whole_number
from utils.errors import run_command

NUM_IMAGES, REPEATS, BATCH = 256, 7, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLIP, PADDING, ERASE = 0.5, 10, 0.5
QUALITY = 90
GRAIN = (4, 8, 16, 32)  # pixels of the layers of a texture: its JPEG file is as large as that of a photo
WITHOUT = Bar("without the cache, times faster", 2.5, 3.0, "x", at_least=True)
WITH = Bar("with the cache, times faster", 20, 40, "x", at_least=True)


class Case(NamedTuple):
    """Files of one size and the model's input, (height, width) each."""

    name: str
    stored: tuple[int, int]
    size: tuple[int, int]


CASES = (Case("VeRi-like", (250, 300), (256, 256)), Case("Market-like", (128, 64), (256, 128)))


def write_images(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Write textures as JPEG files and return their paths."""
    rng = np.random.default_rng(0)
    height, width = size
    paths = []
    for number in range(count):
        layers = [rng.integers(0, 256, (height // grain + 1, width // grain + 1, 3), np.uint8) for grain in GRAIN]
        layers = [Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC) for layer in layers]
        pixels = np.mean(layers, 0) + rng.normal(0, 4, (height, width, 3))
        paths.append(str(folder / f"{number:05d}.jpg"))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=QUALITY)
    return paths


class LineageImages(torch.utils.data.Dataset):
    """One image at a time, through all transforms, to normalised float32 [3, H, W]."""

    def __init__(self, paths: list[str], size: tuple[int, int]) -> None:
        from timm.data.random_erasing import RandomErasing
        from torchvision import transforms as T

        self.paths = paths
        self.transform = T.Compose(
            [
                T.Resize(size, interpolation=T.InterpolationMode.BICUBIC),
                T.RandomHorizontalFlip(p=FLIP),
                T.Pad(PADDING),
                T.RandomCrop(size),
                T.ToTensor(),
                T.Normalize(mean=MEAN, std=STD),
                RandomErasing(probability=ERASE, mode="pixel", max_count=1, device="cpu"),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        if not os.path.exists(self.paths[row]):
            raise OSError(f"{self.paths[row]} does not exist")
        image, _ = decode(read_file(self.paths[row]))
        return self.transform(image)


def batches(count: int) -> list[list[int]]:
    """Return the rows 0 .. count-1 in batches; the last one may be smaller."""
    return [list(range(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]


def compare_case(case: Case, num_images: int, repeats: int, folder: Path) -> dict[str, str | float]:
    """Time all three ways of reading the same files; return milliseconds of an image and the ratios."""
    paths = write_images(folder, num_images, case.stored)
    samples = [Sample(path, 0, 0, 0) for path in paths]
    lineage = LineageImages(paths, case.size)
    decoded, cached = (ImageDataset(samples, case.size, "bicubic", "torchvision") for _ in range(2))
    cached.use_cache(str(folder / "cache"), workers=0)
    rows = batches(num_images)
    if not torch.equal(decoded.__getitems__(rows[0])["images"], cached.__getitems__(rows[0])["images"]):
        raise AssertionError("the cache does not hold what the decoder gives")
    transform = BatchTransform(MEAN, STD, FLIP, PADDING, ERASE)
    pixels = cached.__getitems__(rows[0])["images"]
    times = alternate(
        {
            "  lineage": lambda: [torch.stack([lineage[row] for row in part]) for part in rows],
            "  ours": lambda: [decoded.__getitems__(part) for part in rows],
            "  ours, cached": lambda: [cached.__getitems__(part) for part in rows],
        },
        repeats,
    )
    moved = alternate({"  left to the device, on this CPU, one batch": lambda: transform(pixels)}, repeats)
    baseline, ours, ours_cached = times.values()
    return {
        "files": f"{case.name} {case.stored[0]}x{case.stored[1]} -> {case.size[0]}x{case.size[1]}",
        **{
            f"{name}, ms/img": round(1e3 * statistics.median(seconds) / num_images, 4)
            for name, seconds in (("lineage", baseline), ("ours", ours), ("cached", ours_cached))
        },
        "left to the device, ms/img": round(1e3 * statistics.median(*moved.values()) / len(pixels), 4),
        "times faster": round(ratio(baseline, ours), 2),
        "times faster, cached": round(ratio(baseline, ours_cached), 1),
    }


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/input_pipeline.py", __doc__)
    parser.add_argument("--images", type=whole_number, default=NUM_IMAGES, help=f"files (default: {NUM_IMAGES})")
    parser.add_argument("--repeats", type=whole_number, default=REPEATS, help=f"runs of each (default: {REPEATS})")
    args = parser.parse_args(argv)
    rows, judged = [], []
    for case in CASES:
        print(f"{case.name}: {args.images} files {case.stored} -> {case.size}")
        with tempfile.TemporaryDirectory() as folder:
            row = compare_case(case, args.images, args.repeats, Path(folder))
        for bar, name in ((WITHOUT, "times faster"), (WITH, "times faster, cached")):
            print(bar.judge(row[name]))
            judged.append(bar._replace(title=f"{case.name}: {bar.title}").facts(row[name]))
        rows.append(row)
    if (args.images, args.repeats) == (NUM_IMAGES, REPEATS):
        keep("input_pipeline", {"clock": "CPU seconds, one thread", "rows": rows, "bars": judged})


if __name__ == "__main__":
    sys.exit(run_command(main))
