"""The query sets of ORBench: each choice of a main modality with each combination of others."""

from collections.abc import Mapping, Sequence

import numpy as np

from configs.modalities import parse_set
from datasets.synthetic import Stream

SETS = (  # in the order of ORBench's file; the main modality first
    *("NIR", "CP", "SK", "TEXT"),
    *("NIR+CP", "CP+NIR", "NIR+SK", "SK+NIR", "NIR+TEXT", "TEXT+NIR"),
    *("CP+SK", "SK+CP", "CP+TEXT", "TEXT+CP", "SK+TEXT", "TEXT+SK"),
    *("NIR+CP+SK", "CP+NIR+SK", "SK+NIR+CP", "NIR+CP+TEXT", "CP+NIR+TEXT", "TEXT+NIR+CP"),
    *("NIR+SK+TEXT", "SK+NIR+TEXT", "TEXT+NIR+SK", "CP+SK+TEXT", "SK+CP+TEXT", "TEXT+CP+SK"),
    *("NIR+CP+SK+TEXT", "CP+NIR+SK+TEXT", "SK+NIR+CP+TEXT", "TEXT+NIR+CP+SK"),
)
MOST_QUERIES = 4  # of an identity in a set


def query_sets(
    items: Mapping[int, Mapping[str, Sequence[str]]], seed: int, sets: Sequence[str] = SETS
) -> dict[str, list[list[int | str]]]:
    """Return {set: [[identity, item of each of its modalities], ...]} of {identity: {modality: its items}}.

    One query for each of the first MOST_QUERIES items of the main modality; the others are drawn from the same
    identity by a generator of (seed, set, identity).
    """
    drawn: dict[str, list[list[int | str]]] = {}
    for number, name in enumerate(sets):
        main, *others = parse_set(name)
        drawn[name] = []
        for pid, own in items.items():
            rng = np.random.default_rng((seed, Stream.QUERIES, number, pid))
            for item in own[main][:MOST_QUERIES]:
                drawn[name].append([pid, item, *(str(rng.choice(own[other])) for other in others)])
    return drawn
