"""Every configuration key once: its default, and in one line its unit, its choices and who reads it.

The values are TransReID's own defaults, so that a TransReID YAML means here what it means there. Closed choices and
the rules between keys are checked in `configs/validate.py`, choices and ranges of a key stand in `configs/limits.py`.
"""

from yacs.config import CfgNode as CN

_C = CN()

# ---- model ----------------------------------------------------------------------------------------------------------
_C.MODEL = CN()
_C.MODEL.DEVICE = "auto"  # auto (cuda > mps > cpu) | cuda | mps | cpu; utils.device
_C.MODEL.DEVICE_ID = "0"  # index of the CUDA device of a single process (of a list the first); utils.device
_C.MODEL.TRAINING_MODE = "supervised"  # supervised | self_supervised (two views, SupCon only); processor, datasets
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
_C.MODEL.SYNC_BN = True  # several processes: batch norms see the whole batch, not a share of it; processor.wrapping
_C.MODEL.COMPILE = False  # torch.compile of the training step: faster after minutes of compiling; processor.compiling
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

_C.MODEL.FREEZE_BLOCKS = 0  # n > 0: what lies before the blocks and the first n blocks are frozen; model.make_model
_C.MODEL.LORA = CN()  # low-rank adapters in the transformer's blocks; its own weights are frozen; model.make_model
_C.MODEL.LORA.RANK = 0  # rank of the adapters, 0 = none
_C.MODEL.LORA.ALPHA = 16.0  # their output is multiplied by ALPHA / RANK, > 0
_C.MODEL.LORA.TARGETS = ("attn", "mlp")  # linear layers of a block by timm's names: attn, mlp, attn.qkv, mlp.fc1, ...

_C.MODEL.USE_CLIP = False  # fuse the features of a CLIP image tower into the model's; model.make_clip
_C.MODEL.CLIP_IMPL = "open_clip"  # open_clip | hf (transformers): library of the tower; model.make_clip
_C.MODEL.CLIP_FUSION = "minimal"  # minimal | quickwin (open_clip only) | concat (at test, untrained); model.make_clip
_C.MODEL.CLIP_BACKBONE = "ViT-B-16"  # open_clip: model name, or a .json file in its format; model.make_clip
_C.MODEL.CLIP_PRETRAIN = "laion2b_s34b_b88k"  # open_clip: tag of the weights, '' = random; model.make_clip
_C.MODEL.CLIP_HF_ID = "wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M"  # hf: name of the model; model.make_clip
_C.MODEL.CLIP_LOCAL_PATH = ""  # weight file (open_clip) or model folder (hf) in place of a download; model.make_clip
_C.MODEL.CLIP_INPUT_SIZE = (224, 224)  # [height, width] in pixels that the tower sees; model.make_clip
_C.MODEL.CLIP_FINETUNE = True  # train the tower; False: frozen, not in checkpoints; model.make_clip
_C.MODEL.CLIP_SEPARATE_LR = True  # multiply the tower's learning rate by CLIP_LR_SCALE; solver.make_optimizer
_C.MODEL.CLIP_LR_SCALE = 1.0  # see CLIP_SEPARATE_LR, > 0; solver.make_optimizer
_C.MODEL.CLIP_USE_AFEM = True  # hf: feature enhancement before the refine branch; model.make_clip
_C.MODEL.CLIP_USE_SEM_REFINE = True  # hf: add the refine branch; model.make_clip
_C.MODEL.CLIP_CONCAT_WEIGHT = 1.0  # concat: length of CLIP's part, the model's own has length 1, > 0; model.make_clip

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
_C.INPUT.DECODER = "torchvision"  # torchvision (fast) | pillow (the lineage's pixels exactly); datasets.make_dataloader

_C.INPUT.SSL = CN()  # the two views of self-supervised training, in place of PADDING and RE_PROB; datasets
_C.INPUT.SSL.CROP_SCALE = [0.3, 1.0]  # area of the random crop / area of the image: lowest, highest, (0, 1]
_C.INPUT.SSL.CROP_RATIO = [0.75, 1.3333]  # stretch of the crop's width / height: lowest, highest, > 0
_C.INPUT.SSL.JITTER = [0.4, 0.4, 0.4, 0.1]  # strength of brightness, contrast, saturation [0, 1], hue [0, 0.5] (turns)
_C.INPUT.SSL.JITTER_PROB = 0.8  # probability of the colour jitter
_C.INPUT.SSL.GREY_PROB = 0.2  # probability of a greyscale view

