"""Rules between the keys of trunk, patches and image size."""

import difflib
import re
from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.pcb import NAME as PCB
from configs.phases import Problem
from configs.values import value_of

TRANSFORMER_TYPES = tuple(
    f"{family}_{size}_patch16_224_TransReID" for family in ("vit", "deit") for size in ("tiny", "small", "base")
)
TIMM_PREFIX = "timm/"
DEFAULT_PATCH_SIZE = 16  # of every TransReID type
DEVICE_IDS = re.compile(r"[0-9]{1,4}(\s*,\s*[0-9]{1,4})*")
MOST_PARAMETERS = 50e9  # of a transformer; the largest published ViT has 22e9
MOST_PATCHES = 65_536  # of an image
SMALLEST_MLP = 0.1  # hidden width / token width


def find_model_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    model = cfg.MODEL
    if not DEVICE_IDS.fullmatch(model.DEVICE_ID.strip()):
        yield (
            ("MODEL.DEVICE_ID",),
            f"MODEL.DEVICE_ID got '{model.DEVICE_ID}', expected the index of a CUDA device, 0 is the first "
            "(MODEL.DEVICE says cuda or cpu)",
        )
    if model.PRETRAIN_CHOICE in ("self", "finetune") and not model.PRETRAIN_PATH:
        yield (
            ("MODEL.PRETRAIN_CHOICE",),
            f"MODEL.PRETRAIN_CHOICE {model.PRETRAIN_CHOICE} needs the checkpoint's path in MODEL.PRETRAIN_PATH",
        )
    if model.NAME == "transformer":
        yield from _transformer_rules(cfg)
        return
    if model.PATCHES == "product" and model.NAME in ("resnet50", PCB):
        yield (
            ("MODEL.PATCHES", "MODEL.NAME"),
            f"MODEL.PATCHES product: MODEL.NAME {model.NAME} has no patches; set it to convolution",
        )
    own = model.NAME in CLIP_REID  # which has side information and layers of its own
    for key in ("JPM",) if own else ("JPM", "SIE_CAMERA", "SIE_VIEW"):
        if model[key]:
            yield (f"MODEL.{key}",), f"MODEL.{key} True needs MODEL.NAME transformer, got {model.NAME}"
    needed = {"MODEL.LORA.RANK": 0, "MODEL.FREEZE_BLOCKS": 0, "SOLVER.LAYER_DECAY": 1.0, "MODEL.RESIDUAL": "float32"}
    for key, off in needed.items():
        value = value_of(cfg, key)
        if value != off and not (own and key == "SOLVER.LAYER_DECAY"):
            yield (key,), f"{key} {value} needs the blocks of MODEL.NAME transformer, got {model.NAME}; set it to {off}"


def _transformer_rules(cfg: CfgNode) -> Iterator[Problem]:
    kind = cfg.MODEL.TRANSFORMER_TYPE
    if not kind.startswith(TIMM_PREFIX) and kind not in TRANSFORMER_TYPES:
        given = "is not set" if kind == "None" else f"got '{kind}'"
        near = difflib.get_close_matches(kind, TRANSFORMER_TYPES, n=1)
        yield (
            ("MODEL.TRANSFORMER_TYPE",),
            f"MODEL.TRANSFORMER_TYPE {given}, allowed: {', '.join(TRANSFORMER_TYPES)} or timm/<name of a timm ViT>"
            + (f"; did you mean {near[0]}?" if near else ""),
        )
    if list(cfg.INPUT.SIZE_TRAIN) != list(cfg.INPUT.SIZE_TEST):
        yield (
            ("INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"),
            f"INPUT.SIZE_TEST {cfg.INPUT.SIZE_TEST} differs from INPUT.SIZE_TRAIN {cfg.INPUT.SIZE_TRAIN}; "
            "a transformer's position embedding has one size, so set both alike",
        )
    vit = cfg.MODEL.VIT
    if vit.EMBED_DIM and vit.NUM_HEADS and vit.EMBED_DIM % vit.NUM_HEADS:
        yield (
            ("MODEL.VIT.EMBED_DIM", "MODEL.VIT.NUM_HEADS"),
            f"MODEL.VIT.EMBED_DIM {vit.EMBED_DIM} is not a multiple of MODEL.VIT.NUM_HEADS {vit.NUM_HEADS}",
        )
    yield from _width_rules(vit)
    if cfg.MODEL.LORA.RANK and not cfg.MODEL.LORA.TARGETS:
        yield (
            ("MODEL.LORA.RANK", "MODEL.LORA.TARGETS"),
            f"MODEL.LORA.RANK {cfg.MODEL.LORA.RANK} adapts no layer: MODEL.LORA.TARGETS is empty; name some "
            "(attn, mlp, attn.qkv, ...), or set RANK to 0",
        )
    if not kind.startswith(TIMM_PREFIX) or vit.PATCH_SIZE:
        yield from _grid_rules(cfg, vit.PATCH_SIZE or DEFAULT_PATCH_SIZE)


