"""Keys of PCB: stripes of a feature map as branches beside a global one, each with weights of its own."""

from configs.keys.key import EMBEDS, Key

NAME = "pcb"  # MODEL.NAME of the system
TINY = "tiny"  # the trunk for small images, without published weights
TRUNKS = ("resnet18", "resnet34", "resnet50", "resnet101", TINY)
POOLINGS = ("max", "avg", "gem")

KEYS = {
    "MODEL.PCB.TRUNK": Key(
        "resnet50", "CNN that makes the map; tiny: for images of some 64 x 32 pixels", choices=TRUNKS, affects=EMBEDS
    ),
    "MODEL.PCB.PARTS": Key(
        6,
        "stripes from top to bottom, which divide the rows of the map; 0 = global branch alone",
        low=0,
        high=64,
        affects=EMBEDS,
        why="more stripes than a map has rows",
    ),
    "MODEL.PCB.PART_DIM": Key(
        256, "width of the feature of a stripe", low=1, high=8192, affects=EMBEDS, why="no trunk gives more than 2048"
    ),
    "MODEL.PCB.GLOBAL_DIM": Key(
        256,
        "width of the feature of the global branch; 0 = stripes alone",
        low=0,
        high=8192,
        affects=EMBEDS,
        why="no trunk gives more than 2048",
    ),
    "MODEL.PCB.PART_POOL": Key(
        "max", "how a stripe becomes one vector; gem: a mean with a learnt power", choices=POOLINGS, affects=EMBEDS
    ),
    "MODEL.PCB.GLOBAL_POOL": Key("max", "how the map becomes one vector", choices=POOLINGS, affects=EMBEDS),
    "MODEL.PCB.DROPOUT": Key(
        0.5, "dropout of each branch, after its norm", low=0, high=0.99, why="at 1 nothing passes"
    ),
    "MODEL.PCB.PART_NORM": Key(
        False,
        "True: each branch of the embedding has length 1, as the paper's; False: the embedding alone",
        affects=EMBEDS,
    ),
    "MODEL.PCB.OWN_STAGE4": Key(
        False, "the global branch has a last stage of its own, a copy of the trunk's", affects=EMBEDS
    ),
    "MODEL.PCB.GATE": Key(
        False, "a learnt gate in (0, 1) on each number of the global branch, before its norm", affects=EMBEDS
    ),
    "MODEL.PCB.GLOBAL_ERASE": Key(
        0.0, "share of the rows of the map that training zeroes for the global branch, 0 = none", low=0, high=1
    ),
    "MODEL.PCB.PART_ERASE": Key(0.0, "share of the rows of each stripe that training zeroes, 0 = none", low=0, high=1),
}
