"""Where a model's first weights come from: ImageNet files, timm's hub, or another ReID checkpoint."""

import logging
from collections.abc import Callable

import timm
from torch import nn

from model.layers.lora import fold_lora
from model.weights.load import LoadReport, WeightRules, Weights, load_weights, log_report
from utils.checkpoint import read_weights
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

PATH_KEY = "MODEL.PRETRAIN_PATH"
CHOICES = ("none", "imagenet", "self", "finetune", "resume")
FROM_SCRATCH = ("none", "resume")  # resume: the saved state of the run brings all weights
LEARNT_ON_ITS_OWN_DATA = ("sie_embed",)  # another data set has other cameras


def first_weights(choice: str, path: str, published: Callable[[], str]) -> Weights | None:
    """Return the weights that MODEL.PRETRAIN_CHOICE asks for by the names of their source; None = from scratch.

    `published()` gives timm's name of the ImageNet weights and is called only when `path` is ''. Raises ConfigError
    when there is nothing to load, DataError when a file is damaged.
    """
    if choice not in CHOICES:
        raise ConfigError(f"MODEL.PRETRAIN_CHOICE got '{choice}', allowed: {', '.join(CHOICES)}")
    if choice in FROM_SCRATCH:
        return None
    if path:
        return fold_lora(read_weights(path, PATH_KEY))
    if choice != "imagenet":
        raise ConfigError(f"MODEL.PRETRAIN_CHOICE {choice} needs the checkpoint's path in {PATH_KEY}, which is empty")
    return download(published())


def download(name: str) -> Weights:
    """Return the ImageNet weights that timm publishes as `name`; ConfigError with both ways out when it fails."""
    logger.info("MODEL.PRETRAIN_PATH is empty: using timm's published weights %s", name)
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"MODEL.PRETRAIN_CHOICE imagenet: {PATH_KEY} is empty and timm's {name} could not be fetched ({reason}); "
            f"put the weights into a file and set {PATH_KEY} to it, or connect to the network, "
            "or set MODEL.PRETRAIN_CHOICE none"
        ) from error
    return model.state_dict()


def load_trunk(base: nn.Module, trunk: Weights, path: str) -> LoadReport:
    """Load a backbone from weights by its own names, log and return the report; DataError if they do not fit."""
    report = load_weights(
        base,
        trunk,
        source_of(path),
        lambda name: "" if name in LEARNT_ON_ITS_OWN_DATA else base.deciding_keys(name),
        base.grid,
    )
    warnings = []
    if any(name.startswith("blocks.") for name in report.surplus):
        warnings.append("the file has more blocks (or more in each) than MODEL.TRANSFORMER_TYPE and MODEL.VIT.DEPTH")
    report = report._replace(warnings=tuple(warnings))
    log_report(report)
    return report


def load_rest(
    model: nn.Module, rules: WeightRules, weights: Weights, prefixes: tuple[str, ...], path: str
) -> LoadReport | None:
    """After `load_trunk`, load what else of a ReID checkpoint is wanted: weights whose names start with a prefix.

    A weight that the file lacks or has in another shape (a classifier of other classes) stays as it is. Returns the
    report, or None when the file has nothing of the kind.
    """
    target = model.state_dict()
    rest = {name: value for name, value in rules.translate(weights).items() if name.startswith(prefixes)}
    if not any(name in target and value.shape == target[name].shape for name, value in rest.items()):
        return None
    report = load_weights(model, rest, source_of(path), lambda name: "", prefixes=prefixes)
    if report.missing:
        report = report._replace(warnings=("what is missing keeps its first values",))
    log_report(report)
    return report


def source_of(path: str) -> str:
    """Return how messages call the first weights."""
    return f"{PATH_KEY} '{path}'" if path else "published weights"
