"""Where CLIP's image towers come from: open_clip and transformers by name, weight files, and the hub's cache.

Nothing in a file is executed: weights are read as plain tensors, architectures from JSON.
"""

import difflib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from model.backbones.clip import (
    SIZE_KEY,
    HfTower,
    Normalisation,
    OpenClipTower,
    TowerInfo,
    check_patches,
)
from model.backbones.hub import hub_files
from model.weights.clip_towers import WEIGHT_FILES, load_hf, load_open_clip
from utils.errors import ConfigError
from utils.paths import user_path
from utils.text_files import read_text

logger = logging.getLogger(__name__)

PATH_KEY = "MODEL.CLIP_LOCAL_PATH"
BACKBONE_KEY = "MODEL.CLIP_BACKBONE"
TAG_KEY = "MODEL.CLIP_PRETRAIN"
ID_KEY = "MODEL.CLIP_HF_ID"
CONFIG_FILES = ("config.json",)
PROCESSOR_FILE = "preprocessor_config.json"
SHOWN = 8  # names that an error lists


def open_clip_tower(
    backbone: str, tag: str, local_path: str, size: tuple[float, float], weights: bool = True
) -> OpenClipTower:
    """Return an image tower of open_clip; the text tower is never built at its size.

    `backbone` is open_clip's name of the model or the path of a .json in its format, `tag` that of published weights
    ('' = random). A weight file in `local_path` wins; then the tag only tells how its weights were trained. `size` is
    (height, width) in pixels. `weights` False leaves the random first ones, for a checkpoint to replace. Raises
    ConfigError for names, sizes and downloads that do not work, DataError for a file that does not fit.
    """
    open_clip = import_open_clip()
    config = open_clip_config(open_clip, backbone)
    published = published_cfg(open_clip, backbone, tag, local_path)
    vision, size = _sized_vision(open_clip, config, backbone, size)
    quick_gelu = uses_quick_gelu(config, published)
    smallest_text = open_clip.CLIPTextCfg(context_length=1, vocab_size=1, width=8, heads=1, layers=1)
    with understood(f"{BACKBONE_KEY} {backbone} cannot be built at {SIZE_KEY} {list(size)}"):
        visual = open_clip.CLIP(config["embed_dim"], vision, smallest_text, quick_gelu=quick_gelu).visual
    if isinstance(visual, open_clip.transformer.VisionTransformer):
        visual.output_tokens = False  # of CoCa towers, which return their patches too
    source = f"{PATH_KEY} '{local_path}'" if local_path else f"{backbone} with {TAG_KEY} '{tag}'"
    default = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    normalisation = Normalisation(*((published["mean"], published["std"]) if published else default))
    info = TowerInfo(config["embed_dim"], size, normalisation, source, reloadable=bool(local_path or tag))
    tower = OpenClipTower(visual, info)
    if weights and info.reloadable:
        load_open_clip(tower, weight_file(open_clip, backbone, tag, published, local_path), source)
    return tower


def published_cfg(open_clip: Any, backbone: str, tag: str, local_path: str) -> dict[str, Any]:
    """Return what open_clip knows of the weights `tag`, {} for none; ConfigError for a tag that the model lacks."""
    published = open_clip.get_pretrained_cfg(backbone, tag) if tag else {}
    if tag and not published and not (local_path and backbone.endswith(".json")):
        raise ConfigError(_unknown_tag(open_clip, backbone, tag))
    return published


def uses_quick_gelu(config: dict[str, Any], published: dict[str, Any]) -> bool:
    """Return the activation of a model's towers: QuickGELU where its description or that of its weights says so."""
    return bool(published.get("quick_gelu") or config.get("quick_gelu"))  # optional in both formats


def weight_file(open_clip: Any, backbone: str, tag: str, published: dict[str, Any], local_path: str) -> Path:
    """Return the file of a model's weights: `local_path`, or that of the tag from the hub."""
    return user_path(local_path, PATH_KEY) if local_path else fetch_tag(open_clip, backbone, tag, published)


def hf_tower(model_id: str, local_path: str, size: tuple[float, float], weights: bool = True) -> HfTower:
    """Return the image tower of a transformers CLIP, with its scaled-dot-product attention.

    `model_id` is its name on the Hugging Face hub; a folder in `local_path` (config.json, preprocessor_config.json,
    model.safetensors or pytorch_model.bin) wins. `size`, `weights` and errors as in `open_clip_tower`; without weights
    config.json suffices.
    """
    transformers = _import_transformers()
    folder = user_path(local_path, PATH_KEY)
    if local_path and not folder.is_dir():
        raise ConfigError(
            f"{PATH_KEY}: no folder '{folder}'; give one with config.json and {' or '.join(WEIGHT_FILES)}"
        )
    if not local_path and Path(model_id).is_dir():
        raise ConfigError(f"{ID_KEY} '{model_id}' is a folder; set {PATH_KEY} to it")
    if not local_path:
        needed = (CONFIG_FILES, WEIGHT_FILES) if weights else (CONFIG_FILES,)
        way_out = f"copy the model's folder here (config.json, {PROCESSOR_FILE}, {WEIGHT_FILES[0]}) and set {PATH_KEY}"
        folder = hub_files(model_id, needed, ID_KEY, way_out, extra=PROCESSOR_FILE)[0].parent
    source = f"{PATH_KEY} '{local_path}'" if local_path else f"{ID_KEY} {model_id}"
    config = _hf_config(transformers, folder, source)
    size = check_patches(size, config.patch_size, source)
    info = TowerInfo(config.hidden_size, size, _hf_normalisation(transformers, folder), source, reloadable=True)
    with understood(f"{source}: {CONFIG_FILES[0]} describes no CLIP that can be built"):
        _check_depth(config.num_hidden_layers)
        vision = transformers.CLIPVisionModel(config)
    tower = HfTower(_unwrapped(vision), info)
    if weights:
        load_hf(tower, folder, source)
    return tower


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Turn what a library raises over a description that it cannot use, which may be anything, into ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {' '.join(str(error).split())}") from error


