"""The smallest model that the solver can ask for its parts."""

from torch import nn

from model.parts import Part


class OneLayer(nn.Linear):
    """Two numbers in, two out, and all of it trunk."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def part_of(self, name: str) -> Part:
        return Part("trunk", layer=1)
