"""Each key of model, pixels and tests: what it declares about the embedding is what the same weights do under it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from configs.keys import KEYS, affects
from datasets.decode import read_image
from datasets.tokens import tokenize
from model import make_model
from model.layers.lora import merge_lora
from processor.evaluation.embed import embed_batch, make_embedding
from tests.model import clips
from tests.model.builds import TINY_VIT, make_cfg
from tests.model.clip_reids import VIT as VIT_CLIP
from tests.model.clip_reids import write_clip
from tests.model.irras import irra_cfg, make_irra
from tests.model.multimodals import inputs_of, make_multimodal
from utils.errors import ConfigError, DataError

CLASSES, CAMERAS, VIEWS = 5, 3, 2
EXACT = ("TEST.AMP", "off", "TEST.NECK_FEAT", "before")
SIDES = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True)
SIZE = ("INPUT.SIZE_TRAIN", [32, 24], "INPUT.SIZE_TEST", [32, 24])
VIT = (*TINY_VIT, *EXACT, *SIDES, "MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 2, "MODEL.SHIFT_NUM", 2)
RESNET = ("MODEL.NAME", "resnet50", *SIZE, *EXACT)
PCB = (
    *("MODEL.NAME", "pcb", "MODEL.PCB.TRUNK", "tiny", "MODEL.PCB.PARTS", 2, *SIZE, *EXACT),
    *("MODEL.PCB.PART_DIM", 4, "MODEL.PCB.GLOBAL_DIM", 4),
)
LORA = (*TINY_VIT, *EXACT, "MODEL.LORA.RANK", 2)
ON_VIT = {  # key -> another value than in VIT or the defaults
    **{"MODEL.STRIDE_SIZE": [4, 8], "MODEL.JPM": False, "MODEL.SHIFT_NUM": 4, "MODEL.SHUFFLE_GROUP": 3},
    **{"MODEL.DEVIDE_LENGTH": 3, "MODEL.RE_ARRANGE": False, "MODEL.SIE_COE": 1.0, "MODEL.SIE_CAMERA": False},
    **{"MODEL.SIE_VIEW": False, "MODEL.VIT.EMBED_DIM": 48, "MODEL.VIT.DEPTH": 2, "MODEL.VIT.NUM_HEADS": 4},
    **{"MODEL.VIT.MLP_RATIO": 2.0, "MODEL.VIT.PATCH_SIZE": 4, "MODEL.FREEZE_BLOCKS": 1, "MODEL.NAME": "resnet50"},
    **{"MODEL.TRANSFORMER_TYPE": "timm/deit3_small_patch16_224", "MODEL.TRAINING_MODE": "self_supervised"},
    **{"MODEL.PRETRAIN_PATH": "x.pth", "MODEL.PRETRAIN_CHOICE": "imagenet", "MODEL.IF_WITH_CENTER": "yes"},
    **{"MODEL.ID_LOSS_TYPE": "arcface", "MODEL.ID_LOSS_WEIGHT": 0.5, "MODEL.TRIPLET_LOSS_WEIGHT": 0.5},
    **{"MODEL.METRIC_LOSS_TYPE": "none", "MODEL.DIST_TRAIN": True, "MODEL.SYNC_BN": False, "MODEL.COMPILE": True},
    **{"MODEL.NO_MARGIN": True, "MODEL.IF_LABELSMOOTH": "off", "MODEL.COS_LAYER": True, "MODEL.DROP_PATH": 0.5},
    **{"MODEL.DROP_OUT": 0.5, "MODEL.ATT_DROP_RATE": 0.5, "INPUT.SIZE_TEST": [40, 24], "INPUT.PROB": 0.1},
    **{"INPUT.RE_AREA": [0.1, 0.2], "INPUT.RE_VALUE": "black", "INPUT.RE_ASPECT": 0.5, "INPUT.JITTER": [0.1] * 4},
    **{"INPUT.RE_PROB": 0.1, "INPUT.PADDING": 3, "INPUT.PIXEL_MEAN": [0.5] * 3, "INPUT.PIXEL_STD": [0.5] * 3},
    **{"INPUT.FILTER_TRAIN": "lanczos", "INPUT.FILTER_TEST": "bicubic", "INPUT.DECODER": "pillow"},
    **{"INPUT.SSL.CROP_SCALE": [0.5, 1.0], "INPUT.SSL.CROP_RATIO": [0.5, 1.0], "INPUT.SSL.JITTER": [0.1] * 4},
    **{"INPUT.SSL.JITTER_PROB": 0.1, "INPUT.SSL.GREY_PROB": 0.1, "TEST.IMS_PER_BATCH": 7, "TEST.NECK_FEAT": "after"},
    **{"TEST.FEAT_NORM": "no", "TEST.FLIP": True, "TEST.AMP": "bf16", "TEST.WEIGHT": "x.pth", "TEST.REPORT": False},
    **{"TEST.PART_WEIGHTS": (1.0, 0.5, 0.0), "TEST.BRANCHES": True},
    **{"MODEL.ATTENTION": "written_out", "MODEL.PATCHES": "product", "TEST.LINEAR": "packed"},
}
ON_VIT_IN_BF16 = {"MODEL.RESIDUAL": "amp"}
ON_RESNET = {"MODEL.LAST_STRIDE": 2, "MODEL.RESNET_STEM": "transreid", "MODEL.NECK": "no"}
ON_PCB = {
    **{"MODEL.PCB.TRUNK": "resnet18", "MODEL.PCB.PARTS": 4, "MODEL.PCB.PART_DIM": 5, "MODEL.PCB.GLOBAL_DIM": 5},
    **{"MODEL.PCB.PART_POOL": "avg", "MODEL.PCB.GLOBAL_POOL": "avg", "MODEL.PCB.DROPOUT": 0.1},
    **{"MODEL.PCB.PART_NORM": True, "MODEL.PCB.OWN_STAGE4": True, "MODEL.PCB.GATE": True},
    **{"MODEL.PCB.GLOBAL_ERASE": 0.5, "MODEL.PCB.PART_ERASE": 0.5},
}
ON_LORA = {"MODEL.LORA.RANK": 0, "MODEL.LORA.ALPHA": 1.0, "MODEL.LORA.TARGETS": ("attn",)}
ON_CLIP = {
    **{"MODEL.USE_CLIP": False, "MODEL.CLIP_FUSION": "minimal", "MODEL.CLIP_INPUT_SIZE": (40, 24)},
    **{"MODEL.CLIP_CONCAT_WEIGHT": 0.5, "MODEL.CLIP_SEPARATE_LR": False, "MODEL.CLIP_LR_SCALE": 0.5},
}
ON_REFINE = {"MODEL.CLIP_USE_AFEM": False, "MODEL.CLIP_USE_SEM_REFINE": False, "MODEL.CLIP_IMPL": "open_clip"}
SOURCES = (
    "BACKBONE",
    "PRETRAIN",
    "HF_ID",
    "LOCAL_PATH",
    "FINETUNE",
)  # which weights a tower has: its fingerprint tells
ON_CAPTIONS = {
    **{"INPUT.TEXT.LENGTH": 6, "INPUT.TEXT.MASK_RATE": 0.5, "INPUT.TEXT.MASK_SHARE": 0.5, "INPUT.TEXT.KEEP_SHARE": 0.2},
    **{"INPUT.TEXT.MASK_CAPTION": True, "MODEL.CMT_DEPTH": 3, "MODEL.CMT_MASK_PADDING": True},
}
ON_MODALITIES = {
    **{"MODEL.MULTIMODAL.MODALITIES": ("vis", "text"), "MODEL.MULTIMODAL.RANK": 2, "MODEL.MULTIMODAL.ALPHA": 3.0},
    **{"MODEL.MULTIMODAL.SEMANTIC": True, "MODEL.MULTIMODAL.HEADS": 2, "MODEL.MULTIMODAL.MLP_RATIO": 1.0},
    **{"MODEL.MULTIMODAL.DROPOUT": 0.3, "MODEL.MULTIMODAL.HEAD_DROPOUT": 0.3, "MODEL.MULTIMODAL.FREEZE_TEXT": True},
    **{"MODEL.MULTIMODAL.FREEZE_SHARED": True, "MODEL.MULTIMODAL.MODALITY_DROPOUT": 0.5},
}
OF_PROMPTS = {"MODEL.PROMPT", "MODEL.PROMPT_TOKENS", "MODEL.I2T_LOSS_WEIGHT"}  # no embedding reads a text
ELSEWHERE = (
    {f"MODEL.CLIP_{name}" for name in SOURCES} | {"MODEL.DEVICE", "MODEL.DEVICE_ID", "INPUT.SIZE_TRAIN"} | OF_PROMPTS
)
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A JPEG larger than the input, in which every filter and decoder shows."""
    path = tmp_path_factory.mktemp("photo") / "x.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (97, 81, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=80)
    return str(path)


