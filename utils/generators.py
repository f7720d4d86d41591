"""Random numbers that follow from where they are drawn, not from what was drawn before."""

import numpy as np
import torch


def seeded_generator(*numbers: int) -> torch.Generator:
    """Return a generator on the CPU whose draws follow from these numbers alone, none of them below 0."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
