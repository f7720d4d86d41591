"""The names of CLIP's weights in files of OpenAI, open_clip, Hugging Face and CLIP-ReID -> those of OpenAI.

OpenAI's are open_clip's too: `visual.*` for the image tower, the text tower's without a prefix.
"""

import re
from collections.abc import Mapping

import torch

from model.weights.load import Weights

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # numbers in OpenAI's state dicts
TEXT_OF_CUSTOM = "text."  # open_clip's CustomTextCLIP
OF_CLIP_REID = {"image_encoder.": "visual.", "text_encoder.": ""}
HF_LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)")
HF_PARTS = {  # Hugging Face -> OpenAI
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "logit_scale": "logit_scale",
}
HF_TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
HF_IN_LAYER = {
    "self_attn.out_proj.": "attn.out_proj.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
HF_THIRDS = ("q", "k", "v")  # in the order of attn.in_proj_*


def openai_names(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Return the weights of a CLIP by OpenAI's names; names that are none of the four formats' stay as they are."""
    if any(name.startswith("vision_model.") for name in weights):
        return _from_hf(weights)
    custom = any(name.startswith(f"{TEXT_OF_CUSTOM}transformer.") for name in weights)
    renamed = {}
    for name, value in weights.items():
        if name in NOT_WEIGHTS:
            continue
        name = name.removeprefix(TEXT_OF_CUSTOM) if custom else name
        for theirs, ours in OF_CLIP_REID.items():
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        renamed[name] = value
    return renamed


def _from_hf(weights: Mapping[str, torch.Tensor]) -> Weights:
    renamed: Weights = {}
    thirds: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in weights.items():
        layer = HF_LAYER.fullmatch(name)
        if name in HF_TRANSPOSED:
            renamed[HF_TRANSPOSED[name]] = value.t()
        elif layer:
            tower, number, rest = layer.groups()
            block = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}."
            third = re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", rest)
            if third:
                thirds.setdefault(f"{block}attn.in_proj_{third[2]}", {})[third[1]] = value
            else:
                renamed[block + _with_prefix_of(rest, HF_IN_LAYER)] = value
        elif not name.endswith("position_ids"):  # a constant that older versions saved
            renamed[_with_prefix_of(name, HF_PARTS)] = value
    whole = {name: parts for name, parts in thirds.items() if len(parts) == len(HF_THIRDS)}
    return renamed | {name: torch.cat([parts[third] for third in HF_THIRDS]) for name, parts in whole.items()}


def _with_prefix_of(name: str, prefixes: Mapping[str, str]) -> str:
    for theirs, ours in prefixes.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
