"""From a trained model to a file that is kept only when its embeddings are those of the model."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import TEXT
from model.irra import Irra
from processor.evaluation.embed import make_embedding
from processor.trained import Trained
from tools.export.graphs import (
    RUNNERS,
    WRITERS,
    Embedder,
    Inputs,
    TextEmbedder,
    check_packages,
    feature_inputs,
    image_inputs,
    token_inputs,
)
from tools.export.metadata import describe, describe_fusion, describe_modality, describe_text
from tools.export.modal import FUSION, FusionEmbedder, ImageEmbedder, TokenEmbedder
from tools.export.parity import CPU, Parity, compare, reason_of
from tools.modalities import check_reads
from utils.atomic import replacing
from utils.errors import ConfigError, RunError
from utils.progress import progress
from utils.run_folder import make_folder

LEAST_COSINE = 0.9999


class Tower(NamedTuple):
    """One file to write."""

    path: Path
    embedder: nn.Module  # a key of `tools.export.parity.DRAWS`
    inputs: Inputs
    facts: dict[str, Any]  # its metadata


def export_model(
    trained: Trained, path: str | Path, fmt: str, normalise: bool = False, part: str = "", fused: bool = True
) -> dict[Path, Parity]:
    """Write a trained model as `fmt` (onnx | torchscript) to `path`; return by file how well it agrees with the model.

    The graph takes `images`, float32 RGB [batch, 3, H, W], normalised, or 0..255 with `normalise`; where side
    information is on also `camids` and `viewids`, int64 [batch], which may be left out, negative = unknown. It returns
    `embedding`, float32 [batch, D], with TEST.NECK_FEAT, FLIP, PART_WEIGHTS and FEAT_NORM as in trained.cfg. How images
    become inputs and where the weights come from is in its metadata, see `describe`.

    Of a model that also embeds captions this is the image tower. Its text tower is a second file beside it, see
    `text_file`, which takes `caption_ids`, int64 [batch, INPUT.TEXT.LENGTH], the tokens of `datasets.tokens.tokenize`,
    and returns their `embedding` in the same space; its metadata is that of `describe_text`.

    Of a model of several modalities `part` is one of them, and the graph takes its `images`, or `tokens` as above; or
    it is FUSION, and the graph takes `features`, float32 [batch, M, D], M the number of modalities, and `mask`, bool
    [batch, M], which of them are there. Such features are the results of the other graphs unless `fused`.

    Random images or captions in several batch sizes, without and with labels, must have cosines of at least 0.9999 to
    what `embed_batch` gives; else RunError, and files that were there before stay. Raises ConfigError for an unknown
    format, a missing package, a path that cannot be written, and a part that the model does not have.
    """
    parities = {}
    with contextlib.ExitStack() as stack:
        for tower in towers_of(trained, check_target(path, fmt), normalise, part, fused):
            temporary = stack.enter_context(replacing(check_target(tower.path, fmt)))
            with progress(f"export {tower.path.name}", 2, "step") as bar:
                _write(tower, fmt, temporary)
                bar.update()
                parities[tower.path] = parity = compare(tower.embedder, trained, RUNNERS[fmt](temporary))
                bar.update()
            if not parity.cosine >= LEAST_COSINE:  # NaN is no agreement either
                raise RunError(
                    f"--out '{tower.path}' was not written: the {fmt} graph differs from the model, smallest cosine "
                    f"{parity.cosine:.6f}, needed {LEAST_COSINE}; try the other --format"
                )
    return parities


def towers_of(
    trained: Trained, path: Path, normalise: bool = False, part: str = "", fused: bool = True
) -> Iterator[Tower]:
    """Yield what a model is written as: the tower of images to `path`, and of one that reads captions that of texts.

    Of a model of several modalities the tower of one, or the fusion, as `part` says.
    """
    cfg = trained.cfg
    check_part(trained, part)
    pixels = (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD) if normalise else None
    how = make_embedding(cfg, CPU, exact=True)
    if part:
        yield _modal_tower(trained, path, pixels, part, fused)
        return
    embedder = Embedder(trained.model, pixels, how.flip, how.unit, how.part_weights)
    yield Tower(path, embedder, image_inputs(tuple(cfg.INPUT.SIZE_TEST), trained.model), describe(embedder, trained))
    if isinstance(trained.model, Irra):
        text = TextEmbedder(trained.model, how.unit, how.part_weights)
        yield Tower(
            text_file(path), text, token_inputs(text.input, cfg.INPUT.TEXT.LENGTH), describe_text(text, trained)
        )


def _modal_tower(trained: Trained, path: Path, pixels: Any, part: str, fused: bool) -> Tower:
    """Return the file of one modality or of the fusion; `pixels` and `fused` as in `ImageEmbedder`."""
    model, cfg = trained.model, trained.cfg
    how = make_embedding(cfg, CPU, exact=True)
    if part == FUSION:
        embedder = FusionEmbedder(model, how.unit)
        inputs = feature_inputs(len(model.modalities), model.feat_dim)
        return Tower(path, embedder, inputs, describe_fusion(how.unit, trained))
    if part == TEXT:
        embedder = TokenEmbedder(model, how.unit, fused)
        inputs = token_inputs(embedder.input, cfg.INPUT.TEXT.LENGTH)
    else:
        embedder = ImageEmbedder(model, part, pixels, how.flip, how.unit, fused)
        inputs = image_inputs(tuple(cfg.INPUT.SIZE_TEST))
    return Tower(path, embedder, inputs, describe_modality(embedder, trained))


def check_part(trained: Trained, part: str) -> None:
    """Raise ConfigError where a model does not have the part, or has several and none is named."""
    if trained.cfg.MODEL.NAME == MULTIMODAL:
        if not part:
            names = "|".join(trained.model.modalities)
            raise ConfigError(
                f"'{trained.weight}' reads several modalities, each of which is a file of its own; name one, "
                f"--modality {names}, or --fusion"
            )
        if part != FUSION:
            check_reads(part, trained.model.modalities, MULTIMODAL, trained.weight)
    elif part:
        flag = "--fusion" if part == FUSION else f"--modality {part}"
        raise ConfigError(
            f"{flag}: '{trained.weight}' is of MODEL.NAME {trained.cfg.MODEL.NAME}, which has no such parts; leave the "
            f"flag out, or use a model of MODEL.NAME {MULTIMODAL}"
        )


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


def _write(tower: Tower, fmt: str, path: Path) -> None:
    """Write the file; an exporter's own errors become a RunError of one line, an OSError stays one."""
    try:
        WRITERS[fmt](tower.embedder, tower.inputs, json.dumps(tower.facts), path)
    except (ConfigError, OSError):
        raise
    except Exception as error:  # the exporters have errors of their own
        raise RunError(f"the model cannot be written as {fmt} ({reason_of(error)}); try the other --format") from error
