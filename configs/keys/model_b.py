"""Keys of Model B's losses: TripletX, SupCon, phases, brightness."""

from configs.keys.key import MOST_EPOCHS, MOST_IMAGES, MOST_WEIGHT, OUTWEIGHS, SLIP, Key
from configs.keys.loss import FEAT_SRCS

KEYS = {
    "LOSS.TRIPLETX.ENABLE": Key(False, "in place of the triplet loss (of part of it: PHASED, BRIGHTNESS)"),
    "LOSS.TRIPLETX.W": Key(1.0, "weight", low=0, high=MOST_WEIGHT, why=OUTWEIGHS),
    "LOSS.TRIPLETX.MARGIN": Key(0.3, "hinge margin", low=0, high=1e4, why=SLIP),
    "LOSS.TRIPLETX.SOFT_WARMUP": Key(True, "softplus in place of the hinge before epoch WARMUP_EPOCHS"),
    "LOSS.TRIPLETX.WARMUP_EPOCHS": Key(
        10,
        "counted from epoch 1 of the run: the soft stage is epochs 1..WARMUP_EPOCHS - 1",
        low=0,
        high=MOST_EPOCHS,
        why=SLIP,
    ),
    "LOSS.TRIPLETX.K": Key(
        5,
        "how many of the hardest positives and negatives are averaged (not the K of PxK)",
        low=1,
        high=MOST_IMAGES,
        why="at most a batch",
    ),
    "LOSS.TRIPLETX.ALPHA": Key(
        2.0,
        "slope of the hardness weights sigmoid(ALPHA (d_ap - d_an)), 0 = equal weights",
        low=0,
        high=1e4,
        why="beyond, one image has all weight",
    ),
    "LOSS.TRIPLETX.CROSS_CAM_POS": Key(True, "positives from other cameras, where an anchor has any"),
    "LOSS.TRIPLETX.SAME_CAM_NEG_BOOST": Key(
        1.2,
        "distance divisor of negatives from the anchor's camera, 1 = off",
        low=1,
        high=1000,
        why=SLIP,
    ),
    "LOSS.TRIPLETX.NORM_FEAT": Key(True, "L2-normalise the features"),
    "LOSS.TRIPLETX.FEAT_SRC": Key("pre_bn", "features that the loss sees", choices=FEAT_SRCS),
    "LOSS.SUPCON.ENABLE": Key(False, "train with it; also builds the head"),
    "LOSS.SUPCON.W": Key(0.3, "weight while LOSS.PHASED is off", low=0, high=MOST_WEIGHT, why=OUTWEIGHS),
    "LOSS.SUPCON.T": Key(0.07, "temperature", low=1e-6, high=1e4, why="a divisor"),
    "LOSS.SUPCON.CAM_AWARE": Key(True, "positives from other cameras only"),
    "LOSS.SUPCON.POS_RULE": Key("class", "class+camera: the same as CAM_AWARE True", choices=("class", "class+camera")),
    "LOSS.SUPCON.FEAT_SRC": Key("bnneck", "input of the projection head", choices=FEAT_SRCS),
    "LOSS.SUPCON.DARK_GAMMA": Key(
        1.0,
        "boost of the dark samples (Model B's code: 1.8), 1 = off",
        low=1,
        high=1000,
        why=SLIP,
    ),
    "LOSS.SUPCON.W0": Key(
        0.3,
        "weight before DECAY_*, read while PHASED is on and W_SUP_SPEC is []",
        low=0,
        high=MOST_WEIGHT,
        why=OUTWEIGHS,
    ),
    "LOSS.SUPCON.DECAY_TYPE": Key(
        "const", "linear: W0 to 0; exp: rate 0.05 per epoch", choices=("linear", "const", "exp")
    ),
    "LOSS.SUPCON.DECAY_START": Key(9999, "epoch at which the decay starts", low=0, high=MOST_EPOCHS, why=SLIP),
    "LOSS.SUPCON.DECAY_END": Key(10000, "linear: epoch at which the weight is 0", low=0, high=MOST_EPOCHS, why=SLIP),
    "LOSS.SUPCON.SEARCH.W": Key([0.25, 0.3, 0.35], "", instead="run_phased_loss.py takes one weight a launch with --W"),
    "LOSS.SUPCON.SEARCH.T": Key([0.07], "", instead="run_phased_loss.py takes one temperature a launch with --T"),
    "LOSS.PHASED.ENABLE": Key(False, "False: one set of losses throughout"),
    "LOSS.PHASED.BOUNDARIES": Key(
        [30, 60], "first epoch of the 2nd, 3rd, ... phase, ascending", low=0, high=MOST_EPOCHS, why="epochs"
    ),
    "LOSS.PHASED.METRIC_SEQ": Key(
        ["triplet", "triplet", "triplet"], "metric loss of each phase", choices=("triplet", "tripletx", "none")
    ),
    "LOSS.PHASED.W_METRIC_SEQ": Key(
        [1.0, 1.0, 1.0],
        "weight of that loss, instead of TRIPLET_LOSS_WEIGHT and TRIPLETX.W",
        low=0,
        high=MOST_WEIGHT,
        why=OUTWEIGHS,
    ),
    "LOSS.PHASED.W_SUP_SPEC": Key(
        ["const:0.30", "linear:0.30->0.15", "const:0.0"], "SupCon's weight; [] = SUPCON.DECAY_*"
    ),
    "LOSS.PHASED.W_TERMS": Key(
        (), "weights by phase of terms without keys of their own there, e.g. ('center=const:5e-4|const:0.0',)"
    ),
    "LOSS.PHASED.TRIPLETX_END": Key(
        -1,
        "from this epoch on tripletx means triplet, -1 = never",
        low=-1,
        high=MOST_EPOCHS,
        why=SLIP,
    ),
    "LOSS.BRIGHTNESS.ENABLE": Key(False, "route images by their brightness"),
    "LOSS.BRIGHTNESS.THRESH": Key(0.35, "dark = mean luma below this", low=0, high=1),
    "LOSS.BRIGHTNESS.K": Key(
        0.08, "soft: width of the transition, q = sigmoid((THRESH - luma) / K)", low=1e-6, high=100, why="a divisor"
    ),
    "LOSS.BRIGHTNESS.MODE": Key(
        "hard", "hard: mine within dark and within bright; soft: weights q, mine in all", choices=("hard", "soft")
    ),
    "LOSS.BRIGHTNESS.BRANCHES": Key("all", "branches with a metric loss while routed", choices=("all", "global")),
    "LOSS.BRIGHTNESS.SOURCE": Key(
        "augmented", "augmented: what the model sees; clean: the resized image", choices=("augmented", "clean")
    ),
}
