"""The packages that LOGGER needs: a matter of this machine, which a recipe from elsewhere may run without."""

from yacs.config import CfgNode

from configs.keys.test import PACKAGED
from configs.phases import Problem
from utils.commands import is_installed


def find_absent_loggers(cfg: CfgNode) -> list[Problem]:
    """Return a problem for each of LOGGER whose package is not installed; pip calls it as LOGGER does."""
    absent = [name for name in cfg.LOGGER if name in PACKAGED and not is_installed(name)]
    return [(("LOGGER",), f"LOGGER {name} is not installed: pip install {name}") for name in absent]
