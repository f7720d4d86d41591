"""Which terms IRRA has, built from the configuration.

Reference: Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023, section 3.
"""

from yacs.config import CfgNode

from configs.keys.irra import MASKED_WORDS
from configs.readings import ACC, MLM_ACC, TEXT_ACC
from losses.branches import Reduce
from losses.criterion import Criterion, Reading, Term
from losses.identity import IdentityLoss, IdentityTerm
from losses.image_text import (
    CmpmTerm,
    ItcTerm,
    SdmTerm,
    masked_word_accuracy,
    masked_word_term,
    text_accuracy,
)
from losses.readings import accuracy


def make_pair_loss(cfg: CfgNode) -> Criterion:
    """Return the criterion of images and captions: the terms of LOSS.TEXT.NAMES, and what is read beside them."""
    text = cfg.LOSS.TEXT
    scale = 1 / text.TEMPERATURE
    terms: dict[str, Term] = {
        "sdm": SdmTerm(scale, text.SOFT_LABEL),
        "itc": ItcTerm(scale),
        "cmpm": CmpmTerm(text.CMPM_TARGET),
        "id": IdentityTerm(IdentityLoss(), Reduce("mean")),
        MASKED_WORDS: masked_word_term,
    }
    readings = {
        ACC: Reading(accuracy, of="id"),
        TEXT_ACC: Reading(text_accuracy, of="id"),
        MLM_ACC: Reading(masked_word_accuracy, of=MASKED_WORDS),
    }
    return Criterion({name: terms[name] for name in terms if name in text.NAMES}, readings)
