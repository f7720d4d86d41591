"""Keys of distillation, which any system of images may have beside its own losses."""

from configs.keys.key import MOST_WEIGHT, OUTWEIGHS, Key

KEYS = {
    "DISTILL.TEACHER_RUN": Key("", "OUTPUT_DIR of the teacher's training, whose last checkpoint teaches; '' = none"),
    "DISTILL.TEACHER_CONFIG": Key("", "YAML of TEACHER_WEIGHT; '' = what the checkpoint tells"),
    "DISTILL.TEACHER_WEIGHT": Key("", "checkpoint that teaches, in place of TEACHER_RUN; '' = none"),
    "DISTILL.W_LOGIT": Key(
        1.0, "weight of the teacher's classification, branch by branch", low=0, high=MOST_WEIGHT, why=OUTWEIGHS
    ),
    "DISTILL.T": Key(
        4.0, "of W_LOGIT: logits are divided by it, the loss is times its square", low=0.01, high=1000, why="softmax"
    ),
    "DISTILL.SYMMETRIC": Key(False, "of W_LOGIT: the mean of both directions of the divergence"),
    "DISTILL.W_FEAT": Key(
        0.0, "weight of 1 - cosine between both embeddings of an image", low=0, high=MOST_WEIGHT, why=OUTWEIGHS
    ),
    "DISTILL.W_RELATION": Key(
        0.0, "weight of the cosines of each image with the others of its batch", low=0, high=MOST_WEIGHT, why=OUTWEIGHS
    ),
    "DISTILL.T_RELATION": Key(
        0.1, "of W_RELATION: cosines are divided by it", low=1e-4, high=1e4, why="at 0 one pair has all weight"
    ),
}
