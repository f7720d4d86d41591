"""Which terms CLIP-ReID has in its stages, built from the configuration."""

from yacs.config import CfgNode

from configs.keys.clip_reid import STAGE2
from configs.readings import ACC, I2T_ACC
from losses.criterion import Criterion, Reading
from losses.cross_modal import ContrastTerm, ImageToTextTerm, image_to_text_accuracy
from losses.readings import accuracy
from losses.transreid import dark_reading, make_terms, smoothing_of

LAST = "last"  # of ModelOutput.extra: the feature of the last but one layer, which the metric losses see too


def make_prompt_loss(cfg: CfgNode) -> Criterion:
    """Return the criterion of stage 1, which fits the prompts."""
    contrast = ContrastTerm(cfg.LOSS.I2T.NORMALISE, cfg.LOSS.I2T.TEMPERATURE)
    return Criterion({"i2t": contrast, "t2i": contrast}, {})


def make_image_loss(cfg: CfgNode, stage: str, num_classes: int, feat_dim: int) -> Criterion:
    """Return the criterion of a stage on images, stage 2 or the baseline's; arguments and errors as `make_loss`."""
    terms = make_terms(cfg, num_classes, feat_dim, stage, further=(LAST,))
    if stage != STAGE2:
        return Criterion(terms, dark_reading(cfg) | {ACC: Reading(accuracy, of="id")})
    terms["i2t"] = ImageToTextTerm(smoothing_of(cfg))
    return Criterion(terms, dark_reading(cfg) | {I2T_ACC: Reading(image_to_text_accuracy)})
