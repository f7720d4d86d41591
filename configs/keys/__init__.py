"""Every configuration key once, by its dotted name; one file a subject, one a system.

The defaults are TransReID's own, so that a TransReID YAML means here what it means there. `configs/rules` checks what
keys say together; `python -m tools.config_docs` prints them all as a page.
"""

import copy

from yacs.config import CfgNode

from configs.keys import (
    clip_fusion,
    clip_reid,
    data,
    distill,
    irra,
    loss,
    model,
    model_b,
    multimodal,
    pcb,
    solver,
    test,
    transreid,
)
from configs.keys.key import Key

TABLES = (
    *(model.KEYS, transreid.KEYS, clip_fusion.KEYS, data.KEYS, solver.KEYS),
    *(loss.KEYS, model_b.KEYS, test.KEYS, clip_reid.KEYS, irra.KEYS, pcb.KEYS, distill.KEYS),
    multimodal.KEYS,
)
KEYS: dict[str, Key] = {name: key for table in TABLES for name, key in table.items()}
SECTIONS = {
    "MODEL": "architecture, first weights and devices",
    "MODEL.VIT": "size of the transformer; 0 = the value of TRANSFORMER_TYPE",
    "MODEL.LORA": "low-rank adapters in the transformer's blocks; its own weights are frozen",
    "MODEL.PCB": "stripes and global branch of MODEL.NAME pcb, on a CNN",
    "MODEL.MULTIMODAL": "one CLIP with adapters for each modality, and the fusion of a query of several",
    "INPUT": "images: size, pixels, augmentation",
    "INPUT.TEXT": "captions of images: their tokens, and which of them are masked",
    "INPUT.SSL": "the two views of self-supervised training, in place of PADDING, JITTER and RE_PROB",
    "DATASETS": "what is trained and tested on",
    "DATALOADER": "how batches are drawn and read",
    "DATALOADER.PHASED": "K from the losses that are active; P follows from IMS_PER_BATCH",
    "SOLVER": "optimizer, schedule and loop",
    "SOLVER.STAGE1": "CLIP-ReID's first stage, prompts, in place of the keys of SOLVER",
    "SOLVER.STAGE2": "CLIP-ReID's second stage, image tower, in place of the keys of SOLVER; epochs count anew",
    "LOSS": "shares of branches and classes",
    "LOSS.BRANCHES": "how the values of a loss over the branches of a model add up",
    "LOSS.TRIPLET": "hardest positive and negative; weight MODEL.TRIPLET_LOSS_WEIGHT, margin SOLVER.MARGIN",
    "LOSS.SPECTRAL": "spectral feature transform: each feature as a mean of those of its batch that resemble it",
    "LOSS.TRIPLETX": "top-k mining, cross-camera positives, hardness weights",
    "LOSS.SUPCON": "supervised contrastive loss on a projection head of the global branch",
    "LOSS.I2T": "CLIP-ReID's losses between images and prompts",
    "LOSS.TEXT": "IRRA's losses between images and captions",
    "LOSS.ALIGN": "features of every set of modalities against those of RGB",
    "LOSS.FEAT_NORM": "lengths of the fused features",
    "LOSS.PHASED": "losses and weights by phase; the last entry of a list serves all later phases",
    "LOSS.BRIGHTNESS": "dark images to TripletX, bright ones to the triplet loss, wherever TripletX is active",
    "DISTILL": "a trained model of images, the teacher, whose outputs the model learns too",
    "TEST": "how checkpoints are tested",
    "TEST.RERANK": "parameters of the re-ranking; the paper's own are 20, 6, 0.3",
    "TEST.QE": "query expansion before ranking",
    "TEST.SPECTRAL": "spectral re-ranking, after the expansion; in place of RE_RANKING",
    "": "what belongs to no section",
}  # what the keys of a section share, in the order of the page


def get_cfg_defaults() -> CfgNode:
    """Return a fresh, unfrozen tree of all defaults."""
    cfg = CfgNode()
    for name, key in KEYS.items():
        *sections, leaf = name.split(".")
        node = cfg
        for section in sections:
            node = node.setdefault(section, CfgNode())
        node[leaf] = copy.deepcopy(key.default)
    return cfg


def affects(name: str, effect: str) -> bool:
    """Return whether a key affects `effect`, one of EFFECTS; a key that only an old record has counts everywhere."""
    return effect in KEYS[name].affects if name in KEYS else effect != "place"
