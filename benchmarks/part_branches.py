"""A training step of PCB on a ResNet-50, the recipe Market/pcb_r50.yml: ours against the plain form.

The plain form is what a user of torchvision writes: its ResNet, a loop over the stripes with max-pooling, a 1x1
convolution, batch norm, dropout and a linear layer each, the cross-entropies of the branches added up, SGD with two
groups, and loss and accuracy read in every step. Ours is `processor.epoch.train_epoch` with the recipe's model, losses
and optimizer. Loss and gradients are asserted to agree before anything is timed, without dropout and but for rounding:
what separates the plain form in float32 from itself in float64 says how much that is in either precision. Convolutions,
alike in both, take nearly all of the time, so that no large gain is possible. Float32, CPU seconds of one thread, in
turns.

python benchmarks/part_branches.py                (8 images of 384x128, 2 GB, 2 minutes)
python benchmarks/part_branches.py 4 192 64 751   (images, y, x, identities)
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import MIB, Bar, alternate, keep_freed_memory, keep_size, limited_threads, read_size, summary
from benchmarks.step.cost import held_bytes
from benchmarks.step.ours import CONFIGS, left_as_it_is, make_loop, make_stage
from configs import load_cfg
from datasets.batch import Batch
from model import make_model
from processor.stage import Stage
from utils.errors import run_command

RECIPE = "Market/pcb_r50.yml"
SIZES = {"small": (8, 384, 128, 751)}
MEANING = "images of a batch, their y and x in pixels, identities"
PLAIN, OURS = "plain", "ours"
REPEATS, REST_REPEATS, SEED = 7, 15, 0
CHECKED = 4  # images of which loss and gradients are compared
ROUNDING = 8.0  # how much farther than the plain form ours may be from float64
FINER = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
SPEED = Bar("training step, times faster than the plain form", 0.97, 1, "x", at_least=True)  # most is common
REST = Bar("the same without the trunk", 1, 1.5, "x", at_least=True)
MEMORY = Bar("activations over the plain form's", 1, 1, "x")
Step = Callable[[], object]


class PlainPCB(nn.Module):
    """Images [B, 3, H, W] -> logits [B, C] of each of `parts` stripes; its weights have the names of ours."""

    def __init__(self, num_class: int, parts: int, width: int, dropout: float) -> None:
        super().__init__()
        self.base = resnet50()
        self.base.layer4[0].conv2.stride = self.base.layer4[0].downsample[0].stride = (1, 1)
        self.base.fc = nn.Identity()
        self.names = [f"part{number}" for number in range(1, parts + 1)]
        self.reduction = nn.ModuleDict({name: nn.Conv2d(2048, width, 1) for name in self.names})
        self.bottleneck = nn.ModuleDict({name: nn.BatchNorm2d(width) for name in self.names})
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.ModuleDict({name: nn.Linear(width, num_class) for name in self.names})

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits of the stripes from top to bottom."""
        logits, maps = [], self.forward_map(images)
        for name, stripe in zip(self.names, maps.chunk(len(self.names), dim=2), strict=True):
            pooled = F.adaptive_max_pool2d(stripe, 1)
            feature = self.dropout(self.bottleneck[name](self.reduction[name](pooled)))
            logits.append(self.classifier[name](feature.flatten(1)))
        return logits

    def forward_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return the map [B, 2048, H / 16, W / 16] of the trunk."""
        base = self.base
        maps = base.maxpool(base.relu(base.bn1(base.conv1(images))))
        return base.layer4(base.layer3(base.layer2(base.layer1(maps))))


class PlainTraining:
    """Steps of the plain form: a loop as it stands in many scripts."""

    def __init__(self, model: PlainPCB, lr: float, cfg: CfgNode) -> None:
        self.model, self.total_loss, self.correct = model, 0.0, 0
        groups = [{"params": model.base.parameters(), "lr": lr}]
        new = [weight for name, weight in model.named_parameters() if not name.startswith("base.")]
        groups.append({"params": new, "lr": lr * cfg.SOLVER.NEW_LR_FACTOR})
        rest = {"momentum": cfg.SOLVER.MOMENTUM, "weight_decay": cfg.SOLVER.WEIGHT_DECAY}
        self.optimizer = torch.optim.SGD(groups, **rest)

    def step(self, batch: Batch) -> None:
        """Take one step."""
        self.model.train()
        logits, labels = self.model(batch["images"]), batch["pids"]
        loss = plain_loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total_loss += loss.item()
        self.correct += sum((branch.argmax(1) == labels).sum().item() for branch in logits)


def plain_loss(logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropies of all branches, [B, C] each, added up."""
    return sum(F.cross_entropy(branch, labels) for branch in logits)


