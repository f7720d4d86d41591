"""From a trained model to a file that is kept only when its embeddings are those of the model."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from processor.evaluation.embed import embed_batch, make_embedding
from processor.trained import Trained
from tools.export.graphs import RUNNERS, WRITERS, Embedder, Runner, check_packages, label_inputs
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
SEED = 0  # of the random images and labels


class Parity(NamedTuple):
    """How an exported file compares to the model that it was made from."""

    inputs: str  # names of the graph's inputs
    width: int  # D
    images: int  # random images that both embedded
    cosine: float  # the smallest of an image, in -1..1
    difference: float  # the largest of a number of the embedding


def export_model(trained: Trained, path: str | Path, fmt: str, normalise: bool = False) -> Parity:
    """Write a trained model as `fmt` (onnx | torchscript) to `path` and return how well it agrees with the model.

    The graph takes `images`, float32 RGB [batch, 3, H, W], normalised, or 0..255 with `normalise`; where side
    information is on also `camids` and `viewids`, int64 [batch], which may be left out, negative = unknown. It returns
    `embedding`, float32 [batch, D], with TEST.NECK_FEAT, FLIP and FEAT_NORM as in trained.cfg. How images become inputs
    and where the weights come from is in its metadata, see `describe`.

    Random images in several batch sizes, without and with labels, must have cosines of at least 0.9999 to what
    `embed_batch` gives; else RunError, and a file that was there before stays. Raises ConfigError for an unknown
    format, a missing package or a path that cannot be written.
    """
    path = check_target(path, fmt)
    cfg = trained.cfg
    pixels = (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD) if normalise else None
    how = make_embedding(cfg, CPU, exact=True)
    embedder = Embedder(trained.model, pixels, how.flip, how.unit)
    with replacing(path) as temporary:
        _write(embedder, trained, fmt, temporary)
        parity = compare(embedder, trained, RUNNERS[fmt](temporary))
        if not parity.cosine >= LEAST_COSINE:  # NaN is no agreement either
            raise RunError(
                f"--out '{path}' was not written: the {fmt} graph differs from the model, smallest cosine "
                f"{parity.cosine:.6f}, needed {LEAST_COSINE}; try the other --format"
            )
    return parity


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
    values 0..255 taken as they are where `normalised_inside`, else (value / 255 - mean) / std. `camera_num` and
    `view_num` are the labels that the graph tells apart, 0 = it takes none.
    """
    cfg, counts, provenance = trained.cfg, label_inputs(embedder.model), trained.provenance or {}
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
        "camera_num": counts.get("camids", 0),
        "view_num": counts.get("viewids", 0),
        "weight": trained.weight.name,
        "weight_sha256": sha256_of(trained.weight),
        "torch": torch.__version__,
        "project": _project_version(),
        **{key: provenance.get(key) for key in ("epoch", "datasets", "train_fingerprint")},
    }


@torch.no_grad()
def compare(embedder: Embedder, trained: Trained, run: Runner) -> Parity:
    """Run random images, without labels and with random ones, and compare `run` to the model in torch."""
    generator = torch.Generator().manual_seed(SEED)
    cfg, counts = trained.cfg, label_inputs(embedder.model)
    how = make_embedding(cfg, CPU, exact=True)
    cosines, differences = [], []
    for count in BATCHES:
        blocks = torch.rand(count, 3, *BLOCKS, generator=generator)
        images = (256 * F.interpolate(blocks, tuple(cfg.INPUT.SIZE_TEST))).to(torch.uint8)
        drawn = {name: torch.randint(-1, rows, (count,), generator=generator) for name, rows in counts.items()}
        for labels in [{}, drawn] if counts else [{}]:
            prepared = how.prepare({"images": images, **labels})
            expected = embed_batch(embedder.model, prepared, how)
            ours = _run(run, images.float() if embedder.normalise else prepared["images"], labels)
            cosines.append(F.cosine_similarity(ours.double(), expected.double()).min())
            differences.append((ours - expected).abs().max())
    width = expected.shape[1]
    worst = torch.stack(cosines).min(), torch.stack(differences).max()  # min and max keep NaN
    return Parity(", ".join(["images", *counts]), width, sum(BATCHES), *(float(value) for value in worst))


def _write(embedder: Embedder, trained: Trained, fmt: str, path: Path) -> None:
    """Write the file; an exporter's own errors become a RunError of one line, an OSError stays one."""
    metadata = json.dumps(describe(embedder, trained))
    try:
        WRITERS[fmt](embedder, tuple(trained.cfg.INPUT.SIZE_TEST), metadata, path)
    except (ConfigError, OSError):
        raise
    except Exception as error:  # the exporters have errors of their own
        raise RunError(f"the model cannot be written as {fmt} ({_reason(error)}); try the other --format") from error


def _run(run: Runner, images: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
    try:
        return run(images, labels)
    except Exception as error:  # the runtimes have errors of their own
        raise RunError(f"the exported graph fails on a batch of {len(images)} ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """Return the first line of the error that started it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _project_version() -> str:
    lines = PROJECT_FILE.read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))
