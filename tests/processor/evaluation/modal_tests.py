"""A small test of several modalities: items, queries of one to three of them, and a model that fuses."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.multimodal import Item
from datasets.test_set import Labels, TestSet, Trial
from processor.evaluation.embed import Embedded, Embedding, encode_row, fuse_by_model
from tests.reference.slow_query_sets import Fuse

PERSONS, WIDTH = 7, 6
EACH = {"vis": 3, "nir": 2, "sk": 2, "text": 1}  # items of a person, in the order of the rows
SETS = (("nir",), ("sk",), ("text",), ("nir", "sk"), ("sk", "text"), ("nir", "sk", "text"))
GROUPS = {"MM-1": ("NIR", "SK", "TEXT"), "MM-2": ("NIR+SK", "SK+TEXT"), "MM-3": ("NIR+SK+TEXT",)}


class Fusing(torch.nn.Module):
    """Rows are features; fused they are the largest value of each place, times a matrix: no mean can stand in."""

    branches = {"global": WIDTH}

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.matrix = torch.nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator))
        self.fused_rows: list[int] = []

    def encode_batch(self, batch: dict) -> torch.Tensor:
        (values,) = batch["modalities"].values()
        return values.flatten(1)

    def fuse(self, z: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.fused_rows.append(len(z))
        return torch.where(valid[..., None], z, -torch.inf).amax(1) @ self.matrix


def fuse_by_hand(model: Fusing, unit: bool = True) -> Fuse:
    """Return the same of the items of one query, as `tests.reference.slow_query_sets` takes it."""
    matrix = model.matrix.detach().double().numpy()

    def fuse(items: list[list[float]]) -> list[float]:
        vector = np.max(np.array(items), axis=0) @ matrix
        return (vector / np.linalg.norm(vector) if unit else vector).tolist()

    return fuse


def make_items(folder: str = "root") -> list[Item]:
    """Return the items in the order of the modalities; sketches tell whether they show the front."""
    items = []
    for modality, count in EACH.items():
        for pid in range(PERSONS):
            for number in range(count):
                name = f"{folder}/{modality}/{pid:04d}/{'_front_' if number else '_back_'}{number}.jpg"
                items.append(Item(modality, f"person {pid} wears hat {number}" if modality == "text" else name, pid))
    return items


def make_trials(gallery: Sequence[str] = ("vis",), sets: Sequence[tuple[str, ...]] = SETS) -> tuple[Trial, ...]:
    """Return a trial for each set: one query an item of its first modality, the others drawn; the last has no match."""
    items, rng = make_items(), np.random.default_rng(3)
    rows = {(name, pid): [] for name in EACH for pid in range(PERSONS)}
    for row, item in enumerate(items):
        rows[item.modality, item.pid].append(row)

    def drawn(names: Sequence[str], persons: range) -> np.ndarray:
        main, *others = names
        return np.array(
            [[row, *(rng.choice(rows[name, pid]) for name in others)] for pid in persons for row in rows[main, pid]]
        )

    listed = drawn(gallery, range(PERSONS - 1))
    return tuple(
        Trial("+".join(name.upper() for name in names), 0, drawn(names, range(PERSONS)), listed) for names in sets
    )


def make_modal_test(folder: str = "root", **changes: object) -> TestSet:
    """Return a test set whose loaders yield the features of its items."""
    items = make_items(folder)
    pids = np.array([item.pid for item in items])
    modality = np.array([item.modality for item in items])
    view = np.array([-1 if item.modality != "sk" else 0 if "_front_" in item.value else 1 for item in items], np.int8)
    names = [item.value for item in items]
    labels = Labels(pids, np.zeros_like(pids), np.full_like(pids, -1), names, {"modality": modality, "view": view})
    feat = make_features()
    loaders = tuple(
        DataLoader(
            [{"modalities": {name: row}} for row in feat[torch.from_numpy(modality == name)]],
            batch_size=5,
            generator=torch.Generator(),
        )
        for name in EACH
    )
    test = TestSet("toy", "Toy", loaders, labels, make_trials(), None, False, (), "0123456789abcdef", GROUPS)
    return test._replace(**changes)


def make_features() -> torch.Tensor:
    """Return z float32 [N, WIDTH] of the items: something of the person, much of chance."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(PERSONS, WIDTH, generator=generator)
    pids = torch.tensor([item.pid for item in make_items()])
    return centres[pids] + 1.5 * torch.randn(len(pids), WIDTH, generator=generator)


def make_embedded(model: Fusing, unit: bool = True) -> Embedded:
    """Return the items as `embed` leaves them."""
    feat = make_features()
    return Embedded(feat, np.full(len(feat), np.nan), "float32", partial(fuse_by_model, model=model, unit=unit))


HOW = Embedding(encode_row, lambda batch: batch, flip=False, unit=True, amp=None, fuse=None)
