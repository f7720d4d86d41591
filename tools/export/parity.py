"""How an exported file is tried: random inputs of several batch sizes, and what the model makes of them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from configs.modalities import TEXT
from datasets.tokens import END_ID, MASK_ID, START_ID
from processor.evaluation.embed import Embedding, embed_batch, fuse_by_model, make_embedding
from processor.trained import Trained
from tools.export.graphs import Embedder, Labels, Runner, TextEmbedder, label_inputs
from tools.export.modal import FusionEmbedder, ImageEmbedder, TokenEmbedder, copied
from utils.errors import RunError

BATCHES = (1, 3, 16)  # sizes in which the file is tried
BLOCKS = (4, 2)  # of one colour in a random image: noise of single pixels looks alike in all of them
CPU = torch.device("cpu")  # where the graph is made and tried
SEED = 0  # of the random inputs


class Asked(NamedTuple):
    """One batch for a graph."""

    rows: torch.Tensor  # [B, ...]: its first input
    others: Labels  # its other inputs
    expected: torch.Tensor  # [B, D]: what the model makes of it


class Parity(NamedTuple):
    """How an exported file compares to the model that it was made from."""

    inputs: str  # names of the graph's inputs
    width: int  # D
    rows: int  # random images, captions or queries that both embedded
    cosine: float  # the smallest of a row, in -1..1
    difference: float  # the largest of a number of the embedding


@torch.no_grad()
def compare(embedder: nn.Module, trained: Trained, run: Runner) -> Parity:
    """Compare `run` to the model in torch on random inputs of an `embedder`: images without labels and with some, etc.

    What the model makes of a batch is what the file must give.
    """
    how = make_embedding(trained.cfg, CPU, exact=True)
    cosines, differences = [], []
    for asked in DRAWS[type(embedder)](embedder, trained, how):
        ours = _run(run, asked.rows, asked.others)
        cosines.append(F.cosine_similarity(ours.double(), asked.expected.double()).min())
        differences.append((ours - asked.expected).abs().max())
    names = (embedder.input, *asked.others)
    worst = torch.stack(cosines).min(), torch.stack(differences).max()  # min and max keep NaN
    return Parity(", ".join(names), asked.expected.shape[1], sum(BATCHES), *(float(value) for value in worst))


def reason_of(error: BaseException) -> str:
    """Return the first line of the error that started it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _run(run: Runner, rows: torch.Tensor, others: Labels) -> torch.Tensor:
    try:
        return run(rows, others)
    except Exception as error:  # the runtimes have errors of their own
        raise RunError(f"the exported graph fails on a batch of {len(rows)} ({reason_of(error)})") from error


def _images(embedder: Embedder, trained: Trained, how: Embedding) -> Iterator[Asked]:
    """Yield random images, without labels and then with some where there are any."""
    generator, counts = torch.Generator().manual_seed(SEED), label_inputs(embedder.model)
    for count in BATCHES:
        images = _pixels(count, trained, generator)
        drawn = {name: torch.randint(-1, rows, (count,), generator=generator) for name, rows in counts.items()}
        for labels in [{}, drawn] if counts else [{}]:
            prepared = how.prepare({"images": images, **labels})
            rows = images.float() if embedder.normalise else prepared["images"]
            yield Asked(rows, labels, embed_batch(embedder.model, prepared, how))


def _captions(embedder: TextEmbedder, trained: Trained, how: Embedding) -> Iterator[Asked]:
    generator = torch.Generator().manual_seed(SEED)
    for count in BATCHES:
        ids = _tokens(count, trained, generator)
        yield Asked(ids, {}, embed_batch(embedder.model, how.prepare({"caption_ids": ids}), how))


def _items(embedder: ImageEmbedder | TokenEmbedder, trained: Trained, how: Embedding) -> Iterator[Asked]:
    """Yield random images or captions of one modality; what they become comes from all of the model, unfolded."""
    generator, model = torch.Generator().manual_seed(SEED), copied(trained.model)
    draw = _tokens if embedder.modality == TEXT else _pixels
    for count in BATCHES:
        values = draw(count, trained, generator)
        prepared = how.prepare({"modalities": {embedder.modality: values}})
        feat = embed_batch(model, prepared, how)
        if embedder.fused:
            feat = fuse_by_model(feat[:, None], torch.ones(count, 1, dtype=torch.bool), model, how.unit)
        given = prepared["modalities"][embedder.modality]
        yield Asked(values.float() if getattr(embedder, "normalise", False) else given, {}, feat)


def _queries(embedder: FusionEmbedder, trained: Trained, how: Embedding) -> Iterator[Asked]:
    """Yield random features of queries of 1 to all modalities; those that are not there hold numbers too."""
    generator, model = torch.Generator().manual_seed(SEED), copied(trained.model)
    items = len(model.modalities)
    for count in BATCHES:
        features = torch.randn(count, items, model.feat_dim, generator=generator)
        order = torch.rand(count, items, generator=generator).argsort(1)
        mask = order <= torch.arange(count)[:, None] % items  # one item, two, ...
        yield Asked(features, {"mask": mask}, fuse_by_model(features, mask, model, how.unit))


def _pixels(count: int, trained: Trained, generator: torch.Generator) -> torch.Tensor:
    """Return random images, uint8 [count, 3, H, W]."""
    blocks = torch.rand(count, 3, *BLOCKS, generator=generator)
    return (256 * F.interpolate(blocks, tuple(trained.cfg.INPUT.SIZE_TEST))).to(torch.uint8)


def _tokens(count: int, trained: Trained, generator: torch.Generator) -> torch.Tensor:
    """Return random captions of all lengths, int64 [count, INPUT.TEXT.LENGTH]."""
    length = trained.cfg.INPUT.TEXT.LENGTH
    ids = torch.randint(1, MASK_ID, (count, length), generator=generator)
    ends = torch.randint(2, length, (count, 1), generator=generator)
    places = torch.arange(length)
    ids = torch.where(places == ends, END_ID, torch.where(places < ends, ids, 0))
    ids[:, 0] = START_ID
    return ids


DRAWS: dict[type[nn.Module], Callable[..., Iterator[Asked]]] = {
    Embedder: _images,
    TextEmbedder: _captions,
    ImageEmbedder: _items,
    TokenEmbedder: _items,
    FusionEmbedder: _queries,
}
