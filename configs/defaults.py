"""Every configuration key once: its default, and in one line its unit, its choices and who reads it.

The values are TransReID's own defaults, so that a TransReID YAML means here what it means there. Closed choices and
the rules between keys are checked in `configs/validate.py`.
"""

from yacs.config import CfgNode as CN

_C = CN()

# ---- model ----------------------------------------------------------------------------------------------------------
_C.MODEL = CN()
_C.MODEL.DEVICE = "auto"  # auto (cuda > mps > cpu) | cuda | mps | cpu; utils.device
_C.MODEL.DEVICE_ID = "0"  # index of the CUDA device of a single process (of a list the first); utils.device
_C.MODEL.NAME = "resnet50"  # transformer | resnet50; also the prefix of checkpoint files; model.make_model
_C.MODEL.LAST_STRIDE = 1  # stride of the last ResNet stage, 1 or 2; model.make_model
_C.MODEL.RESNET_STEM = "standard"  # standard (torchvision) | transreid (no ReLU, 2x2 pool); model.make_model
_C.MODEL.PRETRAIN_PATH = ""  # file that PRETRAIN_CHOICE loads; '' with imagenet = timm's hub; model.make_model
_C.MODEL.PRETRAIN_CHOICE = "imagenet"  # none | imagenet | self (trunk of a ReID file) | finetune (all of it) | resume
_C.MODEL.NECK = "bnneck"  # bnneck | no; ResNet only, a transformer always has its BNNeck; model.make_model
_C.MODEL.IF_WITH_CENTER = "no"  # yes | no: add the centre loss; losses.make_loss
_C.MODEL.ID_LOSS_TYPE = (
    "softmax"  # softmax | arcface | cosface | amsoftmax | circle; model.make_model, losses.make_loss
)
_C.MODEL.ID_LOSS_WEIGHT = 1.0  # weight of the identity loss, >= 0; processor.phases
_C.MODEL.TRIPLET_LOSS_WEIGHT = 1.0  # weight of the triplet loss, >= 0; processor.phases
_C.MODEL.METRIC_LOSS_TYPE = "triplet"  # triplet | center | triplet_center | none; processor.phases, losses.make_loss
_C.MODEL.DIST_TRAIN = False  # one process per GPU, started by torchrun; utils.distributed
_C.MODEL.NO_MARGIN = False  # True: soft margin log(1 + exp(d_ap - d_an)); losses.make_loss
_C.MODEL.IF_LABELSMOOTH = "on"  # on | off: label smoothing of the identity loss; losses.make_loss
_C.MODEL.COS_LAYER = False  # legacy
_C.MODEL.DROP_PATH = 0.1  # stochastic depth of the last block, grows linearly from 0, [0, 1); model.make_model
_C.MODEL.DROP_OUT = 0.0  # dropout of tokens and projections, [0, 1); model.make_model
_C.MODEL.ATT_DROP_RATE = 0.0  # dropout of attention weights, [0, 1); model.make_model
_C.MODEL.TRANSFORMER_TYPE = "None"  # {vit,deit}_{tiny,small,base}_patch16_224_TransReID | timm/<name>; model.make_model
_C.MODEL.STRIDE_SIZE = [16, 16]  # stride of the patches [y, x] in pixels, at most the patch size; model.make_model
_C.MODEL.JPM = False  # jigsaw patch module: local branches beside the global one; model.make_model
_C.MODEL.SHIFT_NUM = 5  # JPM: the first SHIFT_NUM - 1 patches move to the end; model.make_model
_C.MODEL.SHUFFLE_GROUP = 2  # JPM: groups of the patch shuffle; model.make_model
_C.MODEL.DEVIDE_LENGTH = 4  # JPM: number of local branches (TransReID's spelling); model.make_model
_C.MODEL.RE_ARRANGE = True  # JPM: shift and shuffle the patches before they are divided; model.make_model
_C.MODEL.SIE_COE = 3.0  # factor of the side information embedding; model.make_model
_C.MODEL.SIE_CAMERA = False  # embed the camera id; model.make_model
_C.MODEL.SIE_VIEW = False  # embed the viewpoint id; model.make_model

_C.MODEL.VIT = CN()  # size of the transformer; 0 = the value of TRANSFORMER_TYPE; model.make_model
_C.MODEL.VIT.EMBED_DIM = 0  # token width
_C.MODEL.VIT.DEPTH = 0  # number of blocks
_C.MODEL.VIT.NUM_HEADS = 0  # attention heads, a divisor of the width
_C.MODEL.VIT.MLP_RATIO = 0.0  # hidden width of the MLP / token width
_C.MODEL.VIT.PATCH_SIZE = 0  # side of a patch in pixels