def make_cfg(batch_size: int, height: int, width: int) -> CfgNode:
    """Return the recipe's configuration for these batches, with random weights, on the CPU in float32."""
    image = [height, width]
    return load_cfg(
        CONFIGS / RECIPE,
        (
            *("INPUT.SIZE_TRAIN", image, "INPUT.SIZE_TEST", image, "SOLVER.IMS_PER_BATCH", batch_size),
            *("MODEL.PRETRAIN_CHOICE", "none", "MODEL.DEVICE", "cpu", "SOLVER.AMP", "off"),
        ),
    )


def make_pair(cfg: CfgNode, identities: int) -> tuple[Stage, PlainTraining]:
    """Return our stage and the plain training, with the same weights and rates."""
    torch.manual_seed(SEED)
    stage = make_stage(cfg, make_model(cfg, identities, 0, 0))
    stage.prepare = left_as_it_is(stage.settings.device)
    pcb = cfg.MODEL.PCB
    plain = PlainPCB(identities, pcb.PARTS, pcb.PART_DIM, pcb.DROPOUT)
    shapes = {name: value.shape for name, value in plain.state_dict().items()}
    plain.load_state_dict({name: value.view(shapes[name]) for name, value in stage.model.state_dict().items()})
    return stage, PlainTraining(plain, min(group["lr"] for group in stage.optimizer.param_groups), cfg)


def make_batch(batch_size: int, height: int, width: int, identities: int) -> Batch:
    """Return a random batch: images as the transform would leave them, labels."""
    generator = torch.Generator().manual_seed(SEED)
    pids = torch.randint(identities, (batch_size,), generator=generator)
    labels = {"pids": pids, "camids": torch.zeros_like(pids), "viewids": torch.zeros_like(pids)}
    return {"images": torch.randn(batch_size, 3, height, width, generator=generator), **labels}


def loss_of(form: Stage | PlainPCB, batch: Batch) -> torch.Tensor:
    """Return the loss that a form gives a batch."""
    if isinstance(form, Stage):
        return form.criterion(form.forward_batch(form.model.train(), batch), batch, form.plan.at(1))[0]
    return plain_loss(form.train()(batch["images"]), batch["pids"])


