"""The loaders of data of several modalities: training batches of records, and tests whose rows are single items."""

import logging
from collections.abc import Sequence

from yacs.config import CfgNode

from configs.modalities import IMAGES, MODALITIES, TEXT, VIS
from configs.phases import PhasePlan
from datasets.bases import Sample
from datasets.caption_sets import BatchesByEpoch, Masking
from datasets.loader import Loader
from datasets.loaders import loader_in_order, loader_options, make_sampler
from datasets.modal_rows import PARTNERS, ModalCaptions, ModalImages, ModalLoader, ModalRows, partners_of
from datasets.multimodal import Item, Record
from datasets.read_multimodal import TestedModalities, model_modalities
from datasets.sampler import ShardSampler
from datasets.search_tests import labels_of_items, search_fingerprint
from datasets.test_set import TestSet
from datasets.tokens import count_tokens, length_notes
from datasets.torch_datasets import ImageLoader, collate
from datasets.training_set import check_training_set
from utils.distributed import find_ranks, num_processes, own_rank

logger = logging.getLogger(__name__)


def make_modal_loaders(cfg: CfgNode, train: list[Record], num_instance: int | None) -> tuple[ModalLoader, ImageLoader]:
    """Return the loader of training records, and that of their RGB images in order, as for testing, in shards.

    Batches are as `ModalRows` makes them, P persons x K records, or shuffled records. `num_instance` as in
    `make_dataloader`.
    """
    modalities, trains = model_modalities(cfg), num_instance is not None
    if trains:
        check_training_set(cfg, train, find_ranks(cfg.MODEL.DIST_TRAIN).world_size)
    samples = {VIS: [Sample(record.vis, record.pid, record.camid, 0) for record in train]}
    partners = {name: partners_of(train, name) for name in PARTNERS if name in modalities}
    samples |= {name: found.samples for name, found in partners.items()}
    images = {name: _training_images(cfg, name, listed, trains) for name, listed in samples.items()}
    told = ", ".join(f"{len(listed)} {name}" for name, listed in samples.items())
    logger.info("training records: %d, of images: %s", len(train), told)
    text, length = cfg.INPUT.TEXT, cfg.INPUT.TEXT.LENGTH if TEXT in modalities else 0
    masking = Masking(cfg.SOLVER.SEED, text.MASK_RATE, text.MASK_SHARE, text.KEEP_SHARE) if text.MASK_CAPTION else None
    if trains and length:
        for note in length_notes([count_tokens(record.caption) for record in train], length):
            logger.info("training: %s", note)
    rows = ModalRows(train, images, partners, length, cfg.SOLVER.SEED, cfg.MODEL.MULTIMODAL.MODALITY_DROPOUT, masking)
    sampler = make_sampler(cfg, [(record.vis, record.pid) for record in train], num_instance)
    share = PhasePlan(cfg).batch_size // sampler.world_size
    batches = BatchesByEpoch(sampler, share, drop_last=False)
    loader = ModalLoader(rows, batch_sampler=batches, **loader_options(cfg, len(rows), share))
    return loader, _test_images(cfg, VIS, samples[VIS], build=False)


def make_modal_test_set(cfg: CfgNode, name: str, tested: TestedModalities, use_cache: bool = True) -> TestSet:
    """Return a test set whose rows are the items of a test: one loader for each modality, in the order of MODALITIES.

    Batches have `modalities` with the one modality of the loader; several processes each get a shard of its rows.
    `use_cache` False: a cache of decoded images that is not there is not built.
    """
    test, length = tested.test, cfg.INPUT.TEXT.LENGTH
    by_modality = {name: [item for item in test.items if item.modality == name] for name in MODALITIES}
    captions = [item.value for item in by_modality[TEXT]]
    loaders = [
        _test_images(cfg, modality, _samples(by_modality[modality]), use_cache)
        for modality in IMAGES
        if by_modality[modality]
    ]
    if captions:
        shard = ShardSampler(len(captions), own_rank(), num_processes())
        rows = ModalCaptions(captions, length)
        # tokens wait for no worker
        loaders.append(Loader(rows, batch_size=cfg.TEST.IMS_PER_BATCH, sampler=shard, collate_fn=collate))
    return TestSet(
        name=name,
        title=tested.title,
        loaders=tuple(loaders),
        labels=labels_of_items(test.items),
        trials=test.trials,
        junk=test.junk,
        distinct=test.distinct,
        notes=(*tested.notes, *length_notes([count_tokens(caption) for caption in captions], length)),
        fingerprint=search_fingerprint(test),
        groups=dict(test.groups),
    )


def _samples(items: Sequence[Item]) -> list[Sample]:
    return [Sample(item.value, item.pid, item.camid, 0) for item in items]


def _training_images(cfg: CfgNode, modality: str, samples: list[Sample], trains: bool) -> ModalImages:
    settings = cfg.INPUT
    reading = (settings.SIZE_TRAIN, settings.FILTER_TRAIN, settings.DECODER, settings.BROKEN_IMAGES)
    images = ModalImages(modality, samples, *reading)
    if trains and samples:
        images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS)
    return images


def _test_images(cfg: CfgNode, modality: str, samples: list[Sample], build: bool) -> ImageLoader:
    settings = cfg.INPUT
    reading = (settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER, settings.BROKEN_IMAGES)
    images = ModalImages(modality, samples, *reading)
    images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS, build)
    return loader_in_order(cfg, images)
