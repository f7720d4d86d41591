"""What is refused and what is said about configurations of several modalities."""

from pathlib import Path

import pytest

from configs import find_notices, load_cfg, restore_cfg
from utils.errors import ConfigError

MARKET = Path(__file__).parents[3] / "configs/Market/vit_base.yml"
RECIPE = """
MODEL:
  NAME: multimodal
  CLIP_BACKBONE: ViT-B-16-quickgelu
  CLIP_PRETRAIN: openai
  DROP_PATH: 0.15
  METRIC_LOSS_TYPE: none
  STRIDE_SIZE: [16, 16]
INPUT:
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TEXT: {MASK_CAPTION: True}
DATASETS: {NAMES: [orbench]}
DATALOADER: {SAMPLER: softmax_triplet}
SOLVER: {BASE_LR: 1.0e-5, NEW_LR_FACTOR: 5.0, IMS_PER_BATCH: 32, SCHEDULER: warmup_cosine, GRAD_CLIP_QUANTILE: 0.7}
"""
READ, GALLERY, QUERIES = "MODEL.MULTIMODAL.MODALITIES", "TEST.GALLERY_SET", "TEST.QUERY_SETS"
VIEWS = ("DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", True)
TWO = (READ, ["vis", "nir"])
ALIEN = "not of MODEL.NAME multimodal; "
MULTIMODAL = ["orbench", "synthetic_orbench", "sysu_mm01", "regdb", "llcm"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The published recipe's keys, as far as they differ from the defaults here."""
    path = tmp_path / "multimodal.yml"
    path.write_text(RECIPE)
    return path


def refusal_of(path: Path, *opts: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_cfg(path, opts)
    return str(caught.value)


def test_the_recipe_has_nothing_to_hear(recipe):
    assert find_notices(load_cfg(recipe)) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["text", "nir", "vis"], ("vis", "nir", "text")),
        (["TXT", "Infrared", "RGB"], ("vis", "nir", "text")),
        ("('coloredpencil', 'v')", ("vis", "cp")),
    ],
)
def test_modalities_get_their_own_names_in_one_order(recipe, given, expected):
    cfg = load_cfg(recipe, (READ, given))
    assert expected == cfg.MODEL.MULTIMODAL.MODALITIES
    assert expected == restore_cfg(cfg.dump(), "saved").MODEL.MULTIMODAL.MODALITIES


def test_sets_get_their_own_names(recipe):
    cfg = load_cfg(recipe, (QUERIES, ["ir+txt", "TEXT + nir", "sketch"], GALLERY, ["RGB"]))
    assert cfg.TEST.QUERY_SETS == ("NIR+TEXT", "TEXT+NIR", "SK") and cfg.TEST.GALLERY_SET == ("vis",)
    assert load_cfg(recipe, (QUERIES, "All")).TEST.QUERY_SETS == ("all",)


