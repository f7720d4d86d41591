"""Attention maps of the global and of each local branch, laid over the images at their own aspect ratio."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.loose_images import add_paths, find_images
from tools.source import load_source
from tools.visualize.common import picture_parser
from tools.visualize.grid import Tile, draw_grid, file_stem, open_rgb
from utils.commands import need_packages, whole_number
from utils.progress import progress

if TYPE_CHECKING:
    from PIL import Image

    from datasets.torch_datasets import ImageDataset
    from processor.trained import Trained

LONGEST_SIDE = 512  # pixels at which an image is overlaid
BATCH = 8
FAINT, STRONG = 0.15, 0.7  # opacity of the lowest and of the highest value
UNKNOWN = -1  # camera and viewpoint of an image that belongs to no data set


def main(argv: list[str] | None = None) -> int:
    """Write one picture per image, with the map of each branch; return the exit code 0."""
    parser = picture_parser("attention", "Show by attention roll-out from where in an image each feature comes.")
    what = "files or folders (default: the first test queries)"
    add_paths(parser, "--images", "-i", metavar="PATH", what=what, required=False)
    how_many = "how many test queries (default 8)"
    parser.add_argument("--num-images", type=whole_number, default=8, metavar="N", help=how_many)
    parser.add_argument("--head-fusion", default="mean", help="how heads are joined: mean, max or min (default mean)")
    args = parser.parse_args(argv)
    need_packages("matplotlib")

    from utils.run_folder import make_folder

    trained = load_source(args)

    from model.rollout import patches_of

    geometry = patches_of(trained.model)  # before any image is read
    folder = make_folder(args.out, "--out")
    images, number = _choose(args, trained)
    with progress("draw", number, "image") as bar:
        for row, maps in enumerate(_roll_out(trained, images, number, args.head_fusion)):
            path = images.samples[row].path
            draw_maps(path, maps.items(), geometry, folder / f"{row + 1:03d}_{file_stem(path)}.png")
            bar.update()
    images.tell_damage()
    print(f"{number} attention maps in {folder}")
    return 0


def draw_maps(
    path: str,
    maps: Iterable[tuple[str, np.ndarray]],
    geometry: tuple[Sequence[int], Sequence[int], Sequence[int]],
    out: Path,
    title: str = "",
) -> None:
    """Write the image beside its named maps [rows, columns]; each is coloured from its lowest to its highest value.

    `geometry` is as in `heat_map`. Below each map stand these two values as multiples of the mean over all patches. The
    title stands above.
    """
    image = open_rgb(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    tiles = []
    for name, values in maps:
        relative = values / values.mean()
        heat = heat_map(values, *geometry, (image.height, image.width))
        tiles.append(Tile(overlay(image, heat), name, (f"{relative.min():.2f} - {relative.max():.2f} x mean",)))
    draw_grid(Tile(image, "image", (Path(path).name,)), tiles, out, height=256, title=title)


def heat_map(
    values: np.ndarray,
    patch: Sequence[int],
    stride: Sequence[int],
    input_size: Sequence[int],
    picture_size: Sequence[int],
) -> np.ndarray:
    """Return values [rows, columns] of patches as float64 [h, w], the size of a picture; all arguments are (y, x).

    The model saw the picture resized to `input_size`, where patch i is centred at i * stride + patch / 2 pixels.
    Between the centres the map is bilinear, beyond the outer ones it keeps their value, and it is NaN where no patch
    looks: at the right and lower margin, where the stride does not divide what is left.
    """
    rows, columns = (
        (np.arange(size) + 0.5) * seen / size for size, seen in zip(picture_size, input_size, strict=True)
    )  # pixel centres in the coordinates of the input
    centres = [
        np.arange(number) * step + side / 2 for number, step, side in zip(values.shape, stride, patch, strict=True)
    ]
    across = np.stack([np.interp(columns, centres[1], line) for line in values])  # [rows, w]
    heat = np.stack([np.interp(rows, centres[0], line) for line in across.T], axis=1)  # [h, w]
    ends = [middle[-1] + side / 2 for middle, side in zip(centres, patch, strict=True)]
    heat[rows > ends[0]] = np.nan
    heat[:, columns > ends[1]] = np.nan
    return heat


def overlay(image: "Image.Image", heat: np.ndarray) -> "Image.Image":
    """Return an RGB image [h, w] with `heat` float [h, w] laid over it; where it is NaN the image stays as it is."""
    import matplotlib
    from PIL import Image

    low, high = np.nanmin(heat), np.nanmax(heat)
    level = np.nan_to_num((heat - low) / (high - low if high > low else 1))
    colour = matplotlib.colormaps["inferno"](level)[..., :3]
    opacity = np.where(np.isnan(heat), 0, FAINT + (STRONG - FAINT) * level)[..., None]
    mixed = (1 - opacity) * np.asarray(image) / 255 + opacity * colour
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def _choose(args: argparse.Namespace, trained: "Trained") -> tuple["ImageDataset", int]:
    """Return images, with the labels that the model is told, and how many of them to draw."""
    if args.images is None:
        from datasets.make_dataloader import make_dataloader
        from processor.trained import told_by

        data = make_dataloader(trained.cfg, counts=partial(told_by, trained.cfg, trained.weight))
        return data.val_loader.dataset, min(args.num_images, data.num_query)
    from datasets.bases import Sample
    from datasets.torch_datasets import ImageDataset

    paths = find_images(args.images, "--images")
    settings = trained.cfg.INPUT
    samples = [Sample(path, UNKNOWN, UNKNOWN, UNKNOWN) for path in paths]
    reading = (settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER)
    return ImageDataset(samples, *reading, broken=settings.BROKEN_IMAGES), len(samples)


def _roll_out(
    trained: "Trained", images: "ImageDataset", number: int, head_fusion: str
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the maps [rows, columns] of the branches for each of the first `number` images."""
    import torch

    from datasets.make_transforms import make_transforms
    from model.rollout import rollout

    _, transform = make_transforms(trained.cfg)
    for start in range(0, number, BATCH):
        batch = images.__getitems__(range(start, min(start + BATCH, number)))
        pixels, cameras, views = (batch[name].to(trained.device) for name in ("images", "camids", "viewids"))
        maps = rollout(trained.model, transform(pixels), cameras, views, head_fusion)
        for values in torch.stack([*maps.values()], dim=1).cpu().numpy():  # [1 + n, rows, columns]
            yield dict(zip(maps, values, strict=True))
