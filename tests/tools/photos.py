"""Loose images of several sizes, modes and suffixes, in nested folders."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {  # name -> (width, height), mode
    "a.png": (40, 30, "RGB"),
    "b.JPG": (25, 61, "RGB"),
    "trip/c.jpeg": (32, 32, "L"),
    "trip/d.png": (17, 90, "RGBA"),
    "trip/day 2/e.bmp": (64, 20, "P"),
    "z.webp": (33, 33, "RGB"),
}
NAMES = sorted(SIZES)


def write_photos(folder: Path) -> list[str]:
    """Write SIZES below `folder`, beside files that are no images; return the paths of the images, sorted by name."""
    rng = np.random.default_rng(1)
    for name, (width, height, mode) in SIZES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"no image")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "thumb.png").write_bytes(b"no image")
    return [str(folder / name) for name in NAMES]
