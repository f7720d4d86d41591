"""Who is searched with what, of several modalities: the query sets of files, or queries drawn from persons' items.

A query set is a main modality with others: which stands first decides for whose items there are queries, the order of
the others says nothing. Reference for the sets: Zuo et al., ReID5o, NeurIPS 2025, section 3.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from os.path import basename

import numpy as np

from configs.keys.multimodal import ALL, OFFICIAL
from configs.modalities import DRAWN, MODALITIES, TEXT, VIS, group_name, parse_set, set_name, sets_of
from datasets.bases import FINGERPRINT_LENGTH, short_name
from datasets.multimodal import Item, MultiModalDataset, Query, SearchTest
from datasets.test_set import Labels, Trial, same_item
from utils.errors import DataError
from utils.test_folder import SIDES

SEED = 911  # of its own: the same queries in every run, whatever its seed
NAMED_SIDE = re.compile(f"_({'|'.join(SIDES)})_")  # in the name of a drawing's file

Pool = Mapping[int, Mapping[str, Sequence[str]]]  # by person and modality: different paths or captions, in order


def pool_of(items: Iterable[Item]) -> Pool:
    """Return the items by person and modality, each once; captions of blanks alone are none."""
    pool: dict[int, dict[str, dict[str, None]]] = {}
    for item in items:
        if item.modality != TEXT or item.value.strip():
            pool.setdefault(item.pid, {}).setdefault(item.modality, {})[item.value] = None
    return {pid: {name: [*values] for name, values in own.items()} for pid, own in pool.items()}


def draw_queries(pool: Pool, modalities: Sequence[str]) -> list[Query]:
    """Return one query for each item of the first modality, with others of the same person, persons ascending.

    Which ones depends on the set and the person alone. A person that lacks one of the modalities has no query.
    """
    main, *others = modalities
    queries = []
    for pid in sorted(pool):
        own = pool[pid]
        if not all(own.get(name) for name in modalities):
            continue
        rng = np.random.default_rng((SEED, pid, *(1 + MODALITIES.index(name) for name in modalities)))
        drawn = {name: rng.integers(len(own[name]), size=len(own[main])).tolist() for name in others}
        for place, value in enumerate(own[main]):
            queries.append(Query(pid, {main: value} | {name: own[name][drawn[name][place]] for name in others}))
    return queries


def choose_sets(
    asked: Sequence[str],
    official: Mapping[str, list[Query]],
    pool: Pool,
    modalities: Sequence[str],
    gallery_set: Sequence[str] = (VIS,),
) -> dict[str, list[Query]]:
    """Return the queries of the sets that TEST.QUERY_SETS asks for, by name, of those that need these modalities alone.

    `official` are the data set's own; what they lack is drawn from `pool`. All sets are those that have nothing of
    `gallery_set`. A set without any query is left out, but where it is asked for by its name: DataError.
    """
    every = [names for names in sets_of(modalities) if not {*names} & {*gallery_set}]
    own = [parse_set(name) for name in official]
    known = {_kind(names): official[name] for names, name in zip(own, official, strict=True)}
    chosen: dict[str, list[Query]] = {}
    for word in asked:
        is_name = word not in (OFFICIAL, ALL)
        wanted = [parse_set(word)] if is_name else own if word == OFFICIAL and own else every
        for names in wanted:
            if not {*names} <= {*modalities}:
                continue
            queries = known.get(_kind(names)) or draw_queries(pool, names)
            if queries:
                chosen[set_name(names)] = queries
            elif is_name:
                raise DataError(
                    f"TEST.QUERY_SETS {word}: no person that is tested has all of {', '.join(names)}; name other sets"
                )
    return chosen


def _kind(modalities: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Return what makes a query set: its main modality, and which others there are."""
    return modalities[0], frozenset(modalities)


def make_search_test(
    dataset: MultiModalDataset, modalities: Sequence[str], asked: Sequence[str], gallery_set: Sequence[str]
) -> SearchTest | None:
    """Return the test of a data set for a model of these modalities; None where it has none.

    `asked` is TEST.QUERY_SETS, `gallery_set` TEST.GALLERY_SET: the gallery is all RGB images to search, or one entry
    for each item of the first of other modalities, drawn as queries are. A data set with a test of its own has that.
    Raises DataError where that needs other modalities, or nothing is left.
    """
    if dataset.test is not None:
        return _own_test(dataset, modalities)
    listed = [Item(VIS, path, pid) for path, pid in dataset.gallery]
    asked_for = dict.fromkeys(
        (name, value, query.pid)
        for queries in dataset.queries.values()
        for query in queries
        for name, value in query.items.items()
        if name != VIS
    )
    pool = pool_of([*listed, *(Item(*key) for key in asked_for), *dataset.pool])
    return test_of_pool(dataset.name, pool, modalities, asked, gallery_set, dataset.queries) if pool else None


def test_of_pool(
    name: str,
    pool: Pool,
    modalities: Sequence[str],
    asked: Sequence[str],
    gallery_set: Sequence[str],
    official: Mapping[str, list[Query]] | None = None,
) -> SearchTest:
    """Return the test of the persons of a pool, as `make_search_test` does; `name` opens errors."""
    queries = choose_sets(asked, official or {}, pool, modalities, gallery_set)
    if not queries:
        raise DataError(
            f"{name}: there is no query of {', '.join(m for m in modalities if m != VIS)} "
            f"(MODEL.MULTIMODAL.MODALITIES, TEST.QUERY_SETS {', '.join(asked)}); it has those of "
            f"{', '.join(official or sorted({m for own in pool.values() for m in own}))}"
        )
    gallery = draw_queries(pool, gallery_set)
    if not gallery:
        raise DataError(
            f"{name}: no person that is tested has {' and '.join(gallery_set)} (TEST.GALLERY_SET), so there is nothing "
            "to search"
        )
    return arrange_search(gallery, queries, gallery_set)


