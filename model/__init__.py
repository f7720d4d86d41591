"""Models: images in, `ModelOutput` (training) or embedding (evaluation) out."""

from model.make_model import make_model
from model.outputs import ModelOutput

__all__ = ["ModelOutput", "make_model"]
