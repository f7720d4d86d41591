"""Keys of optimizer, schedule and loop."""

from configs.keys.key import MOST_EPOCHS, MOST_IMAGES, MOST_WEIGHT, OUTWEIGHS, SLIP, Key

AFTER_WARMUP = tuple(f"after_warmup_{curve}" for curve in ("cosine", "step", "linear", "exp", "poly"))
WARMUP_COSINE = "warmup_cosine"
SCHEDULERS = ("cosine", "multistep", WARMUP_COSINE, *AFTER_WARMUP)
STEPPED = ("multistep", "after_warmup_step")  # those that read STEPS and GAMMA
ADAMS = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam")  # optimizers with BETAS and ADAM_EPS
AMP_MODES = ("auto", "off", "fp16", "bf16")

KEYS = {
    "SOLVER.OPTIMIZER_NAME": Key(
        "Adam",
        "class of torch.optim",
        choices=("SGD", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"),
    ),
    "SOLVER.MAX_EPOCHS": Key(100, "last epoch, counted from 1", low=1, high=MOST_EPOCHS, why=SLIP),
    "SOLVER.STAGES": Key(
        (),
        "names of the stages that are trained, in order; () = the system's own (of CLIP-ReID stage1, stage2 where a "
        "key of SOLVER.STAGE1 or STAGE2 is set, else main)",
    ),
    "SOLVER.BASE_LR": Key(
        3e-4, "learning rate at the peak of the schedule", low=0, high=100, why="beyond, every step diverges"
    ),
    "SOLVER.LARGE_FC_LR": Key(False, "multiply the classifiers' learning rate by FC_LR_FACTOR"),
    "SOLVER.FC_LR_FACTOR": Key(2.0, "see LARGE_FC_LR", low=0, high=1e4, why=SLIP),
    "SOLVER.NEW_LR_FACTOR": Key(
        1.0,
        "factor on the learning rate of what is no trunk: weights of new layers (of PCB biases too), weights and "
        "biases of classifiers; 1 = off: LARGE_FC_LR and BIAS_LR_FACTOR alone",
        low=0,
        high=1e4,
        why=SLIP,
    ),
    "SOLVER.BIAS_LR_FACTOR": Key(
        1.0,
        "factor on the learning rate of parameters named *bias*",
        low=0,
        high=1e4,
        why=SLIP,
    ),
    "SOLVER.LAYER_DECAY": Key(
        1.0,
        "a transformer's layers learn slower towards its input by this factor each",
        low=0.001,
        high=1,
        why="at 0 only the last layer learns: FREEZE_BLOCKS",
    ),
    "SOLVER.SEED": Key(
        1234, "seed of weights, sampler and augmentation", low=0, high=2**32 - 1, why="numpy takes 32 bits"
    ),
    "SOLVER.MOMENTUM": Key(0.9, "of SGD", low=0, high=1),
    "SOLVER.BETAS": Key(
        [0.9, 0.999],
        "of Adam and its kin: decay of the mean gradient, of its square",
        low=0,
        high=0.9999999,
        length=2,
        why="at 1 no gradient counts",
    ),
    "SOLVER.ADAM_EPS": Key(
        1e-8,
        "of Adam and its kin: added to the root of the mean square; IRRA's published runs have 1e-3",
        low=1e-16,
        high=1,
        why="at 0 a weight without gradient becomes NaN",
    ),
    "SOLVER.MARGIN": Key(0.3, "triplet margin when NO_MARGIN is False", low=0, high=1e4, why=SLIP),
    "SOLVER.CENTER_LR": Key(
        0.5, "learning rate of the class centres", low=0, high=100, why="beyond, every step diverges"
    ),
    "SOLVER.CENTER_LOSS_WEIGHT": Key(0.0005, "weight of the centre loss", low=0, high=MOST_WEIGHT, why=OUTWEIGHS),
    "SOLVER.WEIGHT_DECAY": Key(0.0005, "L2 weight decay", low=0, high=100, why="beyond, a step overshoots 0"),
    "SOLVER.WEIGHT_DECAY_BIAS": Key(
        0.0005, "weight decay of parameters named *bias*", low=0, high=100, why="beyond, a step overshoots 0"
    ),
    "SOLVER.SCHEDULER": Key(
        "",
        "learning rate as a pure function of the epoch; '' = the system's own (cosine, of CLIP-ReID multistep, of IRRA "
        "after_warmup_cosine)",
        choices=("", *SCHEDULERS),
    ),
    "SOLVER.MIN_LR_FACTOR": Key(
        0.002, "cosine: last learning rate / BASE_LR; warmup_cosine: lowest / that of each group", low=0, high=1
    ),
    "SOLVER.TARGET_LR": Key(
        0.0,
        "after_warmup_cosine, _poly: learning rate after the last epoch, of every group",
        low=0,
        high=100,
        why="beyond, every step diverges",
    ),
    "SOLVER.POWER": Key(
        0.9,
        "after_warmup_poly: exponent of what is left of the epochs; _exp: factor over all of them",
        low=0.001,
        high=100,
        why="at 0 an exponent does nothing, and a factor lets nothing be learnt",
    ),
    "SOLVER.GAMMA": Key(0.1, "multistep, after_warmup_step: factor at each of STEPS", low=0, high=1),
    "SOLVER.STEPS": Key(
        (40, 70),
        "epochs, ascending: multistep lowers the rate in them, after_warmup_step after them",
        low=0,
        high=MOST_EPOCHS,
        why="epochs",
    ),
    "SOLVER.WARMUP_FACTOR": Key(
        0.01, "first learning rate / BASE_LR; warmup_cosine: what the warm-up begins above", low=0, high=1
    ),
    "SOLVER.WARMUP_EPOCHS": Key(5, "epochs before the schedule proper, 0 = none", low=0, high=MOST_EPOCHS, why=SLIP),
    "SOLVER.WARMUP_ITERS": Key(
        0, "the same under CLIP-ReID's name, in epochs too; 0 = WARMUP_EPOCHS", low=0, high=MOST_EPOCHS, why=SLIP
    ),
    "SOLVER.WARMUP_METHOD": Key(
        "linear", "constant: WARMUP_FACTOR throughout the warm-up", choices=("linear", "constant")
    ),
    "SOLVER.COSINE_MARGIN": Key(0.5, "margin m of arcface, cosface, amsoftmax, circle", low=0, high=100, why=SLIP),
    "SOLVER.COSINE_MARGIN_WARMUP": Key(
        0,
        "n > 0: that margin grows from 0 in epoch 1, by a n-th of it each epoch",
        low=0,
        high=MOST_EPOCHS,
        why=SLIP,
    ),
    "SOLVER.COSINE_SCALE": Key(
        30.0, "scale s of arcface, cosface, amsoftmax, circle", low=0.001, high=1e4, why="at 0 all logits are alike"
    ),
    "SOLVER.CHECKPOINT_PERIOD": Key(
        10,
        "epochs between kept checkpoints, 0 = only the last",
        low=0,
        high=MOST_EPOCHS,
        affects=(),
        why=SLIP,
    ),
    "SOLVER.LOG_PERIOD": Key(100, "iterations between log lines", low=1, high=10**9, affects=(), why=SLIP),
    "SOLVER.EVAL_PERIOD": Key(
        10,
        "epochs between evaluations, 0 = never",
        low=0,
        high=MOST_EPOCHS,
        affects=(),
        why=SLIP,
    ),
    "SOLVER.IMS_PER_BATCH": Key(
        64,
        "images per batch over all processes, P x K",
        low=1,
        high=MOST_IMAGES,
        why="larger ones do not fit any machine",
    ),
    "SOLVER.AMP": Key("auto", "of training; auto: bf16 where it is native", choices=AMP_MODES),
    "SOLVER.GRAD_CLIP": Key(
        0.0, "largest L2 norm of the gradient, 0 = no clipping", low=0, high=1e9, why="beyond, it clips nothing: 0"
    ),
    "SOLVER.GRAD_CLIP_QUANTILE": Key(
        0.0,
        "quantile of the epoch's last norms of the gradient that limits the next one, 0 = off; in place of GRAD_CLIP",
        low=0,
        high=1,
    ),
    "SOLVER.EMA": Key(
        0.0,
        "decay of the moving average of the weights in the last stage, kept in <name>_ema_<epoch>.pth and evaluated "
        "beside them; 0 = off",
        low=0,
        high=0.9999999,
        why="at 1 nothing is learnt",
    ),
    "SOLVER.ACCUM_STEPS": Key(1, "batches whose gradients make one optimizer step", low=1, high=10**5, why=SLIP),
    "SOLVER.GATHER_FEATURES": Key(True, "several processes: losses see the whole batch, not a share"),
    "SOLVER.PEAK_TFLOPS": Key(
        0.0,
        "peak of one device for the logged MFU, 0 = from the GPU's name",
        low=0,
        high=1e6,
        affects=(),
        why=SLIP,
    ),
}
