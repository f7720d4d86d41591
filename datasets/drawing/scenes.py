"""The cameras of synthetic VeRi: each has a place, viewpoints, light, colour cast, blur and noise of its own."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.drawing.shapes import HEADLAMP, NO_LAMP, Mesh
from datasets.drawing.vehicles import MIRROR, Vehicle

SUPERSAMPLING = 3
CANVAS = 480  # pixels of a square background
SIZES = (64, 96)  # smallest and largest side of an image
MEAN_SIDE = 80
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
SUN = np.array([0.35, 0.45, 0.82])
# Index: the camera's direction seen from the vehicle in steps of 45 degrees, front, left front, left, ...;
# value: VeRi's number of the viewpoint.
ORIENTATIONS = (0, 3, 2, 4, 1, 7, 5, 6)
HIDDEN = -1


class Camera(NamedTuple):
    """One place; angles in degrees, azimuth 0 = the vehicle's front, 180 = its rear, either side of the vehicle."""

    azimuth: float
    spread: float
    elevation: float
    exposure: float
    cast: tuple[float, float, float]
    blur: float  # pixels
    noise: float  # standard deviation, 1 = white
    night: bool
    ground: tuple[int, int, int]
    backdrop: str  # "buildings", "trees" or "wall"


CAMERAS = (
    Camera(30, 14, 12, 1.00, (1.00, 1.00, 1.00), 0.4, 0.020, False, (112, 112, 114), "buildings"),
    Camera(60, 14, 18, 1.12, (1.10, 1.00, 0.84), 0.6, 0.025, False, (134, 128, 118), "trees"),
    Camera(100, 16, 10, 0.88, (0.88, 0.98, 1.14), 0.5, 0.030, False, (92, 96, 104), "wall"),
    Camera(140, 14, 20, 1.00, (1.02, 1.06, 0.92), 0.9, 0.020, False, (120, 122, 116), "buildings"),
    Camera(165, 12, 14, 0.92, (1.12, 0.98, 0.90), 0.5, 0.035, False, (104, 98, 92), "trees"),
    Camera(15, 12, 24, 1.22, (0.96, 1.02, 1.06), 0.7, 0.020, False, (146, 146, 148), "wall"),
    Camera(120, 18, 28, 0.80, (0.92, 1.00, 1.08), 0.8, 0.030, False, (84, 88, 90), "trees"),
    Camera(40, 16, 14, 0.40, (1.18, 0.96, 0.66), 0.7, 0.035, True, (88, 86, 84), "buildings"),
    Camera(80, 16, 18, 0.36, (0.82, 0.96, 1.22), 0.6, 0.045, True, (80, 82, 88), "wall"),
    Camera(145, 16, 16, 0.42, (1.00, 1.04, 0.86), 0.9, 0.035, True, (92, 92, 88), "trees"),
)


class Photo(NamedTuple):
    """An image with its labels."""

    pixels: np.ndarray  # uint8 [H, W, 3]
    keypoints: np.ndarray  # int [20, 2]: x, y in pixels, -1 = not visible
    orientation: int  # 0 front, 1 rear, 2 left, 3 left front, 4 left rear, 5 right, 6 right front, 7 right rear


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


def photograph(vehicle: Vehicle, number: int, seed: int, rng: np.random.Generator) -> Photo:
    """Take a picture of a vehicle with camera `number` (0-based) of the set drawn from `seed`."""
    camera = CAMERAS[number]
    azimuth = (camera.azimuth + rng.normal(0, camera.spread)) * rng.choice((-1, 1))
    project, size = _aim(vehicle, camera, azimuth, rng)
    big = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    image = _background(number, seed, big, rng)
    pen = ImageDraw.Draw(image, "RGBA")
    _draw_shadow(pen, vehicle, project, rng)
    visible = _visible(vehicle.mesh, project.eye)
    _draw_vehicle(pen, vehicle.mesh, visible, project, rng)
    covered = _draw_occluders(pen, big, rng)
    pixels = np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255  # [H, W, 3]
    pixels = _expose(pixels, camera, vehicle.mesh, visible, project, rng)
    keypoints = _keypoints(vehicle, project, size, covered)
    orientation = ORIENTATIONS[round(azimuth / 45) % 8]
    return Photo(_develop(pixels, camera, rng), keypoints, orientation)


