"""The loaders of a configuration: training batches by identity or shuffled, test images in order."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from yacs.config import CfgNode

from configs.phases import PhasePlan
from configs.stages import draws_pxk
from datasets.bases import ReIDDataset, Sample, fingerprint
from datasets.join import told_labels
from datasets.read import Tested
from datasets.sampler import EpochSampler, RandomIdentitySampler, ShardSampler, ShuffleSampler
from datasets.test_set import TestSet, Trial, labels_of, same_camera
from datasets.torch_datasets import ImageDataset, ImageLoader, collate
from datasets.training_set import check_training_set
from utils.distributed import find_ranks, num_processes, own_rank
from utils.workers import num_workers

logger = logging.getLogger(__name__)


def make_train_loaders(cfg: CfgNode, train: list[Sample], num_instance: int | None) -> tuple[ImageLoader, ImageLoader]:
    """Return the loader of training batches, and that of the training images in order, as for testing, in shards.

    `num_instance` as in `make_dataloader`.
    """
    decoder, broken = cfg.INPUT.DECODER, cfg.INPUT.BROKEN_IMAGES
    images = ImageDataset(train, cfg.INPUT.SIZE_TRAIN, cfg.INPUT.FILTER_TRAIN, decoder, broken=broken)
    plain_images = ImageDataset(train, cfg.INPUT.SIZE_TEST, cfg.INPUT.FILTER_TEST, decoder, broken=broken)
    if num_instance is not None:
        check_training_set(cfg, train, find_ranks(cfg.MODEL.DIST_TRAIN).world_size)
    plan = PhasePlan(cfg)
    sampler = _make_sampler(cfg, train, plan.batch_size, num_instance or plan.at(1).num_instance)
    if num_instance is not None:  # a test reads no training image
        images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS)
        plain_images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS, build=False)  # few ask for them
    share = plan.batch_size // sampler.world_size
    shard = ShardSampler(len(plain_images), own_rank(), num_processes())
    return _make_loader(cfg, images, share, sampler), _make_loader(cfg, plain_images, cfg.TEST.IMS_PER_BATCH, shard)


def make_test_set(
    cfg: CfgNode, name: str, title: str, tested: Tested, view_num: int, use_cache: bool = True
) -> TestSet:
    """Return a test set of images; of several processes that train together each gets a shard of its rows.

    A model of `view_num` viewpoints is told the cameras and viewpoints that it knows of the data set, none where it
    was not trained on. `use_cache` False: a cache of decoded images that is not there is not built.
    """
    dataset = tested.dataset
    samples = dataset.query + dataset.gallery
    told = told_labels(samples, tested.cameras, view_num)
    _warn_of_unknown_sides(cfg, dataset.name, told)
    settings = cfg.INPUT
    reading = (settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER)
    images = ImageDataset(samples, *reading, told, settings.BROKEN_IMAGES)
    images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS, build=use_cache)
    shard = ShardSampler(len(images), own_rank(), num_processes())
    trials = _trials(dataset)
    query, gallery = ([samples[row] for row in rows] for rows in (trials[0].query, trials[0].gallery))
    return TestSet(
        name=name,
        title=title,
        loaders=(_make_loader(cfg, images, cfg.TEST.IMS_PER_BATCH, shard),),
        labels=labels_of(samples),
        trials=trials,
        junk=None if dataset.trials else same_camera,
        distinct=False,
        notes=dataset.notes,
        fingerprint=fingerprint({"query": query, "gallery": gallery}),
    )


def _trials(dataset: ReIDDataset) -> tuple[Trial, ...]:
    """Return the random galleries of a data set, or its one split."""
    if dataset.trials:
        return tuple(Trial("", draw, *rows) for draw, rows in enumerate(dataset.trials))
    query, gallery = np.split(np.arange(len(dataset.query) + len(dataset.gallery)), [len(dataset.query)])
    return (Trial("", 0, query, gallery),)


def _warn_of_unknown_sides(cfg: CfgNode, name: str, told: Sequence[Sample]) -> None:
    for key, side in (("SIE_CAMERA", "camid"), ("SIE_VIEW", "viewid")):
        unknown = sum(getattr(sample, side) < 0 for sample in told)
        if cfg.MODEL[key] and unknown:
            logger.warning(
                "%s: %d of %d test images have a %s unknown to training, so MODEL.%s gives them the neutral "
                "embedding, the mean of the trained ones",
                *(name, unknown, len(told), "camera" if side == "camid" else "viewpoint", key),
            )


def _make_sampler(cfg: CfgNode, train: list[Sample], batch_size: int, num_instance: int) -> EpochSampler:
    ranks, seed = find_ranks(cfg.MODEL.DIST_TRAIN), cfg.SOLVER.SEED
    if draws_pxk(cfg):
        sampler = RandomIdentitySampler(train, batch_size, num_instance, seed, ranks.rank, ranks.world_size)
    else:
        drop_last = cfg.DATALOADER.SAMPLER == "random"
        sampler = ShuffleSampler(train, batch_size, seed, ranks.rank, ranks.world_size, drop_last)
    logger.info("sampler: %s", sampler.describe())
    return sampler


def _make_loader(
    cfg: CfgNode, dataset: ImageDataset, batch_size: int, sampler: EpochSampler | ShardSampler | None = None
) -> ImageLoader:
    """Return a loader; workers start at the first iteration and are kept."""
    workers = num_workers(cfg.DATALOADER.NUM_WORKERS, math.ceil(len(dataset) / batch_size))
    return ImageLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=cfg.MODEL.DEVICE in ("auto", "cuda") and torch.cuda.is_available(),
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # the loader's own draws leave the training's random state alone
    )