def arrange_search(
    gallery: Sequence[Query], queries: Mapping[str, Sequence[Query]], gallery_set: Sequence[str] = (VIS,)
) -> SearchTest:
    """Return the test of queries by set on a gallery: each item once, sets of one size a group.

    Where items of the gallery's modalities are searched with too, an entry that is one of the query's own is junk.
    """
    numbers: dict[tuple[str, str, int], int] = {}  # of each item, in the order in which they are met
    met = {name: _numbered(of_set, parse_set(name), numbers) for name, of_set in queries.items()}
    met_in_gallery = _numbered(gallery, gallery_set, numbers)
    keys = [*numbers]
    order = sorted(range(len(keys)), key=lambda number: MODALITIES.index(keys[number][0]))
    row = np.empty(len(keys) + 1, dtype=np.int64)
    row[order], row[-1] = np.arange(len(keys)), -1  # the last entry serves -1
    gallery_rows = row[met_in_gallery]
    sizes = sorted({of_set.shape[1] for of_set in met.values()})
    searched_with = {name for key in queries for name in parse_set(key)}
    return SearchTest(
        items=[Item(*keys[number]) for number in order],
        trials=tuple(Trial(name, 0, row[of_set], gallery_rows) for name, of_set in met.items()),
        groups={group_name(n): tuple(name for name, of_set in met.items() if of_set.shape[1] == n) for n in sizes},
        junk=same_item if searched_with.intersection(gallery_set) else None,
    )


def _numbered(
    queries: Sequence[Query], modalities: Sequence[str], numbers: dict[tuple[str, str, int], int]
) -> np.ndarray:
    """Return the numbers of the items of queries, int64 [Q, n], -1 = none; an item that is new gets the next one."""
    rows = [
        [numbers.setdefault((name, items[name], pid), len(numbers)) if name in items else -1 for name in modalities]
        for pid, items in queries
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, len(modalities))


def _own_test(dataset: MultiModalDataset, modalities: Sequence[str]) -> SearchTest:
    needed = {item.modality for item in dataset.test.items}
    if not needed <= {*modalities}:
        raise DataError(
            f"{dataset.name} is tested on {', '.join(m for m in MODALITIES if m in needed)}, but "
            f"MODEL.MULTIMODAL.MODALITIES has {', '.join(modalities)} alone; add what is missing"
        )
    return dataset.test


def labels_of_items(items: Sequence[Item]) -> Labels:
    """Return the labels of items; `more` has their `modality`, text [N], and `view`, int8 [N]: of SIDES, -1 unknown."""
    return Labels(
        pids=np.array([item.pid for item in items], dtype=np.int64),
        camids=np.array([item.camid for item in items], dtype=np.int64),
        viewids=np.full(len(items), -1, dtype=np.int64),
        names=[item.value for item in items],
        more={
            "modality": np.array([item.modality for item in items]),
            "view": np.array([view_of(item) for item in items], dtype=np.int8),
        },
    )


def view_of(item: Item) -> int:
    """Return from where a sketch or coloured drawing shows its person, a place in SIDES; -1 = unknown."""
    found = NAMED_SIDE.search(basename(item.value)) if item.modality in DRAWN else None
    return SIDES.index(found[1]) if found else -1


def search_fingerprint(test: SearchTest) -> str:
    """Return 16 hex digits of a hash over all items, queries and galleries of a test.

    Independent of the root folder and of the order of items, queries and sets. A query is the sum of the hashes of its
    items, each times the odd number of its place: half a million queries take no time.
    """
    codes = np.array([_code(item) for item in test.items], dtype=np.uint64)  # [N]
    galleries: dict[int, bytes] = {}
    told = []
    for trial in test.trials:
        if id(trial.gallery) not in galleries:
            galleries[id(trial.gallery)] = _multiset(codes, trial.gallery)
        name = f"{trial.set}\t{trial.draw}\t".encode()
        told.append(hashlib.sha256(name + galleries[id(trial.gallery)] + _multiset(codes, trial.query)).digest())
    return hashlib.sha256(b"".join(sorted(told))).hexdigest()[:FINGERPRINT_LENGTH]


def _code(item: Item) -> int:
    """Return 64 bits of a hash of an item."""
    name = item.value if item.modality == TEXT else short_name(item.value)
    line = f"{item.modality}\t{name}\t{item.pid}\t{item.camid}"
    return int.from_bytes(hashlib.sha256(line.encode("utf-8", "surrogateescape")).digest()[:8], "little")


def _multiset(codes: np.ndarray, rows: np.ndarray) -> bytes:
    """Return a digest of rows [Q] or [Q, n], whatever their order."""
    items = rows.reshape(len(rows), -1)
    values = np.where(items >= 0, codes[items], np.uint64(0)) * np.arange(1, 2 * items.shape[1], 2, dtype=np.uint64)
    return hashlib.sha256(np.sort(values.sum(axis=1, dtype=np.uint64)).tobytes()).digest()
