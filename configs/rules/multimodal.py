"""Rules between the keys of the system of several modalities, which data sets it reads, and which keys are idle."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import ALIGN, ALL, NAME, NORM, OFFICIAL
from configs.modalities import TEXT, VIS, parse_set, set_name
from configs.phases import Problem, segments_of
from configs.rules.captions import MASKS, find_caption_problems
from configs.rules.key_names import keys_of
from configs.rules.whole_clip import find_whole_clip_notices, find_whole_clip_problems
from configs.stages import solver_key, solver_of
from configs.titles import CAPTIONED, MULTIMODAL, OF_TRIALS, VISIBLE_INFRARED, names_of_tests
from configs.values import is_set, value_of

TABLE = "table"  # a data set that may have a column of modalities
READ = "MODEL.MULTIMODAL.MODALITIES"
GALLERY, QUERIES = "TEST.GALLERY_SET", "TEST.QUERY_SETS"
EXAMPLE = set_name(("nir", TEXT))
FROZEN = ("MODEL.MULTIMODAL.FREEZE_TEXT", "MODEL.MULTIMODAL.FREEZE_SHARED")
ALIEN = {  # keys that mean nothing here -> what to do
    ("MODEL.SIE_COE", "MODEL.RE_ARRANGE", "MODEL.SHIFT_NUM", "MODEL.SHUFFLE_GROUP", "MODEL.DEVIDE_LENGTH"): (
        "there are no side information and no jigsaw patches; leave them out"
    ),
    ("LOSS.TEXT.", "MODEL.CMT_"): "its loss between modalities is that of LOSS.ALIGN",
    ("LOSS.TRIPLET.BRANCHES",): "its losses on distances see the images of RGB alone",
    ("MODEL.ID_LOSS_TYPE",): "its identity loss is softmax",
}
IDLE = (  # keys of other systems, or their beginnings, that this one does not read
    *("MODEL.PROMPT", "MODEL.I2T_LOSS_WEIGHT", "LOSS.I2T.", "SOLVER.STAGE1.", "SOLVER.STAGE2.", "MODEL.VIT."),
    *("LOSS.GLOBAL_WEIGHT", "LOSS.SUPCON.FEAT_SRC"),
)
OWN = (  # its own keys, or their beginnings
    *("MODEL.MULTIMODAL.", "LOSS.ALIGN.", "LOSS.FEAT_NORM.", "DATASETS.TRIAL", QUERIES, GALLERY),
    *("TEST.AP_DEPTH", "TEST.MISSING"),
)
OF_TERMS = {  # terms -> keys that are read where they have a weight
    ALIGN: ("LOSS.ALIGN.T", "LOSS.ALIGN.FORM", "LOSS.ALIGN.START", "LOSS.ALIGN.RAMP"),
    NORM: ("LOSS.FEAT_NORM.TARGET", "LOSS.FEAT_NORM.BAND"),
}


def find_multimodal_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    yield from _data_problems(cfg)
    if cfg.MODEL.NAME != NAME:
        return
    yield from find_whole_clip_problems(cfg, cfg.MODEL.CLIP_BACKBONE)
    yield from _model_problems(cfg)
    for keys, instead in ALIEN.items():
        given = [key for key in keys_of(keys) if is_set(cfg, key)]
        if given:
            shown = ", ".join(f"{key} {value_of(cfg, key)}" for key in given)
            yield ((*given, "MODEL.NAME"), f"{shown}: not of MODEL.NAME {NAME}; {instead}")
    yield from find_caption_problems(cfg)
    modalities = list(_modality_problems(cfg))
    yield from modalities or _search_problems(cfg)


def _model_problems(cfg: CfgNode) -> Iterator[Problem]:
    settings = cfg.MODEL.MULTIMODAL
    if cfg.MODEL.CLIP_BACKBONE.startswith("RN"):
        yield (
            ("MODEL.CLIP_BACKBONE", "MODEL.NAME"),
            f"MODEL.CLIP_BACKBONE {cfg.MODEL.CLIP_BACKBONE} is a ResNet, MODEL.NAME {NAME} needs a ViT, to whose "
            "blocks it adds adapters; take e.g. ViT-B-16-quickgelu",
        )
    if settings.FREEZE_SHARED and settings.ALPHA == 0:
        yield (
            ("MODEL.MULTIMODAL.FREEZE_SHARED", "MODEL.MULTIMODAL.ALPHA"),
            "MODEL.MULTIMODAL.FREEZE_SHARED True with ALPHA 0: adapters that are scaled by 0 learn nothing, and "
            "nothing else of the blocks may; set ALPHA above 0, or FREEZE_SHARED False",
        )
    if cfg.TEST.NECK_FEAT == "before":
        yield (
            ("TEST.NECK_FEAT", "MODEL.NAME"),
            f"TEST.NECK_FEAT before: MODEL.NAME {NAME} aligns modalities after its neck; set it to after",
        )
    if cfg.MODEL.COMPILE:
        yield (
            ("MODEL.COMPILE", "MODEL.NAME"),
            f"MODEL.COMPILE True: MODEL.NAME {NAME} has captions of other lengths and other missing modalities in each "
            "step, and torch would compile for each of them; set it False",
        )


def _modality_problems(cfg: CfgNode) -> Iterator[Problem]:
    names = list(cfg.MODEL.MULTIMODAL.MODALITIES)
    if len(set(names)) < len(names):
        yield (READ,), f"{READ} got {names}, expected different ones"
    if VIS not in names:
        yield (READ,), f"{READ} {names} has no {VIS}, the RGB images that all others are aligned with; add it"
    elif not set(names) - {VIS}:
        yield (
            (READ,),
            f"{READ} {names} has nothing beside {VIS} to search with; add nir, sk, cp or text, or set another "
            "MODEL.NAME",
        )
    for key in ("DATASETS.NAMES", "DATASETS.TESTS"):
        sets = value_of(cfg, key)
        beyond = [name for name in names if name not in (VIS, "nir")]
        if beyond and sets and all(name in VISIBLE_INFRARED for name in sets):
            yield (
                (READ, key),
                f"{READ} {names}: {key} {list(sets)} has RGB and infrared images alone, no {', '.join(beyond)}; set "
                f"[{VIS}, nir]",
            )


def _search_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield what is wrong with what is searched with what, of a model whose modalities are sound."""
    names, gallery = list(cfg.MODEL.MULTIMODAL.MODALITIES), list(cfg.TEST.GALLERY_SET)
    alien = [name for name in gallery if name not in names]
    if not gallery or len(set(gallery)) < len(gallery):
        yield (GALLERY,), f"{GALLERY} got {gallery}, expected one or several different modalities"
    elif alien:
        yield (GALLERY, READ), f"{GALLERY} {gallery}: the model reads no {', '.join(alien)}; {READ} is {names}"
    elif set(names) == set(gallery):
        yield (GALLERY, READ), f"{GALLERY} {gallery} leaves no modality of {READ} {names} to search with"
    else:
        yield from _query_problems(cfg, names, gallery)


