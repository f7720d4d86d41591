"""What is printed and checked of data sets of several modalities before a run: counts, lost queries, odd captions."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from configs.modalities import MODALITIES, TEXT, VIS
from datasets.multimodal import IDS, SPLITS, Item, MultiModalDataset, Record, SearchTest
from datasets.test_set import first_items
from utils.errors import DataError
from utils.tables import align

COUNTED = (IDS, *MODALITIES)


def items_of_records(records: Iterable[Record]) -> Iterator[Item]:
    """Yield all images and captions of records; those of a person several times."""
    for record in records:
        yield Item(VIS, record.vis, record.pid, record.camid)
        if record.caption.strip():
            yield Item(TEXT, record.caption, record.pid)
        for modality, paths in record.others.items():
            yield from (Item(modality, path, record.pid) for path in paths)


def items_of_test(dataset: MultiModalDataset) -> Iterator[Item]:
    """Yield all images and captions that a data set may be tested on; some of them several times."""
    yield from (Item(VIS, path, pid) for path, pid in dataset.gallery)
    for queries in dataset.queries.values():
        yield from (Item(name, value, query.pid) for query in queries for name, value in query.items.items())
    yield from dataset.pool
    if dataset.test is not None:
        yield from dataset.test.items


def images_of_split(dataset: MultiModalDataset, split: str) -> list[tuple[str, int]]:
    """Return (path, identity) of the images, of all modalities, that train or test names, each once."""
    items = items_of_records(dataset.train) if split == "train" else items_of_test(dataset)
    return [*dict.fromkeys((item.value, item.pid) for item in items if item.modality != TEXT)]


def counts_of(dataset: MultiModalDataset) -> dict[str, Mapping[str, int]]:
    """Return by split how many persons there are, and different images of each modality; captions of records all."""
    counts = {}
    for split, items in (("train", items_of_records(dataset.train)), ("test", items_of_test(dataset))):
        different = {(item.modality, item.value, item.pid) for item in items}
        counts[split] = Counter(modality for modality, *_ in different)
        counts[split][IDS] = len({pid for *_, pid in different})
    counts["train"][TEXT] = sum(bool(record.caption.strip()) for record in dataset.train)
    return counts | ({SPLITS[2]: dataset.on_disk} if dataset.on_disk else {})


def modal_table(datasets: Iterable[MultiModalDataset]) -> str:
    """Return a plain text table: persons, and images or captions of each modality, of every split."""
    rows = [("data set", "split", *COUNTED)]
    for dataset in datasets:
        for split, counts in counts_of(dataset).items():
            rows.append((dataset.name, split, *(f"{counts.get(name, 0):,}" for name in COUNTED)))
    head, _, lines = align(rows, left=(0, 1)).partition("\n")
    return "\n".join([head, "-" * len(head), lines])


def published_modal_findings(dataset: MultiModalDataset) -> list[str]:
    """Return one line for each count of persons, images or captions that is none of the published ones."""
    findings, found = [], counts_of(dataset)
    for split, published in dataset.published.items():
        if split not in found or (split == "train" and dataset.no_train) or (split == "test" and not found[split][IDS]):
            continue
        for name, allowed in published.items():
            if found[split].get(name, 0) not in allowed:
                expected = " or ".join(f"{count:,}" for count in allowed)
                findings.append(
                    f"{dataset.name} {split}: expected {expected} {name} (published), found "
                    f"{found[split].get(name, 0):,}; unpack the archive again, or do not compare the scores with "
                    "published ones"
                )
    return findings


def search_findings(name: str, test: SearchTest) -> list[str]:
    """Return a line where queries have nothing of their person to find, of the sets that weigh in the score.

    Of another set that may be its protocol: SYSU-MM01 searches indoors whoever was seen outdoors alone. Raises
    DataError where that holds for all queries of a set.
    """
    decides = {member for members in test.groups.values() for member in members}
    pids = np.array([item.pid for item in test.items], dtype=np.int64)
    lost, total, example = 0, 0, ""
    for trial in test.trials:
        query, gallery = first_items(trial.query), first_items(trial.gallery)
        valid = np.isin(pids[query], pids[gallery])
        if not valid.any():
            raise DataError(
                f"{name}: no query of the set {trial.set} has an image of its person in the gallery, so nothing of it "
                "can be evaluated; add the images, name other sets (TEST.QUERY_SETS) or another test (DATASETS.TESTS)"
            )
        if decides and trial.set not in decides:
            continue
        if not valid.all() and not lost:
            example = test.items[query[np.argmin(valid)]].value
        lost, total = lost + int((~valid).sum()), total + len(valid)
    if not lost:
        return []
    return [
        f"{name}: {lost:,} of {total:,} queries have no image of their person in the gallery and are left out of the "
        f"scores, e.g. '{example}'; add the images or remove the queries"
    ]


def doubtful_records(dataset: MultiModalDataset, length: int) -> Iterator[str]:
    """Yield a line where records have no caption, one of more tokens than `length`, or one image in common.

    `length` is INPUT.TEXT.LENGTH.
    """
    from datasets.tokens import count_tokens

    def line(found: Sequence[Record], words: str, way_out: str) -> str:
        return (
            f"{dataset.name} train: {len(found):,} of {len(train):,} {words}, e.g. that of '{found[0].vis}'; {way_out}"
        )

    train = dataset.train
    captioned = [record for record in train if record.caption.strip()]
    if captioned and len(captioned) < len(train):
        empty = [record for record in train if not record.caption.strip()]
        yield line(empty, "captions are empty", "fill them in, or let these images count without one")
    cut = [record for record in captioned if count_tokens(record.caption) > length]
    if cut:
        yield line(
            cut, f"captions have more than {length} tokens and lose their last words", "shorten them if that matters"
        )
    times = Counter(record.vis for record in train)
    twice = [record for record in train if times[record.vis] > 1]
    if twice:
        yield line(twice, "records have an image of another one", "take one of them out, or leave both in")