# ---- input ----------------------------------------------------------------------------------------------------------
_C.INPUT = CN()
_C.INPUT.SIZE_TRAIN = [384, 128]  # [height, width] in pixels; datasets.make_dataloader, model.make_model
_C.INPUT.SIZE_TEST = [384, 128]  # [height, width] in pixels, equal to SIZE_TRAIN; datasets.make_dataloader
_C.INPUT.PROB = 0.5  # probability of a horizontal flip; datasets.transforms
_C.INPUT.RE_PROB = 0.5  # probability of random erasing; datasets.transforms
_C.INPUT.PADDING = 10  # black pixels added on each side before the random crop; datasets.transforms
_C.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]  # RGB mean in [0, 1]; datasets.transforms
_C.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]  # RGB standard deviation in [0, 1]; datasets.transforms
_C.INPUT.FILTER_TRAIN = "bicubic"  # bicubic | bilinear | lanczos: resize filter of training; datasets.make_dataloader
_C.INPUT.FILTER_TEST = "bilinear"  # bicubic | bilinear | lanczos: resize filter of testing; datasets.make_dataloader

# ---- data -----------------------------------------------------------------------------------------------------------
_C.DATASETS = CN()
_C.DATASETS.NAMES = ("market1501",)  # one or several data sets (joint training, tested on the first); datasets
_C.DATASETS.ROOT_DIR = "../data"  # folder that holds the folders of the data sets; datasets.make_dataloader
_C.DATASETS.VIEW_FILES = ()  # more paths of VeRi's keypoint_{train,test}.txt; datasets.make_dataloader
_C.DATASETS.UNLABELLED_VIEW = "drop"  # drop | neutral: VeRi images without a viewpoint line; datasets.make_dataloader
_C.DATASETS.VEHICLEID_TEST_SIZE = 800  # 800 | 1600 | 2400: VehicleID's test list; datasets.make_dataloader
_C.DATASETS.TABLE = ""  # CSV with path,pid,camid,viewid,split for the data set 'table'; datasets.make_dataloader

_C.DATALOADER = CN()
_C.DATALOADER.NUM_WORKERS = 8  # worker processes of each loader; 0 = in the main process; datasets.make_dataloader
_C.DATALOADER.SAMPLER = (
    "softmax"  # softmax (shuffle) | softmax_triplet | triplet (both PxK); datasets, processor.phases
)
_C.DATALOADER.NUM_INSTANCE = 16  # K, images per identity in a batch; processor.phases

# ---- solver ---------------------------------------------------------------------------------------------------------
_C.SOLVER = CN()
_C.SOLVER.OPTIMIZER_NAME = (
    "Adam"  # SGD | Adam | AdamW | NAdam | RMSprop | ... (configs/validate.py); solver.make_optimizer
)
_C.SOLVER.MAX_EPOCHS = 100  # last epoch, counted from 1; processor.train, solver.scheduler
_C.SOLVER.BASE_LR = 3e-4  # learning rate at the peak of the schedule; solver
_C.SOLVER.LARGE_FC_LR = False  # multiply the classifiers' learning rate by FC_LR_FACTOR; solver.make_optimizer
_C.SOLVER.FC_LR_FACTOR = 2.0  # see LARGE_FC_LR; solver.make_optimizer
_C.SOLVER.BIAS_LR_FACTOR = 1.0  # factor on the learning rate of parameters named *bias*; solver.make_optimizer
_C.SOLVER.SEED = 1234  # seed of weights, sampler and augmentation; train.py, datasets.make_dataloader
_C.SOLVER.MOMENTUM = 0.9  # of SGD; solver.make_optimizer
_C.SOLVER.MARGIN = 0.3  # triplet margin when NO_MARGIN is False; losses.make_loss
_C.SOLVER.CENTER_LR = 0.5  # learning rate of the class centres; solver.make_optimizer
_C.SOLVER.CENTER_LOSS_WEIGHT = 0.0005  # weight of the centre loss; losses.make_loss, processor.train
_C.SOLVER.WEIGHT_DECAY = 0.0005  # L2 weight decay; solver.make_optimizer
_C.SOLVER.WEIGHT_DECAY_BIAS = 0.0005  # weight decay of parameters named *bias*; solver.make_optimizer
_C.SOLVER.SCHEDULER = "cosine"  # cosine | multistep, a pure function of the epoch; solver.scheduler
_C.SOLVER.MIN_LR_FACTOR = 0.002  # cosine: last learning rate / BASE_LR; solver.scheduler
_C.SOLVER.GAMMA = 0.1  # multistep: factor at each of STEPS; solver.scheduler
_C.SOLVER.STEPS = (40, 70)  # multistep: epochs, ascending; solver.scheduler
_C.SOLVER.WARMUP_FACTOR = 0.01  # first learning rate / BASE_LR; solver.scheduler
_C.SOLVER.WARMUP_EPOCHS = 5  # epochs before the schedule proper, 0 = none; solver.scheduler
_C.SOLVER.WARMUP_METHOD = "linear"  # linear | constant; solver.scheduler
_C.SOLVER.COSINE_MARGIN = 0.5  # margin m of arcface, cosface, amsoftmax, circle; losses.make_loss
_C.SOLVER.COSINE_SCALE = 30.0  # scale s of arcface, cosface, amsoftmax, circle; losses.make_loss
_C.SOLVER.CHECKPOINT_PERIOD = 10  # epochs between kept checkpoints, 0 = only the last; processor.train
_C.SOLVER.LOG_PERIOD = 100  # iterations between log lines; processor.train
_C.SOLVER.EVAL_PERIOD = 10  # epochs between evaluations, 0 = never; processor.train
_C.SOLVER.IMS_PER_BATCH = 64  # images per batch over all processes, P x K; datasets.make_dataloader
_C.SOLVER.AMP = "auto"  # of training: auto (bf16 or fp16 on CUDA, off elsewhere) | off | fp16 | bf16; utils.device
_C.SOLVER.GRAD_CLIP = 0.0  # largest L2 norm of the gradient, 0 = no clipping; processor.train
_C.SOLVER.ACCUM_STEPS = 1  # batches whose gradients make one optimizer step; processor.train

