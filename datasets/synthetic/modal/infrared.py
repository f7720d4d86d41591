"""Infrared photographs: colour is gone, shape and motif stay."""

import numpy as np

from datasets.synthetic.photos import to_bytes

WEIGHTS = (0.45, 0.15, 0.40)  # of red, green, blue: unlike those of brightness, so that grey RGB is not the same
WEIGHT_JITTER = 0.05  # standard deviation, relative
GAMMA, GAIN = (0.6, 0.9), (0.8, 1.15)
NOISE = 0.03  # standard deviation, 1 = white


def infrared(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a photograph, uint8 [H, W, 3], as an infrared camera would have taken it: uint8 [H, W]."""
    weights = np.array(WEIGHTS) * rng.normal(1, WEIGHT_JITTER, 3)
    grey = np.clip(pixels.astype(np.float64) / 255 @ weights, 0, 1) ** rng.uniform(*GAMMA)
    return to_bytes(grey * rng.uniform(*GAIN) + rng.normal(0, NOISE, grey.shape))
