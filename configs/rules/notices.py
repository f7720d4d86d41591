"""What a user should hear once about a sound configuration: legacy keys, and settings without effect."""

from collections.abc import Iterator, Sequence

from yacs.config import CfgNode

from configs.keys import KEYS
from configs.keys.irra import NAME as IRRA
from configs.keys.solver import ADAMS, AFTER_WARMUP
from configs.loss_weights import wants_center
from configs.own_values import own_value
from configs.phases import SUPCON, TRIPLETX, segments_of
from configs.rules.branches import find_branch_notices
from configs.rules.clip_fusion import find_clip_notices
from configs.rules.clip_reid import find_clip_reid_notices
from configs.rules.distill import find_distill_notices
from configs.rules.irra import find_irra_notices
from configs.rules.multimodal import find_multimodal_notices
from configs.rules.pcb import find_pcb_notices
from configs.stages import solver_key, solver_of, stages_of, warmup_epochs
from configs.titles import OF_TRACKLETS, names_of_tests
from configs.values import is_set, value_of
from configs.weight_spec import parse_term_spec


def find_notices(cfg: CfgNode) -> list[str]:
    """Return one line for each of them; none of it is an error."""
    legacy = [f"{key} is not used here: {KEYS[key].instead}" for key in KEYS if KEYS[key].instead and is_set(cfg, key)]
    model = [*_model_notices(cfg), *find_clip_notices(cfg), *find_clip_reid_notices(cfg), *find_irra_notices(cfg)]
    model += [*find_pcb_notices(cfg), *find_multimodal_notices(cfg), *find_distill_notices(cfg)]
    losses = [*_schedule_notices(cfg), *find_branch_notices(cfg)]
    return [*legacy, *_idle_keys(cfg), *_epoch_notices(cfg), *_sampler_notices(cfg), *model, *losses]


def _idle_keys(cfg: CfgNode) -> Iterator[str]:
    """Yield the keys that another switch leaves without effect."""
    phased, by_spec = cfg.LOSS.PHASED.ENABLE, bool(cfg.LOSS.PHASED.W_SUP_SPEC)
    erasing = ("AREA", "ASPECT", "VALUE")
    decay = ("W0", "DECAY_TYPE", "DECAY_START", "DECAY_END")
    reduce = own_value(cfg, "LOSS.BRANCHES.REDUCE")
    two_views = cfg.MODEL.TRAINING_MODE == "self_supervised"
    routed_hard = cfg.LOSS.BRIGHTNESS.ENABLE and cfg.LOSS.BRIGHTNESS.MODE == "hard"
    for keys, idle, why in (
        (("MODEL.TRIPLET_LOSS_WEIGHT", "LOSS.TRIPLETX.W"), phased, "LOSS.PHASED.W_METRIC_SEQ decides"),
        (("LOSS.SUPCON.W",), phased, "LOSS.PHASED.W_SUP_SPEC decides, or where that is [] LOSS.SUPCON.W0"),
        ([f"LOSS.SUPCON.{name}" for name in decay], phased and by_spec, "LOSS.PHASED.W_SUP_SPEC decides"),
        (("LOSS.PHASED.W_TERMS",), not phased, "LOSS.PHASED.ENABLE is False"),
        (("LOSS.BRIGHTNESS.K",), routed_hard, "LOSS.BRIGHTNESS.MODE hard has no transition"),
        (("MODEL.LORA.ALPHA", "MODEL.LORA.TARGETS"), cfg.MODEL.LORA.RANK == 0, "MODEL.LORA.RANK 0 adds no adapter"),
        (("MODEL.ATTENTION",), cfg.MODEL.NAME != "transformer", "only the blocks of MODEL.NAME transformer read it"),
        (("MODEL.RESIDUAL",), cfg.SOLVER.AMP == cfg.TEST.AMP == "off", "SOLVER.AMP and TEST.AMP off are float32"),
        (("TEST.LINEAR",), cfg.TEST.AMP in ("bf16", "fp16"), f"TEST.AMP {cfg.TEST.AMP} is not float32"),
        (("TEST.QE.ALPHA", "TEST.QE.TIMES"), cfg.TEST.QE.K == 0, "TEST.QE.K 0 expands no query"),
        (("TEST.TRACKLETS", "TEST.TRACKLET_FRAMES"), not _has_tracklets(cfg), "no data set here is of tracklets"),
        (("TEST.SPECTRAL.T",), cfg.TEST.SPECTRAL.K == 0, "TEST.SPECTRAL.K 0 blurs nothing"),
        (("LOSS.GLOBAL_WEIGHT",), reduce != "halves", f"LOSS.BRANCHES.REDUCE {reduce} knows no halves"),
        ([f"TEST.RERANK.{name}" for name in cfg.TEST.RERANK], not cfg.TEST.RE_RANKING, "TEST.RE_RANKING is False"),
        (("DATASETS.EVAL_SPLIT",), _looks_at_none(cfg), "SOLVER.EVAL_PERIOD 0 evaluates no epoch"),
        ([f"INPUT.RE_{name}" for name in erasing], cfg.INPUT.RE_PROB == 0, "INPUT.RE_PROB 0 erases nothing"),
        (("INPUT.JITTER",), two_views, "MODEL.TRAINING_MODE self_supervised has INPUT.SSL.JITTER"),
        *_idle_in_solver(cfg),
    ):
        for key in keys:
            if idle and is_set(cfg, key):
                yield f"{key} {value_of(cfg, key)} is not used: {why}"


