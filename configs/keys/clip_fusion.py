"""Keys of CLIP fusion: a CLIP image tower whose features join the model's."""

from configs.keys.key import EMBEDS, Key

KEYS = {
    "MODEL.USE_CLIP": Key(False, "fuse the features of a CLIP image tower into the model's", affects=EMBEDS),
    "MODEL.CLIP_IMPL": Key(
        "open_clip", "library of the tower; hf: transformers", choices=("open_clip", "hf"), affects=EMBEDS
    ),
    "MODEL.CLIP_FUSION": Key(
        "minimal",
        "quickwin: open_clip only; concat: at test, untrained",
        choices=("minimal", "quickwin", "concat"),
        affects=EMBEDS,
    ),
    "MODEL.CLIP_BACKBONE": Key("ViT-B-16", "open_clip: model name, or a .json file in its format", affects=EMBEDS),
    "MODEL.CLIP_PRETRAIN": Key("laion2b_s34b_b88k", "open_clip: tag of the weights, '' = random", affects=EMBEDS),
    "MODEL.CLIP_HF_ID": Key("wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M", "hf: name of the model", affects=EMBEDS),
    "MODEL.CLIP_LOCAL_PATH": Key(
        "", "weight file (open_clip) or model folder (hf) in place of a download", affects=("embedding",)
    ),  # not of the training: another tower there does not fit the saved state
    "MODEL.CLIP_INPUT_SIZE": Key(
        (224, 224),
        "[height, width] in pixels that the tower sees",
        low=1,
        high=2048,
        length=2,
        fills=True,
        affects=EMBEDS,
        why="336 is the largest usual one",
    ),
    "MODEL.CLIP_FINETUNE": Key(True, "train the tower; False: frozen, not in checkpoints", affects=EMBEDS),
    "MODEL.CLIP_SEPARATE_LR": Key(True, "multiply the tower's learning rate by CLIP_LR_SCALE"),
    "MODEL.CLIP_LR_SCALE": Key(
        1.0,
        "see CLIP_SEPARATE_LR",
        low=1e-6,
        high=1e3,
        why="at 0 the tower learns nothing: CLIP_FINETUNE False",
    ),
    "MODEL.CLIP_USE_AFEM": Key(True, "hf: feature enhancement before the refine branch", affects=EMBEDS),
    "MODEL.CLIP_USE_SEM_REFINE": Key(True, "hf: add the refine branch", affects=EMBEDS),
    "MODEL.CLIP_CONCAT_WEIGHT": Key(
        1.0,
        "concat: length of CLIP's part, the model's own has length 1",
        low=1e-6,
        high=1e3,
        affects=EMBEDS,
        why="at 0 the tower does not count: USE_CLIP False",
    ),
}
