"""TransReID's vision transformer around timm's blocks: overlapping patches, side information, any image size.

References: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; He et al., TransReID, ICCV 2021, section 3.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from model.layers import sie
from model.layers.lora import add_lora
from model.layers.pooling import Branch, Pooling, end, run_block
from model.parts import Part
from utils.errors import ConfigError, DataError
from utils.precision import at_least_float32, in_autocast_type

NUM_IMAGENET_CLASSES = 1000
INIT_STD = 0.02
FROM_THE_START = ("cls_token", "reg_token", "pos_embed", "patch_embed.", "norm_pre.", "rope.")  # before the blocks

Trunk = TimmVisionTransformer | Eva


class PatchEmbed(nn.Module):
    """Images [B, 3, H, W] -> tokens [B, N, D], rows of patches from the top; patches overlap if stride < patch size."""

    def __init__(self, proj: nn.Conv2d, norm: nn.Module, stride: tuple[int, int]) -> None:
        super().__init__()
        proj.stride = stride
        self.proj = proj
        self.norm = norm

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class VisionTransformer(nn.Module):
    """The parts of a timm VisionTransformer or Eva with a patch stride, an image size and side information of its own.

    The tokens are [class token, if there is one; register tokens; patches]: P prefix tokens and N patches. Position
    embeddings of `trunk` are kept where the grids agree and drawn anew otherwise; rotary ones are computed for the
    grid. The feature is the class token where `trunk` normalises it, else what `trunk` pools itself (the mean of the
    patches, or attention pooling). `image_size` and `stride` are (y, x) in pixels. `camera_num` and `view_num` are the
    labels to embed, 0 = off. `imagenet_head` adds the unused `fc` that TransReID's checkpoints hold. `narrow` leaves
    the tokens between blocks in the type of autocast, which otherwise adds them up in float32. Raises ConfigError when
    the patches do not fit the image.
    """

    def __init__(
        self,
        trunk: Trunk,
        image_size: tuple[int, int],
        stride: tuple[int, int],
        drop_out: float = 0.0,
        camera_num: int = 0,
        view_num: int = 0,
        sie_coe: float = 3.0,
        imagenet_head: bool = True,
        narrow: bool = False,
    ) -> None:
        super().__init__()
        self.feat_dim = trunk.embed_dim
        self.image_size = tuple(image_size)
        self.grid = patch_grid(self.image_size, trunk.patch_embed.patch_size, stride)
        self.num_patches = self.grid[0] * self.grid[1]
        self.num_prefix = trunk.num_prefix_tokens
        self.camera_num, self.view_num, self.sie_coe = camera_num, view_num, sie_coe
        self.frozen_blocks = 0
        self.narrow = narrow

        self.cls_token, self.reg_token = trunk.cls_token, trunk.reg_token  # None where the trunk has none
        self._add_positions(trunk)
        self.side_rows = sie.count_rows(camera_num, view_num)
        if self.side_rows:
            self.sie_embed = nn.Parameter(torch.empty(self.side_rows, 1, self.feat_dim))
            nn.init.trunc_normal_(self.sie_embed, std=INIT_STD)
        self.patch_embed = PatchEmbed(trunk.patch_embed.proj, trunk.patch_embed.norm, tuple(stride))
        self.pos_drop = nn.Dropout(drop_out)
        self.norm_pre = trunk.norm_pre
        self.blocks = trunk.blocks
        self._add_tail(trunk)
        if imagenet_head:
            self.fc = nn.Linear(self.feat_dim, NUM_IMAGENET_CLASSES)
            nn.init.trunc_normal_(self.fc.weight, std=INIT_STD)
            nn.init.zeros_(self.fc.bias)
            self.fc.requires_grad_(False)

    def _add_positions(self, trunk: Trunk) -> None:
        self.pos_embed = trunk.pos_embed
        self.embedded_prefix = 0 if trunk.no_embed_class else self.num_prefix  # prefix tokens with a position
        if self.pos_embed is not None and trunk.patch_embed.grid_size != self.grid:
            count = self.embedded_prefix + self.num_patches
            self.pos_embed = nn.Parameter(torch.empty(1, count, self.feat_dim))
            nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        self.rope, rotation = None, None
        if isinstance(trunk, Eva) and trunk.rope_mixed:
            self.rope = trunk.rope  # learns, one table for each block
        elif isinstance(trunk, Eva) and trunk.rope is not None:
            trunk.rope.update_feat_shape(list(self.grid))
            rotation = trunk.rope.get_embed(shape=list(self.grid))  # [N, 2d]
            heads = trunk.blocks[0].attn.num_heads
            if rotation.shape[-1] != 2 * (self.feat_dim // heads):
                raise ConfigError(
                    f"MODEL.VIT.EMBED_DIM {self.feat_dim} with {heads} heads (MODEL.VIT.NUM_HEADS) makes them of width "
                    f"{self.feat_dim // heads}; rotary positions need a multiple of 4"
                )
        self.register_buffer("rotation", rotation, persistent=False)

    def _add_tail(self, trunk: Trunk) -> None:
        """Take over what follows the blocks: one norm, and attention pooling where the trunk has no class token."""
        self.norm_name = "norm" if isinstance(trunk.fc_norm, nn.Identity) else "fc_norm"
        self.add_module(self.norm_name, getattr(trunk, self.norm_name))
        if trunk.attn_pool is not None:
            self.attn_pool = trunk.attn_pool
            includes_prefix = isinstance(trunk, Eva) or trunk.pool_include_prefix
            self.pooling = Pooling("map", first=0 if includes_prefix else self.num_prefix)
        elif trunk.cls_token is not None and (trunk.global_pool == "token" or not isinstance(trunk.norm, nn.Identity)):
            self.pooling = Pooling("token")
        else:
            self.pooling = Pooling("avg", first=self.num_prefix, norm_last=self.norm_name == "fc_norm")

    @property
    def tail_names(self) -> tuple[str, ...]:
        """Names of the modules behind the blocks, in the order in which a branch holds them."""
        return (self.norm_name, "attn_pool") if self.pooling.kind == "map" else (self.norm_name,)

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the feature [B, D] of images [B, 3, H, W]; labels as in `forward_tokens`."""
        tokens = self.forward_tokens(images, cam_label, view_label, skip_last=1)
        return end(self._last_layers(), self.pooling, tokens, self.rotations()[-1])

    def forward_tokens(
        self,
        images: torch.Tensor,
        cam_label: torch.Tensor | None = None,
        view_label: torch.Tensor | None = None,
        skip_last: int = 0,
    ) -> torch.Tensor:
        """Return the tokens [B, P + N, D] after all blocks but the last few, not normalised.

        The labels are [B] int64 from 0, negative or None = unknown; read only where side information is on. Raises
        DataError for images of another size than the model was built for.
        """
        if tuple(images.shape[-2:]) != self.image_size:
            raise DataError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels, but the model was built for "
                f"{self.image_size[0]} x {self.image_size[1]} (INPUT.SIZE_TRAIN); resize them"
            )
        x = self._add_prefix(self.patch_embed(images))
        if self.side_rows:
            side = sie.look_up(self.sie_embed, self.camera_num, self.view_num, cam_label, view_label, images.shape[0])
            x = x + self.sie_coe * side
        x = self.norm_pre(self.pos_drop(x))
        x = in_autocast_type(x) if self.narrow else x
        rotations = self.rotations()
        for index in range(len(self.blocks) - skip_last):
            x = run_block(self.blocks[index], x, rotations[index])
        return at_least_float32(x) if self.narrow else x

    def _add_prefix(self, patches: torch.Tensor) -> torch.Tensor:
        """Return [B, P + N, D] from patches [B, N, D]: class and register tokens in front, positions added."""
        tokens = (self.cls_token, self.reg_token)
        prefix = [token.expand(patches.shape[0], -1, -1) for token in tokens if token is not None]
        if self.pos_embed is None:
            return torch.cat([*prefix, patches], dim=1)
        if not self.embedded_prefix:
            return torch.cat([*prefix, patches + self.pos_embed], dim=1)
        return torch.cat([*prefix, patches], dim=1) + self.pos_embed

    def rotations(self) -> Sequence[torch.Tensor | None]:
        """Return for each block the rotary position embedding [N, 2d] or [heads, N, 2d] of the patches, or None."""
        if self.rope is not None:
            return self.rope.get_embed(shape=list(self.grid))
        return [self.rotation] * len(self.blocks)

    def take_branches(self, count: int) -> list[Branch]:
        """Return copies of the last block with what follows it, and freeze the originals, which are then unused."""
        originals = self._last_layers()
        branches = [Branch(self.pooling, *deepcopy(originals)) for _ in range(count)]
        for module in originals:
            module.requires_grad_(False)
        return branches

    def _last_layers(self) -> list[nn.Module]:
        return [self.blocks[-1], *(self.get_submodule(name) for name in self.tail_names)]

    def freeze(self, count: int) -> None:
        """Stop the layers before the blocks and the first `count` blocks from learning, and from dropping anything."""
        for name, weight in self.named_parameters():
            if name.startswith(FROM_THE_START):
                weight.requires_grad_(False)
        self.blocks[:count].requires_grad_(False)
        self.frozen_blocks = count
        self.train(self.training)

    def adapt(self, rank: int, alpha: float, targets: tuple[str, ...]) -> None:
        """Freeze all but the side information and add low-rank adapters to the blocks that `freeze` left learning."""
        for name, weight in self.named_parameters():
            weight.requires_grad_(name == "sie_embed")
        add_lora(self.blocks[self.frozen_blocks :], rank, alpha, targets)

    def train(self, mode: bool = True) -> "VisionTransformer":
        super().train(mode)
        if self.frozen_blocks:
            self.pos_drop.eval()
            self.blocks[: self.frozen_blocks].eval()
        return self

    def keep_neutral_side(self) -> None:
        """Replace the table of side information by its mean, which is right for images without labels."""
        self.sie_embed = nn.Parameter(self.sie_embed.detach().mean(0, keepdim=True))
        self.camera_num, self.view_num, self.side_rows = 0, 0, sie.NEUTRAL_ROWS

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def part_of(self, name: str) -> Part:
        """Return the part of a parameter; the adapters of a block are new, in its layer."""
        if name.startswith("blocks."):
            return Part("new" if ".lora_" in name else "trunk", int(name.split(".")[1]) + 1)
        if name.startswith(FROM_THE_START):
            return Part("trunk", 0)
        return Part("new" if name == "sie_embed" else "trunk", self.depth + 1)

    def deciding_keys(self, name: str) -> str:
        """Return what decides presence and shape of a weight, or '' when the features do not depend on it."""
        if name.startswith("fc."):
            return ""
        if name == "sie_embed":
            return (
                f"the data gives {self.camera_num} cameras x {self.view_num} views "
                "(MODEL.SIE_CAMERA, MODEL.SIE_VIEW and the training set decide it)"
            )
        if name.startswith("patch_embed."):
            return "MODEL.TRANSFORMER_TYPE, MODEL.VIT.EMBED_DIM and MODEL.VIT.PATCH_SIZE decide it"
        if ".lora_" in name:
            return "MODEL.LORA (RANK, TARGETS) decides it"
        if name.startswith("blocks."):
            return "MODEL.TRANSFORMER_TYPE and MODEL.VIT (EMBED_DIM, DEPTH, MLP_RATIO) decide it"
        return "MODEL.TRANSFORMER_TYPE and MODEL.VIT.EMBED_DIM decide it"


def patch_grid(image_size: tuple[int, int], patch_size: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """Return the (rows, columns) of patches in an image; all arguments (y, x) in pixels. ConfigError if none fit."""
    if any(size < patch for size, patch in zip(image_size, patch_size, strict=True)):
        raise ConfigError(f"INPUT.SIZE_TRAIN {list(image_size)} is smaller than one patch {list(patch_size)}")
    if any(not 0 < step <= patch for step, patch in zip(stride, patch_size, strict=True)):
        raise ConfigError(
            f"MODEL.STRIDE_SIZE {list(stride)} does not fit the patch size {list(patch_size)}; "
            "give each side a stride from 1 to the patch size"
        )
    rows, columns = (
        (size - patch) // step + 1 for size, patch, step in zip(image_size, patch_size, stride, strict=True)
    )
    return rows, columns


def side_counts(trunk: nn.Module) -> tuple[int, int]:
    """Return how many cameras and viewpoints the side information of a trunk tells apart; 0 = that side is off."""
    return (trunk.camera_num, trunk.view_num) if isinstance(trunk, VisionTransformer) else (0, 0)
