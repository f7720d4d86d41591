"""Photographs of the synthetic vehicles: projection, drawing, light, lens and sensor."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.synthetic.scenes import CAMERAS, Box, Camera, background, draw_occluders
from datasets.synthetic.shapes import HEADLAMP, NO_LAMP, Mesh
from datasets.synthetic.vehicles import MIRROR, Vehicle

SUPERSAMPLING = 3
SIZES = (64, 96)  # smallest and largest side of an image
MEAN_SIDE = 80
SUN = np.array([0.35, 0.45, 0.82])
# Index: the camera's direction seen from the vehicle in steps of 45 degrees, front, left front, left, ...;
# value: VeRi's number of the viewpoint.
ORIENTATIONS = (0, 3, 2, 4, 1, 7, 5, 6)
HIDDEN = -1


class Projection(NamedTuple):
    """Pinhole camera at `eye` with unit axes; `scale` and `shift` map its plane to pixels of the final image."""

    eye: np.ndarray  # float [3]
    axes: np.ndarray  # float [3, 3]: rows right, up, forward
    roll: np.ndarray  # float [2, 2]
    scale: float
    shift: np.ndarray  # float [2]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return [N, 2] pixel positions (x, y) of points [N, 3]."""
        view = (points - self.eye) @ self.axes.T
        plane = view[:, :2] / view[:, 2:] * (1, -1) @ self.roll
        return plane * self.scale + self.shift


class View(NamedTuple):
    """What of a vehicle a photograph can show."""

    project: Projection
    patches: np.ndarray  # int [V]: those of the mesh that face the camera, in drawing order
    covered: list[Box]  # in pixels of the image


class Photo(NamedTuple):
    """An image with its labels."""

    pixels: np.ndarray  # uint8 [H, W, 3]
    keypoints: np.ndarray  # int [20, 2]: x, y in pixels, -1 = not visible
    orientation: int  # 0 front, 1 rear, 2 left, 3 left front, 4 left rear, 5 right, 6 right front, 7 right rear
    view: View


def photograph(vehicle: Vehicle, number: int, seed: int, rng: np.random.Generator) -> Photo:
    """Take a picture of a vehicle with camera `number` (0-based) of the set drawn from `seed`."""
    camera = CAMERAS[number]
    azimuth = (camera.azimuth + rng.normal(0, camera.spread)) * rng.choice((-1, 1))
    project, size = aim(vehicle, azimuth, camera.elevation, rng)
    big = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    image = background(number, seed, big, rng)
    pen = ImageDraw.Draw(image, "RGBA")
    _draw_shadow(pen, vehicle, project, rng)
    visible = visible_patches(vehicle.mesh, project.eye)
    _draw_vehicle(pen, vehicle.mesh, visible, project, rng)
    covered = [tuple(edge / SUPERSAMPLING for edge in box) for box in draw_occluders(pen, big, rng)]
    pixels = np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255  # [H, W, 3]
    pixels = _expose(pixels, camera, vehicle.mesh, visible, project, rng)
    keypoints = _keypoints(vehicle, project, size, covered)
    orientation = ORIENTATIONS[round(azimuth / 45) % 8]
    return Photo(_develop(pixels, camera, rng), keypoints, orientation, View(project, visible, covered))


def aim(
    vehicle: Vehicle, azimuth: float, elevation: float, rng: np.random.Generator
) -> tuple[Projection, tuple[int, int]]:
    """Look from about here, in degrees, so that the vehicle fills most of an image; return also (width, height)."""
    turn, rise = np.radians(azimuth), np.radians(max(4.0, elevation + rng.normal(0, 3)))
    outward = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)])
    target = np.array([0, 0, 0.45 * vehicle.height])
    distance = vehicle.look.shape.length * rng.uniform(1.7, 3.0)
    right = np.cross(-outward, (0, 0, 1))
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(right, -outward), -outward])
    lean = np.radians(rng.normal(0, 2))
    roll = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    plain = Projection(target + distance * outward, axes, roll, 1.0, np.zeros(2))
    flat = plain(vehicle.mesh.points)
    low, high = flat.min(axis=0), flat.max(axis=0)
    aspect = float(np.sqrt((high[0] - low[0]) / (high[1] - low[1])) * rng.uniform(0.92, 1.08))
    size = tuple(int(np.clip(round(MEAN_SIDE * side), *SIZES)) for side in (aspect, 1 / aspect))
    scale = float(np.min(size / (high - low))) * rng.uniform(0.86, 1.04)
    shift = np.array(size) * (0.5 + rng.normal(0, 0.035, 2)) - scale * (low + high) / 2
    return plain._replace(scale=scale, shift=shift), size


