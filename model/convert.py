"""Weights of other files -> ours: names, position embeddings of another grid, and a report of what went where."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import DataError
from utils.precision import at_least_float32

Weights = dict[str, torch.Tensor]
SHOWN = 4  # names of a kind that a report spells out
CLASSIFIER_PREFIXES = ("head", "fc.", "fc_norm.", "pre_logits")  # of ImageNet files
DISTILLATION = "dist"  # in dist_token, head_dist
NECK_PREFIX = "bottleneck"  # all families call their necks alike
FOR_REID = "which TEST.WEIGHT and MODEL.PRETRAIN_CHOICE self or finetune take"
FOR_IMAGENET = "which MODEL.PRETRAIN_CHOICE imagenet takes"


class LoadReport(NamedTuple):
    """What happened to each weight when a file was loaded; str() is one paragraph for a log."""

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]  # in the model only: left as they were
    surplus: tuple[str, ...]  # in the file only: ignored
    resized: tuple[str, ...]  # position embeddings interpolated to the model's grid; also in `matched`
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name -> (file's shape, model's shape): ignored
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        shapes = [f"{name} {list(theirs)} for {list(ours)}" for name, (theirs, ours) in self.misshaped.items()]
        kinds = {
            "missing": self.missing,
            "surplus": self.surplus,
            "resized": self.resized,
            "of another shape, left out": tuple(shapes),
        }
        parts = [f"{len(names)} {kind}{_some(names)}" for kind, names in kinds.items() if names]
        return "; ".join([f"{self.source}: {len(self.matched)} weights matched", *parts, *self.warnings])


def load_weights(
    module: nn.Module,
    weights: Mapping[str, torch.Tensor],
    source: str,
    deciding_keys: Callable[[str], str],
    grid: tuple[int, int] | None = None,
    prefixes: tuple[str, ...] = ("",),
) -> LoadReport:
    """Copy into `module` the weights whose names and shapes agree and return the report.

    A position embedding that differs in its grid only is resized to `grid` (rows, columns). `deciding_keys(name)` says
    which config keys decide a weight, or '' where nothing depends on it; `source` opens every message. Only weights
    of the module that start with one of `prefixes` are considered. Raises DataError, and changes nothing, when no
    weight matches or one that matters is missing or has another shape.
    """
    target = {name: value for name, value in module.state_dict().items() if name.startswith(prefixes)}
    usable, resized, misshaped = {}, [], {}
    for name in (name for name in target if name in weights):
        value = weights[name]
        if grid is not None and _differs_in_grid(name, value, target[name]):
            value = resize_pos_embed(value, grid, num_prefix=target[name].shape[1] - math.prod(grid))
            resized.append(name)
        if value.shape == target[name].shape:
            usable[name] = value
        else:
            misshaped[name] = (tuple(value.shape), tuple(target[name].shape))
    broken = [name for name, value in usable.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise DataError(
            f"{source}: {', '.join(broken[:SHOWN])} holds values that are not finite; copy or train it again"
        )
    missing = [name for name in target if name not in weights]
    needed = [name for name in target if deciding_keys(name)]
    trunk = [name for name in needed if not name.startswith(NECK_PREFIX)]
    if (trunk or not usable) and not any(name in weights for name in trunk):
        raise DataError(f"{source} holds {describe(weights)}; none of its weights fits this model")
    fatal = [name for name in needed if name in misshaped or name not in weights]
    if fatal:
        raise DataError(_fatal_message(source, fatal, misshaped, target, deciding_keys))
    module.load_state_dict(usable, strict=False)
    return LoadReport(
        source=source,
        matched=tuple(usable),
        missing=tuple(missing),
        surplus=tuple(name for name in weights if name not in target),
        resized=tuple(resized),
        misshaped=misshaped,
    )


def resize_pos_embed(
    pos_embed: torch.Tensor,
    grid: tuple[int, int],
    source_grid: tuple[int, int] | None = None,
    num_prefix: int = 1,
    mode: str = "bilinear",
    antialias: bool = False,
) -> torch.Tensor:
    """Return a position embedding [1, P + N, D] interpolated to `grid` (rows, columns); the P first slots are kept.

    Pixel centres are aligned as in image resizing (align_corners False). The defaults are TransReID's; timm and
    open_clip resize with `mode` bicubic and antialiasing. `source_grid` is guessed by `guess_grid` when it is not
    given. Keeps the dtype.
    """
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    rows, columns = source_grid or guess_grid(patches.shape[1], grid)
    image = patches.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)  # [1, D, rows, columns]
    image = F.interpolate(
        at_least_float32(image), size=tuple(grid), mode=mode, align_corners=False, antialias=antialias
    )
    return torch.cat([prefix, image.permute(0, 2, 3, 1).flatten(1, 2).to(pos_embed.dtype)], dim=1)


def guess_grid(count: int, like: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of `count` patches: square if it can be, else the shape nearest to that of `like`."""
    side = math.isqrt(count)
    if side * side == count:
        return side, side
    wanted = math.log(like[0] / like[1])
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1]) - wanted))