# ---- data -----------------------------------------------------------------------------------------------------------
_C.DATASETS = CN()
_C.DATASETS.NAMES = ("market1501",)  # one or several data sets, trained jointly (TESTS says what is tested); datasets
_C.DATASETS.TESTS = ()  # test sets, the first decides; others are what test.py adds; () = NAMES[0]; datasets
_C.DATASETS.VAL_IDS = 0.0  # share of the training identities held out to pick the epoch by, 0 = off; datasets
_C.DATASETS.ROOT_DIR = "../data"  # folder that holds the folders of the data sets; datasets.make_dataloader
_C.DATASETS.VIEW_FILES = ()  # more paths of VeRi's keypoint_{train,test}.txt; datasets.make_dataloader
_C.DATASETS.UNLABELLED_VIEW = "drop"  # drop | neutral: VeRi images without a viewpoint line; datasets.make_dataloader
_C.DATASETS.VEHICLEID_TEST_SIZE = 800  # 800 | 1600 | 2400: VehicleID's test list; datasets.make_dataloader
_C.DATASETS.TABLE = ""  # CSV with path,pid,camid,viewid,split for the data set 'table'; datasets.make_dataloader

_C.DATALOADER = CN()
_C.DATALOADER.NUM_WORKERS = 8  # worker processes of each loader; 0 = in the main process; datasets.make_dataloader
_C.DATALOADER.CACHE = ""  # folder that keeps decoded images for all runs, '' = off; datasets
_C.DATALOADER.SAMPLER = (
    "softmax"  # softmax, random (shuffle; random drops a short last batch) | softmax_triplet, triplet (PxK); datasets
)
_C.DATALOADER.NUM_INSTANCE = 16  # K, images per identity in a batch; processor.phases

_C.DATALOADER.PHASED = CN()  # K from the losses that are active; P follows from IMS_PER_BATCH; processor.phases
_C.DATALOADER.PHASED.ENABLE = False  # False: NUM_INSTANCE throughout
_C.DATALOADER.PHASED.K_WHEN_TRIPLETX = 8  # K while TripletX has weight
_C.DATALOADER.PHASED.K_WHEN_SUPCON = 8  # K while SupCon has weight and TripletX has none
_C.DATALOADER.PHASED.K_OTHER = 4  # K otherwise

# ---- solver ---------------------------------------------------------------------------------------------------------
_C.SOLVER = CN()
_C.SOLVER.OPTIMIZER_NAME = (
    "Adam"  # SGD | Adam | AdamW | NAdam | RMSprop | ... (configs/limits.py); solver.make_optimizer
)
_C.SOLVER.MAX_EPOCHS = 100  # last epoch, counted from 1; processor.train, solver.scheduler
_C.SOLVER.BASE_LR = 3e-4  # learning rate at the peak of the schedule; solver
_C.SOLVER.LARGE_FC_LR = False  # multiply the classifiers' learning rate by FC_LR_FACTOR; solver.make_optimizer
_C.SOLVER.FC_LR_FACTOR = 2.0  # see LARGE_FC_LR; solver.make_optimizer
_C.SOLVER.BIAS_LR_FACTOR = 1.0  # factor on the learning rate of parameters named *bias*; solver.make_optimizer
_C.SOLVER.LAYER_DECAY = 1.0  # a transformer's layers learn slower towards its input by this factor each, (0, 1]; solver
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
_C.SOLVER.LOG_PERIOD = 100  # iterations between log lines; processor.run
_C.SOLVER.EVAL_PERIOD = 10  # epochs between evaluations, 0 = never; processor.train
_C.SOLVER.IMS_PER_BATCH = 64  # images per batch over all processes, P x K; datasets.make_dataloader
_C.SOLVER.AMP = "auto"  # of training: auto (bf16 where it is native) | off | fp16 | bf16; utils.device, processor.run
_C.SOLVER.GRAD_CLIP = 0.0  # largest L2 norm of the gradient, 0 = no clipping; processor.run
_C.SOLVER.ACCUM_STEPS = 1  # batches whose gradients make one optimizer step; processor.run
_C.SOLVER.GATHER_FEATURES = True  # several processes: losses see the whole batch, not a share; processor.run
_C.SOLVER.PEAK_TFLOPS = 0.0  # peak of one device for the logged MFU, 0 = from the GPU's name; processor.run

