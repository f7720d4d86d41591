"""Which terms part branches have, built from the configuration.

Reference: Sun et al., Beyond Part Models, ECCV 2018, section 3.2; Luo et al., Spectral Feature Transformation for
Person Re-identification, ICCV 2019.
"""

from yacs.config import CfgNode

from configs.readings import MEAN_ACC
from losses.criterion import Criterion, Reading
from losses.readings import mean_accuracy
from losses.spectral import SpectralTerm
from losses.transreid import dark_reading, make_identity, make_terms


def make_part_loss(cfg: CfgNode, num_classes: int, feat_dim: int, has_global: bool) -> Criterion:
    """Return the criterion of a model whose first branch is a global one, or a part; else as `make_loss`."""
    terms = make_terms(cfg, num_classes, feat_dim, has_global=has_global)
    if cfg.LOSS.SPECTRAL.W > 0:
        terms["spectral"] = SpectralTerm(make_identity(cfg))
    return Criterion(terms, dark_reading(cfg) | {MEAN_ACC: Reading(mean_accuracy, of="id")})
