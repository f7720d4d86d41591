"""Closed choices, ranges and lengths of single keys; the rules between keys are in `configs/validate.py`."""

from configs.schedule import METRICS
from configs.titles import TITLES

TRANSFORMER_TYPES = tuple(
    f"{family}_{size}_patch16_224_TransReID" for family in ("vit", "deit") for size in ("tiny", "small", "base")
)
TIMM_PREFIX = "timm/"
DEFAULT_PATCH_SIZE = 16  # of every TransReID type
FILTERS = ("bicubic", "bilinear", "lanczos")
YES_NO = ("yes", "no")
DATASETS = tuple(TITLES)
FEAT_SRCS = ("pre_bn", "bnneck")

CHOICES = {
    "MODEL.DEVICE": ("auto", "cuda", "mps", "cpu"),
    "MODEL.TRAINING_MODE": ("supervised", "self_supervised"),
    "MODEL.NAME": ("transformer", "resnet50"),
    "MODEL.RESNET_STEM": ("standard", "transreid"),
    "MODEL.PRETRAIN_CHOICE": ("none", "imagenet", "self", "finetune", "resume"),
    "MODEL.NECK": ("bnneck", "no"),
    "MODEL.IF_WITH_CENTER": YES_NO,
    "MODEL.ID_LOSS_TYPE": ("softmax", "arcface", "cosface", "amsoftmax", "circle"),
    "MODEL.METRIC_LOSS_TYPE": ("triplet", "center", "triplet_center", "none"),
    "MODEL.IF_LABELSMOOTH": ("on", "off"),
    "MODEL.CLIP_IMPL": ("open_clip", "hf"),
    "MODEL.CLIP_FUSION": ("minimal", "quickwin", "concat"),
    "INPUT.FILTER_TRAIN": FILTERS,
    "INPUT.FILTER_TEST": FILTERS,
    "DATASETS.NAMES": DATASETS,
    "DATASETS.TESTS": DATASETS,
    "DATASETS.UNLABELLED_VIEW": ("drop", "neutral"),
    "DATALOADER.SAMPLER": ("softmax", "softmax_triplet", "triplet", "random"),
    "SOLVER.OPTIMIZER_NAME": (
        *("SGD", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"),
    ),
    "SOLVER.SCHEDULER": ("cosine", "multistep"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    **dict.fromkeys(("SOLVER.AMP", "TEST.AMP"), ("auto", "off", "fp16", "bf16")),
    "INPUT.DECODER": ("torchvision", "pillow"),
    **dict.fromkeys(("LOSS.TRIPLET.FEAT_SRC", "LOSS.TRIPLETX.FEAT_SRC", "LOSS.SUPCON.FEAT_SRC"), FEAT_SRCS),
    "LOSS.SUPCON.POS_RULE": ("class", "class+camera"),
    "LOSS.SUPCON.DECAY_TYPE": ("linear", "const", "exp"),
    "LOSS.PHASED.METRIC_SEQ": METRICS,
    "LOSS.BRIGHTNESS.MODE": ("hard", "soft"),
    "LOSS.BRIGHTNESS.BRANCHES": ("all", "global"),
    "LOSS.BRIGHTNESS.SOURCE": ("augmented", "clean"),
    "TEST.NECK_FEAT": ("before", "after"),
    "TEST.FEAT_NORM": YES_NO,
}

# (lowest, highest) allowed value, both included; None = open
RANGES = {
    **dict.fromkeys(
        ("MODEL.DROP_PATH", "MODEL.DROP_OUT", "MODEL.ATT_DROP_RATE", "LOSS.TRIPLET.HARD_FACTOR"), (0, 0.99)
    ),
    **dict.fromkeys(("INPUT.PROB", "INPUT.RE_PROB", "LOSS.GLOBAL_WEIGHT", "TEST.RERANK.LAMBDA"), (0, 1)),
    **dict.fromkeys(("MODEL.ID_LOSS_WEIGHT", "MODEL.TRIPLET_LOSS_WEIGHT", "MODEL.SIE_COE", "SOLVER.MARGIN"), (0, None)),
    **dict.fromkeys(
        ("MODEL.VIT.EMBED_DIM", "MODEL.VIT.DEPTH", "MODEL.VIT.NUM_HEADS", "MODEL.VIT.MLP_RATIO"), (0, None)
    ),
    **dict.fromkeys(("MODEL.SHIFT_NUM", "MODEL.SHUFFLE_GROUP", "MODEL.DEVIDE_LENGTH"), (1, None)),
    **dict.fromkeys(("INPUT.PADDING", "DATALOADER.NUM_WORKERS", "MODEL.VIT.PATCH_SIZE"), (0, None)),
    **dict.fromkeys(("DATALOADER.NUM_INSTANCE", "SOLVER.MAX_EPOCHS", "SOLVER.IMS_PER_BATCH"), (1, None)),
    **dict.fromkeys(("SOLVER.LOG_PERIOD", "SOLVER.ACCUM_STEPS", "TEST.IMS_PER_BATCH", "TEST.MAX_RANK"), (1, None)),
    **dict.fromkeys(("TEST.RERANK.K1", "TEST.RERANK.K2", "TEST.VEHICLEID_TRIALS"), (1, None)),
    **dict.fromkeys(("SOLVER.CHECKPOINT_PERIOD", "SOLVER.EVAL_PERIOD", "SOLVER.WARMUP_EPOCHS"), (0, None)),
    **dict.fromkeys(("SOLVER.BASE_LR", "SOLVER.CENTER_LR", "SOLVER.CENTER_LOSS_WEIGHT"), (0, None)),
    **dict.fromkeys(("SOLVER.WEIGHT_DECAY", "SOLVER.WEIGHT_DECAY_BIAS", "SOLVER.GRAD_CLIP"), (0, None)),
    **dict.fromkeys(("SOLVER.FC_LR_FACTOR", "SOLVER.BIAS_LR_FACTOR", "SOLVER.COSINE_MARGIN"), (0, None)),
    **dict.fromkeys(("SOLVER.MIN_LR_FACTOR", "SOLVER.WARMUP_FACTOR", "SOLVER.GAMMA", "SOLVER.MOMENTUM"), (0, 1)),
    **dict.fromkeys(("LOSS.TRIPLETX.W", "LOSS.TRIPLETX.MARGIN", "LOSS.TRIPLETX.ALPHA"), (0, None)),
    **dict.fromkeys(("LOSS.TRIPLETX.WARMUP_EPOCHS", "LOSS.SUPCON.W", "LOSS.SUPCON.W0"), (0, None)),
    **dict.fromkeys(("LOSS.SUPCON.DECAY_START", "LOSS.SUPCON.DECAY_END"), (0, None)),
    **dict.fromkeys(("LOSS.TRIPLETX.SAME_CAM_NEG_BOOST", "LOSS.SUPCON.DARK_GAMMA", "LOSS.TRIPLETX.K"), (1, None)),
    **dict.fromkeys(("LOSS.SUPCON.T", "LOSS.BRIGHTNESS.K"), (1e-6, None)),
    **dict.fromkeys(("LOSS.BRIGHTNESS.THRESH", "INPUT.SSL.JITTER_PROB", "INPUT.SSL.GREY_PROB"), (0, 1)),
    **dict.fromkeys(("MODEL.FREEZE_BLOCKS", "MODEL.LORA.RANK"), (0, None)),
    **dict.fromkeys(("MODEL.LORA.ALPHA", "MODEL.CLIP_LR_SCALE", "MODEL.CLIP_CONCAT_WEIGHT"), (1e-6, None)),
    "TEST.QE.K": (0, None),
    "TEST.QE.ALPHA": (0, None),
    "TEST.QE.TIMES": (1, None),
    "TEST.ROC_FPR": (1e-9, 1),
    "DATASETS.VAL_IDS": (0, 0.5),
    "SOLVER.LAYER_DECAY": (1e-3, 1),
    "INPUT.SSL.CROP_SCALE": (1e-3, 1),
    "INPUT.SSL.CROP_RATIO": (0.1, 10),
    "INPUT.SSL.JITTER": (0, 1),
    "LOSS.PHASED.W_METRIC_SEQ": (0, None),
    "LOSS.PHASED.TRIPLETX_END": (-1, None),
    **dict.fromkeys(
        ("DATALOADER.PHASED.K_WHEN_TRIPLETX", "DATALOADER.PHASED.K_WHEN_SUPCON", "DATALOADER.PHASED.K_OTHER"), (1, None)
    ),
    "LOSS.LABEL_SMOOTH_EPS": (0, 0.99),
    "SOLVER.COSINE_SCALE": (1e-3, None),
    "MODEL.LAST_STRIDE": (1, 2),
    "SOLVER.SEED": (0, 2**32 - 1),
    "SOLVER.PEAK_TFLOPS": (0, None),
}
LENGTHS = {
    **dict.fromkeys(("MODEL.STRIDE_SIZE", "MODEL.CLIP_INPUT_SIZE", "INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"), 2),
    **dict.fromkeys(("INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"), 3),
    **dict.fromkeys(("INPUT.SSL.CROP_SCALE", "INPUT.SSL.CROP_RATIO"), 2),
    "INPUT.SSL.JITTER": 4,
}
MAY_BE_ZERO = ("INPUT.PIXEL_MEAN", "INPUT.SSL.JITTER")
FILLED_BY_ONE = (
    "MODEL.STRIDE_SIZE",
    "MODEL.CLIP_INPUT_SIZE",
    "INPUT.SIZE_TRAIN",
    "INPUT.SIZE_TEST",
    "INPUT.PIXEL_MEAN",
    "INPUT.PIXEL_STD",
)
