"""Keys of tests, and the run folder."""

from configs.keys.key import MOST_IMAGES, MOST_WEIGHT, YES_NO, Key
from configs.keys.solver import AMP_MODES
from utils.ap_rules import AP_RULES, STANDARD

TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"
PACKAGED = (WANDB, MLFLOW)  # loggers that need a package of their name

KEYS = {
    "TEST.IMS_PER_BATCH": Key(
        128, "images per batch", low=1, high=MOST_IMAGES, affects=(), why="larger ones do not fit any machine"
    ),
    "TEST.RE_RANKING": Key(False, "k-reciprocal re-ranking", affects=("ranking",)),
    "TEST.RERANK.K1": Key(
        50, "neighbours of the reciprocal sets", low=1, high=10**4, affects=("ranking",), why="memory grows with it"
    ),
    "TEST.RERANK.K2": Key(
        15,
        "neighbours of the local query expansion",
        low=1,
        high=10**4,
        affects=("ranking",),
        why="memory grows with it",
    ),
    "TEST.RERANK.LAMBDA": Key(0.3, "weight of the original distance", low=0, high=1, affects=("ranking",)),
    "TEST.WEIGHT": Key("", "checkpoint that test.py loads", affects=("place",)),
    "TEST.NECK_FEAT": Key(
        "after",
        "embedding from before or after the BNNeck",
        choices=("before", "after"),
        affects=("embedding", "ranking"),
    ),
    "TEST.FEAT_NORM": Key("yes", "L2-normalise the embedding", choices=YES_NO, affects=("ranking",)),
    "TEST.FLIP": Key(False, "average the embeddings of each image and its mirror", affects=("embedding", "ranking")),
    "TEST.AMP": Key(
        "auto",
        "of embedding images, as SOLVER.AMP; off = float32, as TransReID tests",
        choices=AMP_MODES,
        affects=("embedding", "ranking"),
    ),
    "TEST.FEATURES": Key(
        "float32",
        "how the embeddings of a test are kept: float16 takes half the memory; disk maps a file in OUTPUT_DIR",
        choices=("float32", "float16", "disk"),
        affects=("ranking",),
    ),
    "TEST.LINEAR": Key(
        "auto",
        "linear layers in float32 on a CPU, equal to rounding; packed: by oneDNN; auto: where MKL is slow (AMD Zen 5)",
        choices=("auto", "plain", "packed"),
        affects=(),
    ),
    "TEST.QE.K": Key(
        0,
        "nearest gallery images that join the query, 0 = off",
        low=0,
        high=10**4,
        affects=("ranking",),
        why="so many are no neighbours",
    ),
    "TEST.QE.ALPHA": Key(
        0.0,
        "their weight is similarity^ALPHA; 0 = all alike (AQE), 3 is usual for alpha-QE",
        low=0,
        high=100,
        affects=("ranking",),
        why="beyond, one image has all weight",
    ),
    "TEST.QE.TIMES": Key(
        1, "rounds of expansion", low=1, high=100, affects=("ranking",), why="each round ranks all images anew"
    ),
    "TEST.SPECTRAL.K": Key(
        0,
        "nearest gallery images that are blurred among themselves and sorted anew, 0 = off; 50 is usual",
        low=0,
        high=10**4,
        affects=("ranking",),
        why="work grows with its square",
    ),
    "TEST.SPECTRAL.T": Key(
        0.1,
        "temperature of the blur; towards 0 nothing changes",
        low=1e-6,
        high=100,
        affects=("ranking",),
        why="below, every image is alone; beyond, all weigh alike",
    ),
    "TEST.AP": Key(
        STANDARD,
        "rule of the average precision; trapezoid is that of the first code of Market-1501, never above the standard",
        choices=AP_RULES,
        affects=("ranking",),
    ),
    "TEST.PART_WEIGHTS": Key(
        (),
        "weight of each branch of the embedding in a similarity, in their order; () = as the model joins them",
        low=0,
        high=MOST_WEIGHT,
        affects=("embedding", "ranking"),
        why="beyond, float32 loses the other branches",
    ),
    "TEST.BRANCHES": Key(False, "also score each branch alone, and the embedding without it", affects=()),
    "TEST.ROC_FPR": Key(
        [1e-4, 1e-3, 1e-2],
        "false positive rates at which the true positive rate is told",
        low=1e-9,
        high=1,
        affects=("ranking",),
        why="a share of the pairs that are no match",
    ),
    "TEST.REPORT": Key(True, "leave report.html, slices and rank lists beside the result", affects=()),
    "TEST.MAX_RANK": Key(
        50, "length of the CMC curve", low=1, high=10**5, affects=("ranking",), why="of each query so many are kept"
    ),
    "TEST.TRACKLETS": Key(
        "mean",
        "what the embeddings of its frames make of a tracklet, before it is L2-normalised (data sets mars, ilids_vid)",
        choices=("mean", "max"),
        affects=("ranking",),
    ),
    "TEST.TRACKLET_FRAMES": Key(
        0,
        "frames of a tracklet that are embedded at most, evenly spaced; 0 = all",
        low=0,
        high=10**4,
        affects=("ranking",),
        why="no tracklet is longer",
    ),
    "TEST.VEHICLEID_TRIALS": Key(
        10,
        "random gallery choices that VehicleID's figures average",
        low=1,
        high=1000,
        affects=("ranking",),
        why="each one is a test",
    ),
    "TEST.REFERENCE": Key(False, "before epoch 1, also score raw pixels and the untrained model", affects=()),
    "TEST.DIST_MAT": Key(
        "dist_mat.npy",
        "",
        affects=("ranking",),
        instead="per_query.npz holds the results of every query; no distance matrix is written",
    ),
    "TEST.EVAL": Key(
        False, "", affects=("ranking",), instead="SOLVER.EVAL_PERIOD says when training evaluates; test.py always does"
    ),
    "LOGGER": Key(
        (TENSORBOARD,),
        "where a run's figures go beside metrics.jsonl, one or several; wandb and mlflow need their packages; () = "
        "nowhere",
        choices=(TENSORBOARD, *PACKAGED),
        affects=(),
    ),
    "OUTPUT_DIR": Key("", "run folder: checkpoints, logs, results", affects=("place",)),
}
