"""Every key is read by code that acts on it, not only by checks, and no legacy key is."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from yacs.config import CfgNode

from configs import get_cfg_defaults
from configs.keys import KEYS

ROOT = Path(__file__).parents[2]
PACKAGES = ("datasets", "losses", "model", "processor", "solver", "tools", "utils")
ASKED = [
    ROOT / "configs" / name for name in ("clip_reid.py", "loss_weights.py", "phases.py", "stages.py", "titles.py")
]  # what training and tests ask of configs/

STAGE_SECTIONS = ("STAGE1", "STAGE2")

LEGACY = {name for name, key in KEYS.items() if key.instead}


def leaf_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaf_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


SECTIONS = {key.rsplit(".", depth)[0] for key in leaf_keys(get_cfg_defaults()) for depth in (1, 2)}


def chains_from_cfg(source: str) -> set[str]:
    """Return all dotted keys that are read, e.g. SOLVER.BASE_LR for cfg.SOLVER.BASE_LR.

    They are read by `own_value(cfg, key)`, below a variable or an attribute called cfg, below `solver` or a call of
    solver_of (SOLVER with the keys of a stage laid over), or below a name that a section was given:
    `supcon = cfg.LOSS.SUPCON`.
    """
    tree = ast.parse(source)
    roots = {"cfg": "", "solver": "SOLVER"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            roots |= {name: chain for name, chain in assigned(node, roots) if name not in roots}
    return {chain for node in ast.walk(tree) if (chain := chain_of(node, roots) or own_of(node))}


def own_of(node: ast.AST) -> str:
    """The key that a call own_value(cfg, "A.B") reads, "" for any other node."""
    is_own = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "own_value"
    return node.args[1].value if is_own and isinstance(node.args[1], ast.Constant) else ""


def of_stages(chains: set[str]) -> set[str]:
    """The keys SOLVER.<STAGE>.X for each SOLVER.X of `chains`: solver_of lays the former over the latter."""
    leaves = {chain.removeprefix("SOLVER.") for chain in chains if chain.startswith("SOLVER.")}
    return {f"SOLVER.{stage}.{leaf}" for stage in STAGE_SECTIONS for leaf in leaves} & set(KEYS)


def assigned(node: ast.Assign, roots: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The names that get a section of the configuration, each with its dotted name."""
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = zip(target.elts, node.value.elts, strict=False)
        for name, value in pairs:
            if isinstance(name, ast.Name) and (chain := chain_of(value, roots)) in SECTIONS:
                yield name.id, chain


def chain_of(node: ast.AST, roots: Mapping[str, str]) -> str:
    """The key that an expression reads, "" where it is none."""
    parts = []
    while isinstance(node, ast.Attribute) and node.attr != "cfg":
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "solver_of":
        start = "SOLVER"
    elif isinstance(node, ast.Attribute):  # run.cfg
        start = ""
    elif isinstance(node, ast.Name) and node.id in roots:
        start = roots[node.id]
    else:
        return ""
    return ".".join([*([start] if start else []), *reversed(parts)]) if parts else ""


def read_keys() -> set[str]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    files += [*ROOT.glob("*.py"), *ASKED]
    return set().union(*(chains_from_cfg(file.read_text()) for file in files))


def test_the_scan_finds_a_chain_and_only_below_cfg():
    assert "A.B" in chains_from_cfg("x = cfg.A.B + other.C.D") and "C.D" not in chains_from_cfg("other.C.D")


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("run.cfg.TEST.REFERENCE", "TEST.REFERENCE"),
        ("x = solver_of(cfg, 'warm').BASE_LR", "SOLVER.BASE_LR"),
        ("own_value(cfg, 'SOLVER.SCHEDULER')", "SOLVER.SCHEDULER"),
        ("def f(solver): return solver.STEPS", "SOLVER.STEPS"),
        ("supcon, x = cfg.LOSS.SUPCON, 1\nsupcon.T", "LOSS.SUPCON.T"),
    ],
)
def test_the_scan_knows_sections_by_other_names(source, key):
    assert key in chains_from_cfg(source)


def test_every_key_is_read_by_code_that_acts_on_it():
    read = read_keys()
    dead = set(KEYS) - read - of_stages(read) - LEGACY
    assert not dead, f"nothing reads {sorted(dead)}"


def test_no_legacy_key_is_read():
    assert not read_keys() & LEGACY


def test_code_reads_no_key_that_does_not_exist():
    keys = set(leaf_keys(get_cfg_defaults()))
    keys |= {name.replace(f".{stage}.", ".") for name in keys for stage in STAGE_SECTIONS}  # solver_of's
    methods = {"dump", "get", "items", "update", "clone", "freeze", "defrost", "merge_from_list", "merge_from_file"}
    unknown = {chain for chain in read_keys() if chain not in keys | SECTIONS and chain.split(".")[-1] not in methods}
    assert not {chain for chain in unknown if chain.rsplit(".", 1)[0] not in keys}
