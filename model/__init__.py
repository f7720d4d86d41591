"""Models: images in, `ModelOutput` (training) or embedding (evaluation) out."""

from model.make_model import make_model
from model.outputs import OWN_ROWS, ModelOutput, map_tensors, tensors_of

__all__ = ["OWN_ROWS", "ModelOutput", "make_model", "map_tensors", "tensors_of"]
