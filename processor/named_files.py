"""Files that a run needs and keys name: looked for before the images are read, which may take minutes."""

from yacs.config import CfgNode

from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from processor.distill import find_teacher
from utils.checkpoint import weight_file
from utils.errors import ConfigError
from utils.paths import user_path


def check_named_files(cfg: CfgNode, first_weights: bool = True) -> None:
    """Raise ConfigError, opened by the key, for a file of first weights or a teacher that is not there.

    `first_weights` False: all that is trained comes from a saved state, only a teacher is read again.
    """
    find_teacher(cfg)
    model = cfg.MODEL
    if not first_weights:
        return
    if model.PRETRAIN_PATH and model.PRETRAIN_CHOICE != "none":
        weight_file(model.PRETRAIN_PATH, "MODEL.PRETRAIN_PATH")
    reads_clip = model.NAME in (*CLIP_REID, IRRA, MULTIMODAL) or (model.NAME == "transformer" and model.USE_CLIP)
    if model.CLIP_LOCAL_PATH and reads_clip:
        path = user_path(model.CLIP_LOCAL_PATH, "MODEL.CLIP_LOCAL_PATH")
        if not path.exists():
            raise ConfigError(f"MODEL.CLIP_LOCAL_PATH: nothing stands at '{path}'; correct the path")
