"""Keys of the system whose queries are any of infrared, sketch, coloured pencil and words, and its gallery RGB."""

from configs.keys.key import EMBEDS, MOST_EPOCHS, MOST_WEIGHT, OUTWEIGHS, SLIP, Key
from configs.modalities import ALIASES, MODALITIES, VIS

NAME = "multimodal"  # MODEL.NAME of the system
ALIGN, NORM = "align", "norm"  # its losses beside that of identities
ALIGN_FORMS = ("ce", "kl")
OFFICIAL, ALL = "official", "all"  # of TEST.QUERY_SETS, beside names of sets

KEYS = {
    "MODEL.MULTIMODAL.MODALITIES": Key(
        MODALITIES,
        "what the model reads: vis (RGB) and any of nir (infrared), sk (sketch), cp (coloured pencil) and text",
        choices=(*MODALITIES, *ALIASES),
        affects=EMBEDS,
    ),
    "MODEL.MULTIMODAL.RANK": Key(
        4,
        "rank of the adapters that each modality of images has on every linear layer",
        low=1,
        high=4096,
        affects=EMBEDS,
        why="no layer is wider",
    ),
    "MODEL.MULTIMODAL.ALPHA": Key(
        1.0, "the adapters are scaled by ALPHA / RANK", low=0, high=1e4, affects=EMBEDS, why=SLIP
    ),
    "MODEL.MULTIMODAL.SEMANTIC": Key(
        False, "a semantic head on the feature of each modality, in training and test", affects=EMBEDS
    ),
    "MODEL.MULTIMODAL.HEADS": Key(8, "attention heads of the fusion", low=1, high=256, affects=EMBEDS, why=SLIP),
    "MODEL.MULTIMODAL.MLP_RATIO": Key(
        2.0, "hidden width of the fusion / its width", low=0.01, high=64, affects=EMBEDS, why=SLIP
    ),
    "MODEL.MULTIMODAL.DROPOUT": Key(
        0.1, "dropout of fusion and semantic head", low=0, high=0.99, why="at 1 nothing passes"
    ),
    "MODEL.MULTIMODAL.HEAD_DROPOUT": Key(
        0.5, "dropout before the classifier", low=0, high=0.99, why="at 1 nothing passes"
    ),
    "MODEL.MULTIMODAL.FREEZE_TEXT": Key(False, "the text tower keeps CLIP's weights; its projection learns"),
    "MODEL.MULTIMODAL.FREEZE_SHARED": Key(
        False, "what all modalities of images share keeps CLIP's weights; adapters and projection learn"
    ),
    "MODEL.MULTIMODAL.MODALITY_DROPOUT": Key(
        0.15, "share of the query modalities of a training sample that are dropped; one stays", low=0, high=1
    ),
    "LOSS.ALIGN.W": Key(
        0.1, "weight of the alignment of all sets with RGB, 0 = off", low=0, high=MOST_WEIGHT, why=OUTWEIGHS
    ),
    "LOSS.ALIGN.T": Key(0.1, "temperature: cosines are divided by it", low=1e-4, high=1e4, why="a divisor"),
    "LOSS.ALIGN.START": Key(6, "first epoch with weight", low=1, high=MOST_EPOCHS, why=SLIP),
    "LOSS.ALIGN.RAMP": Key(20, "epochs in which the weight rises to W", low=1, high=MOST_EPOCHS, why=SLIP),
    "LOSS.ALIGN.FORM": Key("ce", "ce: masked cross-entropy; kl: IRRA's SDM", choices=ALIGN_FORMS),
    "LOSS.FEAT_NORM.W": Key(
        2e-3, "weight of the penalty on lengths of features, 0 = off", low=0, high=MOST_WEIGHT, why=OUTWEIGHS
    ),
    "LOSS.FEAT_NORM.TARGET": Key(10.0, "length that features should have", low=0, high=1e6, why=SLIP),
    "LOSS.FEAT_NORM.BAND": Key(3.0, "lengths within TARGET +- BAND cost nothing", low=0, high=1e6, why=SLIP),
    "DATASETS.TRIAL": Key(
        1,
        "of data sets with a training set for each trial (RegDB, iLIDS-VID): which one, from 1",
        low=1,
        high=10,
        affects=("training", "ranking"),
        why="such data sets have ten",
    ),
    "TEST.QUERY_SETS": Key(
        (OFFICIAL,),
        "sets of modalities that are tested: official: the data set's own, else all; all: every set of query "
        "modalities; or names such as NIR+TEXT",
        affects=("ranking",),
    ),
    "TEST.GALLERY_SET": Key(
        (VIS,), "modalities of a gallery item", choices=(*MODALITIES, *ALIASES), affects=("ranking",)
    ),
    "TEST.AP_DEPTH": Key(
        100, "k of mAP@k, told beside mAP", low=1, high=10**6, affects=("ranking",), why="no gallery is larger"
    ),
    "TEST.MISSING": Key(
        False, "also take modalities out of the queries of the largest set, at random", affects=("ranking",)
    ),
}
