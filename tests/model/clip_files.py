"""Tiny CLIPs of both libraries with the same settings, the inputs that tests give them, and what they make of them."""

from pathlib import Path

import open_clip
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel
from yacs.config import CfgNode

from model import make_model
from tests.model.builds import images
from tests.model.clip_reids import EMBED, TEXT, TEXT_HEADS, VIT, clip_reid_cfg
from tests.model.clips import redraw

OWN_SIZE = (32, 32)  # pixels that these CLIPs are made for: 2 x 2 patches
STAGES = ("SOLVER.STAGES", ["stage1", "stage2"])
SENTENCES = ("A photo of a red blue green white person.", "A photo of a old dog cat tree person.")
LEARNT = slice(5, 9)  # the places of the four tokens that prompts learn
DEFAULT_FACTOR = 4  # of a block's width, that of its MLP


def own_size(*opts: object, size: tuple[int, int] = OWN_SIZE) -> tuple[object, ...]:
    """Return KEY, VALUE, ... of images of `size`."""
    return ("INPUT.SIZE_TRAIN", size, "INPUT.SIZE_TEST", size, *opts)


def openai_clip(seed: int = 21, **vision: object) -> nn.Module:
    """Return open_clip's model, whose names are OpenAI's; `vision` are other values of its vision_cfg."""
    torch.manual_seed(seed)
    return redraw(open_clip.CLIP(EMBED, {**VIT, **vision}, TEXT, quick_gelu=True)).eval()


def custom_clip() -> nn.Module:
    """Return open_clip's model with a text tower of its own names."""
    torch.manual_seed(22)
    return redraw(open_clip.CustomTextCLIP(EMBED, VIT, TEXT, quick_gelu=True)).eval()


def hugging_face_clip() -> nn.Module:
    """Return transformers' model, whose text tower is causal."""
    common = {"hidden_act": "quick_gelu"}
    vision = {"hidden_size": VIT["width"], "num_hidden_layers": VIT["layers"], "num_attention_heads": 2}
    vision |= {"intermediate_size": DEFAULT_FACTOR * VIT["width"], "patch_size": VIT["patch_size"], "image_size": 32}
    text = {"hidden_size": TEXT["width"], "num_hidden_layers": TEXT["layers"], "num_attention_heads": TEXT_HEADS}
    text |= {"intermediate_size": DEFAULT_FACTOR * TEXT["width"], "bos_token_id": 49406, "eos_token_id": 49407}
    torch.manual_seed(23)
    config = CLIPConfig(vision_config=vision | common, text_config=text | common, projection_dim=EMBED)
    return redraw(CLIPModel(config)).eval()


def tokens() -> torch.Tensor:
    """Return the tokens int64 [2, 77] of SENTENCES by open_clip's tokenizer."""
    return open_clip.tokenizer.SimpleTokenizer()(list(SENTENCES))


@torch.no_grad()
def features_of(clip: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a library makes of three images and of SENTENCES, [3, D] and [2, D], not normalised."""
    if not isinstance(clip, CLIPModel):
        return clip.encode_image(images(size=OWN_SIZE)), clip.encode_text(tokens())
    image = clip.vision_model(pixel_values=images(size=OWN_SIZE)).pooler_output
    text = clip.text_model(input_ids=tokens()).pooler_output
    return clip.visual_projection(image), clip.text_projection(text)


@torch.no_grad()
def our_features(model: nn.Module, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same of a ClipReID for two identities, whose prompts get the words of SENTENCES by a token table."""
    model.prompt_learner.cls_ctx.copy_(embedding[tokens()[:, LEARNT]])
    model.eval()
    return model.encode_image(images(size=OWN_SIZE)), model.encode_text(torch.arange(2))


def load_clip(description: str, weights: str | Path, *opts: object) -> nn.Module:
    """Return a ClipReID of two identities on a CLIP's weight file."""
    pairs = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.CLIP_LOCAL_PATH", str(weights))
    return make_model(load_cfg_for(description, *pairs, *opts), 2, 0, 0)


def load_cfg_for(description: str, *opts: object) -> CfgNode:
    """Return the configuration of both stages on images of OWN_SIZE."""
    return clip_reid_cfg(description, *STAGES, *own_size(*opts))


def naive_table(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return a position table [1 + g * g, W] for another grid in float64: each place between its four neighbours."""
    side = round((len(table) - 1) ** 0.5)
    old = table[1:].double().reshape(side, side, -1)

    def neighbours(place: int, count: int) -> tuple[int, int, float]:
        centre = max((place + 0.5) * side / count - 0.5, 0.0)
        return int(centre), min(int(centre) + 1, side - 1), centre - int(centre)

    rows = [table[0].double()]
    for y in range(grid[0]):
        top, bottom, down = neighbours(y, grid[0])
        for x in range(grid[1]):
            left, right, across = neighbours(x, grid[1])
            upper = (1 - across) * old[top, left] + across * old[top, right]
            lower = (1 - across) * old[bottom, left] + across * old[bottom, right]
            rows.append((1 - down) * upper + down * lower)
    return torch.stack(rows)
