"""TransReID's vision transformer around timm's blocks: overlapping patches and side information.

Reference: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; He et al., TransReID, ICCV 2021, section 3.
"""

import torch
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import nn

from model.layers import sie
from utils.errors import ConfigError, DataError

NUM_IMAGENET_CLASSES = 1000
INIT_STD = 0.02


class PatchEmbed(nn.Module):
    """Images [B, 3, H, W] -> tokens [B, N, D], rows of patches from the top; patches overlap if stride < patch size."""

    def __init__(self, proj: nn.Conv2d, stride: tuple[int, int]) -> None:
        super().__init__()
        proj.stride = stride
        self.proj = proj

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """The parts of a timm VisionTransformer with a patch stride, an image size and side information of its own.

    `trunk` has a class token and a learnt position embedding for it and every patch. Its position embedding is kept
    where the grids agree and drawn anew otherwise. `image_size` and `stride` are (y, x) in pixels. `camera_num` and
    `view_num` are the labels to embed, 0 = off. Raises ConfigError when the patches do not fit the image.
    """

    def __init__(
        self,
        trunk: TimmVisionTransformer,
        image_size: tuple[int, int],
        stride: tuple[int, int],
        drop_out: float = 0.0,
        camera_num: int = 0,
        view_num: int = 0,
        sie_coe: float = 3.0,
    ) -> None:
        super().__init__()
        self.feat_dim = trunk.embed_dim
        self.image_size = tuple(image_size)
        self.grid = patch_grid(self.image_size, trunk.patch_embed.patch_size, stride)
        self.num_patches = self.grid[0] * self.grid[1]
        self.camera_num, self.view_num, self.sie_coe = camera_num, view_num, sie_coe

        self.cls_token = trunk.cls_token
        self.pos_embed = trunk.pos_embed
        if trunk.patch_embed.grid_size != self.grid:
            self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.num_patches, self.feat_dim))
            nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        self.side_rows = sie.count_rows(camera_num, view_num)
        if self.side_rows:
            self.sie_embed = nn.Parameter(torch.empty(self.side_rows, 1, self.feat_dim))
            nn.init.trunc_normal_(self.sie_embed, std=INIT_STD)
        self.patch_embed = PatchEmbed(trunk.patch_embed.proj, tuple(stride))
        self.pos_drop = nn.Dropout(drop_out)
        self.norm_pre = trunk.norm_pre
        self.blocks = trunk.blocks
        self.norm = trunk.norm
        self.fc = nn.Linear(self.feat_dim, NUM_IMAGENET_CLASSES)  # unused; TransReID's checkpoints hold it
        nn.init.trunc_normal_(self.fc.weight, std=INIT_STD)
        nn.init.zeros_(self.fc.bias)
        self.fc.requires_grad_(False)

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the normalised class token [B, D] of images [B, 3, H, W]; labels as in `forward_tokens`."""
        tokens = self.forward_tokens(images, cam_label, view_label)
        return self.norm(tokens[:, 0])

    def forward_tokens(
        self,
        images: torch.Tensor,
        cam_label: torch.Tensor | None = None,
        view_label: torch.Tensor | None = None,
        skip_last: int = 0,
    ) -> torch.Tensor:
        """Return the tokens [B, 1 + N, D] (class token first) after all blocks but the last few, not normalised.

        The labels are [B] int64 from 0, negative or None = unknown; read only where side information is on. Raises
        DataError for images of another size than the model was built for.
        """
        if tuple(images.shape[-2:]) != self.image_size:
            raise DataError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels, but the model was built for "
                f"{self.image_size[0]} x {self.image_size[1]} (INPUT.SIZE_TRAIN); resize them"
            )
        patches = self.patch_embed(images)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        if self.side_rows:
            side = sie.look_up(self.sie_embed, self.camera_num, self.view_num, cam_label, view_label, len(patches))
            x = x + self.sie_coe * side
        x = self.norm_pre(self.pos_drop(x))
        for block in list(self.blocks)[: len(self.blocks) - skip_last]:
            x = block(x)
        return x

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
