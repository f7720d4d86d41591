"""From a trained model to a file that is kept only when its embeddings are those of the model."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from datasets.batch import Batch
from datasets.tokens import END_ID, MASK_ID, START_ID
from model.irra import Irra
from processor.evaluation.embed import Embedding, embed_batch, make_embedding
from processor.trained import Trained
from tools.export.graphs import (
    RUNNERS,
    WRITERS,
    Embedder,
    Inputs,
    Labels,
    Runner,
    TextEmbedder,
    caption_inputs,
    check_packages,
    image_inputs,
    label_inputs,
)
from utils.atomic import replacing
from utils.digest import sha256_of
from utils.errors import ConfigError, RunError
from utils.run_folder import make_folder

SCHEMA = 1
PROJECT_FILE = Path(__file__).parents[2] / "pyproject.toml"
BATCHES = (1, 3, 16)  # sizes in which the file is tried
BLOCKS = (4, 2)  # of one colour in a random image: noise of single pixels looks alike in all of them
LEAST_COSINE = 0.9999
CPU = torch.device("cpu")  # where the graph is made and tried
SEED = 0  # of the random images, labels and captions

Asked = tuple[torch.Tensor, Labels, Batch]  # the graph's first input, its labels, and both as the model takes them


class Parity(NamedTuple):
    """How an exported file compares to the model that it was made from."""

    inputs: str  # names of the graph's inputs
    width: int  # D
    rows: int  # random images or captions that both embedded
    cosine: float  # the smallest of a row, in -1..1
    difference: float  # the largest of a number of the embedding


class Tower(NamedTuple):
    """One file to write."""

    path: Path
    embedder: nn.Module  # an `Embedder` of images or a `TextEmbedder`
    inputs: Inputs
    facts: dict[str, Any]  # its metadata


def export_model(trained: Trained, path: str | Path, fmt: str, normalise: bool = False) -> dict[Path, Parity]:
    """Write a trained model as `fmt` (onnx | torchscript) to `path`; return by file how well it agrees with the model.

    The graph takes `images`, float32 RGB [batch, 3, H, W], normalised, or 0..255 with `normalise`; where side
    information is on also `camids` and `viewids`, int64 [batch], which may be left out, negative = unknown. It returns
    `embedding`, float32 [batch, D], with TEST.NECK_FEAT, FLIP, PART_WEIGHTS and FEAT_NORM as in trained.cfg. How images
    become inputs and where the weights come from is in its metadata, see `describe`.

    Of a model that also embeds captions this is the image tower. Its text tower is a second file beside it, see
    `text_file`, which takes `caption_ids`, int64 [batch, INPUT.TEXT.LENGTH], the tokens of `datasets.tokens.tokenize`,
    and returns their `embedding` in the same space; its metadata is that of `describe_text`.

    Random images or captions in several batch sizes, without and with labels, must have cosines of at least 0.9999 to
    what `embed_batch` gives; else RunError, and files that were there before stay. Raises ConfigError for an unknown
    format, a missing package or a path that cannot be written.
    """
    parities = {}
    with contextlib.ExitStack() as stack:
        for tower in towers_of(trained, check_target(path, fmt), normalise):
            temporary = stack.enter_context(replacing(check_target(tower.path, fmt)))
            _write(tower, fmt, temporary)
            parities[tower.path] = parity = compare(tower.embedder, trained, RUNNERS[fmt](temporary))
            if not parity.cosine >= LEAST_COSINE:  # NaN is no agreement either
                raise RunError(
                    f"--out '{tower.path}' was not written: the {fmt} graph differs from the model, smallest cosine "
                    f"{parity.cosine:.6f}, needed {LEAST_COSINE}; try the other --format"
                )
    return parities


def towers_of(trained: Trained, path: Path, normalise: bool = False) -> Iterator[Tower]:
    """Yield what a model is written as: the tower of images to `path`, and of one that reads captions that of texts."""
    cfg = trained.cfg
    pixels = (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD) if normalise else None
    how = make_embedding(cfg, CPU, exact=True)
    embedder = Embedder(trained.model, pixels, how.flip, how.unit, how.part_weights)
    yield Tower(path, embedder, image_inputs(trained.model, tuple(cfg.INPUT.SIZE_TEST)), describe(embedder, trained))
    if isinstance(trained.model, Irra):
        text = TextEmbedder(trained.model, how.unit, how.part_weights)
        yield Tower(text_file(path), text, caption_inputs(cfg.INPUT.TEXT.LENGTH), describe_text(text, trained))


def text_file(path: Path) -> Path:
    """Return the file of the text tower beside that of the image tower: model_text.onnx beside model.onnx."""
    return path.with_name(f"{path.stem}_text{path.suffix}")


def check_target(path: str | Path, fmt: str) -> Path:
    """Return `path` as a Path in a folder that exists; ConfigError for what `export_model` refuses at once."""
    path = Path(path)
    if fmt not in WRITERS:
        raise ConfigError(f"--format got '{fmt}', allowed: {', '.join(WRITERS)}")
    if not path.name or path.is_dir():
        raise ConfigError(f"--out '{path}' is a folder; name the file to write, e.g. {path / 'model.onnx'}")
    check_packages(fmt)
    make_folder(str(path.parent), "--out")
    return path


def describe(embedder: Embedder, trained: Trained) -> dict[str, Any]:
    """Return what a user of the exported file must know: plain values alone.

    An image becomes an input by Pillow: `channel_order`, resized to `size` (height, width) with `resize_filter`, its
    values 0..255 taken as they are where `normalised_inside`, else (value / 255 - mean) / std. `branches` are the parts
    of the embedding in their order, with their widths. `camera_num` and `view_num` are the labels that the graph tells
    apart, 0 = it takes none.
    """
    cfg, counts = trained.cfg, label_inputs(embedder.model)
    return {
        "schema": SCHEMA,
        "size": list(cfg.INPUT.SIZE_TEST),
        "resize_filter": cfg.INPUT.FILTER_TEST,
        "channel_order": "RGB",
        "mean": list(cfg.INPUT.PIXEL_MEAN),
        "std": list(cfg.INPUT.PIXEL_STD),
        "normalised_inside": embedder.normalise,
        "feature_norm": embedder.unit,
        "flip": embedder.flip,
        "branches": embedder.branches,
        "part_weights": list(embedder.part_weights),
        "camera_num": counts.get("camids", 0),
        "view_num": counts.get("viewids", 0),
        **_origin(trained),
    }


def describe_text(embedder: TextEmbedder, trained: Trained) -> dict[str, Any]:
    """Return what a user of an exported text tower must know: plain values alone.

    A caption becomes an input by open_clip's SimpleTokenizer without its last merge, whose number is that of the mask:
    `start`, at most `length` - 2 tokens, `end`, and `padding` up to `length`.
    """
    return {
        "schema": SCHEMA,
        "tokenizer": "open_clip SimpleTokenizer without its last merge",
        "length": trained.cfg.INPUT.TEXT.LENGTH,
        "start": START_ID,
        "end": END_ID,
        "padding": 0,
        "feature_norm": embedder.unit,
        **_origin(trained),
    }


def _origin(trained: Trained) -> dict[str, Any]:
    """Return where the weights of a file come from."""
    provenance = trained.provenance or {}
    return {
        "weight": trained.weight.name,
        "weight_sha256": sha256_of(trained.weight),
        "torch": torch.__version__,
        "project": _project_version(),
        **{key: provenance.get(key) for key in ("epoch", "datasets", "train_fingerprint")},
    }


@torch.no_grad()
def compare(embedder: nn.Module, trained: Trained, run: Runner) -> Parity:
    """Run random images, without labels and with random ones, or random captions; compare `run` to the model in torch.

    `embedder` is an `Embedder` or a `TextEmbedder`; what its model makes of a batch is what the file must give.
    """
    how = make_embedding(trained.cfg, CPU, exact=True)
    cosines, differences = [], []
    draw = _captions if isinstance(embedder, TextEmbedder) else _images
    for rows, labels, prepared in draw(embedder, trained, how):
        expected = embed_batch(embedder.model, prepared, how)
        ours = _run(run, rows, labels)
        cosines.append(F.cosine_similarity(ours.double(), expected.double()).min())
        differences.append((ours - expected).abs().max())
    names = (next(iter(prepared)), *labels)
    worst = torch.stack(cosines).min(), torch.stack(differences).max()  # min and max keep NaN
    return Parity(", ".join(names), expected.shape[1], sum(BATCHES), *(float(value) for value in worst))


def _images(embedder: Embedder, trained: Trained, how: Embedding) -> Iterator[Asked]:
    """Yield random images, without labels and then with some where there are any."""
    generator = torch.Generator().manual_seed(SEED)
    counts = label_inputs(embedder.model)
    for count in BATCHES:
        blocks = torch.rand(count, 3, *BLOCKS, generator=generator)
        images = (256 * F.interpolate(blocks, tuple(trained.cfg.INPUT.SIZE_TEST))).to(torch.uint8)
        drawn = {name: torch.randint(-1, rows, (count,), generator=generator) for name, rows in counts.items()}
        for labels in [{}, drawn] if counts else [{}]:
            prepared = how.prepare({"images": images, **labels})
            yield images.float() if embedder.normalise else prepared["images"], labels, prepared


def _captions(embedder: TextEmbedder, trained: Trained, how: Embedding) -> Iterator[Asked]:
    """Yield random captions of all lengths."""
    generator = torch.Generator().manual_seed(SEED)
    length = trained.cfg.INPUT.TEXT.LENGTH
    for count in BATCHES:
        ids = torch.randint(1, MASK_ID, (count, length), generator=generator)
        ends = torch.randint(2, length, (count, 1), generator=generator)
        places = torch.arange(length)
        ids = torch.where(places == ends, END_ID, torch.where(places < ends, ids, 0))
        ids[:, 0] = START_ID
        yield ids, {}, how.prepare({"caption_ids": ids})


def _write(tower: Tower, fmt: str, path: Path) -> None:
    """Write the file; an exporter's own errors become a RunError of one line, an OSError stays one."""
    try:
        WRITERS[fmt](tower.embedder, tower.inputs, json.dumps(tower.facts), path)
    except (ConfigError, OSError):
        raise
    except Exception as error:  # the exporters have errors of their own
        raise RunError(f"the model cannot be written as {fmt} ({_reason(error)}); try the other --format") from error


def _run(run: Runner, rows: torch.Tensor, labels: Labels) -> torch.Tensor:
    try:
        return run(rows, labels)
    except Exception as error:  # the runtimes have errors of their own
        raise RunError(f"the exported graph fails on a batch of {len(rows)} ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """Return the first line of the error that started it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _project_version() -> str:
    lines = PROJECT_FILE.read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))
