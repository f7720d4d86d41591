"""How well a photograph shows the parts of a vehicle that captions speak of."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from datasets.synthetic.looks import Look
from datasets.synthetic.photos import Photo
from datasets.synthetic.shapes import Mesh
from datasets.synthetic.vehicles import ROOF, make_vehicle

GLASS, MOTIF, ON_TOP = "glass", "motif_colour", "top"  # top: what stands on the roof, or is painted on it
COLOURS = ("second", MOTIF, "stripe_colour", "rim", "plate", "bumper", GLASS)  # fields of a look
PARTS = (*COLOURS[:-1], ON_TOP)  # those that captions speak of
NOTHING, REST = 0, 255  # labels of a pixel; those of COLOURS and ON_TOP are LABELS
LABELS = {name: number for number, name in enumerate((*COLOURS, ON_TOP), start=1)}
RING = 2  # pixels around a part that it is compared with


class Seen(NamedTuple):
    """What a photograph shows of one part."""

    share: float  # of the image's area
    contrast: float  # between its mean colour and that around it: distance of RGB in 0..255


def labels_of(look: Look) -> np.ndarray:
    """Return uint8 [P]: for each patch of a look's mesh the label of its part.

    The mesh is built anew with a colour of its own for each part; the patches keep their order.
    """
    codes = {name: (LABELS[name] / 255, 0.5, 0.25) for name in COLOURS}
    mesh = make_vehicle(replace(look, **codes)).mesh
    coded = (mesh.colours[:, 1:] == (0.5, 0.25)).all(axis=1)
    labels = np.where(coded, np.rint(mesh.colours[:, 0] * 255), REST).astype(np.uint8)
    on_roof = mesh.levels == ROOF
    if look.roof in ("sunroof", "number"):
        painted = labels == LABELS[GLASS if look.roof == "sunroof" else MOTIF]
        on_roof |= painted & (mesh.normals[:, 2] > 0.99)
    labels[on_roof] = LABELS[ON_TOP]
    return labels


def seen_parts(photo: Photo, mesh: Mesh, labels: np.ndarray) -> dict[str, Seen]:
    """Return how well a photograph of the vehicle with this mesh shows each of PARTS, of `labels_of` the look.

    Occluders hide the whole box that they cover.
    """
    height, width = photo.pixels.shape[:2]
    image = Image.new("L", (width, height), NOTHING)
    pen = ImageDraw.Draw(image)
    points = photo.view.project(mesh.points).tolist()
    for patch in photo.view.patches:
        polygon = points[mesh.starts[patch] : mesh.starts[patch + 1]]
        pen.polygon([tuple(point) for point in polygon], fill=int(labels[patch]))
    for box in photo.view.covered:
        pen.rectangle(box, fill=NOTHING)
    owners = np.asarray(image)
    return {name: _seen(photo.pixels, owners == LABELS[name]) for name in PARTS}


def _seen(pixels: np.ndarray, part: np.ndarray) -> Seen:
    """Measure a part, bool [H, W], in pixels [H, W, 3]."""
    if not part.any():
        return Seen(0.0, 0.0)
    around = _widened(part) & ~part
    if not around.any():
        return Seen(float(part.mean()), 0.0)
    apart = pixels[part].mean(axis=0) - pixels[around].mean(axis=0)
    return Seen(float(part.mean()), float(np.linalg.norm(apart)))


def _widened(part: np.ndarray) -> np.ndarray:
    """Return the pixels within RING rows and RING columns of a part, bool [H, W]."""
    tall = part.copy()
    for step in range(1, RING + 1):
        tall[step:] |= part[:-step]
        tall[:-step] |= part[step:]
    wide = tall.copy()
    for step in range(1, RING + 1):
        wide[:, step:] |= tall[:, :-step]
        wide[:, :-step] |= tall[:, step:]
    return wide