@pytest.mark.parametrize(
    "opts",
    [
        (GALLERY, ["nir"]),
        (GALLERY, ["vis", "cp"], QUERIES, ["all"]),
        (GALLERY, ["nir"], QUERIES, ["VIS+TEXT"]),
        ("DATASETS.NAMES", ["table"], "DATASETS.TABLE", "mine.csv"),
        ("DATASETS.NAMES", ["sysu_mm01"], *TWO),
        ("DATASETS.NAMES", ["orbench", "llcm"]),
        (*TWO, "MODEL.MULTIMODAL.FREEZE_SHARED", True),
        ("LOSS.ALIGN.FORM", "kl"),
    ],
)
def test_what_is_sound_is_accepted(recipe, opts):
    assert find_notices(load_cfg(recipe, opts)) == []


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ((READ, ["vis"]), f"{READ} ['vis'] has nothing beside vis to search with; add nir, sk, cp or text"),
        ((READ, ["nir", "text"]), f"{READ} ['nir', 'text'] has no vis, the RGB images"),
        ((READ, ["vis", "rgb", "nir"]), f"{READ} got ['vis', 'vis', 'nir'], expected different ones"),
        ((READ, []), f"{READ} [] has no vis"),
        ((READ, ["vis", "thermal"]), f"{READ} got 'thermal', allowed: vis, nir, sk, cp, text, rgb"),
        ((READ, "vis+nir"), f"{READ} got 'vis+nir', allowed: vis, nir"),
        (("DATASETS.NAMES", ["regdb"]), "DATASETS.NAMES ['regdb'] has RGB and infrared images alone, no sk, cp, text"),
        (("DATASETS.TESTS", ["llcm"]), "DATASETS.TESTS ['llcm'] has RGB and infrared images alone"),
        (("DATASETS.NAMES", ["veri"]), "DATASETS.NAMES: veri has images alone, MODEL.NAME multimodal learns from"),
        (("DATASETS.TESTS", ["orbench", "veri"]), "DATASETS.TESTS: veri has images alone"),
        (("DATASETS.NAMES", ["RSTPReid"]), "RSTPReid has captions in place of cameras and queries"),
        (("DATASETS.NAMES", ["table"]), "DATASETS.TABLE (columns path,pid,modality,caption,split)"),
        ((GALLERY, []), f"{GALLERY} got [], expected one or several different modalities"),
        ((GALLERY, ["vis", "RGB"]), f"{GALLERY} got ['vis', 'vis'], expected one or several different"),
        ((GALLERY, ["sk"], *TWO), f"{GALLERY} ['sk']: the model reads no sk; {READ} is ['vis', 'nir']"),
        ((GALLERY, ["vis", "nir"], *TWO), f"{GALLERY} ['vis', 'nir'] leaves no modality of {READ}"),
        ((GALLERY, ["images"]), f"{GALLERY} got 'images', allowed: vis"),
        ((QUERIES, []), f"{QUERIES} got [], expected official, or all, or different names of sets such as NIR+TEXT"),
        ((QUERIES, ["NIR", "ir"]), f"{QUERIES} got ['NIR', 'NIR'], expected official"),
        ((QUERIES, ["official", "NIR"]), f"{QUERIES} got ['official', 'NIR'], expected official"),
        ((QUERIES, ["NIR+depth"]), f"{QUERIES}: 'depth' is no modality; there are vis, nir"),
        ((QUERIES, ["MM-1"]), f"{QUERIES}: 'MM-1' is no modality"),
        ((QUERIES, ["NIR+ir"]), f"{QUERIES}: the set 'NIR+ir' names a modality twice"),
        ((QUERIES, ["NIR", "TEXT"], *TWO), f"{QUERIES}: the model reads no text of TEXT; {READ} is"),
        ((QUERIES, ["NIR+VIS"]), f"{QUERIES}: vis of NIR+VIS is in {GALLERY} ['vis'] too"),
        ((QUERIES, ["NIR"], GALLERY, ["nir"]), f"{QUERIES}: nir of NIR is in {GALLERY} ['nir'] too"),
        (("TEST.NECK_FEAT", "before"), "TEST.NECK_FEAT before: MODEL.NAME multimodal aligns modalities after its neck"),
        (("TEST.AP_DEPTH", 0), "TEST.AP_DEPTH got 0"),
        (("TEST.PART_WEIGHTS", [1.0, 2.0]), "TEST.PART_WEIGHTS [1.0, 2.0] has 2 weights, the embedding of this model"),
        (
            ("MODEL.MULTIMODAL.FREEZE_SHARED", True, "MODEL.MULTIMODAL.ALPHA", 0),
            "MODEL.MULTIMODAL.FREEZE_SHARED True with ALPHA 0: adapters that are scaled by 0 learn nothing",
        ),
        (("MODEL.MULTIMODAL.RANK", 0), "MODEL.MULTIMODAL.RANK got 0"),
        (("MODEL.MULTIMODAL.MODALITY_DROPOUT", 1.5), "MODEL.MULTIMODAL.MODALITY_DROPOUT got 1.5"),
        (("MODEL.SIE_CAMERA", True), "MODEL.SIE_CAMERA True needs MODEL.NAME transformer, got multimodal"),
        (("MODEL.JPM", True), "MODEL.JPM True needs MODEL.NAME transformer, got multimodal"),
        (("MODEL.SIE_COE", 2.0), f"MODEL.SIE_COE 2.0: {ALIEN}there are no side information"),
        (("MODEL.LORA.RANK", 4), "MODEL.LORA.RANK 4 needs the blocks of MODEL.NAME transformer"),
        (("MODEL.FREEZE_BLOCKS", 2), "MODEL.FREEZE_BLOCKS 2 needs the blocks of MODEL.NAME transformer"),
        (("SOLVER.LAYER_DECAY", 0.7), "SOLVER.LAYER_DECAY 0.7 needs the blocks of MODEL.NAME transformer"),
        (("MODEL.USE_CLIP", True), "MODEL.USE_CLIP True needs MODEL.NAME transformer, got multimodal"),
        (("LOSS.TEXT.NAMES", ["sdm"]), f"LOSS.TEXT.NAMES ('sdm',): {ALIEN}its loss between modalities"),
        (("MODEL.CMT_DEPTH", 6), f"MODEL.CMT_DEPTH 6: {ALIEN}"),
        (("LOSS.TRIPLET.BRANCHES", "global"), f"LOSS.TRIPLET.BRANCHES global: {ALIEN}its losses on distances see"),
        (("LOSS.BRANCHES.DRAWS", 2), "LOSS.BRANCHES.DRAWS 2: MODEL.NAME multimodal has no branches of images"),
        (("LOSS.SPECTRAL.W", 0.5), "the spectral transform is that of MODEL.NAME pcb, got multimodal"),
        (("MODEL.ID_LOSS_TYPE", "arcface"), f"MODEL.ID_LOSS_TYPE arcface: {ALIEN}its identity loss is softmax"),
        (("DISTILL.TEACHER_RUN", "runs/a"), "MODEL.NAME multimodal learns from several modalities, a teacher teaches"),
        (("MODEL.TRAINING_MODE", "self_supervised", *VIEWS), "MODEL.TRAINING_MODE self_supervised knows no identities"),
        (("MODEL.COMPILE", True), "MODEL.COMPILE True: MODEL.NAME multimodal has captions of other lengths"),
        (("MODEL.CLIP_IMPL", "hf"), "MODEL.CLIP_IMPL hf: MODEL.NAME multimodal is made of open_clip's modules"),
        (("MODEL.CLIP_BACKBONE", "RN50"), "MODEL.CLIP_BACKBONE RN50 is a ResNet, MODEL.NAME multimodal needs a ViT"),
        (("INPUT.SIZE_TEST", [256, 128]), "INPUT.SIZE_TEST [256, 128] differs from INPUT.SIZE_TRAIN [384, 128]"),
        (
            ("INPUT.TEXT.MASK_SHARE", 0.95),
            "INPUT.TEXT.MASK_SHARE 0.95 and KEEP_SHARE 0.1 are shares of the same tokens",
        ),
        (("SOLVER.STAGES", ["stage1"]), "SOLVER.STAGES got ('stage1',), allowed for MODEL.NAME multimodal: main"),
        (
            ("MODEL.ID_LOSS_WEIGHT", 0, "LOSS.FEAT_NORM.W", 0),
            "no loss is left in epoch 1, 2, 3, ...: ",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(recipe, opts, words):
    message = refusal_of(recipe, *opts)
    assert words in message and "\n" not in message


@pytest.mark.parametrize("key", ["DATASETS.NAMES", "DATASETS.TESTS"])
def test_sets_of_several_modalities_are_for_their_system_alone(recipe, key):
    words = f"{key}: {', '.join(MULTIMODAL)} has several modalities, which MODEL.NAME multimodal reads, not transformer"
    assert words in refusal_of(MARKET, key, MULTIMODAL)
    assert load_cfg(recipe, (key, MULTIMODAL, *TWO)).DATASETS[key.split(".")[1]] == tuple(MULTIMODAL)


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (
            (*TWO, "MODEL.MULTIMODAL.FREEZE_TEXT", True),
            f"MODEL.MULTIMODAL.FREEZE_TEXT: not used, {READ} ['vis', 'nir'] has no text",
        ),
        (
            ("INPUT.TEXT.MASK_CAPTION", False, "INPUT.TEXT.MASK_RATE", 0.3),
            "INPUT.TEXT.MASK_RATE: not used, INPUT.TEXT.MASK_CAPTION False masks no word",
        ),
        (
            (READ, ["vis", "text"], "MODEL.MULTIMODAL.MODALITY_DROPOUT", 0.3, "TEST.MISSING", True),
            f"MODEL.MULTIMODAL.MODALITY_DROPOUT: not used, {READ} ['vis', 'text'] has one to search with",
        ),
        (("LOSS.ALIGN.W", 0, "LOSS.ALIGN.T", 0.2), "LOSS.ALIGN.T: not used, no epoch gives the term align a weight"),
        (
            ("LOSS.FEAT_NORM.W", 0, "LOSS.FEAT_NORM.BAND", 1),
            "LOSS.FEAT_NORM.BAND: not used, no epoch gives the term norm a weight",
        ),
        (("DATASETS.TRIAL", 3), "DATASETS.TRIAL: not used, regdb alone has trials that are trained"),
        (("MODEL.DROP_OUT", 0.2), "MODEL.DROP_OUT: not used by MODEL.NAME multimodal"),
        (("MODEL.PROMPT", "A {}."), "MODEL.PROMPT: not used by MODEL.NAME multimodal"),
        (("TEST.I2T", True), "TEST.I2T: not used by MODEL.NAME multimodal"),
        (("LOSS.SUPCON.FEAT_SRC", "pre_bn"), "LOSS.SUPCON.FEAT_SRC: not used by MODEL.NAME multimodal"),
        (
            ("MODEL.PRETRAIN_CHOICE", "none", "MODEL.MULTIMODAL.FREEZE_TEXT", True),
            "MODEL.MULTIMODAL.FREEZE_TEXT True keeps weights that MODEL.PRETRAIN_CHOICE none leaves random",
        ),
        (("INPUT.PIXEL_MEAN", [0.5, 0.5, 0.5]), "images are normalised by mean [0.5, 0.5, 0.5]"),
    ],
)
def test_what_a_user_may_miss_is_one_line(recipe, opts, words):
    (notice,) = find_notices(load_cfg(recipe, opts))
    assert notice.startswith(words)


