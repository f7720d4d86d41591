"""Keys of MODEL that every family of models shares: device, first weights, heads, losses."""

from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.key import EMBEDS, MOST_WEIGHT, OUTWEIGHS, YES_NO, Key
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.pcb import NAME as PCB

KEYS = {
    "MODEL.DEVICE": Key("auto", "auto: cuda > mps > cpu", choices=("auto", "cuda", "mps", "cpu"), affects=()),
    "MODEL.DEVICE_ID": Key("0", "index of the CUDA device of a single process (of a list the first)", affects=()),
    "MODEL.TRAINING_MODE": Key(
        "supervised",
        "self_supervised: two views of each image, SupCon only",
        choices=("supervised", "self_supervised"),
    ),
    "MODEL.NAME": Key(
        "resnet50",
        "family of the model; also the prefix of checkpoint files",
        choices=("transformer", "resnet50", *CLIP_REID, IRRA, PCB, MULTIMODAL),
        affects=EMBEDS,
    ),
    "MODEL.LAST_STRIDE": Key(1, "stride of the last ResNet stage", low=1, high=2, affects=EMBEDS),
    "MODEL.RESNET_STEM": Key(
        "standard",
        "standard: torchvision's; transreid: no ReLU, 2x2 pool",
        choices=("standard", "transreid"),
        affects=EMBEDS,
    ),
    "MODEL.PRETRAIN_PATH": Key("", "file that PRETRAIN_CHOICE loads; '' with imagenet = timm's hub"),
    "MODEL.PRETRAIN_CHOICE": Key(
        "imagenet",
        "first weights (imagenet: CLIP-ReID's CLIP); self: trunk of a ReID file, finetune: all of it, resume: the "
        "run's own state",
        choices=("none", "imagenet", "self", "finetune", "resume"),
    ),
    "MODEL.NECK": Key(
        "bnneck", "ResNet only, a transformer always has its BNNeck", choices=("bnneck", "no"), affects=EMBEDS
    ),
    "MODEL.IF_WITH_CENTER": Key("no", "add the centre loss", choices=YES_NO),
    "MODEL.ID_LOSS_TYPE": Key(
        "softmax",
        "identity loss, with the classifier that it needs",
        choices=("softmax", "arcface", "cosface", "amsoftmax", "circle"),
    ),
    "MODEL.ID_LOSS_WEIGHT": Key(1.0, "weight of the identity loss", low=0, high=MOST_WEIGHT, why=OUTWEIGHS),
    "MODEL.TRIPLET_LOSS_WEIGHT": Key(1.0, "weight of the triplet loss", low=0, high=MOST_WEIGHT, why=OUTWEIGHS),
    "MODEL.METRIC_LOSS_TYPE": Key(
        "triplet",
        "loss on distances beside the identity loss",
        choices=("triplet", "center", "triplet_center", "none"),
    ),
    "MODEL.DIST_TRAIN": Key(False, "one process per GPU, started by torchrun"),
    "MODEL.SYNC_BN": Key(True, "several processes: batch norms see the whole batch, not a share of it"),
    "MODEL.COMPILE": Key(False, "torch.compile of the training step: faster after minutes of compiling", affects=()),
    "MODEL.ATTENTION": Key(
        "auto",
        "kernel of timm's attention, equal to rounding; auto: fused, but for bf16 on CPUs where products are faster",
        choices=("auto", "fused", "written_out"),
        affects=(),
    ),
    "MODEL.PATCHES": Key(
        "convolution",
        "how a transformer makes its patches, equal to rounding; product: as rows of one matrix product",
        choices=("convolution", "product"),
        affects=(),
    ),
    "MODEL.RESIDUAL": Key(
        "float32",
        "type of the tokens between the blocks of MODEL.NAME transformer; amp: that of SOLVER.AMP and TEST.AMP",
        choices=("float32", "amp"),
        affects=EMBEDS,
    ),
    "MODEL.NO_MARGIN": Key(False, "True: soft margin log(1 + exp(d_ap - d_an))"),
    "MODEL.IF_LABELSMOOTH": Key("on", "label smoothing of the identity loss", choices=("on", "off")),
    "MODEL.COS_LAYER": Key(
        False,
        "",
        instead="MODEL.ID_LOSS_TYPE arcface, cosface, amsoftmax or circle selects a cosine classifier",
    ),
    "MODEL.DROP_PATH": Key(
        0.1,
        "stochastic depth of the last block, grows linearly from 0",
        low=0,
        high=0.99,
        why="at 1 nothing passes",
    ),
    "MODEL.DROP_OUT": Key(0.0, "dropout of tokens and projections", low=0, high=0.99, why="at 1 nothing passes"),
    "MODEL.ATT_DROP_RATE": Key(0.0, "dropout of attention weights", low=0, high=0.99, why="at 1 nothing passes"),
}