def _has_tracklets(cfg: CfgNode) -> bool:
    return bool({*OF_TRACKLETS} & {*names_of_tests(cfg)})


def _looks_at_none(cfg: CfgNode) -> bool:
    """Return whether no epoch of a system that could look at a val split is evaluated."""
    return cfg.MODEL.NAME == IRRA and solver_of(cfg).EVAL_PERIOD == 0


def _idle_in_solver(cfg: CfgNode) -> Iterator[tuple[Sequence[str], bool, str]]:
    """Yield (keys, whether they are without effect, why) of optimizer and schedule."""
    schedule, factor = own_value(cfg, "SOLVER.SCHEDULER"), cfg.SOLVER.NEW_LR_FACTOR
    optimizers = {solver_of(cfg, stage).OPTIMIZER_NAME for stage in stages_of(cfg)}
    heads = [solver_key(cfg, name) for name in ("LARGE_FC_LR", "FC_LR_FACTOR")]
    falls_to = ("after_warmup_cosine", "after_warmup_poly")
    with_power = ("after_warmup_exp", "after_warmup_poly")
    yield heads, factor != 1, f"SOLVER.NEW_LR_FACTOR {factor:g} decides"
    yield (
        ("SOLVER.ADAM_EPS", "SOLVER.BETAS"),
        not optimizers & set(ADAMS),
        f"SOLVER.OPTIMIZER_NAME {', '.join(sorted(optimizers))} has none",
    )
    yield ("SOLVER.TARGET_LR",), schedule not in falls_to, f"SOLVER.SCHEDULER {schedule} does not fall to it"
    yield ("SOLVER.POWER",), schedule not in with_power, f"SOLVER.SCHEDULER {schedule} has none"
    yield ("SOLVER.MIN_LR_FACTOR",), schedule in AFTER_WARMUP, f"SOLVER.SCHEDULER {schedule} knows SOLVER.TARGET_LR"


def _epoch_notices(cfg: CfgNode) -> Iterator[str]:
    looked, kept = solver_of(cfg).EVAL_PERIOD, solver_of(cfg).CHECKPOINT_PERIOD
    by_split = cfg.MODEL.NAME == IRRA and cfg.DATASETS.EVAL_SPLIT == "val"
    picks = "DATASETS.VAL_IDS" if cfg.DATASETS.VAL_IDS else "DATASETS.EVAL_SPLIT val" if by_split else ""
    if picks and looked and looked != kept:
        yield (
            f"{picks} picks among epochs that are both evaluated (SOLVER.EVAL_PERIOD {looked}) and kept "
            f"(SOLVER.CHECKPOINT_PERIOD {kept}); set both alike (the launcher's --save-every does)"
        )


def _sampler_notices(cfg: CfgNode) -> Iterator[str]:
    sampler, supervised = cfg.DATALOADER.SAMPLER, cfg.MODEL.TRAINING_MODE == "supervised"
    if "triplet" in sampler:
        return
    if cfg.DATALOADER.PHASED.ENABLE:
        yield f"DATALOADER.PHASED.ENABLE is not used: DATALOADER.SAMPLER {sampler} draws no PxK batches"
    if not supervised:
        return
    if "triplet" in cfg.MODEL.METRIC_LOSS_TYPE and cfg.MODEL.NAME != IRRA:
        yield (
            f"DATALOADER.SAMPLER {sampler} draws no PxK batches, so the triplet loss is off "
            "(softmax_triplet turns it on)"
        )
    if cfg.LOSS.SUPCON.ENABLE:
        yield f"DATALOADER.SAMPLER {sampler} draws no PxK batches, so SupCon finds positives only by chance"