def visible_patches(mesh: Mesh, eye: np.ndarray) -> np.ndarray:
    """Return the patches that face the eye, in drawing order: by level, then far carriers before near ones."""
    to_eye = eye - mesh.centres  # [P, 3]
    facing = ((mesh.normals * to_eye).sum(axis=1) > 0) | ~mesh.normals.any(axis=1)
    far_mirror = (mesh.levels == MIRROR) & (mesh.carriers[:, 1] * eye[1] < 0)
    levels = mesh.levels - far_mirror  # behind the cabin
    order = np.lexsort((mesh.carriers @ eye, levels))
    return order[facing[order]]


def _draw_shadow(pen: ImageDraw.ImageDraw, vehicle: Vehicle, project: Projection, rng: np.random.Generator) -> None:
    shape, reach = vehicle.look.shape, rng.uniform(0, 0.5, 2)
    x, y = 0.5 * shape.length, 0.5 * shape.width
    corners = [(-x, -y), (x, -y), (x + reach[0], y + reach[1]), (-x + reach[0], y + reach[1])]
    points = project(np.array([(u, v, 0.0) for u, v in corners])) * SUPERSAMPLING
    pen.polygon([tuple(point) for point in points], fill=(8, 8, 10, 150))


def _draw_vehicle(
    pen: ImageDraw.ImageDraw, mesh: Mesh, visible: np.ndarray, project: Projection, rng: np.random.Generator
) -> None:
    """Paint the visible patches with diffuse light from the sun and a glossy reflection of the sky."""
    sun = SUN + rng.normal(0, 0.2, 3)
    sun /= np.linalg.norm(sun)
    lit = 0.62 + 0.42 * np.maximum(mesh.normals @ sun, 0)  # [P]
    sky = 0.22 * mesh.gloss * np.clip(mesh.normals[:, 2] + 0.25, 0, 1) * rng.uniform(0.3, 1.0)
    colours = np.clip(255 * (mesh.colours * lit[:, None] + sky[:, None]), 0, 255).astype(int)
    points = (project(mesh.points) * SUPERSAMPLING).tolist()
    for patch in visible:
        polygon = points[mesh.starts[patch] : mesh.starts[patch + 1]]
        pen.polygon([tuple(point) for point in polygon], fill=tuple(colours[patch].tolist()))


def _expose(
    pixels: np.ndarray,
    camera: Camera,
    mesh: Mesh,
    visible: np.ndarray,
    project: Projection,
    rng: np.random.Generator,
) -> np.ndarray:
    """Apply exposure and colour cast; at night a street lamp lights a part of the scene and the lamps glow."""
    cast = np.array(camera.cast) * rng.normal(1, 0.03, 3)
    pixels = pixels * (camera.exposure * rng.uniform(0.85, 1.15) * cast).astype(np.float32)
    if not camera.night:
        return pixels
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    spot = np.array((width, height)) * rng.uniform(0.1, 0.9, 2)
    street = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (0.6 * width) ** 2)
    pixels = pixels * (0.65 + 0.7 * street[..., None])
    lamps = visible[mesh.lamps[visible] != NO_LAMP]
    for patch, (u, v) in zip(lamps, project(mesh.centres[lamps]), strict=True):
        front = mesh.lamps[patch] == HEADLAMP
        radius, power = (0.07, 0.8) if front else (0.045, 0.5)
        glow = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (radius * width) ** 2)
        tint = np.array((1.0, 0.95, 0.8) if front else (1.0, 0.1, 0.08), dtype=np.float32)
        pixels = pixels + power * glow[..., None] * tint
    return pixels


def _develop(pixels: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Apply blur and noise: float [H, W, 3] to uint8 [H, W, 3]."""
    image = Image.fromarray(to_bytes(pixels))
    image = image.filter(ImageFilter.GaussianBlur(camera.blur * rng.uniform(0.6, 1.4)))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * camera.noise
    return to_bytes(np.asarray(image, dtype=np.float32) / 255 + noise)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Return values in 0..1, of any shape, as uint8; what lies beyond is clipped."""
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def _keypoints(vehicle: Vehicle, project: Projection, size: tuple[int, int], covered: list[Box]) -> np.ndarray:
    """Return int [20, 2]: pixel positions, HIDDEN where a point faces away, is covered or lies outside the image."""
    points = project(vehicle.keypoints)  # [20, 2]
    seen = ((project.eye - vehicle.keypoints) * vehicle.outward).sum(axis=1) > 0
    seen &= ((points >= 0) & (points < size)).all(axis=1)
    for left, top, right, bottom in covered:
        x, y = points.T
        seen &= ~((x >= left) & (x <= right) & (y >= top) & (y <= bottom))
    return np.where(seen[:, None], points.astype(int), HIDDEN)
