"""Our step fed by the real loader: generated JPEG files, workers, cache of decoded images, transform on the device."""

import csv
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.step.ours import RECIPES, make_cfg, make_loop, make_ours, make_stage
from benchmarks.step.training import Bench
from datasets import make_dataloader
from processor.step.compiling import CompiledTraining
from utils.workers import usable_cores

IMAGES_PER_ID = 8
MAX_WORKERS = 8
QUALITY = 90  # of the JPEG files
GRAIN = 8  # pixels of the file for one value of its noise, so that a file has about the size of a photograph's


def measure_loading(bench: Bench, num_ids: int, copies: int) -> dict:
    """Return a row of figures of the second epoch over the images of `draw_images`; the first starts the workers."""
    with TemporaryDirectory() as folder:
        draw_images(Path(folder), bench, num_ids, copies)
        workers = min(MAX_WORKERS, usable_cores())
        opts = (
            *("DATASETS.NAMES", "table", "DATASETS.TABLE", f"{folder}/images.csv", "DATASETS.ROOT_DIR", folder),
            *("DATALOADER.CACHE", f"{folder}/cache", "DATALOADER.NUM_WORKERS", workers, "SOLVER.AMP", "auto"),
            *("SOLVER.LOG_PERIOD", 10**6),
        )
        cfg = make_cfg(bench.recipe, bench.size, bench.batch_size, opts)
        data = make_dataloader(cfg, cfg.DATALOADER.NUM_INSTANCE)
        model = make_ours(cfg, bench.recipe, bench.device)
        wrapped = CompiledTraining(model) if bench.compiles else model
        train = make_loop(make_stage(cfg, model), wrapped)
        for epoch in (1, 2):
            data.train_loader.sampler.set_epoch(epoch)
            readings = train(data.train_loader)
        del data  # its workers hold files of the folder
    return {
        "step": f"ours from files, {workers} workers, cache",
        "seconds": readings["step_time"],
        "images/s": readings["images_per_s"],
        "data share": readings["data_share"],
    }


def draw_images(folder: Path, bench: Bench, num_ids: int, copies: int) -> None:
    """Write JPEG files of coarse noise at the recipe's size, and images.csv, which lists them as a data set.

    Each identity has IMAGES_PER_ID files under `copies` names each: many images, drawn in little time.
    """
    rng, counts = np.random.default_rng(0), RECIPES[bench.recipe]
    height, width = make_cfg(bench.recipe, bench.size, bench.batch_size).INPUT.SIZE_TRAIN
    rows = []
    for number in range(num_ids * IMAGES_PER_ID):
        coarse = rng.integers(256, size=(height // GRAIN, width // GRAIN, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:06d}_0.jpg", quality=QUALITY)
        pid, place = divmod(number, IMAGES_PER_ID)
        for copy in range(copies):
            name = f"{number:06d}_{copy}.jpg"
            if copy:
                os.link(folder / f"{number:06d}_0.jpg", folder / name)
            rows.append((name, pid, place % counts.cameras, place % counts.views, "train"))
    for number, split in ((0, "query"), (1, "gallery")):  # a table needs both; nothing is tested
        rows.append((f"{number:06d}_0.jpg", 0, number, 0, split))
    with open(folder / "images.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "pid", "camid", "viewid", "split"), *rows])