def _query_problems(cfg: CfgNode, names: list[str], gallery: list[str]) -> Iterator[Problem]:
    sets = list(cfg.TEST.QUERY_SETS)
    whole = [name for name in sets if name in (OFFICIAL, ALL)]
    if not sets or len(set(sets)) < len(sets) or (whole and len(sets) > 1):
        yield (
            (QUERIES,),
            f"{QUERIES} got {sets}, expected {OFFICIAL}, or {ALL}, or different names of sets such as {EXAMPLE}",
        )
        return
    for name in sets if not whole else ():
        try:
            members = parse_set(name)
        except ValueError as error:
            yield (QUERIES,), f"{QUERIES}: {error}; expected {OFFICIAL}, {ALL}, or names such as {EXAMPLE}"
            continue
        alien, found = [m for m in members if m not in names], [m for m in members if m in gallery]
        if alien:
            yield (QUERIES, READ), f"{QUERIES}: the model reads no {', '.join(alien)} of {name}; {READ} is {names}"
        elif found:
            yield (
                (QUERIES, GALLERY),
                f"{QUERIES}: {', '.join(found)} of {name} is in {GALLERY} {gallery} too, where its items would find "
                "themselves; leave it out of one of them",
            )


def _data_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield the data sets of one modality for the system that reads several, and those of several for any other."""
    reads = cfg.MODEL.NAME == NAME
    if reads:
        why = (
            f"has images alone, MODEL.NAME {NAME} learns from several modalities; name {', '.join(MULTIMODAL)}, or "
            f"{TABLE} with a column modality"
        )
    else:
        why = (
            f"has several modalities, which MODEL.NAME {NAME} reads, not {cfg.MODEL.NAME}; set another data set or "
            "model"
        )
    told = (TABLE, *CAPTIONED) if cfg.MODEL.NAME != IRRA else (TABLE, *CAPTIONED, *MULTIMODAL)  # by the rules of IRRA
    for key in ("DATASETS.NAMES", "DATASETS.TESTS"):
        wrong = [name for name in value_of(cfg, key) if name not in told and (name in MULTIMODAL) != reads]
        if wrong:
            yield (key, "MODEL.NAME"), f"{key}: {', '.join(wrong)} {why}"


def find_multimodal_notices(cfg: CfgNode) -> Iterator[str]:
    """Yield one line for what a user of several modalities may miss, and for every key that is set and not read."""
    if cfg.MODEL.NAME != NAME:
        of_trials = bool({*OF_TRIALS} & {*cfg.DATASETS.NAMES, *names_of_tests(cfg)})
        own = [key for key in keys_of(OWN) if is_set(cfg, key) and not (key == "DATASETS.TRIAL" and of_trials)]
        if own:
            yield f"{', '.join(own)}: not used by MODEL.NAME {cfg.MODEL.NAME}"
        return
    yield from find_whole_clip_notices(cfg, tuple(keys_of(IDLE)), read=("MODEL.DROP_PATH",))
    acting = {
        name for first, last in segments_of(cfg) for name in OF_TERMS if first.weights[name] or last.weights[name]
    }
    for keys, why in _without_effect(cfg, acting):
        idle = [key for key in keys if is_set(cfg, key)]
        if idle:
            yield f"{', '.join(idle)}: not used, {why}"
    align = cfg.LOSS.ALIGN
    if ALIGN not in acting and align.W > 0:
        yield (
            f"LOSS.ALIGN.W {align.W:g} never acts: LOSS.ALIGN.START {align.START} lies past "
            f"{solver_key(cfg, 'MAX_EPOCHS')} {solver_of(cfg).MAX_EPOCHS}"
        )
    frozen = [key for key in FROZEN if value_of(cfg, key)]
    if frozen and cfg.MODEL.PRETRAIN_CHOICE == "none":
        yield f"{', '.join(frozen)} True keeps weights that MODEL.PRETRAIN_CHOICE none leaves random"


def _without_effect(cfg: CfgNode, acting: set[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (keys, why they are not read) of a configuration in which the terms `acting` have a weight somewhere."""
    names = cfg.MODEL.MULTIMODAL.MODALITIES
    if TEXT not in names:
        yield ("MODEL.MULTIMODAL.FREEZE_TEXT",), f"{READ} {list(names)} has no {TEXT}"
    elif not cfg.INPUT.TEXT.MASK_CAPTION:
        yield MASKS, "INPUT.TEXT.MASK_CAPTION False masks no word"
    if len(names) == 2:
        yield ("MODEL.MULTIMODAL.MODALITY_DROPOUT",), f"{READ} {list(names)} has one to search with"
    for term, keys in OF_TERMS.items():
        if term not in acting:
            yield keys, f"no epoch gives the term {term} a weight"
    tests = names_of_tests(cfg)
    if not cfg.DATASETS.VAL_IDS and all(name in VISIBLE_INFRARED for name in tests):
        yield (QUERIES, GALLERY), f"what searches what is fixed by the protocol of {', '.join(tests)}"
    if not {*OF_TRIALS} & {*cfg.DATASETS.NAMES, *tests}:
        of_several = ", ".join(name for name in OF_TRIALS if name in MULTIMODAL)
        yield ("DATASETS.TRIAL",), f"{of_several} alone has trials that are trained"