def _width_rules(vit: CfgNode) -> Iterator[Problem]:
    """Yield what is wrong with the size of the blocks; 0 stands for about what the types have."""
    if 0 < vit.MLP_RATIO < SMALLEST_MLP:
        yield (
            ("MODEL.VIT.MLP_RATIO",),
            f"MODEL.VIT.MLP_RATIO {vit.MLP_RATIO} leaves the MLP no width, allowed: 0 (of the type), or {SMALLEST_MLP} "
            "and above",
        )
    count = (vit.DEPTH or 12) * (vit.EMBED_DIM or 768) ** 2 * (4 + 2 * (vit.MLP_RATIO or 4))
    if count > MOST_PARAMETERS:
        yield (
            ("MODEL.VIT.EMBED_DIM", "MODEL.VIT.DEPTH", "MODEL.VIT.MLP_RATIO"),
            f"MODEL.VIT.EMBED_DIM {vit.EMBED_DIM}, DEPTH {vit.DEPTH} and MLP_RATIO {vit.MLP_RATIO} make "
            f"{count / 1e9:,.0f} billion parameters, allowed: at most {MOST_PARAMETERS / 1e9:.0f} billion",
        )


def _grid_rules(cfg: CfgNode, patch: int) -> Iterator[Problem]:
    stride, size = cfg.MODEL.STRIDE_SIZE, cfg.INPUT.SIZE_TRAIN
    keys = ("MODEL.STRIDE_SIZE", "MODEL.VIT.PATCH_SIZE", "INPUT.SIZE_TRAIN")
    if max(stride) > patch:
        yield keys, f"MODEL.STRIDE_SIZE {stride} exceeds the patch size {patch}, so pixels would be skipped"
        return
    if min(size) < patch:
        yield keys, f"INPUT.SIZE_TRAIN {size} is smaller than one patch of {patch} x {patch} pixels"
        return
    rows, columns = ((side - patch) // step + 1 for side, step in zip(size, stride, strict=True))
    if rows * columns > MOST_PATCHES:
        yield (
            keys,
            f"INPUT.SIZE_TRAIN {size} with MODEL.STRIDE_SIZE {stride} makes {rows * columns:,} patches, allowed: at "
            f"most {MOST_PATCHES:,}",
        )
    if cfg.MODEL.JPM and rows * columns < cfg.MODEL.DEVIDE_LENGTH:
        yield (
            ("MODEL.JPM", "MODEL.DEVIDE_LENGTH", *keys),
            f"MODEL.JPM divides {rows * columns} patches ({rows} x {columns}) into MODEL.DEVIDE_LENGTH "
            f"{cfg.MODEL.DEVIDE_LENGTH} branches; use larger images, a smaller stride or fewer branches",
        )
    if cfg.MODEL.JPM and cfg.MODEL.RE_ARRANGE and rows * columns < cfg.MODEL.SHIFT_NUM:
        yield (
            ("MODEL.SHIFT_NUM", *keys),
            f"MODEL.SHIFT_NUM {cfg.MODEL.SHIFT_NUM} exceeds the {rows * columns} patches ({rows} x {columns})",
        )
