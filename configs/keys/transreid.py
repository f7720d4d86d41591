"""Keys of TransReID's transformer: trunk, patches, jigsaw, side information, adapters."""

from configs.keys.key import EMBEDS, Key

KEYS = {
    "MODEL.TRANSFORMER_TYPE": Key(
        "None", "{vit,deit}_{tiny,small,base}_patch16_224_TransReID | timm/<name>", affects=EMBEDS
    ),
    "MODEL.STRIDE_SIZE": Key(
        [16, 16],
        "stride of the patches [y, x] in pixels, at most the patch size",
        low=1,
        high=128,
        length=2,
        fills=True,
        affects=EMBEDS,
        why="no patch is larger",
    ),
    "MODEL.JPM": Key(False, "jigsaw patch module: local branches beside the global one", affects=EMBEDS),
    "MODEL.SHIFT_NUM": Key(
        5,
        "JPM: the first SHIFT_NUM - 1 patches move to the end",
        low=1,
        high=4096,
        affects=EMBEDS,
        why="no image has more patches",
    ),
    "MODEL.SHUFFLE_GROUP": Key(
        2, "JPM: groups of the patch shuffle", low=1, high=4096, affects=EMBEDS, why="no image has more patches"
    ),
    "MODEL.DEVIDE_LENGTH": Key(
        4,
        "JPM: number of local branches (TransReID's spelling)",
        low=1,
        high=64,
        affects=EMBEDS,
        why="each branch has a head of its own",
    ),
    "MODEL.RE_ARRANGE": Key(True, "JPM: shift and shuffle the patches before they are divided", affects=EMBEDS),
    "MODEL.SIE_COE": Key(
        3.0,
        "factor of the side information embedding",
        low=0,
        high=1000,
        affects=EMBEDS,
        why="beyond, nothing is left of the image",
    ),
    "MODEL.SIE_CAMERA": Key(False, "embed the camera id", affects=EMBEDS),
    "MODEL.SIE_VIEW": Key(False, "embed the viewpoint id", affects=EMBEDS),
    "MODEL.VIT.EMBED_DIM": Key(
        0, "token width", low=0, high=8192, affects=EMBEDS, why="the largest published ViT has 6144"
    ),
    "MODEL.VIT.DEPTH": Key(
        0, "number of blocks", low=0, high=200, affects=EMBEDS, why="the largest published ViT has 56"
    ),
    "MODEL.VIT.NUM_HEADS": Key(
        0,
        "attention heads, a divisor of the width",
        low=0,
        high=256,
        affects=EMBEDS,
        why="the largest published ViT has 48",
    ),
    "MODEL.VIT.MLP_RATIO": Key(
        0.0, "hidden width of the MLP / token width", low=0, high=32, affects=EMBEDS, why="4 is usual"
    ),
    "MODEL.VIT.PATCH_SIZE": Key(
        0, "side of a patch in pixels", low=0, high=128, affects=EMBEDS, why="32 is the largest usual one"
    ),
    "MODEL.FREEZE_BLOCKS": Key(
        0,
        "n > 0: what lies before the blocks and the first n blocks are frozen",
        low=0,
        high=200,
        why="no transformer has more blocks",
    ),
    "MODEL.LORA.RANK": Key(0, "rank of the adapters, 0 = none", low=0, high=1024, why="a larger one saves nothing"),
    "MODEL.LORA.ALPHA": Key(
        16.0,
        "their output is multiplied by ALPHA / RANK",
        low=1e-6,
        high=1e4,
        why="at 0 no adapter acts",
    ),
    "MODEL.LORA.TARGETS": Key(
        ("attn", "mlp"), "linear layers of a block by timm's names: attn, mlp, attn.qkv, mlp.fc1, ..."
    ),
}