def test_alignment_that_starts_after_the_last_epoch_is_told(recipe):
    notices = find_notices(load_cfg(recipe, ("LOSS.ALIGN.START", 500, "SOLVER.MAX_EPOCHS", 100)))
    assert "LOSS.ALIGN.W 0.1 never acts: LOSS.ALIGN.START 500 lies past SOLVER.MAX_EPOCHS 100" in notices


def test_a_weight_by_phase_makes_the_alignment_act(recipe):
    phases = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [10], "LOSS.PHASED.METRIC_SEQ", ["none"])
    weights = ("LOSS.PHASED.W_TERMS", ["align=const:0.0|const:0.5"], "LOSS.ALIGN.W", 0, "LOSS.ALIGN.T", 0.2)
    assert not [notice for notice in find_notices(load_cfg(recipe, (*phases, *weights))) if "LOSS.ALIGN" in notice]


def test_keys_of_several_modalities_are_told_to_be_idle_elsewhere():
    keys = {READ: ["vis", "text"], "LOSS.ALIGN.W": 0.5, "DATASETS.TRIAL": 2, QUERIES: ["all"], "TEST.MISSING": True}
    notices = find_notices(load_cfg(MARKET, [word for pair in keys.items() for word in pair]))
    assert f"{', '.join(keys)}: not used by MODEL.NAME transformer" in notices
