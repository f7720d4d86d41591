"""Every key is read by code that acts on it, not only by checks, and no legacy key is."""

import ast
from pathlib import Path

from yacs.config import CfgNode

from configs import LEGACY, get_cfg_defaults

ROOT = Path(__file__).parents[2]
PACKAGES = ("datasets", "losses", "model", "processor", "solver", "utils")
ASKED = [ROOT / "configs" / name for name in ("schedule.py", "titles.py")]  # what training and tests ask of configs/


def leaf_keys(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaf_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def chains_from_cfg(source):
    """Return all dotted names that are read below a variable called cfg, e.g. SOLVER.BASE_LR for cfg.SOLVER.BASE_LR."""
    chains = set()
    for node in ast.walk(ast.parse(source)):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == "cfg":
            chains.add(".".join(reversed(parts)))
    return chains


def read_keys():
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    files += [*ROOT.glob("*.py"), *ASKED]
    return set().union(*(chains_from_cfg(file.read_text()) for file in files))


def test_the_scan_finds_a_chain_and_only_below_cfg():
    assert "A.B" in chains_from_cfg("x = cfg.A.B + other.C.D") and "C.D" not in chains_from_cfg("other.C.D")


def test_every_key_is_read_by_code_that_acts_on_it():
    dead = set(leaf_keys(get_cfg_defaults())) - read_keys() - set(LEGACY)
    assert not dead, f"nothing reads {sorted(dead)}"


def test_no_legacy_key_is_read():
    assert not read_keys() & set(LEGACY)


def test_code_reads_no_key_that_does_not_exist():
    keys = set(leaf_keys(get_cfg_defaults()))
    sections = {key.rsplit(".", depth)[0] for key in keys for depth in (1, 2)}
    methods = {"dump", "clone", "freeze", "defrost", "merge_from_list", "merge_from_file"}
    unknown = {chain for chain in read_keys() if chain not in keys | sections and chain.split(".")[-1] not in methods}
    assert not {chain for chain in unknown if chain.rsplit(".", 1)[0] not in keys}
