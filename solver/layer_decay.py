"""Layer-wise learning rates: the nearer a layer of a transformer is to the image, the less it moves.

Reference: Clark et al., ELECTRA, ICLR 2020, and Bao et al., BEiT, ICLR 2022: appendices on fine-tuning.
"""


def layer_scale(layer: int, last: int, decay: float) -> float:
    """Return the factor decay^(last - layer) in (0, 1] on the learning rate of a parameter.

    Layers count from 0 at the image to `last`, which holds all that comes after the blocks or is new in ReID.
    """
    return decay ** (last - layer)
