"""Keys of the losses that TransReID trains with."""

from configs.keys.key import Key

FEAT_SRCS = ("pre_bn", "bnneck")
REDUCTIONS = ("halves", "sum", "mean")

KEYS = {
    "LOSS.BRANCHES.REDUCE": Key(
        "",
        "halves: GLOBAL_WEIGHT of the first branch and the rest of the mean over the others; '' = the system's own "
        "(halves, of CLIP-ReID sum)",
        choices=("", *REDUCTIONS),
    ),
    "LOSS.GLOBAL_WEIGHT": Key(0.5, "weight of the global branch, the local ones share 1 - w", low=0, high=1),
    "LOSS.LABEL_SMOOTH_EPS": Key(
        0.1, "mass that IF_LABELSMOOTH spreads over all classes", low=0, high=0.99, why="at 1 no class is right"
    ),
    "LOSS.TRIPLET.FEAT_SRC": Key("pre_bn", "features that the loss sees", choices=FEAT_SRCS),
    "LOSS.TRIPLET.HARD_FACTOR": Key(
        0.0,
        "h: d_ap * (1 + h), d_an * (1 - h) before the loss",
        low=0,
        high=0.99,
        why="at 1 the negative does not count",
    ),
}