def gradients(form: Stage | PlainPCB, batch: Batch, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the loss and its gradients by the name of their weight, flat float64, computed in `dtype` without dropout.

    The form is in float32 afterwards, with the weights that it had.
    """
    model = form.model if isinstance(form, Stage) else form
    named, rate = dict(model.to(dtype).named_parameters()), model.dropout.p
    model.dropout.p = 0.0
    loss = loss_of(form, batch | {"images": batch["images"].to(dtype)})
    grads = torch.autograd.grad(loss, list(named.values()))
    values = {"loss": loss.detach(), **dict(zip(named, grads, strict=True))}
    model.float().dropout.p = rate
    return {name: value.double().flatten() for name, value in values.items()}


def gap(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """Return the largest difference, of the loss or of a tensor's gradient, over its norm.

    Norms below a thousandth of the largest count as that: gradients of biases before a norm are rounding and no more.
    """
    assert found.keys() == exact.keys(), f"one form alone has {sorted(found.keys() ^ exact.keys())}"
    least = max(value.norm() for name, value in exact.items() if name != "loss") / 1000
    return max(float((found[name] - value).norm() / max(value.norm(), least)) for name, value in exact.items())


def check_equal(stage: Stage, plain: PlainPCB, batch: Batch) -> dict[str, float]:
    """Assert that our loss and gradients are the plain form's, in float64 and in float32; return the gaps."""
    few = {name: values[:CHECKED] for name, values in batch.items()}
    exact = gradients(plain, few, torch.float64)
    gaps = {
        "ours, float64": gap(gradients(stage, few, torch.float64), exact),
        "ours, float32": gap(gradients(stage, few, torch.float32), exact),
        "plain, float32": gap(gradients(plain, few, torch.float32), exact),
    }
    allowed = ROUNDING * gaps["plain, float32"]
    assert gaps["ours, float32"] <= allowed and gaps["ours, float64"] <= allowed * FINER, f"the forms differ: {gaps}"
    return gaps


def make_steps_of(stage: Stage, training: PlainTraining, batch: Batch) -> dict[str, Step]:
    """Return a step of each form on a batch."""
    return {PLAIN: partial(training.step, batch), OURS: partial(make_loop(stage, stage.model), [batch])}


def measure(stage: Stage, training: PlainTraining, batch: Batch) -> list[dict]:
    """Return a row for each form: time and memory of a step, and the time of what is not its trunk.

    That is a step on maps that are given, with their gradient, which trains the branches alone.
    """
    models = {PLAIN: training.model, OURS: stage.model}
    steps = make_steps_of(stage, training, batch)
    times = alternate(steps, REPEATS)
    held = {way: held_bytes(step, models[way], batch.values()) / MIB for way, step in steps.items()}
    with torch.no_grad():
        maps = training.model.forward_map(batch["images"])
    training.model.forward_map = stage.model.base.forward_map = take_maps
    print("without the trunk:")
    rest = alternate(make_steps_of(stage, training, batch | {"images": maps}), REST_REPEATS)
    return [
        {
            **{"way": way, **summary(times[way]), "images/s": len(batch["pids"]) / median(times[way])},
            **{"seconds without the trunk": median(rest[way]), "activations MiB": held[way]},
        }
        for way in steps
    ]


def take_maps(images: torch.Tensor) -> torch.Tensor:
    """Take the place of a trunk: the images are maps already, of which a backward pass computes the gradient."""
    return images.detach().requires_grad_()


def main(argv: list[str] | None = None) -> None:
    size = read_size(argv, "benchmarks/part_branches.py", __doc__, SIZES, MEANING)
    batch_size, height, width, identities = size
    keep_freed_memory()
    cfg, batch = make_cfg(batch_size, height, width), make_batch(*size)
    stage, training = make_pair(cfg, identities)
    with limited_threads(1):
        gaps = check_equal(stage, training.model, batch)
    print("equal but for rounding: loss and gradients; " + ", ".join(f"{name} {off:.1e}" for name, off in gaps.items()))
    plain, ours = rows = measure(stage, training, batch)
    bars = {
        SPEED: plain["seconds"] / ours["seconds"],
        REST: plain["seconds without the trunk"] / ours["seconds without the trunk"],
        MEMORY: ours["activations MiB"] / plain["activations MiB"],
    }
    for row in rows:
        print(f"{row['way']}: {row['images/s']:.3g} images/s, activations {row['activations MiB']:.1f} MiB")
    for bar, value in bars.items():
        print(bar.judge(value))
    facts = {"recipe": RECIPE, "images": f"{batch_size} of {height}x{width}", "identities": identities, "rows": rows}
    facts |= {"bars": [bar.facts(value) for bar, value in bars.items()], "differences": gaps}
    keep_size("part_branches", facts, size, SIZES)


if __name__ == "__main__":
    sys.exit(run_command(main))
