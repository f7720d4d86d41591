"""What the losses see with several processes: the batch of all of them."""

from model import ModelOutput
from utils.distributed import whole_batch

LABELS = ("pids", "camids", "viewids", "brightness")  # the entries of a batch that losses and readings use


def gather_batch(output: ModelOutput, batch: dict) -> tuple[ModelOutput, dict]:
    """Return model output and labels of the batch of all processes, in rank order; gradients flow to the own rows.

    `output` has b rows here and world_size * b in the result, of at least float32; its `extra` stays as it is. The
    labels are those of LABELS that `batch` has.
    """
    labels = [name for name in LABELS if name in batch]
    branches = [*output.logits, *output.pre_bn, *output.bnneck]
    projection = [] if output.projection is None else [output.projection]
    whole = whole_batch([*branches, *projection, *(batch[name] for name in labels)])
    rest = iter(whole)
    gathered = output._replace(
        logits=[next(rest) for _ in output.logits],
        pre_bn=[next(rest) for _ in output.pre_bn],
        bnneck=[next(rest) for _ in output.bnneck],
        projection=next(rest) if projection else None,
    )
    return gathered, dict(zip(labels, rest, strict=True))
