"""Metric losses of a batch, forward and with the backward pass: loops and boolean gathers against masks.

The triplet loss with the hardest pairs is compared with a loop over the anchors (as open-reid and its heirs write it)
and with boolean indexing into rows of equal length (as TransReID does, for equal class counts only), TripletX and
SupCon with loops over the anchors. All values and gradients are asserted to agree. One thread, CPU seconds, in turns.

python benchmarks/mining.py [--repeats N]     (64, 256 and 512 features of 768 values, a minute)
python benchmarks/mining.py --sizes 64        (other batches, multiples of 4)
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, alternate, keep, limited_threads, make_parser
from benchmarks.step.lineage_step import triplet as boolean_gather
from losses import SupConLoss, TripletLoss, TripletXLoss
from losses.distance import euclidean_distance
from utils.commands import whole_number
from utils.errors import ConfigError, run_command

SIZES = (64, 256, 512)
REPEATS = 21
WIDTH, PER_IDENTITY, CAMERAS = 768, 4, 6
TEMPERATURE = 0.07
BAR_SIZE = 64
BAR = Bar(f"triplet N={BAR_SIZE} forward and backward, over the loop", 5, 10, "x", at_least=True)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
Loss = Callable[[torch.Tensor], torch.Tensor]


class Labels(NamedTuple):
    """Identities and cameras [N] of a batch."""

    pids: torch.Tensor
    camids: torch.Tensor


def triplet_loop(feat: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Return the soft-margin triplet loss; the pairs of each anchor are picked on their own."""
    distance, same = euclidean_distance(feat, feat), labels.pids[:, None] == labels.pids[None, :]
    positive, negative = [], []
    for anchor in range(len(feat)):
        positive.append(distance[anchor][same[anchor]].max().unsqueeze(0))
        negative.append(distance[anchor][same[anchor] == 0].min().unsqueeze(0))
    negative, positive = torch.cat(negative), torch.cat(positive)
    return F.soft_margin_loss(negative - positive, torch.ones_like(negative))


