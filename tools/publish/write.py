"""From a run to its published folder, which is kept only where it gives the very model back."""

import json
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from configs.publishing import BACKBONE_KEY, embedding_changes, without_places
from processor.trained import Trained, find_weight, load_trained
from tools.export.metadata import describe_pixels
from tools.publish.card import write_card
from tools.publish.figures import find_tests
from tools.publish.origin import describe_origin
from utils.atomic import replacing, write_text_atomic
from utils.checkpoint import read_weights, save_safetensors
from utils.errors import ConfigError, DataError, RunError
from utils.paths import user_path
from utils.published_folder import PublishedFolder, write_list
from utils.run_folder import EMA, make_folder, open_run

LEFT = re.compile(r"\.\d+\.tmp$")  # of a file that `replacing` was writing when its process was killed

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """What is to be published."""

    run: str
    epoch: int | None = None  # None = the last one kept
    averaged: bool = False
    tests: tuple[str, ...] = ()  # folders; () = those beside the run
    licence: str = ""  # of the weights, '' = none is given
    name: str = ""  # of the model


def publish(wanted: Wanted, folder: PublishedFolder) -> tuple[Trained, list[dict[str, Any]]]:
    """Write the published folder of a run; return the model, and the figures of its tests.

    Raises ConfigError for a run without such weights, or a folder that holds something else; DataError as
    `load_trained`; RunError, and the folder is not whole, where what was written gives another model back.
    """
    _check_place(folder)
    weight = _averaged(wanted) if wanted.averaged else find_weight(wanted.run, wanted.epoch)
    trained = load_trained(weight)
    if trained.provenance is None:
        raise ConfigError(f"'{weight}' tells nothing of its training, so nothing is known that a card could say")
    tests = find_tests(trained, wanted.tests)
    if not tests:
        logger.warning("no test of '%s' was found, so no figures are published; --tests names its folder", weight)
    make_folder(str(folder.path), "--out")
    for old in folder.files:  # the list first: from here on the folder is not whole
        old.unlink(missing_ok=True)
    _write(trained, tests, wanted, folder)
    write_list(folder)
    _check_same(trained, folder)
    return trained, tests


def _averaged(wanted: Wanted) -> Path:
    """Return the averaged weights of the wanted epoch."""
    run = open_run(find_weight(wanted.run).parent)
    found = run.checkpoints(EMA)
    epoch = max(found, default=None) if wanted.epoch is None else wanted.epoch
    if epoch not in found:
        which = "no averaged weights" if epoch is None else f"no averaged weights of epoch {epoch}"
        there = f"; it holds those of epochs {', '.join(map(str, found))}" if found else " (SOLVER.EMA keeps them)"
        raise ConfigError(f"run folder '{wanted.run}' has {which}{there}")
    return found[epoch]


def _check_place(folder: PublishedFolder) -> None:
    """Raise ConfigError where the folder holds anything but a published model, whole or not."""
    place = user_path(folder.path, "--out")
    if not place.is_dir():
        return
    known = {path.name for path in folder.files}
    names = {one.name for one in place.iterdir() if not one.name.startswith(".")}  # as .git of a repository
    others = sorted(name for name in names if name not in known and LEFT.sub("", name) not in known)
    if others:
        raise ConfigError(f"--out '{place}' holds {', '.join(others[:3])}; name a folder of its own for the model")


def _write(trained: Trained, tests: list[dict[str, Any]], wanted: Wanted, folder: PublishedFolder) -> None:
    """Write all files but the list."""
    public = without_places(trained.cfg)
    provenance = trained.provenance | {"config": public.dump()}
    save_safetensors(read_weights(trained.weight, "checkpoint"), folder.weights, provenance)
    backbone = trained.cfg.MODEL.CLIP_BACKBONE
    if backbone != public.MODEL.CLIP_BACKBONE:
        _copy_clip(backbone, folder.clip)
    write_text_atomic(folder.config, provenance["config"])
    origin = describe_origin(trained, public)
    facts = {"embedding": sum(trained.model.branches.values()), "flip": trained.cfg.TEST.FLIP, "unit": True}
    facts |= {"decoder": trained.cfg.INPUT.DECODER, **describe_pixels(trained, normalised_inside=False)}
    _write_json(folder.preprocessing, facts)
    _write_json(folder.provenance, origin)
    _write_json(folder.metrics, {"schema": 1, "tests": tests})
    write_card(folder.card, trained, public, origin, tests, wanted.name, wanted.licence)


def _copy_clip(source: str, target: Path) -> None:
    """Copy the description of a CLIP, in so far as it is JSON."""
    try:
        content = json.loads(user_path(source, BACKBONE_KEY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{BACKBONE_KEY} '{source}' cannot be read ({error}); put that file back") from error
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text_atomic(path, json.dumps(content, indent=2) + "\n")


def _check_same(trained: Trained, folder: PublishedFolder) -> None:
    """Raise RunError, the list removed, where the folder does not give the same weights and settings back."""
    problem = ""
    try:
        again = load_trained(folder.weights)
    except (ConfigError, DataError) as error:
        problem = str(error)
    else:
        settings = [change.key for change in embedding_changes(trained.cfg, again.cfg)]
        differing = [*_other_weights(trained.model, again.model), *settings]
        problem = f"another {', '.join(differing[:3])}" if differing else ""
    if problem:
        folder.list.unlink(missing_ok=True)
        raise RunError(f"'{trained.weight}' cannot be published, the folder alone does not give it back: {problem}")


def _other_weights(ours: nn.Module, theirs: nn.Module) -> list[str]:
    """Return the names of parameters and buffers, also of parts that no checkpoint holds, that differ in a bit."""
    pairs = [dict([*model.named_parameters(), *model.named_buffers()]) for model in (ours, theirs)]
    names = sorted(pairs[0].keys() | pairs[1].keys())
    return [name for name in names if not all(name in pair for pair in pairs) or not _equal(*(p[name] for p in pairs))]


def _equal(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.dtype == theirs.dtype and torch.equal(ours.cpu(), theirs.cpu())
