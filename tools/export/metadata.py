"""What a user of an exported file must know, as plain values alone; it stands in the file."""

from pathlib import Path
from typing import Any

import torch

from configs.modalities import GREY, VIS
from datasets.tokens import END_ID, START_ID
from processor.trained import Trained
from tools.export.graphs import Embedder, TextEmbedder, label_inputs
from tools.export.modal import ImageEmbedder, TokenEmbedder
from utils.digest import sha256_of

SCHEMA = 1
PROJECT_FILE = Path(__file__).parents[2] / "pyproject.toml"


def describe(embedder: Embedder, trained: Trained) -> dict[str, Any]:
    """Return what is said of a tower of images.

    An image becomes an input by Pillow: `channel_order`, resized to `size` (height, width) with `resize_filter`, its
    values 0..255 taken as they are where `normalised_inside`, else (value / 255 - mean) / std. `branches` are the parts
    of the embedding in their order, with their widths. `camera_num` and `view_num` are the labels that the graph tells
    apart, 0 = it takes none.
    """
    counts = label_inputs(embedder.model)
    return {
        **describe_pixels(trained, embedder.normalise),
        "feature_norm": embedder.unit,
        "flip": embedder.flip,
        "branches": embedder.branches,
        "part_weights": list(embedder.part_weights),
        "camera_num": counts.get("camids", 0),
        "view_num": counts.get("viewids", 0),
        **_origin(trained),
    }


def describe_text(embedder: TextEmbedder | TokenEmbedder, trained: Trained) -> dict[str, Any]:
    """Return what is said of a tower of captions.

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


def describe_modality(embedder: ImageEmbedder | TokenEmbedder, trained: Trained) -> dict[str, Any]:
    """Return what is said of the tower of one modality, beside what `describe` and `describe_text` explain.

    A `grey` image has mode L before it is resized, then three equal channels. What is not `fused` is no embedding yet,
    but an input of the fusion.
    """
    if isinstance(embedder, TokenEmbedder):
        facts = describe_text(embedder, trained)
    else:
        grey = embedder.modality in GREY
        facts = {**describe_pixels(trained, embedder.normalise), "grey": grey, "feature_norm": embedder.unit}
        facts |= {"flip": embedder.flip, **_origin(trained)}
    return {**facts, "modality": embedder.modality, "fused": embedder.fused}


def describe_fusion(unit: bool, trained: Trained) -> dict[str, Any]:
    """Return what is said of the fusion, whose `items` are the most of a query; their order does not matter."""
    names = list(trained.model.modalities)
    return {"schema": SCHEMA, "modalities": names, "gallery": VIS, "feature_norm": unit, **_origin(trained)}


def describe_pixels(trained: Trained, normalised_inside: bool) -> dict[str, Any]:
    """Return how an image becomes an input, see `describe`."""
    settings = trained.cfg.INPUT
    return {
        "schema": SCHEMA,
        "size": list(settings.SIZE_TEST),
        "resize_filter": settings.FILTER_TEST,
        "channel_order": "RGB",
        "mean": list(settings.PIXEL_MEAN),
        "std": list(settings.PIXEL_STD),
        "normalised_inside": normalised_inside,
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


def _project_version() -> str:
    lines = PROJECT_FILE.read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))