def _check_depth(layers: Any) -> None:
    """Raise ValueError for a tower without a layer, which a library would build."""
    if isinstance(layers, int) and layers < 1:
        raise ValueError(f"it has {layers} layers")


def import_open_clip() -> Any:
    """Return open_clip; ConfigError where it is not installed."""
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(f"MODEL.CLIP_IMPL open_clip: {error}; pip install open_clip_torch") from error
    return open_clip


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(f"MODEL.CLIP_IMPL hf: {error}; pip install transformers") from error
    return transformers


def open_clip_config(open_clip: Any, backbone: str) -> dict[str, Any]:
    """Return embed_dim, vision_cfg and what else open_clip's description of a model holds."""
    if not backbone.endswith(".json"):
        if backbone in open_clip.list_models():
            return open_clip.get_model_config(backbone)
        near = difflib.get_close_matches(backbone, open_clip.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(
            f"{BACKBONE_KEY} got '{backbone}', expected a name from open_clip.list_models() or a .json file in "
            f"open_clip's format{hint}"
        )
    text = read_text(backbone, BACKBONE_KEY, ConfigError)
    with understood(f"{BACKBONE_KEY}: '{backbone}' does not describe an open_clip model (embed_dim, vision_cfg)"):
        config = json.loads(text)
        return {**config, "embed_dim": int(config["embed_dim"]), "vision_cfg": dict(config["vision_cfg"])}


def _sized_vision(
    open_clip: Any, config: dict[str, Any], backbone: str, size: tuple[float, float]
) -> tuple[Any, tuple[int, int]]:
    """Return open_clip's vision settings and size in integers; only its own ViT can see another size than its own."""
    with understood(f"{BACKBONE_KEY} {backbone}"):
        vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
        _check_depth(vision.layers)
        own = vision.image_size
        own = (own, own) if isinstance(own, int) else tuple(own)
    if not vision.timm_model_name and isinstance(vision.layers, int):
        size = check_patches(size, vision.patch_size, backbone)
        if own != size:
            logger.warning("%s is %s, but %s is made for images of %s", SIZE_KEY, list(size), backbone, list(own))
        return replace(vision, image_size=size), size
    if own != tuple(size):
        raise ConfigError(f"{SIZE_KEY} {list(size)}: {backbone} sees images of one size only; set {list(own)}")
    return vision, own


def _unknown_tag(open_clip: Any, backbone: str, tag: str) -> str:
    tags = open_clip.list_pretrained_tags_by_model(backbone)
    near = difflib.get_close_matches(tag, tags, n=1)
    published = (
        f"published: {', '.join(tags[:SHOWN])}{', ...' if len(tags) > SHOWN else ''}" if tags else "there are none"
    )
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"{TAG_KEY} got '{tag}', which is no tag of weights for {BACKBONE_KEY} {backbone} ({published}){hint}; "
        f"'' leaves them random, {PATH_KEY} takes a weight file"
    )


def fetch_tag(open_clip: Any, backbone: str, tag: str, published: dict[str, Any]) -> Path:
    """Return the weight file of a tag from the Hugging Face hub or its cache; ConfigError where it cannot be had."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    what = f"{TAG_KEY} '{tag}' of {backbone}"
    way_out = f"copy that weight file here and set {PATH_KEY} to it"
    repo, _, name = published["hf_hub"].rpartition("/")
    if not repo:
        raise ConfigError(f"{what} is not on the Hugging Face hub; fetch {published['url']}, then {way_out}")
    names = (str(Path(name).with_suffix(".safetensors")), name) if name else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    return hub_files(repo, (names,), what, way_out)[0]


def _hf_config(transformers: Any, folder: Path, source: str) -> Any:
    """Return the CLIPVisionConfig in a folder; ConfigError when it describes no CLIP."""
    if not (folder / CONFIG_FILES[0]).is_file():
        raise ConfigError(f"{source}: '{folder}' has no {CONFIG_FILES[0]}")
    with understood(f"{source}: {CONFIG_FILES[0]} is not readable"):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in ("clip", "clip_vision_model"):
        raise ConfigError(f"{source} is a model of type {config.model_type}; MODEL.CLIP_IMPL hf takes clip")
    return config.vision_config if config.model_type == "clip" else config


def _hf_normalisation(transformers: Any, folder: Path) -> Normalisation:
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    if not (folder / PROCESSOR_FILE).is_file():
        own = Normalisation(tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))
        logger.warning("'%s' has no %s: CLIP's images are normalised as OpenAI's, %s", folder, PROCESSOR_FILE, own)
        return own
    with understood(f"'{folder / PROCESSOR_FILE}' does not say how images are normalised; copy it again"):
        processor = transformers.CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        mean, std = (tuple(map(float, row)) for row in (processor.image_mean, processor.image_std))
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ValueError(f"mean {mean}, standard deviation {std}")
    return Normalisation(mean, std)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the module that holds the parts; transformers before 5 puts it into `vision_model`."""
    return model.vision_model if "vision_model" in dict(model.named_children()) else model
