"""What a model says about each of its parameters, so that the solver needs no names of weights."""

from typing import Literal, NamedTuple

Kind = Literal["trunk", "new", "head"]


class Part(NamedTuple):
    """The place of a parameter in its model.

    `kind`: trunk came with first weights (or a copy of them), new is learnt for ReID, head is a classifier.
    `layer` counts from the image: 0 turns it into the first block's input, block i of n is layer i + 1, and what comes
    after the blocks or is new in ReID is layer n + 1. A model without blocks has one layer.
    `alike`: of a new layer whose biases learn as fast as its weights, where those of others follow the trunk's.
    `tower`: of a second trunk beside the first, whose learning rate is its own.
    """

    kind: Kind
    layer: int
    tower: bool = False
    alike: bool = False
