"""The loaders of a configuration: training batches by identity or shuffled, test images in order."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from configs.phases import PhasePlan
from configs.stages import draws_pxk
from datasets.bases import Sample, fingerprint
from datasets.join import told_labels
from datasets.read import Tested
from datasets.sampler import EpochSampler, RandomIdentitySampler, ShardSampler, ShuffleSampler
from datasets.test_set import TestSet, Trial, labels_of
from datasets.torch_datasets import ImageDataset, ImageLoader, collate
from datasets.training_set import check_training_set
from utils.distributed import find_ranks, num_processes, own_rank
from utils.workers import num_workers

logger = logging.getLogger(__name__)


def make_train_loaders(cfg: CfgNode, train: list[Sample], num_instance: int | None) -> tuple[ImageLoader, ImageLoader]:
    """Return the loader of training batches, and that of the training images in order, as for testing, in shards.

    `num_instance` as in `make_dataloader`.
    """
    trains = num_instance is not None
    if trains:
        check_training_set(cfg, train, find_ranks(cfg.MODEL.DIST_TRAIN).world_size)
    images, in_order = make_training_images(cfg, train, trains)
    sampler = make_sampler(cfg, train, num_instance)
    share = PhasePlan(cfg).batch_size // sampler.world_size
    return ImageLoader(images, batch_size=share, sampler=sampler, **loader_options(cfg, len(images), share)), in_order


def make_training_images(cfg: CfgNode, samples: list[Sample], trains: bool) -> tuple[ImageDataset, ImageLoader]:
    """Return the images as training reads them, and the loader of them in order, as for testing, in shards.

    Not `trains`: none of them will be trained on, so no cache of decoded images is made.
    """
    decoder, broken = cfg.INPUT.DECODER, cfg.INPUT.BROKEN_IMAGES
    images = ImageDataset(samples, cfg.INPUT.SIZE_TRAIN, cfg.INPUT.FILTER_TRAIN, decoder, broken=broken)
    plain_images = ImageDataset(samples, cfg.INPUT.SIZE_TEST, cfg.INPUT.FILTER_TEST, decoder, broken=broken)
    if trains:
        images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS)
        plain_images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS, build=False)  # few ask for them
    return images, loader_in_order(cfg, plain_images)


def make_test_images(
    cfg: CfgNode, samples: list[Sample], told: Sequence[Sample] | None = None, use_cache: bool = True
) -> ImageLoader:
    """Return the loader of test images in order; of several processes each gets a shard. `told` as in `ImageDataset`.

    `use_cache` False: a cache of decoded images that is not there is not built.
    """
    settings = cfg.INPUT
    reading = (settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER)
    images = ImageDataset(samples, *reading, told, settings.BROKEN_IMAGES)
    images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS, build=use_cache)
    return loader_in_order(cfg, images)


def make_test_set(
    cfg: CfgNode, name: str, title: str, tested: Tested, view_num: int, use_cache: bool = True
) -> TestSet:
    """Return a test set of images; of several processes that train together each gets a shard of its rows.

    A model of `view_num` viewpoints is told the cameras and viewpoints that it knows of the data set, none where it
    was not trained on. `use_cache` False: a cache of decoded images that is not there is not built.
    """
    dataset = tested.dataset
    samples = dataset.tested
    told = told_labels(samples, tested.cameras, view_num)
    _warn_of_unknown_sides(cfg, dataset.name, told)
    images, lengths = _frames(samples, dataset.frames, cfg.TEST.TRACKLET_FRAMES)
    told_of_images = [one._replace(path=image.path) for one, image in zip(_each(told, lengths), images, strict=True)]
    trials = dataset.trials or (Trial("", 0, *dataset.split_rows()),)
    query, gallery = ([samples[row] for row in rows] for rows in (trials[0].query, trials[0].gallery))
    return TestSet(
        name=name,
        title=title,
        loaders=(make_test_images(cfg, images, told_of_images, use_cache),),
        labels=labels_of(samples, dataset.more),
        trials=trials,
        junk=dataset.junk,
        distinct=False,
        notes=(*dataset.notes, *_tracklet_notes(cfg, lengths)),
        fingerprint=fingerprint({"query": dataset.images_of(query), "gallery": dataset.images_of(gallery)}),
        groups=dict(dataset.groups),
        lengths=lengths,
    )


def _frames(
    samples: Sequence[Sample], frames: Mapping[str, Sequence[str]], most: int
) -> tuple[list[Sample], np.ndarray | None]:
    """Return the images of samples in their order, and how many each has, int64 [N]; None where no set has tracklets.

    Of a tracklet of more than `most` frames those in the middle of `most` equal parts; 0 = all.
    """
    if not frames:
        return list(samples), None
    chosen = [frames.get(sample.path, (sample.path,)) for sample in samples]
    if most:
        chosen = [
            [paths[(2 * part + 1) * len(paths) // (2 * most)] for part in range(most)] if len(paths) > most else paths
            for paths in chosen
        ]
    images = [sample._replace(path=path) for sample, paths in zip(samples, chosen, strict=True) for path in paths]
    return images, np.array([len(paths) for paths in chosen], dtype=np.int64)


def _each(samples: Sequence[Sample], lengths: np.ndarray | None) -> list[Sample]:
    """Return each sample as often as it has images."""
    if lengths is None:
        return list(samples)
    return [sample for sample, length in zip(samples, lengths.tolist(), strict=True) for _ in range(length)]


def _tracklet_notes(cfg: CfgNode, lengths: np.ndarray | None) -> list[str]:
    """Return how tracklets become embeddings, where there are some."""
    if lengths is None:
        return []
    of = f"up to {cfg.TEST.TRACKLET_FRAMES} frames" if cfg.TEST.TRACKLET_FRAMES else "all frames"
    unit = ", L2-normalised after it" * (cfg.TEST.FEAT_NORM == "yes")
    return [f"tracklets: {cfg.TEST.TRACKLETS} over the embeddings of {of}{unit} (TEST.TRACKLETS)"]


def _warn_of_unknown_sides(cfg: CfgNode, name: str, told: Sequence[Sample]) -> None:
    for key, side in (("SIE_CAMERA", "camid"), ("SIE_VIEW", "viewid")):
        unknown = sum(getattr(sample, side) < 0 for sample in told)
        if cfg.MODEL[key] and unknown:
            logger.warning(
                "%s: %d of %d test images have a %s unknown to training, so MODEL.%s gives them the neutral "
                "embedding, the mean of the trained ones",
                *(name, unknown, len(told), "camera" if side == "camid" else "viewpoint", key),
            )


def make_sampler(
    cfg: CfgNode, rows: Sequence[tuple], num_instance: int | None = None, smallest: int = 2
) -> EpochSampler:
    """Return what draws the rows (path, pid, ...) of an epoch for this process: P x K, or shuffled.

    `num_instance` None = the K of epoch 1. `smallest` as in `ShuffleSampler`.
    """
    ranks, seed, plan = find_ranks(cfg.MODEL.DIST_TRAIN), cfg.SOLVER.SEED, PhasePlan(cfg)
    drawn = (plan.batch_size, num_instance or plan.at(1).num_instance)
    if draws_pxk(cfg):
        sampler = RandomIdentitySampler(rows, *drawn, seed, ranks.rank, ranks.world_size)
    else:
        drop_last = cfg.DATALOADER.SAMPLER == "random"
        sampler = ShuffleSampler(rows, drawn[0], seed, ranks.rank, ranks.world_size, drop_last, smallest)
    logger.info("sampler: %s", sampler.describe())
    return sampler


def loader_options(cfg: CfgNode, rows: int, batch_size: int) -> dict[str, Any]:
    """Return how a loader of this many rows works; its workers start at the first iteration and are kept."""
    workers = num_workers(cfg.DATALOADER.NUM_WORKERS, math.ceil(rows / batch_size))
    return {
        "num_workers": workers,
        "collate_fn": collate,
        "pin_memory": cfg.MODEL.DEVICE in ("auto", "cuda") and torch.cuda.is_available(),
        "persistent_workers": workers > 0,
        "generator": torch.Generator(),  # the loader's own draws leave the training's random state alone
    }


def loader_in_order(cfg: CfgNode, images: ImageDataset) -> ImageLoader:
    """Return the loader of test images in order; of several processes each gets a shard."""
    size = cfg.TEST.IMS_PER_BATCH
    shard = ShardSampler(len(images), own_rank(), num_processes())
    return ImageLoader(images, batch_size=size, sampler=shard, **loader_options(cfg, len(images), size))