def imagenet_trunk(weights: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> Weights:
    """Return the trunk in an ImageNet file (ViT, distilled DeiT, ResNet), without classifiers, by our names.

    The position of a distillation token is dropped. A patch projection stored as a matrix takes the shape
    [D, 3, p, p] that it has in the state dict `target`. A prefix `backbone.` is removed.
    """
    weights = {name.removeprefix("backbone."): value for name, value in weights.items()}
    distilled = "dist_token" in weights
    trunk = {}
    for name, value in weights.items():
        if name.startswith(CLASSIFIER_PREFIXES) or DISTILLATION in name:
            continue
        if name == "pos_embed":
            value = without_distillation(value, distilled)
        if name == "patch_embed.proj.weight" and name in target and value.numel() == target[name].numel():
            value = value.reshape(target[name].shape)
        trunk[name] = value
    return trunk


def without_distillation(pos_embed: torch.Tensor, distilled: bool) -> torch.Tensor:
    """Return a position embedding [1, 1 + N, D] from [1, 1 + N, D] or, of a distilled DeiT, [1, 2 + N, D].

    Which of them it is says `distilled` or, where the file does not tell, a number of slots that is two above a square.
    """
    if pos_embed.dim() == 3 and (distilled or _has_two_extra_slots(pos_embed)):
        return torch.cat([pos_embed[:, :1], pos_embed[:, 2:]], dim=1)
    return pos_embed


def reid_trunk(weights: Mapping[str, torch.Tensor], tail_names: Sequence[str] = ("norm",)) -> Weights:
    """Return the trunk in a ReID checkpoint, with or without `base.` before its names.

    Where the checkpoint has a jigsaw module, its trained global block and what follows it (`b1`) stand for the last
    block and the modules `tail_names` of the trunk, which were left untrained. Raises DataError for branches that are
    those of no such trunk.
    """
    trunk = {name.removeprefix("base."): value for name, value in weights.items() if name.startswith("base.")}
    if not trunk:
        return dict(weights)
    last = max((int(name.split(".")[1]) for name in trunk if name.startswith("blocks.")), default=None)
    replaced = {f"b1.{index}.": name for index, name in enumerate((f"blocks.{last}", *tail_names))}
    for name, value in weights.items():
        if not name.startswith("b1."):
            continue
        prefix = next((prefix for prefix in replaced if name.startswith(prefix)), None)
        if prefix is None or last is None:
            raise DataError(f"the file's {name} belongs to another trunk than MODEL.TRANSFORMER_TYPE names")
        trunk[f"{replaced[prefix]}.{name.removeprefix(prefix)}"] = value
    return trunk


def describe(weights: Mapping[str, torch.Tensor]) -> str:
    """Return in words what the names of a state dict look like."""
    signs = {
        "a CLIP model": ("visual.conv1.weight", "visual.class_embedding", "image_encoder.conv1.weight"),
        f"a TransReID checkpoint with JPM, {FOR_REID}": ("b1.0.norm1.weight",),
        f"a TransReID checkpoint, {FOR_REID}": ("base.cls_token",),
        f"a ResNet ReID checkpoint, {FOR_REID}": ("base.conv1.weight",),
        f"a distilled DeiT, {FOR_IMAGENET}": ("dist_token",),
        f"a plain ViT, {FOR_IMAGENET}": ("cls_token", "backbone.cls_token"),
        f"a plain ResNet, {FOR_IMAGENET}": ("layer1.0.conv1.weight", "backbone.layer1.0.conv1.weight"),
    }
    for text, names in signs.items():
        if any(name in weights for name in names):
            return text
    return f"an unknown model (its weights are called {', '.join(list(weights)[:3])}, ...)"


def _differs_in_grid(name: str, value: torch.Tensor, target: torch.Tensor) -> bool:
    same_width = value.dim() == 3 and value.shape[::2] == target.shape[::2]
    return name.endswith("pos_embed") and same_width and value.shape[1] != target.shape[1] and value.shape[1] > 1


def _has_two_extra_slots(pos_embed: torch.Tensor) -> bool:
    count = pos_embed.shape[1]
    return count > 2 and not _is_square(count - 1) and _is_square(count - 2)


def _is_square(count: int) -> bool:
    return math.isqrt(count) ** 2 == count


def _fatal_message(
    source: str,
    fatal: list[str],
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    target: Mapping[str, torch.Tensor],
    deciding_keys: Callable[[str], str],
) -> str:
    name = next((name for name in fatal if name in misshaped), fatal[0])  # a wrong shape says more than an absence
    ours = list(target[name].shape)
    if name in misshaped:
        what = f"{name} is {list(misshaped[name][0])} in the file, but {ours} in this model"
    else:
        what = f"{name} {ours} is not in the file"
    others = f" ({len(fatal) - 1} more weights do not fit)" if len(fatal) > 1 else ""
    return f"{source}: {what}; {deciding_keys(name)}{others}"


def _some(names: tuple[str, ...]) -> str:
    more = f", ... {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"
