"""Keys of IRRA, which searches images by words: its cross encoder, captions, losses and test."""

from configs.keys.key import EMBEDS, MOST_WEIGHT, OUTWEIGHS, Key

NAME = "irra"  # MODEL.NAME of the system
MASKED_WORDS = "mlm"  # the loss that guesses words, of captions in which these are masked
LOSSES = ("sdm", "itc", "cmpm", "id", MASKED_WORDS)
CMPM_TARGETS = ("l1", "l2")
SPLITS = ("test", "val")

KEYS = {
    "MODEL.CMT_DEPTH": Key(
        4, "blocks of the cross encoder, which the masked-word loss trains", low=1, high=64, why="no CLIP is deeper"
    ),
    "MODEL.CMT_MASK_PADDING": Key(False, "the cross encoder attends to the words of a caption alone, not its padding"),
    "INPUT.TEXT.LENGTH": Key(
        77,
        "tokens of a caption, start and end included; longer ones are cut",
        low=3,
        high=1024,
        affects=EMBEDS,
        why="start, one word and end",
    ),
    "INPUT.TEXT.MASK_RATE": Key(0.15, "share of the tokens that the masked-word loss asks for", low=0, high=1),
    "INPUT.TEXT.MASK_SHARE": Key(0.8, "of these, share that the mask replaces", low=0, high=1),
    "INPUT.TEXT.KEEP_SHARE": Key(0.1, "of these, share that stays; the rest becomes a random token", low=0, high=1),
    "INPUT.TEXT.MASK_CAPTION": Key(
        False, "all losses see the masked caption, as in the published runs; False: the masked-word loss alone"
    ),
    "LOSS.TEXT.NAMES": Key(
        ("sdm", "id", MASKED_WORDS),
        "losses between images and captions, a list or joined by +",
        choices=LOSSES,
        joined_by="+",
    ),
    "LOSS.TEXT.TEMPERATURE": Key(
        0.02, "of sdm and itc: cosines are divided by it", low=1e-4, high=1e4, why="at 0 one pair has all weight"
    ),
    "LOSS.TEXT.ID_W": Key(1.0, "weight of the identity loss", low=0, high=MOST_WEIGHT, why=OUTWEIGHS),
    "LOSS.TEXT.MLM_W": Key(1.0, "weight of the masked-word loss", low=0, high=MOST_WEIGHT, why=OUTWEIGHS),
    "LOSS.TEXT.SOFT_LABEL": Key(
        1.0,
        "of sdm: target of another image of the same identity, its own image has 1; 1 = all alike",
        low=0,
        high=1,
    ),
    "LOSS.TEXT.CMPM_TARGET": Key(
        "l1", "norm that the targets of a row are divided by; l2: the original code's", choices=CMPM_TARGETS
    ),
    "DATASETS.EVAL_SPLIT": Key(
        "test",
        "captions and images that training looks at; val: the data set's own, test where it has none",
        choices=SPLITS,
        affects=("training", "ranking"),
    ),
    "TEST.I2T": Key(False, "captioned test sets: also search captions by images", affects=("ranking",)),
}
