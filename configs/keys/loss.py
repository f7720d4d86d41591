"""Keys of the losses on branches of images."""

from configs.keys.key import MOST_EPOCHS, MOST_WEIGHT, OUTWEIGHS, SLIP, Key

FEAT_SRCS = ("pre_bn", "bnneck")
REDUCTIONS = ("halves", "sum", "mean")
VIEWS = ("each", "global", "concat", "global+concat")
SPECTRAL_FEATS = ("pooled", "embedding")

KEYS = {
    "LOSS.BRANCHES.REDUCE": Key(
        "",
        "halves: GLOBAL_WEIGHT of the first branch and the rest of the mean over the others; '' = the system's own "
        "(halves, of CLIP-ReID and PCB sum)",
        choices=("", *REDUCTIONS),
    ),
    "LOSS.BRANCHES.DRAWS": Key(
        0,
        "n > 0: in each step n branches, drawn with replacement, have no identity loss, one of all stays at least",
        low=0,
        high=1000,
        why=SLIP,
    ),
    "LOSS.GLOBAL_WEIGHT": Key(0.5, "weight of the global branch, the local ones share 1 - w", low=0, high=1),
    "LOSS.LABEL_SMOOTH_EPS": Key(
        0.1, "mass that IF_LABELSMOOTH spreads over all classes", low=0, high=0.99, why="at 1 no class is right"
    ),
    "LOSS.TRIPLET.FEAT_SRC": Key("pre_bn", "features that the loss sees", choices=FEAT_SRCS),
    "LOSS.TRIPLET.BRANCHES": Key(
        "each",
        "a term for each branch, added up by REDUCE; the global one's, that of all parts side by side, or their sum",
        choices=VIEWS,
    ),
    "LOSS.TRIPLET.HARD_FACTOR": Key(
        0.0,
        "h: d_ap * (1 + h), d_an * (1 - h) before the loss",
        low=0,
        high=0.99,
        why="at 1 the negative does not count",
    ),
    "LOSS.SPECTRAL.W": Key(
        0.0, "weight of the identity loss of transformed features, 0 = off", low=0, high=MOST_WEIGHT, why=OUTWEIGHS
    ),
    "LOSS.SPECTRAL.T": Key(
        0.1, "temperature: cosines within the batch are divided by it", low=1e-6, high=1e4, why="a divisor"
    ),
    "LOSS.SPECTRAL.FEAT": Key(
        "pooled",
        "what is transformed: the global branch's pooled map, or its embedding after norm and dropout",
        choices=SPECTRAL_FEATS,
    ),
    "LOSS.SPECTRAL.START_EPOCH": Key(1, "first epoch with this weight", low=1, high=MOST_EPOCHS, why=SLIP),
}
