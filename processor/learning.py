"""Whether a run learns: what an epoch must leave, and what the first one of a stage must have moved."""

import logging
import math
from collections.abc import Iterator

import torch
from torch import nn

from processor.stage import Stage
from solver.watch import Watch
from utils.distributed import own_rank
from utils.errors import RunError

logger = logging.getLogger(__name__)

LEAST_GRADIENT = 1e-12  # the largest of an epoch, of any weight; usual ones are above 1e-4
LEAST_MOVE = 1e-9  # of all weights, of their length, at the full learning rate: float32 rounds finer moves away
FEWEST_LOSSES = 4  # that are exactly equal before it is no coincidence
MAX_NAMES = 4  # of tensors that a message lists


def check_finite(stage: Stage, epoch: int) -> None:
    """Raise RunError where the epoch's last update left a weight or the state of an optimizer NaN or infinite.

    The losses cannot show it yet, and what is saved now would replace the last good state. Waits for the device once.
    """
    flags: dict[torch.device, list[torch.Tensor]] = {}
    for _, tensor in _saved_tensors(stage):
        flags.setdefault(tensor.device, []).append(torch.isfinite(tensor).all())
    if not all(bool(torch.stack(own).all()) for own in flags.values()):
        bad = next(name for name, tensor in _saved_tensors(stage) if not torch.isfinite(tensor).all())
        raise RunError(
            f"epoch {epoch}: {bad} is not finite after the last step; the last good state is kept. Train anew in "
            "another OUTPUT_DIR with a lower SOLVER.BASE_LR or smaller weights of the losses, with SOLVER.GRAD_CLIP, "
            "or with SOLVER.AMP off"
        )
    if stage.updater.scaler.is_enabled() and not 0 < stage.updater.scaler.get_scale() < math.inf:
        raise RunError(f"epoch {epoch}: {_overflow(stage)}")


def _saved_tensors(stage: Stage) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a state keeps of floating point, with what a message calls it."""
    names = {id(weight): name for name, weight in _named(stage)}
    optimizers = filter(None, (stage.updater.optimizer, stage.updater.center_optimizer))
    kept = {f"the weight {name}": value for name, value in stage.model.state_dict().items()}
    kept |= {f"the weight {name} of the losses": value for name, value in stage.criterion.state_dict().items()}
    for weight, state in (item for optimizer in optimizers for item in optimizer.state.items()):
        of = names.get(id(weight), "a weight")
        kept |= {f"the optimizer's {name} of {of}": value for name, value in state.items()}
    for name, value in kept.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            yield name, value


def _named(stage: Stage) -> list[tuple[str, nn.Parameter]]:
    return [*stage.model.named_parameters(), *stage.criterion.named_parameters()]


def _overflow(stage: Stage) -> str:
    scale = stage.updater.scaler.get_scale()
    return f"fp16 gradients overflow at a loss scale of {scale:g}, so no step is taken; set SOLVER.AMP bf16 or off"


class FirstEpoch:
    """Watches a stage from its first step until an epoch has shown that the weights learn; a copy stays on the CPU."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        updater = stage.updater
        self._weights = [weight for group in updater.optimizer.param_groups for weight in group["params"]]
        self._before = [weight.detach().to("cpu", copy=True) for weight in self._weights]
        self._restart()

    def _restart(self) -> None:
        updater = self._stage.updater
        self._scale = updater.scaler.get_scale()
        updater.watch = Watch(self._weights)

    def check(self, epoch: int) -> bool:
        """Return whether the weights have learnt in `epoch`; False, with a warning, where only the next one can tell.

        Raises RunError where no gradient reached a weight, or none moved them. Waits for the device twice.
        """
        updater, watch = self._stage.updater, self._stage.updater.watch
        updater.watch = None
        unclear = self._unclear(watch, epoch)
        if unclear:
            if own_rank() == 0:
                logger.warning("epoch %d: %s", epoch, unclear)
            self._restart()
            return False
        largest, low, high = watch.read()
        if not max(largest) > LEAST_GRADIENT:
            raise RunError(
                f"epoch {epoch}: no gradient reached a weight, the largest was {max(largest):.3g}, so nothing is "
                f"learnt (loss {low:g} to {high:g}); see the weights of the losses, SOLVER.GRAD_CLIP and what is frozen"
            )
        self._check_move(epoch)
        if own_rank() == 0:
            self._tell(watch.losses, largest, low, high)
        return True

    def _unclear(self, watch: Watch, epoch: int) -> str:
        """Return why this epoch cannot show whether the weights learn, '' = it can; RunError where none ever will."""
        if max(self._stage.scheduler.last_lr) == 0:
            return "the learning rate is 0, so no weight moved; see SOLVER.WARMUP_FACTOR and SOLVER.BASE_LR"
        scaler = self._stage.updater.scaler
        if scaler.is_enabled() and scaler.get_scale() <= self._scale * scaler.get_backoff_factor() ** watch.updates:
            if scaler.get_scale() < 1:
                raise RunError(f"epoch {epoch}: {_overflow(self._stage)}")
            return f"{_overflow(self._stage)} where the next epoch does not find a scale"
        return ""

    def _check_move(self, epoch: int) -> None:
        norm = torch.linalg.vector_norm
        pairs = zip(self._weights, self._before, strict=True)
        norms = [(norm(now.detach() - old.to(now.device)), norm(now.detach())) for now, old in pairs]
        columns = torch.stack([torch.stack(pair).float() for pair in norms]).T.tolist()
        moved, length = (math.hypot(*column) for column in columns)
        groups = self._stage.optimizer.param_groups
        rate = max(group["lr"] for group in groups)
        peak = max(group["initial_lr"] * group["lr_scale"] for group in groups)
        if not moved * max(1.0, peak / rate) > LEAST_MOVE * length:
            raise RunError(
                f"epoch {epoch}: the weights moved by {moved:.3g} of a length of {length:.3g}, so nothing is learnt at "
                f"a learning rate of {rate:.3g}; raise SOLVER.BASE_LR"
            )

    def _tell(self, losses: int, largest: list[float], low: float, high: float) -> None:
        """Log what may be meant, and may be a mistake."""
        if low == high and losses >= FEWEST_LOSSES:
            logger.warning("the loss was exactly %g in all %d steps: does anything reach it?", low, losses)
        names = {id(weight): name for name, weight in _named(self._stage)}
        unreached = [names.get(id(w), "?") for w, value in zip(self._weights, largest, strict=True) if not value]
        if unreached:
            more = "" if len(unreached) <= MAX_NAMES else ", ..."
            logger.info(
                "no gradient reached %d of %d trainable tensors in this epoch: %s%s",
                *(len(unreached), len(largest), ", ".join(unreached[:MAX_NAMES]), more),
            )
