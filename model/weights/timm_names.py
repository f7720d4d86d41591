"""Files of timm, and of the authors of its models (DINOv2, DINOv3, CLIP, EVA, SigLIP, ...), by timm's names."""

import contextlib
import io
import math

from timm.models import eva, vision_transformer
from timm.models.eva import Eva

from model.backbones.vit import Trunk
from model.weights.convert import resize_pos_embed
from model.weights.imagenet import without_distillation
from model.weights.load import Weights
from utils.errors import DataError

AUTHORS_NAMES = ("mask_token", "register_tokens", "storage_tokens")  # in files that are not by timm's names


def by_timm_names(weights: Weights, trunk: Trunk, grid: tuple[int, int], source: str) -> Weights:
    """Return the trunk in a file of timm or of the authors (DINOv2, DINOv3, CLIP, EVA, SigLIP, ...) by timm's names.

    `trunk` is timm's model as it was created and converts the names. The position embedding is resized to `grid` (rows,
    columns) as timm does it, bicubic with antialiasing; a distilled DeiT's slot of its second token is dropped. Raises
    DataError, opened by `source`, for a file that timm cannot make anything of.
    """
    convert = (eva if isinstance(trunk, Eva) else vision_transformer).checkpoint_filter_fn
    weights = {name.removeprefix("backbone."): value for name, value in weights.items()}
    num_prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    positions = None  # timm would take those of its own layout to the grid of `trunk` first
    if not any(name in weights for name in AUTHORS_NAMES):
        positions = weights.pop("pos_embed", None)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints about each bias that a DINOv3 does not have
            converted = convert(weights, trunk)
    except Exception as error:  # for names and shapes that it does not expect, timm raises nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{source} does not fit MODEL.TRANSFORMER_TYPE: timm cannot convert it ({reason})") from error
    if positions is not None and positions.dim() == 3:
        fits = positions.shape[1] == num_prefix + math.prod(grid)
        if num_prefix == 1 and not fits:
            positions = without_distillation(positions, "dist_token" in weights)
    positions = converted.pop("pos_embed", None) if positions is None else positions
    if positions is not None:
        if (
            positions.dim() == 3
            and positions.shape[1] > num_prefix
            and positions.shape[1] != num_prefix + math.prod(grid)
        ):
            positions = resize_pos_embed(positions, grid, num_prefix=num_prefix, mode="bicubic", antialias=True)
        converted["pos_embed"] = positions
    return {name: value for name, value in converted.items() if not name.startswith(("head.", "head_dist."))}
