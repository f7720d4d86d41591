"""Who is a positive and who a negative of whom in a batch, as masks, so that any split of identities will do."""

import torch


def pair_masks(labels: torch.Tensor, among: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (positive, negative), each bool [N, N]: row i marks the positives and the negatives of anchor i.

    A positive is another sample of the anchor's label, a negative a sample of another label. `among`, bool [N], leaves
    out all other samples as anchors, positives and negatives; None keeps everyone.
    """
    same = labels[:, None] == labels[None, :]  # [N, N]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive, negative = same & ~itself, ~same
    if among is None:
        return positive, negative
    both = among[:, None] & among[None, :]
    return positive & both, negative & both


def valid_anchors(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Return, bool [N], which anchors have both a positive and a negative."""
    return positive.any(1) & negative.any(1)
