"""The loaders of captioned data: batches of (image, caption) pairs, and tests that search images with captions."""

import logging

import numpy as np
from yacs.config import CfgNode

from configs.keys.irra import MASKED_WORDS
from configs.phases import PhasePlan
from datasets.bases import Sample
from datasets.caption_sets import BatchesByEpoch, CaptionRows, Masking, PairLoader, PairRows
from datasets.captions import CaptionTest, Pair
from datasets.loader import Loader
from datasets.loaders import loader_options, make_sampler, make_test_images, make_training_images
from datasets.read_captions import TestedCaptions, captions_fingerprint, images_of
from datasets.sampler import ShardSampler
from datasets.test_set import OWN_IMAGE, Labels, TestSet, Trial
from datasets.tokens import count_tokens, length_notes
from datasets.torch_datasets import ImageLoader, collate
from datasets.training_set import check_training_set
from utils.distributed import find_ranks, num_processes, own_rank
from utils.test_folder import I2T

logger = logging.getLogger(__name__)

T2I = "t2i"  # the set of trials that search images with captions


def make_pair_loaders(cfg: CfgNode, train: list[Pair], num_instance: int | None) -> tuple[PairLoader, ImageLoader]:
    """Return the loader of training pairs, and that of their images in order, as for testing, in shards.

    An epoch is all pairs, none dropped, but those that equal shares of several processes leave over; or P identities x
    K pairs a batch. `num_instance` as in `make_dataloader`.
    """
    trains = num_instance is not None
    if trains:
        check_training_set(cfg, train, find_ranks(cfg.MODEL.DIST_TRAIN).world_size)
    images, in_order = make_training_images(cfg, images_of(train), trains)
    logger.info("training pairs: %d captions of %d images", len(train), len(images))
    text, plan = cfg.INPUT.TEXT, PhasePlan(cfg)
    unasked = tuple(  # a loss acts in all epochs of a segment, or in none
        range(first.epoch, last.epoch + 1) for first, last in plan.segments() if not first.weights.get(MASKED_WORDS)
    )
    masking = Masking(cfg.SOLVER.SEED, text.MASK_RATE, text.MASK_SHARE, text.KEEP_SHARE, unasked)
    rows = PairRows(images, train, text.LENGTH, masking if MASKED_WORDS in cfg.LOSS.TEXT.NAMES else None)
    if trains:
        for note in length_notes([count_tokens(pair.caption) for pair in train], text.LENGTH):
            logger.info("training: %s", note)
    sampler = make_sampler(cfg, train, num_instance, smallest=1)
    share = plan.batch_size // sampler.world_size
    batches = BatchesByEpoch(sampler, share, drop_last=False)
    return PairLoader(rows, batch_sampler=batches, **loader_options(cfg, len(rows), share)), in_order


def make_caption_test_set(cfg: CfgNode, name: str, tested: TestedCaptions, use_cache: bool = True) -> TestSet:
    """Return the test set that searches all images with each caption: the rows are the images, then the captions.

    Nothing is junk: the image that a caption was written for stays and counts. With TEST.I2T captions are also searched
    with images, a set of its own that does not count in the metrics of the whole. `use_cache` as in `make_test_images`.
    """
    test, length, size = tested.test, cfg.INPUT.TEXT.LENGTH, cfg.TEST.IMS_PER_BATCH
    samples = [Sample(path, pid, 0, 0) for path, pid in zip(test.paths, test.pids.tolist(), strict=True)]
    captions = CaptionRows(test.captions, length)
    shard = ShardSampler(len(captions), own_rank(), num_processes())
    images, texts = np.split(np.arange(len(samples) + len(captions)), [len(samples)])
    trials, groups = (Trial("", 0, texts, images),), {}
    if cfg.TEST.I2T:
        trials, groups = (Trial(T2I, 0, texts, images), Trial(I2T, 0, images, texts)), {T2I: (T2I,)}
    return TestSet(
        name=name,
        title=tested.title,
        loaders=(
            make_test_images(cfg, samples, use_cache=use_cache),
            Loader(captions, batch_size=size, sampler=shard, collate_fn=collate),  # tokens wait for no worker
        ),
        labels=_labels(test),
        trials=trials,
        junk=None,
        distinct=False,
        notes=(*tested.notes, *length_notes([count_tokens(caption) for caption in test.captions], length)),
        fingerprint=captions_fingerprint(test),
        groups=groups,
    )


def _labels(test: CaptionTest) -> Labels:
    """Return the labels of the images, then of the captions: `words` of a caption, 0 for an image, and OWN_IMAGE."""
    words = [0] * len(test.paths) + [len(caption.split()) for caption in test.captions]
    pids = np.concatenate([test.pids, test.caption_pids])
    cameras, views = np.zeros_like(pids), np.full_like(pids, -1)
    own = np.concatenate([np.full_like(test.pids, -1), test.caption_images])
    more = {"words": np.array(words, dtype=np.int64), OWN_IMAGE: own}
    return Labels(pids, cameras, views, [*test.paths, *test.captions], more)