# ---- losses ---------------------------------------------------------------------------------------------------------
_C.LOSS = CN()
_C.LOSS.GLOBAL_WEIGHT = 0.5  # weight of the global branch, the local ones share 1 - w, [0, 1]; losses.make_loss
_C.LOSS.LABEL_SMOOTH_EPS = 0.1  # mass that IF_LABELSMOOTH spreads over all classes, [0, 1); losses.make_loss

_C.LOSS.TRIPLET = CN()  # hardest positive and negative; weight MODEL.TRIPLET_LOSS_WEIGHT, margin SOLVER.MARGIN
_C.LOSS.TRIPLET.FEAT_SRC = "pre_bn"  # pre_bn | bnneck: features that the loss sees; losses.make_loss
_C.LOSS.TRIPLET.HARD_FACTOR = 0.0  # h: d_ap * (1 + h), d_an * (1 - h) before the loss, [0, 1); losses.make_loss

_C.LOSS.TRIPLETX = CN()  # top-k mining, cross-camera positives, hardness weights; losses.make_loss unless said
_C.LOSS.TRIPLETX.ENABLE = False  # in place of the triplet loss (of part of it: PHASED, BRIGHTNESS); processor.phases
_C.LOSS.TRIPLETX.W = 1.0  # weight, >= 0; processor.phases
_C.LOSS.TRIPLETX.MARGIN = 0.3  # hinge margin, >= 0
_C.LOSS.TRIPLETX.SOFT_WARMUP = True  # softplus in place of the hinge before epoch WARMUP_EPOCHS
_C.LOSS.TRIPLETX.WARMUP_EPOCHS = 10  # counted from epoch 1 of the run: the soft stage is epochs 1..WARMUP_EPOCHS - 1
_C.LOSS.TRIPLETX.K = 5  # how many of the hardest positives and negatives are averaged, >= 1 (not the K of PxK)
_C.LOSS.TRIPLETX.ALPHA = 2.0  # slope of the hardness weights sigmoid(ALPHA (d_ap - d_an)), 0 = equal weights
_C.LOSS.TRIPLETX.CROSS_CAM_POS = True  # positives from other cameras, where an anchor has any
_C.LOSS.TRIPLETX.SAME_CAM_NEG_BOOST = 1.2  # distance divisor of negatives from the anchor's camera, 1 = off
_C.LOSS.TRIPLETX.NORM_FEAT = True  # L2-normalise the features
_C.LOSS.TRIPLETX.FEAT_SRC = "pre_bn"  # pre_bn | bnneck

_C.LOSS.SUPCON = CN()  # supervised contrastive loss on a projection head of the global branch
_C.LOSS.SUPCON.ENABLE = False  # also builds the head; processor.phases, model.make_model
_C.LOSS.SUPCON.W = 0.3  # weight while LOSS.PHASED is off, >= 0; processor.phases
_C.LOSS.SUPCON.T = 0.07  # temperature, > 0; losses.make_loss
_C.LOSS.SUPCON.CAM_AWARE = True  # positives from other cameras only; losses.make_loss
_C.LOSS.SUPCON.POS_RULE = "class"  # class | class+camera (the same as CAM_AWARE True); losses.make_loss
_C.LOSS.SUPCON.FEAT_SRC = "bnneck"  # pre_bn | bnneck: input of the projection head; model.make_model
_C.LOSS.SUPCON.DARK_GAMMA = 1.0  # >= 1, boost of the dark samples (Model B's code: 1.8), 1 = off; losses.make_loss
_C.LOSS.SUPCON.W0 = 0.3  # weight before DECAY_*, read while PHASED is on and W_SUP_SPEC is []; processor.phases
_C.LOSS.SUPCON.DECAY_TYPE = "const"  # linear (W0 to 0) | const | exp (rate 0.05 per epoch); processor.phases
_C.LOSS.SUPCON.DECAY_START = 9999  # epoch at which the decay starts; processor.phases
_C.LOSS.SUPCON.DECAY_END = 10000  # linear: epoch at which the weight is 0; processor.phases
_C.LOSS.SUPCON.SEARCH = CN()
_C.LOSS.SUPCON.SEARCH.W = [0.25, 0.3, 0.35]  # legacy
_C.LOSS.SUPCON.SEARCH.T = [0.07]  # legacy

