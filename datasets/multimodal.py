"""What a data set of several modalities is: records to train on, and what is searched with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from datasets.test_set import JunkRule, Trial


class Record(NamedTuple):
    """An RGB image to train on, with its caption, and the images of the same person from which partners are drawn."""

    pid: int
    vis: str  # path
    caption: str  # '' = none
    others: dict[str, tuple[str, ...]]  # paths by modality of images; () where the person has none
    camid: int = 0  # of `vis`, from 0


class Query(NamedTuple):
    """One item of each of its modalities, the main one first."""

    pid: int
    items: dict[str, str]  # path or caption by modality


class Item(NamedTuple):
    """One image or caption that is encoded once."""

    modality: str
    value: str  # path or caption
    pid: int
    camid: int = 0  # from 0


class SearchTest(NamedTuple):
    """What is searched with what: the trials count rows of `items`, which stand in the order of MODALITIES."""

    items: list[Item]
    trials: tuple[Trial, ...]  # query int64 [Q, n] and gallery int64 [G, n], -1 = none
    groups: dict[str, tuple[str, ...]] = {}  # as in `TestSet`
    junk: JunkRule | None = None  # as in `TestSet`
    distinct: bool = False  # as in `TestSet`


class MultiModalDataset(NamedTuple):
    """A data set as it was read; pids are its own numbers."""

    name: str
    train: list[Record]
    gallery: list[tuple[str, int]] = []  # (path, pid) of the RGB images to search
    queries: dict[str, list[Query]] = {}  # by name of the set, {} where the files give none
    pool: list[Item] = []  # of test persons: what queries are drawn from where the files give none
    test: SearchTest | None = None  # of a data set with cameras and trials of its own, in place of these three
    notes: tuple[str, ...] = ()  # what was left out
    no_train: str = ""  # why there is nothing to train on
    on_disk: Mapping[str, int] = {}  # IDS, and images by modality, in all of its folders; {} = not known
    published: Mapping[str, Mapping[str, tuple[int, ...]]] = {}  # by SPLITS, then IDS or modality; some sources differ


IDS = "ids"  # beside the modalities, what is counted
SPLITS = ("train", "test", "on disk")