def draw(opts: tuple, path: str) -> None:
    """Write weights of no special value for a model."""
    torch.manual_seed(0)
    model = clips.redraw(make_model(make_cfg(*opts), CLASSES, CAMERAS, VIEWS, pretrained=False))
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(std=0.1)
    torch.save(model.state_dict(), path)


@torch.no_grad()
def directions(opts: tuple, photo: str, weights: str) -> torch.Tensor:
    """The embedding of the photo as seen by each camera; its length, which no search sees, is 1."""
    cfg = make_cfg(*opts)
    model = make_model(cfg, CLASSES, CAMERAS, VIEWS, pretrained=False)
    model.load_param(weights)
    merge_lora(model)
    image = read_image(photo, cfg.INPUT.SIZE_TEST, cfg.INPUT.FILTER_TEST, cfg.INPUT.DECODER)
    labels = {"camids": torch.arange(CAMERAS), "viewids": torch.arange(CAMERAS) % VIEWS}
    how = make_embedding(cfg, torch.device("cpu"))
    batch = {"images": torch.stack([image] * CAMERAS), **labels}
    return F.normalize(embed_batch(model.eval(), how.prepare(batch), how).float(), dim=1)


def wrongly_declared(base: tuple, varied: dict[str, object], photo: str, folder: Path) -> list[str]:
    """The keys of `varied` whose declaration is not what happens to the embedding by weights of `base`."""
    weights = str(folder / "weights.pth")
    draw(base, weights)
    before = directions(base, photo, weights)
    wrong = []
    for key, value in varied.items():
        try:
            after = directions((*base, key, value), photo, weights)
            changes = after.shape != before.shape or (after - before).abs().max().item() > ROUNDING
        except (ConfigError, DataError, RuntimeError):  # another model, or images of another size
            changes = True
        if changes != affects(key, "embedding"):
            wrong.append(f"{key} {value}: {'changes' if changes else 'leaves'} the embedding")
    return wrong