def _aim(
    vehicle: Vehicle, camera: Camera, azimuth: float, rng: np.random.Generator
) -> tuple[Projection, tuple[int, int]]:
    """Place the camera so that the vehicle fills most of an image; return the projection and (width, height)."""
    turn, rise = np.radians(azimuth), np.radians(max(4.0, camera.elevation + rng.normal(0, 3)))
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
    scale = float(np.min(size / (high - low))) * rng.uniform(0.74, 0.98)
    shift = np.array(size) * (0.5 + rng.normal(0, 0.035, 2)) - scale * (low + high) / 2
    return plain._replace(scale=scale, shift=shift), size


@lru_cache(maxsize=2 * len(CAMERAS))
def _canvas(number: int, seed: int) -> Image.Image:
    """Draw the place of a camera: CANVAS x CANVAS, horizon in the upper part, road with markings below."""
    camera, rng = CAMERAS[number], np.random.default_rng((seed, 4, number))
    horizon = int(CANVAS * rng.uniform(0.30, 0.42))
    sky = tuple(int(c) for c in np.array((178, 200, 224)) + rng.integers(-25, 25, 3))
    image = Image.new("RGB", (CANVAS, CANVAS), sky)
    pen = ImageDraw.Draw(image)
    _draw_backdrop(pen, camera.backdrop, horizon, rng)
    pen.rectangle((0, horizon, CANVAS, CANVAS), fill=camera.ground)
    verge = tuple(int(c) for c in np.array((104, 118, 82)) + rng.integers(-25, 25, 3))
    pen.rectangle((0, horizon, CANVAS, horizon + int(rng.integers(14, 40))), fill=verge)
    vanishing = rng.uniform(-0.5, 1.5) * CANVAS
    for lane in np.linspace(-1.5, 2.5, 6) + rng.uniform(-0.3, 0.3):
        foot, colour = lane * CANVAS, (222, 220, 206) if rng.random() < 0.75 else (206, 176, 70)
        dashes = 1 if rng.random() < 0.4 else 5
        for dash in range(dashes):
            start, end = dash / dashes, (dash + 0.6) / dashes if dashes > 1 else 1.0
            ends = [
                (vanishing + (foot - vanishing) * t, horizon + 40 + (CANVAS - horizon - 40) * t) for t in (start, end)
            ]
            pen.line(ends, fill=colour, width=4 + int(6 * start))
    for _ in range(14):  # patches and stains on the road
        x, y = rng.uniform(0, CANVAS), rng.uniform(horizon + 40, CANVAS)
        wide, shade = rng.uniform(10, 60), int(rng.integers(-16, 16))
        pen.ellipse((x, y, x + wide, y + wide / 4), fill=tuple(c + shade for c in camera.ground))
    return image.filter(ImageFilter.GaussianBlur(1.5))


def _draw_backdrop(pen: ImageDraw.ImageDraw, kind: str, horizon: int, rng: np.random.Generator) -> None:
    if kind == "wall":
        base = rng.integers(110, 190, 3)
        pen.rectangle((0, horizon - 70, CANVAS, horizon), fill=tuple(int(c) for c in base))
        for x in range(0, CANVAS, 48):
            pen.line((x, horizon - 70, x, horizon), fill=tuple(int(c) for c in base * 0.75), width=3)
        return
    x = -20.0
    while x < CANVAS:
        wide, tall = rng.uniform(45, 110), rng.uniform(60, 150)
        if kind == "trees":
            fill = tuple(int(c) for c in np.array((62, 96, 52)) + rng.integers(-22, 22, 3))
            pen.ellipse((x, horizon - tall, x + 1.3 * wide, horizon + 12), fill=fill)
        else:
            base = rng.integers(90, 190, 3)
            pen.rectangle((x, horizon - tall, x + wide, horizon), fill=tuple(int(c) for c in base))
            for u in np.arange(x + 8, x + wide - 10, 18):
                for v in np.arange(horizon - tall + 8, horizon - 12, 22):
                    pen.rectangle((u, v, u + 9, v + 12), fill=tuple(int(c) for c in base * rng.uniform(0.5, 0.8)))
        x += wide * rng.uniform(0.7, 1.05)


def _background(number: int, seed: int, big: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Cut a random window out of the camera's place."""
    zoom = rng.uniform(1.0, 1.6)
    wide, tall = min(CANVAS, big[0] * zoom), min(CANVAS, big[1] * zoom)
    left, top = rng.uniform(0, CANVAS - wide), rng.uniform(0, CANVAS - tall)
    return _canvas(number, seed).resize(big, Image.Resampling.BILINEAR, (left, top, left + wide, top + tall))
