"""ORBench read file by file, partners drawn record by record, query sets built one query at a time."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

OTHERS = ("nir", "sk", "cp")
ASKED = ("nir", "sk", "cp", "text")
NUMBER = {"vis": 1, "nir": 2, "sk": 3, "cp": 4, "text": 5}


def slow_records(folder: Path, annotation: str) -> list[tuple]:
    """Return (person, path, caption, {modality: sorted paths}) of every entry of split train, as strings say."""
    records = []
    for entry in json.loads((folder / annotation).read_text()):
        if entry["split"] != "train":
            continue
        person = entry["file_path"].split("/")[1]
        others = {}
        for modality in OTHERS:
            place = folder / modality / person
            others[modality] = sorted(str(path) for path in place.iterdir()) if place.is_dir() else []
        records.append((int(person), str(folder / entry["file_path"]), entry["caption"], others))
    return records


def slow_queries(folder: Path) -> dict[str, list[tuple[int, dict[str, str]]]]:
    """Return (pid, {modality: path or caption}) by set, as the keys of the test file are written."""
    content = json.loads((folder / "test_gallery_and_queries.json").read_text())
    sets = {}
    for key, entries in content.items():
        if key == "RGB_GALLERY":
            continue
        sets[key] = []
        for pid, *items in entries:
            named = {}
            for modality, item in zip(key.lower().split("+"), items, strict=True):
                named[modality] = item if modality == "text" else str(folder / item)
            sets[key].append((pid, named))
    return sets


def slow_sets(pool: dict[int, dict[str, list[str]]]) -> dict[str, list[tuple[int, dict[str, str]]]]:
    """Return the 15 sets in the canonical order, drawn from the items of each person."""
    sets = {}
    for size in (1, 2, 3, 4):
        for chosen in combinations(ASKED, size):
            queries = []
            for pid in sorted(pool):
                if any(not pool[pid].get(modality) for modality in chosen):
                    continue
                rng = np.random.default_rng([911, pid, *(NUMBER[modality] for modality in chosen)])
                mains = pool[pid][chosen[0]]
                drawn = {m: rng.integers(len(pool[pid][m]), size=len(mains)) for m in chosen[1:]}
                for place, value in enumerate(mains):
                    items = {chosen[0]: value}
                    for modality in chosen[1:]:
                        items[modality] = pool[pid][modality][drawn[modality][place]]
                    queries.append((pid, items))
            if queries:
                sets["+".join(chosen).upper()] = queries
    return sets


def slow_draw(record: tuple, seed: int, epoch: int, row: int, dropout: float) -> dict[str, str]:
    """Return what the record in a row shows in an epoch: path of each partner, and its caption; dropped ones absent."""
    state = np.random.SeedSequence((seed, epoch, row)).generate_state(1, np.uint64)
    numbers = torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(int(state[0]))).tolist()
    _, _, caption, others = record
    there = {}
    for place, modality in enumerate(OTHERS):
        if others[modality]:
            there[modality] = others[modality][int(numbers[place] * len(others[modality]))]
    if caption.strip():
        there["text"] = caption
    kept = {name: value for name, value in there.items() if numbers[3 + ASKED.index(name)] >= dropout}
    return kept or there