# ---- losses ---------------------------------------------------------------------------------------------------------
_C.LOSS = CN()
_C.LOSS.GLOBAL_WEIGHT = 0.5  # weight of the global branch, the local ones share 1 - w, [0, 1]; losses.make_loss
_C.LOSS.LABEL_SMOOTH_EPS = 0.1  # mass that IF_LABELSMOOTH spreads over all classes, [0, 1); losses.make_loss
_C.LOSS.TRIPLET = CN()
_C.LOSS.TRIPLET.HARD_FACTOR = 0.0  # h: d_ap * (1 + h), d_an * (1 - h) before the loss, [0, 1); losses.make_loss

# ---- test -----------------------------------------------------------------------------------------------------------
_C.TEST = CN()
_C.TEST.IMS_PER_BATCH = 128  # images per batch; datasets.make_dataloader
_C.TEST.RE_RANKING = False  # k-reciprocal re-ranking; processor.inference
_C.TEST.RERANK = CN()  # parameters of the re-ranking; the paper's own are 20, 6, 0.3; processor.inference
_C.TEST.RERANK.K1 = 50  # neighbours of the reciprocal sets
_C.TEST.RERANK.K2 = 15  # neighbours of the local query expansion
_C.TEST.RERANK.LAMBDA = 0.3  # weight of the original distance, [0, 1]
_C.TEST.WEIGHT = ""  # checkpoint that test.py loads; test.py
_C.TEST.NECK_FEAT = "after"  # before | after the BNNeck; model.make_model
_C.TEST.FEAT_NORM = "yes"  # yes | no: L2-normalise the embedding; processor.inference
_C.TEST.MAX_RANK = 50  # length of the CMC curve; processor.inference
_C.TEST.VEHICLEID_TRIALS = 10  # random gallery choices that VehicleID's figures average; datasets.make_dataloader
_C.TEST.REFERENCE = False  # before epoch 1, also score raw pixels and the untrained model; processor.train
_C.TEST.DIST_MAT = "dist_mat.npy"  # legacy
_C.TEST.EVAL = False  # legacy

_C.OUTPUT_DIR = ""  # run folder: checkpoints, logs, results; train.py, test.py

# Keys that the lineage declares and nothing needs: accepted in a YAML, and said once when one is set to another value.
LEGACY = {
    "MODEL.COS_LAYER": "MODEL.ID_LOSS_TYPE arcface, cosface, amsoftmax or circle selects a cosine classifier",
    "TEST.DIST_MAT": "per_query.npz holds the results of every query; no distance matrix is written",
    "TEST.EVAL": "SOLVER.EVAL_PERIOD says when training evaluates; test.py always does",
}


def get_cfg_defaults() -> CN:
    """Return a fresh, unfrozen copy of all defaults."""
    return _C.clone()
