"""The record of a run in Weights & Biases. Its id is the identity of the run, so a run that goes on finds it again.

Online the service tells how far the record is. Offline each start of a run writes a folder of its own, and what a
killed one left there may be anything: it is set aside, and its epochs are written again.
"""

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from processor.tracking.about import PROJECT, About
from processor.tracking.rows import Row
from utils.atomic import write_text_atomic

if TYPE_CHECKING:
    from wandb import Run

WAY_OUT = "run `wandb login`, or set WANDB_MODE=offline"
ASIDE = "killed-"  # begins the name of a folder that `wandb sync offline-run-*` is not to send

logger = logging.getLogger(__name__)


class WandbRecord:
    """One run of W&B; WANDB_PROJECT, WANDB_MODE and its other variables count."""

    def __init__(self, about: About) -> None:
        """Begin the record, or go on with the one of this run; raises whatever wandb does."""
        import wandb

        self._about = about
        self.run: Run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=str(about.folder),
            id=about.run,
            name=about.name,
            group=about.experiment,
            tags=about.tags,
            config=dict(about.config),
            allow_val_change=True,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        if self.run.offline:
            self.place = f"offline, `wandb sync {about.folder}/wandb/offline-run-*` sends it"
            self.sent = self._take_up()
            self._note(self.sent, Path(self.run.dir).parent)
        else:
            self.place = self.run.url
            self.sent = self.run.starting_step - 1  # last step that is there, -1 for none

    def _take_up(self) -> int:
        """Return the last step in the folders that ended well, -1 for none, and set one aside that did not."""
        try:
            content = json.loads(self._about.note.read_text(encoding="utf-8"))
            sent, left = (int(content["sent"]), str(content["open"])) if content["run"] == self._about.run else (-1, "")
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return -1
        if left:
            folder = self._about.folder / "wandb" / Path(left).name
            logger.info("'%s' is of a killed run: what was in it is written again", folder)
            with suppress(OSError):  # it may have been removed
                folder.rename(folder.with_name(ASIDE + folder.name))
        return sent

    def _note(self, sent: int, part: Path | None) -> None:
        """Write down the last step that is surely on the disk, and the folder that is being written, if one is."""
        content = {"run": self._about.run, "sent": sent, "open": "" if part is None else part.name}
        write_text_atomic(self._about.note, json.dumps(content, indent=2) + "\n")

    def send(self, row: Row) -> None:
        """Add the figures of one epoch."""
        self.run.log(row.values, step=row.step)
        self.sent = row.step

    def add_test(self, values: Mapping[str, float], epoch: int, is_last: bool, report: Path | None) -> None:
        """Put the figures of a test into the summary, those of the last epoch as test/..., and keep its report."""
        import wandb

        start = "test" if is_last else f"test_epoch_{epoch}"
        self.run.summary.update({f"{start}/{name}": value for name, value in values.items()})
        if report is not None:
            artifact = wandb.Artifact(f"report-{self.run.id}-{epoch}", type="report")
            artifact.add_file(str(report))
            self.run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        """End this part of the record."""
        self.run.finish(exit_code=int(failed))
        if self.run.offline:
            self._note(self.sent, None)
