"""What a record is told of its run: names, and the resolved configuration."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from yacs.config import CfgNode

from configs.compare import flatten
from configs.stages import stages_of
from utils.file_lock import LAUNCH
from utils.run_folder import RunFolder

PROJECT = "reid"  # of W&B, and experiment of MLflow, where no variable names another
FOLDER = re.compile(r"(.+)_seed([0-9]+)_run")  # of a launched run


class About(NamedTuple):
    """One run: `run` is its identity, see `utils.run_record`."""

    run: str
    folder: Path
    note: Path  # a file of the run folder, for what a place cannot tell itself
    name: str
    names: dict[str, str]  # launch (where there is one), experiment, seed and stages
    config: Mapping[str, Any]  # by dotted key
    text: str  # the same in YAML

    @property
    def experiment(self) -> str:
        return self.names["experiment"]

    @property
    def tags(self) -> list[str]:
        """The names as words; W&B takes at most 64 letters of each."""
        return [f"{name}:{value}"[:64] for name, value in self.names.items()]


def about_run(cfg: CfgNode, run: RunFolder, identity: str) -> About:
    """Return what there is to tell of a run; its launch is told by the launcher, if one runs it."""
    launched = FOLDER.fullmatch(run.path.name)
    name = run.path.name.removesuffix("_run")
    launch = os.environ.get(LAUNCH, "")
    names = {"launch": launch} if launch else {}
    names |= {"experiment": launched[1] if launched else name, "seed": str(cfg.SOLVER.SEED)}
    names["stages"] = "+".join(stages_of(cfg))
    return About(identity, run.path, run.tracking, name, names, flatten(cfg), cfg.dump())