def test_no_key_of_model_pixels_and_tests_is_left_out():
    tried = {
        *ON_VIT,
        *ON_VIT_IN_BF16,
        *ON_RESNET,
        *ON_PCB,
        *ON_LORA,
        *ON_CLIP,
        *ON_REFINE,
        *ON_CAPTIONS,
        *ON_MODALITIES,
    }
    ranked = {
        key for key in KEYS if key.startswith("TEST.") and affects(key, "ranking") and not affects(key, "embedding")
    }
    keys = {key for key in KEYS if key.split(".")[0] in ("MODEL", "INPUT", "TEST")}
    assert keys - tried - ranked - ELSEWHERE == {"TEST.REFERENCE", "INPUT.BROKEN_IMAGES"} and not tried & ELSEWHERE


def test_keys_of_a_transformer(photo, tmp_path):
    assert wrongly_declared(VIT, ON_VIT, photo, tmp_path) == []


def test_keys_of_a_transformer_in_another_precision(photo, tmp_path):
    assert wrongly_declared((*VIT, "TEST.AMP", "bf16"), ON_VIT_IN_BF16, photo, tmp_path) == []


def test_keys_of_a_resnet(photo, tmp_path):
    assert wrongly_declared((*RESNET, "TEST.NECK_FEAT", "after"), ON_RESNET, photo, tmp_path) == []


def test_keys_of_part_branches(photo, tmp_path):
    assert wrongly_declared(PCB, ON_PCB, photo, tmp_path) == []


def test_keys_of_adapters(photo, tmp_path):
    base = (*LORA, "MODEL.LORA.TARGETS", ("attn", "mlp"))
    varied = {key: value for key, value in ON_LORA.items() if key != "MODEL.LORA.TARGETS"}
    assert wrongly_declared(base, varied, photo, tmp_path) == []
    with pytest.raises(DataError, match="MODEL.LORA.TARGETS as in its training"):
        directions((*base, "MODEL.LORA.TARGETS", ("attn",)), photo, str(tmp_path / "weights.pth"))


def test_keys_of_clip_fusion(photo, sources, tmp_path):
    kinds = clips.variants(sources)
    assert wrongly_declared((*TINY_VIT, *EXACT, *kinds["concat"]), ON_CLIP, photo, tmp_path) == []
    assert wrongly_declared((*TINY_VIT, *EXACT, *kinds["hf"]), ON_REFINE, photo, tmp_path) == []


def test_keys_of_captions(tmp_path):
    weights = str(tmp_path / "weights.pth")
    torch.save(make_irra(tmp_path).state_dict(), weights)
    before = caption_direction(tmp_path, weights)
    for key, value in ON_CAPTIONS.items():
        after = caption_direction(tmp_path, weights, key, value)
        assert ((after - before).abs().max().item() > ROUNDING) == affects(key, "embedding"), key


def test_keys_of_several_modalities(tmp_path):
    weights = str(tmp_path / "weights.pth")
    torch.save(make_multimodal(tmp_path).state_dict(), weights)
    before = modal_direction(tmp_path, weights)
    for key, value in ON_MODALITIES.items():
        try:
            after = modal_direction(tmp_path, weights, key, value)
            changes = (after - before).abs().max().item() > ROUNDING
        except (ConfigError, DataError, ValueError):  # another model, or one that does not read all of the query
            changes = True
        assert changes == affects(key, "embedding"), key


@torch.no_grad()
def modal_direction(folder: Path, weights: str, *opts: object) -> torch.Tensor:
    """The embedding of queries of an infrared image and a sketch; its length is 1."""
    model = make_multimodal(folder, *opts)
    model.load_param(weights)
    inputs = inputs_of(model)
    return F.normalize(model.embed({name: inputs[name] for name in ("nir", "sk") if name in inputs}), dim=1)


@torch.no_grad()
def caption_direction(folder: Path, weights: str, *opts: object) -> torch.Tensor:
    """The embedding of a sentence of more tokens than the shortest length tried; its length is 1."""
    model = make_irra(folder, *opts)
    model.load_param(weights)
    cfg = irra_cfg(write_clip(folder, VIT_CLIP), *opts)
    how = make_embedding(cfg, torch.device("cpu"))
    ids = tokenize("a red van with two white stripes and a blue box on its roof", cfg.INPUT.TEXT.LENGTH)
    return F.normalize(embed_batch(model, how.prepare({"caption_ids": ids[None]}), how).float(), dim=1)
