"""What the tests of recipes share: where they lie, how a configuration is flattened, how a plan is written by hand."""

import re
from functools import cache
from pathlib import Path

import yaml
from yacs.config import CfgNode

from configs import get_cfg_defaults, load_cfg

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yml"))
RECIPE_FILES = [path for path in FILES if not path.name.startswith("_")]
MODEL_B_FILE = ROOT / "configs/VeRi/_model_b.yml"
TX, SUPCON, PHASED, BRIGHT, CONDITIONAL = (
    {f"{section}.ENABLE": True}
    for section in ("LOSS.TRIPLETX", "LOSS.SUPCON", "LOSS.PHASED", "LOSS.BRIGHTNESS", "DATALOADER.PHASED")
)
LOSSES = {"C": "id", "T": "triplet", "X": "tripletx", "S": "supcon"}


@cache
def load(name: str) -> CfgNode:
    """Return configs/<name>.yml with its bases and the defaults, frozen; the tests share one of each."""
    return load_cfg(ROOT / "configs" / f"{name}.yml")


def name_of(path: Path) -> str:
    """Return a file's name for `load`, e.g. VeRi/vit_base."""
    return path.relative_to(ROOT / "configs").as_posix().removesuffix(".yml")


def flat(node: CfgNode | dict, prefix: str = "") -> dict:
    """Return {dotted key: value} of a configuration or of a parsed YAML file."""
    values = {}
    for key, value in node.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def transreid_defaults() -> dict:
    """Return {dotted key: value} of the defaults, with what TransReID's systems have of their own in place of ''."""
    return flat(get_cfg_defaults()) | {"SOLVER.SCHEDULER": "cosine", "LOSS.BRANCHES.REDUCE": "halves"}


def resolve_recipe(name: str) -> dict:
    """Return {dotted key: value} of configs/<name>.yml with its bases and the defaults."""
    return flat(load(name))


def on_timm_trunk(name: str) -> bool:
    """Return whether configs/<name>.yml trains one of timm's trunks by its own name, none of TransReID's."""
    return load(name).MODEL.TRANSFORMER_TYPE.startswith("timm/")


def raw(path: Path) -> dict:
    """Return {dotted key: value} that this one file sets, `_BASE_` included."""
    return flat(yaml.safe_load(path.read_text(encoding="utf-8")))


def header(path: Path) -> str:
    """Return the comment that the file starts with."""
    return re.match(r"(#[^\n]*\n)*", path.read_text(encoding="utf-8")).group()


def model_b_with(settings: dict | None = None) -> CfgNode:
    """Return Model B's defaults with {dotted key: value} on top, checked and frozen."""
    return load_cfg(MODEL_B_FILE, opts_of(settings or {}))


def opts_of(settings: dict) -> list:
    """Return {dotted key: value} as KEY VALUE pairs."""
    return [word for pair in settings.items() for word in pair]


def read_plan(text: str) -> dict[int, tuple[dict[str, float], int]]:
    """Return {epoch: (weights, K)} of a plan such as `1-29 C1 X1.2 K4 | 30-120 C1 T1 S.3>0 K8`.

    C, T, X, S are the identity, triplet, TripletX and SupCon loss; one that is not named has weight 0. `S.3>0` falls
    evenly from .3 at the first epoch of the segment and would be 0 at the epoch after it.
    """
    plan = {}
    for segment in text.split("|"):
        epochs, *terms = segment.split()
        first, last = map(int, epochs.split("-"))
        for epoch in range(first, last + 1):
            weights, k = dict.fromkeys(LOSSES.values(), 0.0), 0
            for term in terms:
                start, _, end = term[1:].partition(">")
                if term[0] == "K":
                    k = int(start)
                else:
                    slope = (float(end) - float(start)) / (last + 1 - first) if end else 0.0
                    weights[LOSSES[term[0]]] = float(start) + slope * (epoch - first)
            plan[epoch] = weights, k
    return plan
