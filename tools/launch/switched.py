"""A YAML under the launcher's switches: what they set in it, and when they could have no effect."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from yacs.config import CfgNode

from configs import get_cfg_defaults, load_cfg, parse_value
from configs.phases import TRIPLET, TRIPLETX
from configs.stages import solver_key
from tools.launch.switches import PHASED_KEY, SUPCON_KEY, TRIPLETX_KEY, Switches
from utils.errors import ConfigError

METRIC_SEQ_KEY = "LOSS.PHASED.METRIC_SEQ"
BASELINE_OFF = (PHASED_KEY, TRIPLETX_KEY, SUPCON_KEY, "LOSS.BRIGHTNESS.ENABLE")
PLAN_NAMES = ("BOUNDARIES", "METRIC_SEQ", "W_METRIC_SEQ", "W_SUP_SPEC")  # a plan of its own differs in one of them
# The YAML is read once before the switches. These pairs keep its losses out of the checks: only the result counts.
LOSSES_ASIDE = (
    *(PHASED_KEY, "False", SUPCON_KEY, "False", "MODEL.TRAINING_MODE", "supervised"),
    *("MODEL.ID_LOSS_WEIGHT", "1", "DATALOADER.SAMPLER", "softmax"),
)


def load_with_switches(
    config: str, switches: Switches, opts: Sequence[str], solver: Mapping[str, str] = MappingProxyType({})
) -> tuple[CfgNode, list[str]]:
    """Return the configuration of a YAML with the switches and the user's KEY VALUE pairs, and all these pairs.

    `solver` are SOLVER keys of the last stage, without their section; a pair of the user's wins. Raises ConfigError for
    what `load_cfg` refuses, and for a switch that cannot work here.
    """
    user = dict(zip(opts[::2], opts[1::2], strict=True))
    cfg, words = _load(config, switches, {f"SOLVER.{name}": value for name, value in solver.items()} | user)
    keys = {solver_key(cfg, name): value for name, value in solver.items()}
    if any(key.count(".") > 1 for key in keys):  # a system of several stages: only the configuration tells its last one
        cfg, words = _load(config, switches, keys | user)
    check_effect(switches, cfg)
    return cfg, words


def _load(config: str, switches: Switches, pairs: dict[str, str]) -> tuple[CfgNode, list[str]]:
    opts = [word for pair in pairs.items() for word in pair]
    if switches.settings():
        pairs = switch_pairs(switches, load_cfg(config, [*opts, *LOSSES_ASIDE]), pairs) | pairs
    words = [word for pair in pairs.items() for word in pair]
    return load_cfg(config, words), words


def switch_pairs(switches: Switches, cfg: CfgNode, pairs: Mapping[str, str]) -> dict[str, str]:
    """Return the KEY: VALUE pairs that the switches stand for.

    `cfg` holds LOSS.PHASED as the YAML and the user's own `pairs` have it. Raises ConfigError for one of these that
    contradicts a switch, and for --phased without a plan.
    """
    for key, (switch, value) in switches.settings().items():
        if key in pairs and _parsed(pairs[key], value) != value:
            raise ConfigError(f"{switch} contradicts {key} {pairs[key]} on the same command line; drop one of the two")
    if switches.mode == "phased" and not _has_plan(cfg):
        raise ConfigError(
            f"--phased: LOSS.PHASED.{{{','.join(PLAN_NAMES)}}} all have their defaults, so there is no plan to follow; "
            "set one of them in the YAML or with --opts"
        )
    implied = dict.fromkeys(BASELINE_OFF, "False") if switches.mode == "baseline" else {}
    metrics = list(cfg.LOSS.PHASED.METRIC_SEQ)
    if switches.tripletx is False and switches.mode != "baseline" and TRIPLETX in metrics:
        implied[METRIC_SEQ_KEY] = json.dumps([TRIPLET if metric == TRIPLETX else metric for metric in metrics])
    given = {key: str(value) for key, (_, value) in switches.settings().items()}
    return implied | given


def check_effect(switches: Switches, cfg: CfgNode) -> None:
    """Raise ConfigError, naming the key that decides, for --T or --W that `cfg`, the result, would not use."""
    for name, value in (("T", switches.T), ("W", switches.W)):
        if value is not None and not cfg.LOSS.SUPCON.ENABLE:
            raise ConfigError(
                f"--{name} {value} (LOSS.SUPCON.{name}) would have no effect: {SUPCON_KEY} is False; add --supcon, or "
                f"drop --{name}"
            )
    if switches.W is not None and cfg.LOSS.PHASED.ENABLE:
        decides = f"LOSS.PHASED.W_SUP_SPEC {list(cfg.LOSS.PHASED.W_SUP_SPEC)} decides"
        if not cfg.LOSS.PHASED.W_SUP_SPEC:
            decides = f"LOSS.SUPCON.W0 {cfg.LOSS.SUPCON.W0} decides (W_SUP_SPEC is [])"
        raise ConfigError(
            f"--W {switches.W} (LOSS.SUPCON.W) would have no effect: {PHASED_KEY} is True, and there {decides}; set "
            "that key with --opts, or drop --W"
        )


def _has_plan(cfg: CfgNode) -> bool:
    default = get_cfg_defaults().LOSS.PHASED
    return any(cfg.LOSS.PHASED[name] != default[name] for name in PLAN_NAMES)


def _parsed(text: str, like: bool | float) -> Any:
    try:
        return parse_value(text, like)
    except ValueError:  # load_cfg says what is wrong with it
        return like
