"""Where in its images a model looks, laid over them as `tools.visualize` does: roll-out, or the words of a sentence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datasets.make_transforms import make_transforms
from model.rollout import patches_of, rollout
from processor.trained import Trained
from tools.visualize.attention import BATCH, heat_map, overlay
from tools.visualize.words import check_model, geometry_of, sentence_maps
from utils.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from PIL import Image

GLOBAL = "global"  # the map of `rollout` that is shown


class Overlays:
    """Maps of a trained model over images; `why_not` says why there are none, '' = there are."""

    def __init__(self, trained: Trained) -> None:
        self._trained, self.needs_sentence, self.why_not = trained, False, ""
        try:
            self._geometry = patches_of(trained.model)
        except ConfigError as no_rollout:
            try:
                check_model(trained)
            except ConfigError:
                self.why_not = str(no_rollout)
                return
            self.needs_sentence, self._geometry = True, geometry_of(trained)

    def draw(
        self, pixels: "torch.Tensor", pictures: Sequence["Image.Image"], sentence: str = ""
    ) -> list["Image.Image"]:
        """Return the pictures [B], RGB, with the map of each laid over it; `pixels` uint8 [B, 3, H, W] are the same.

        The map is the roll-out of the global branch, or, of a model of captions, the mean over the words of `sentence`.
        Raises DataError for a sentence without words.
        """
        parts = [self._maps(pixels[start : start + BATCH], sentence) for start in range(0, len(pixels), BATCH)]
        maps = np.concatenate(parts) if parts else ()
        return [
            overlay(picture, heat_map(values, *self._geometry, (picture.height, picture.width)))
            for picture, values in zip(pictures, maps, strict=True)
        ]

    def _maps(self, pixels: "torch.Tensor", sentence: str) -> np.ndarray:
        """Return maps float32 [B, rows, columns] of images uint8 [B, 3, H, W]."""
        if self.needs_sentence:
            return np.mean([values for _, values in sentence_maps(self._trained, pixels, sentence)], axis=0)
        _, transform = make_transforms(self._trained.cfg)
        images = transform(pixels.to(self._trained.device))
        return rollout(self._trained.model, images)[GLOBAL].float().cpu().numpy()