def _model_notices(cfg: CfgNode) -> Iterator[str]:
    supcon = cfg.LOSS.SUPCON
    if supcon.ENABLE and not supcon.CAM_AWARE and supcon.POS_RULE == "class+camera":
        yield "LOSS.SUPCON.CAM_AWARE False is not used: POS_RULE class+camera asks for positives of other cameras"
    if cfg.MODEL.NAME == "transformer" and cfg.MODEL.NECK == "no":
        yield "MODEL.NECK no applies to ResNet only; the transformer keeps its BNNeck"
    if cfg.MODEL.PRETRAIN_CHOICE == "none":
        for key in ("MODEL.LORA.RANK", "MODEL.FREEZE_BLOCKS"):
            if value_of(cfg, key):
                yield f"{key} {value_of(cfg, key)} keeps weights that MODEL.PRETRAIN_CHOICE none leaves random"
    if cfg.MODEL.TRAINING_MODE == "self_supervised" and (cfg.MODEL.SIE_CAMERA or cfg.MODEL.SIE_VIEW):
        yield "MODEL.SIE_* True: both views carry their image's camera and viewpoint, a hint that needs no look at them"
    solver = solver_of(cfg)
    if wants_center(cfg) and solver.CENTER_LOSS_WEIGHT == 0:
        yield f"the centre loss is off: {solver_key(cfg, 'CENTER_LOSS_WEIGHT')} is 0"
    yield from _idle_rates(cfg)
    epochs = warmup_epochs(cfg)
    if epochs >= solver.MAX_EPOCHS:
        name = "WARMUP_ITERS" if epochs == solver.WARMUP_ITERS else "WARMUP_EPOCHS"
        warmup, last, rate = (solver_key(cfg, key) for key in (name, "MAX_EPOCHS", "BASE_LR"))
        yield (f"{warmup} {epochs} covers all of {last} {solver.MAX_EPOCHS}: the learning rate never reaches {rate}")


def _idle_rates(cfg: CfgNode) -> Iterator[str]:
    """Yield the factors of 0 on learning rates, which leave weights as they begin."""
    heads = cfg.SOLVER.LARGE_FC_LR and cfg.SOLVER.NEW_LR_FACTOR == 1
    for name, acts, what in (
        ("NEW_LR_FACTOR", True, "what is no trunk, classifiers included, keeps its first weights"),
        ("FC_LR_FACTOR", heads, "classifiers keep their first weights"),
        ("BIAS_LR_FACTOR", True, "biases keep their first values"),
    ):
        if acts and cfg.SOLVER[name] == 0:
            yield f"SOLVER.{name} 0: {what}"


def _schedule_notices(cfg: CfgNode) -> Iterator[str]:
    phased, last_epoch = cfg.LOSS.PHASED, solver_of(cfg).MAX_EPOCHS
    plan = [first for first, _ in segments_of(cfg)]
    with_tripletx = [rules.epoch for rules in plan if rules.weights.get(TRIPLETX, 0) > 0]
    warmup = cfg.LOSS.TRIPLETX.WARMUP_EPOCHS
    if phased.ENABLE:
        yield from _surplus_entries(cfg)
        if min(phased.BOUNDARIES, default=2) == 1:
            yield "LOSS.PHASED.BOUNDARIES begins at epoch 1, so phase A has no epoch"
        late = [boundary for boundary in phased.BOUNDARIES if boundary > last_epoch]
        if late:
            yield (
                f"LOSS.PHASED.BOUNDARIES {late} lie past {solver_key(cfg, 'MAX_EPOCHS')} {last_epoch}: those phases "
                "never begin"
            )
        wanted = [kind for kind in phased.METRIC_SEQ if kind != "none"]
        if wanted and "triplet" not in cfg.MODEL.METRIC_LOSS_TYPE:
            yield f"LOSS.PHASED.METRIC_SEQ is not used: MODEL.METRIC_LOSS_TYPE is {cfg.MODEL.METRIC_LOSS_TYPE}"
    if cfg.LOSS.TRIPLETX.SOFT_WARMUP and with_tripletx and with_tripletx[0] >= warmup:
        yield (
            f"LOSS.TRIPLETX.SOFT_WARMUP never applies: TripletX starts at epoch {with_tripletx[0]}, and WARMUP_EPOCHS "
            f"{warmup} counts from epoch 1 of the run"
        )
    if cfg.LOSS.TRIPLETX.ENABLE and not with_tripletx:
        yield "LOSS.TRIPLETX.ENABLE is True, but no epoch gives TripletX a weight"
    if cfg.LOSS.SUPCON.ENABLE and not any(rules.weights.get(SUPCON, 0) > 0 for rules in plan):
        yield "LOSS.SUPCON.ENABLE is True, but no epoch gives SupCon a weight"
    if cfg.LOSS.BRIGHTNESS.ENABLE and not any(rules.routed for rules in plan):
        yield "LOSS.BRIGHTNESS.ENABLE: TripletX is never active, so nothing is routed; the dark share is logged"


def _surplus_entries(cfg: CfgNode) -> Iterator[str]:
    """Yield which lists of LOSS.PHASED have more entries than there are phases."""
    phased, phases = cfg.LOSS.PHASED, len(cfg.LOSS.PHASED.BOUNDARIES) + 1
    names = [name for name in ("METRIC_SEQ", "W_METRIC_SEQ", "W_SUP_SPEC") if is_set(cfg, f"LOSS.PHASED.{name}")]
    entries = {name: phased[name] for name in names}
    entries |= {f"W_TERMS {term}": specs for term, specs in map(parse_term_spec, phased.W_TERMS)}
    for name, given in entries.items():
        if len(given) > phases:
            yield f"LOSS.PHASED.{name} has {len(given)} entries for {phases} phases; the last ones never act"
