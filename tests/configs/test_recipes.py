"""The recipes in configs/ against a table written by hand from the YAMLs that TransReID publishes."""

import re

import pytest

from configs import get_cfg_defaults
from configs.keys import KEYS
from tests.configs.recipes import (
    FILES,
    RECIPE_FILES,
    ROOT,
    flat,
    header,
    load,
    name_of,
    on_timm_trunk,
    raw,
    resolve_recipe,
    transreid_defaults,
)

# recipe, data set, type, stride, SIE (cam, both, -), JPM (shift or -), size, RE_PROB, LR, batch, mean/std (.5 or IN)
TABLE = """
transformer_base                    dukemtmc    vit_base    16  -     -  256x256  .5  .008  64   .5
Market/vit_base                     market1501  vit_base    16  -     -  256x128  .5  .008  64   .5
Market/vit_sie                      market1501  vit_base    16  cam   -  256x128  .5  .008  64   .5
Market/vit_jpm                      market1501  vit_base    16  -     5  256x128  .5  .008  64   .5
Market/vit_transreid                market1501  vit_base    16  cam   5  256x128  .5  .008  64   .5
Market/vit_transreid_stride         market1501  vit_base    12  cam   5  256x128  .5  .008  64   .5
Market/vit_transreid_384            market1501  vit_base    16  cam   5  384x128  .5  .008  64   .5
Market/vit_transreid_stride_384     market1501  vit_base    12  cam   5  384x128  .5  .008  64   .5
Market/deit_transreid_stride        market1501  deit_base   12  cam   5  256x128  .8  .008  64   .5
DukeMTMC/vit_base                   dukemtmc    vit_base    16  -     -  256x128  .5  .008  64   .5
DukeMTMC/vit_sie                    dukemtmc    vit_base    16  cam   -  256x128  .5  .008  64   .5
DukeMTMC/vit_jpm                    dukemtmc    vit_base    16  -     5  256x128  .5  .008  64   .5
DukeMTMC/vit_transreid              dukemtmc    vit_base    16  cam   5  256x128  .5  .008  64   .5
DukeMTMC/vit_transreid_stride       dukemtmc    vit_base    12  cam   5  256x128  .5  .008  64   .5
DukeMTMC/vit_transreid_384          dukemtmc    vit_base    16  cam   5  384x128  .5  .008  64   .5
DukeMTMC/vit_transreid_stride_384   dukemtmc    vit_base    12  cam   5  384x128  .5  .008  64   .5
DukeMTMC/deit_transreid_stride      dukemtmc    deit_base   12  cam   5  256x128  .8  .008  64   .5
MSMT17/vit_base                     msmt17      vit_base    16  -     -  256x128  .5  .008  64   .5
MSMT17/vit_sie                      msmt17      vit_base    16  cam   -  256x128  .5  .008  64   .5
MSMT17/vit_jpm                      msmt17      vit_base    16  -     5  256x128  .5  .008  64   .5
MSMT17/vit_transreid                msmt17      vit_base    16  cam   5  256x128  .5  .008  64   .5
MSMT17/vit_transreid_stride         msmt17      vit_base    12  cam   5  256x128  .5  .008  64   .5
MSMT17/vit_transreid_384            msmt17      vit_base    16  cam   5  384x128  .5  .008  64   .5
MSMT17/vit_transreid_stride_384     msmt17      vit_base    12  cam   5  384x128  .5  .008  64   .5
MSMT17/deit_transreid_stride        msmt17      deit_base   12  cam   5  256x128  .8  .005  64   .5
MSMT17/deit_small                   msmt17      deit_small  16  -     -  256x128  .8  .005  64   .5
MSMT17/vit_small                    msmt17      vit_small   16  -     -  256x128  .8  .005  64   .5
OCC_Duke/vit_base                   occ_duke    vit_base    16  -     -  256x128  .5  .008  64   .5
OCC_Duke/vit_sie                    occ_duke    vit_base    16  cam   -  256x128  .5  .008  64   .5
OCC_Duke/vit_jpm                    occ_duke    vit_base    16  -     5  256x128  .5  .008  64   .5
OCC_Duke/vit_transreid              occ_duke    vit_base    16  cam   5  256x128  .5  .008  64   .5
OCC_Duke/vit_transreid_stride       occ_duke    vit_base    11  cam   5  256x128  .5  .008  64   .5
OCC_Duke/deit_transreid_stride      occ_duke    deit_base   11  cam   5  256x128  .8  .008  64   .5
VeRi/vit_base                       veri        vit_base    16  -     -  256x256  .5  .008  64   .5
VeRi/vit_transreid                  veri        vit_base    16  both  8  256x256  .5  .01   64   .5
VeRi/vit_transreid_stride           veri        vit_base    12  both  8  256x256  .5  .01   64   .5
VeRi/deit_transreid                 veri        deit_base   16  both  8  256x256  .8  .01   64   IN
VeRi/deit_transreid_stride          veri        deit_base   12  both  8  256x256  .8  .01   64   IN
VehicleID/vit_base                  VehicleID   vit_base    16  -     -  256x256  .5  .04   224  .5
VehicleID/vit_transreid             VehicleID   vit_base    16  -     8  256x256  .5  .045  224  .5
VehicleID/vit_transreid_stride      VehicleID   vit_base    12  -     8  256x256  .5  .045  256  .5
VehicleID/deit_transreid            VehicleID   deit_base   16  -     8  256x256  .8  .03   256  IN
VehicleID/deit_transreid_stride     VehicleID   deit_base   12  -     8  256x256  .8  .03   256  IN
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]

CONSTANTS = {
    "MODEL.NAME": "transformer",
    "MODEL.NO_MARGIN": True,
    "MODEL.IF_LABELSMOOTH": "off",
    "DATASETS.ROOT_DIR": "data",
    "DATALOADER.SAMPLER": "softmax_triplet",
    "DATALOADER.NUM_INSTANCE": 4,
    "SOLVER.OPTIMIZER_NAME": "SGD",
    "SOLVER.MAX_EPOCHS": 120,
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_BIAS": 1e-4,
    "SOLVER.CHECKPOINT_PERIOD": 120,
    "SOLVER.EVAL_PERIOD": 120,
    "SOLVER.LOG_PERIOD": 50,
    "TEST.IMS_PER_BATCH": 256,
    "TEST.NECK_FEAT": "before",
}


def expected_values(row: list[str]) -> dict:
    name, data, kind, stride, sie, jpm, size, erasing, rate, batch, stats = row
    height, width = map(int, size.split("x"))
    values = {
        "MODEL.TRANSFORMER_TYPE": f"{kind}_patch16_224_TransReID",
        "MODEL.STRIDE_SIZE": [int(stride)] * 2,
        "MODEL.SIE_CAMERA": sie in ("cam", "both"),
        "MODEL.SIE_VIEW": sie == "both",
        "MODEL.JPM": jpm != "-",
        "MODEL.SHIFT_NUM": 5 if jpm == "-" else int(jpm),
        "MODEL.DIST_TRAIN": name.startswith("VehicleID/deit"),
        "INPUT.SIZE_TRAIN": [height, width],
        "INPUT.SIZE_TEST": [height, width],
        "INPUT.RE_PROB": float(erasing),
        "INPUT.PIXEL_MEAN": [0.5, 0.5, 0.5] if stats == ".5" else [0.485, 0.456, 0.406],
        "INPUT.PIXEL_STD": [0.5, 0.5, 0.5] if stats == ".5" else [0.229, 0.224, 0.225],
        "DATASETS.NAMES": (data,),
        "SOLVER.BASE_LR": float(rate),
        "SOLVER.IMS_PER_BATCH": int(batch),
    }
    if kind == "vit_small":
        values["MODEL.PRETRAIN_PATH"] = "pretrained/vit_small_p16_224-15ec54c9.pth"
    return CONSTANTS | values


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_recipe_resolves_to_the_table_and_to_the_defaults_elsewhere(row):
    resolved = resolve_recipe(row[0])
    assert resolved.pop("OUTPUT_DIR").startswith("logs/")
    wanted = transreid_defaults() | expected_values(row)
    del wanted["OUTPUT_DIR"]
    assert resolved == wanted


OTHERS = ("VeRi/deit_transreid_stride_", "VeRi/tiny_", "Market/tiny_")  # Model B's and this project's own
OTHERS += ("Market/pcb_", "Market/r50_", "Market/r101_")  # PCB's
OTHERS += ("Market/resnet50", "VeRi/resnet50")  # the strong baseline of a CNN


def test_every_variant_of_transreid_is_in_the_table():
    names = [row[0] for row in ROWS]
    assert len(names) == len(set(names)) == 43
    for folder in ("VeRi", "Market", "DukeMTMC", "MSMT17", "OCC_Duke", "VehicleID"):
        on_disk = {f"{folder}/{path.stem}" for path in RECIPE_FILES if path.parent.name == folder}
        on_disk = {name for name in on_disk if not (name.startswith(OTHERS) or on_timm_trunk(name))}
        on_disk = {name for name in on_disk if not load(name).DISTILL.TEACHER_RUN}
        assert on_disk == {name for name in names if name.startswith(f"{folder}/")}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_file_starts_with_a_comment_and_sets_only_what_differs_from_its_base(path):
    assert header(path), "the first line is no comment"
    values = raw(path)
    base_name = values.pop("_BASE_", None)
    base = flat(load(name_of((path.parent / base_name).resolve())) if base_name else get_cfg_defaults())
    if base_name is None:
        values.pop("MODEL.NAME")  # which such a file has to set
    resolved = resolve_recipe(name_of(path))
    assert [key for key in values if resolved[key] == base[key]] == []
    assert [key for key in values if KEYS[key].instead or key == "TEST.WEIGHT"] == []


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_file_holds_no_absolute_path(path):
    texts = [str(value) for value in raw(path).values()]
    assert [text for text in texts if re.match(r"[/~\\]|[A-Za-z]:[/\\]", text)] == []


@pytest.mark.parametrize("path", RECIPE_FILES, ids=[str(path.relative_to(ROOT)) for path in RECIPE_FILES])
def test_recipe_names_the_command_that_runs_it(path):
    lines = header(path).splitlines()
    command = f"(run_phased_loss.py --config|train.py --config_file) {re.escape(path.relative_to(ROOT).as_posix())}"
    assert [line for line in lines if re.search(command, line)] != []


def test_no_two_recipes_share_a_run_folder():
    folders = [load(name_of(path)).OUTPUT_DIR for path in RECIPE_FILES]
    assert "" not in folders
    assert len(set(folders)) == len(folders)


def test_a_recipe_without_jpm_and_sie_lines_has_neither():
    cfg = load("Market/vit_base")
    assert (cfg.MODEL.JPM, cfg.MODEL.SIE_CAMERA, cfg.MODEL.SIE_VIEW) == (False, False, False)