_C.LOSS.PHASED = CN()  # losses and weights by phase; the last entry of a list serves all later phases; processor.phases
_C.LOSS.PHASED.ENABLE = False  # False: one set of losses throughout
_C.LOSS.PHASED.BOUNDARIES = [30, 60]  # first epoch of the 2nd, 3rd, ... phase, ascending
_C.LOSS.PHASED.METRIC_SEQ = ["triplet", "triplet", "triplet"]  # triplet | tripletx | none for each phase
_C.LOSS.PHASED.W_METRIC_SEQ = [1.0, 1.0, 1.0]  # weight of that loss, instead of TRIPLET_LOSS_WEIGHT and TRIPLETX.W
_C.LOSS.PHASED.W_SUP_SPEC = ["const:0.30", "linear:0.30->0.15", "const:0.0"]  # SupCon's weight; [] = SUPCON.DECAY_*
_C.LOSS.PHASED.TRIPLETX_END = -1  # from this epoch on tripletx means triplet, -1 = never

_C.LOSS.BRIGHTNESS = CN()  # dark images to TripletX, bright ones to the triplet loss, wherever TripletX is active
_C.LOSS.BRIGHTNESS.ENABLE = False  # processor.phases, processor.epoch
_C.LOSS.BRIGHTNESS.THRESH = 0.35  # dark = mean luma below this, [0, 1]; losses.make_loss, processor.epoch
_C.LOSS.BRIGHTNESS.K = 0.08  # soft: width of the transition, q = sigmoid((THRESH - luma) / K), > 0; losses.make_loss
_C.LOSS.BRIGHTNESS.MODE = "hard"  # hard (mine within dark and within bright) | soft (weights q, mine in all)
_C.LOSS.BRIGHTNESS.BRANCHES = "all"  # all | global: branches with a metric loss while routed; losses.make_loss
_C.LOSS.BRIGHTNESS.SOURCE = "augmented"  # augmented (what the model sees) | clean (the resized image); processor.epoch

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
_C.TEST.FEAT_NORM = "yes"  # yes | no: L2-normalise the embedding; processor.embed, utils.export
_C.TEST.FLIP = False  # average the embeddings of each image and its mirror; processor.embed
_C.TEST.AMP = "auto"  # of embedding images, as SOLVER.AMP; off = float32, as TransReID tests; processor.embed
_C.TEST.QE = CN()  # query expansion before ranking; processor.inference
_C.TEST.QE.K = 0  # nearest gallery images that join the query, 0 = off
_C.TEST.QE.ALPHA = 0.0  # their weight is similarity^ALPHA; 0 = all alike (AQE), 3 is usual for alpha-QE
_C.TEST.QE.TIMES = 1  # rounds of expansion
_C.TEST.ROC_FPR = [
    0.0001,
    0.001,
    0.01,
]  # false positive rates at which the true positive rate is told; processor.outcome
_C.TEST.REPORT = True  # leave report.html, slices and rank lists beside the result; processor.outcome
_C.TEST.MAX_RANK = 50  # length of the CMC curve; processor.inference
_C.TEST.VEHICLEID_TRIALS = 10  # random gallery choices that VehicleID's figures average; datasets.make_dataloader
_C.TEST.REFERENCE = False  # before epoch 1, also score raw pixels and the untrained model; processor.train
_C.TEST.DIST_MAT = "dist_mat.npy"  # legacy
_C.TEST.EVAL = False  # legacy

_C.OUTPUT_DIR = ""  # run folder: checkpoints, logs, results; train.py, test.py

# Keys that the lineage declares and nothing needs: accepted in a YAML, and said once when one is set to another value.
LEGACY = {
    "MODEL.COS_LAYER": "MODEL.ID_LOSS_TYPE arcface, cosface, amsoftmax or circle selects a cosine classifier",
    "LOSS.SUPCON.SEARCH.W": "run_phased_loss.py takes one weight a launch with --W",
    "LOSS.SUPCON.SEARCH.T": "run_phased_loss.py takes one temperature a launch with --T",
    "TEST.DIST_MAT": "per_query.npz holds the results of every query; no distance matrix is written",
    "TEST.EVAL": "SOLVER.EVAL_PERIOD says when training evaluates; test.py always does",
}


def get_cfg_defaults() -> CN:
    """Return a fresh, unfrozen copy of all defaults."""
    return _C.clone()