def tripletx_loop(feat: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Return TripletX with its default options past the warm-up."""
    k, margin, alpha, boost = 5, 0.3, 2.0, 1.2
    unit = F.normalize(feat, dim=1)
    distance = euclidean_distance(unit, unit)
    losses, weights = [], []
    for anchor in range(len(feat)):
        same, near = labels.pids == labels.pids[anchor], labels.camids == labels.camids[anchor]
        positive = same.clone()
        positive[anchor] = False
        across = positive & ~near
        positives = distance[anchor][across if across.any() else positive]
        negatives = torch.where(near, distance[anchor] / boost, distance[anchor])[~same]
        gap = positives.topk(min(k, len(positives))).values.mean()
        gap = gap - negatives.topk(min(k, len(negatives)), largest=False).values.mean()
        losses.append(F.relu(gap + margin))
        weights.append(torch.sigmoid(alpha * gap.detach()))
    weights = torch.stack(weights)
    return (torch.stack(losses) * weights).sum() / weights.sum()


def supcon_loop(feat: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Return the supervised contrastive loss; every anchor has a positive here."""
    unit = F.normalize(feat, dim=1)
    values = []
    for anchor in range(len(feat)):
        others = torch.arange(len(feat)) != anchor
        similarity = unit[others] @ unit[anchor] / TEMPERATURE
        positive = (labels.pids == labels.pids[anchor])[others]
        values.append(similarity.logsumexp(0) - similarity[positive].mean())
    return torch.stack(values).mean()


def make_losses(labels: Labels) -> dict[str, dict[str, Loss]]:
    """Return for each loss its implementations, the loop first and ours last."""
    tripletx, supcon = TripletXLoss(), SupConLoss(TEMPERATURE)
    return {
        "triplet": {
            "loop": partial(triplet_loop, labels=labels),
            "boolean gather": partial(boolean_gather, labels=labels.pids),
            "ours": partial(TripletLoss(), labels=labels.pids),
        },
        "tripletx": {
            "loop": partial(tripletx_loop, labels=labels),
            "ours": partial(tripletx, labels=labels.pids, camids=labels.camids),
        },
        "supcon": {"loop": partial(supcon_loop, labels=labels), "ours": partial(supcon, labels=labels.pids)},
    }


def check_equal(losses: dict[str, Loss], feat: torch.Tensor) -> None:
    """Assert that all implementations of a loss give the same value and gradient."""
    values, gradients = [], []
    for loss in losses.values():
        leaf = feat.clone().requires_grad_()
        value = loss(leaf)
        value.backward()
        values.append(value.detach())
        gradients.append(leaf.grad)
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        torch.testing.assert_close(value, values[0], **TOLERANCE)
        torch.testing.assert_close(gradient, gradients[0], **TOLERANCE)


def measure_size(size: int, repeats: int) -> list[dict]:
    """Return a row for each loss and implementation at a batch of `size`."""
    generator = torch.Generator().manual_seed(0)
    pids = torch.arange(size // PER_IDENTITY).repeat_interleave(PER_IDENTITY)
    centres = torch.randn(size // PER_IDENTITY, WIDTH, generator=generator)
    feat = centres[pids] + torch.randn(size, WIDTH, generator=generator)
    labels = Labels(pids, torch.randint(CAMERAS, (size,), generator=generator))
    rows = []
    for name, losses in make_losses(labels).items():
        with limited_threads(1):
            check_equal(losses, feat)
        functions = {}
        for kind, loss in losses.items():
            functions[f"{name}, N {size}, {kind}, forward"] = partial(forward, loss, feat)
            functions[f"{name}, N {size}, {kind}, forward and backward"] = partial(backward, loss, feat)
        times = alternate(functions, repeats)
        rows += [_row(name, size, kind, times) for kind in losses]
    return rows


def forward(loss: Loss, feat: torch.Tensor) -> None:
    """Compute the loss as in training, with the graph for a backward pass."""
    loss(feat.detach().requires_grad_())


def backward(loss: Loss, feat: torch.Tensor) -> None:
    """Compute the loss and the gradient."""
    loss(feat.detach().requires_grad_()).backward()


def _row(name: str, size: int, kind: str, times: dict[str, list[float]]) -> dict:
    row = {"loss": name, "N": size, "way": kind}
    for part in ("forward", "forward and backward"):
        loop, own = (median(times[f"{name}, N {size}, {way}, {part}"]) for way in ("loop", kind))
        row |= {f"{part} ms": own * 1e3, f"{part}, times the loop": loop / own}
    return row


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/mining.py", __doc__)
    parser.add_argument("--sizes", type=whole_number, nargs="+", default=SIZES, metavar="N", help="batch sizes")
    parser.add_argument(
        "--repeats", type=whole_number, default=REPEATS, metavar="N", help=f"timed calls (default: {REPEATS})"
    )
    args = parser.parse_args(argv)
    strange = [size for size in args.sizes if size % PER_IDENTITY or size < 2 * PER_IDENTITY]
    if strange:
        raise ConfigError(f"--sizes got {strange[0]}, give multiples of {PER_IDENTITY} from {2 * PER_IDENTITY} on")
    rows = [row for size in args.sizes for row in measure_size(size, args.repeats)]
    print("equal: values and gradients of all ways of each loss")
    facts = {"width": WIDTH, "rows": rows}
    ours = [row for row in rows if (row["loss"], row["N"], row["way"]) == ("triplet", BAR_SIZE, "ours")]
    if ours:
        value = ours[0]["forward and backward, times the loop"]
        print(BAR.judge(value))
        facts["bars"] = [BAR.facts(value)]
    sizes = [] if tuple(args.sizes) == SIZES else ["N" + "-".join(map(str, args.sizes))]
    repeats = [] if args.repeats == REPEATS else [f"repeats{args.repeats}"]
    keep("mining", facts, "-".join(sizes + repeats))


if __name__ == "__main__":
    sys.exit(run_command(main))
