"""Curves for TensorBoard: a comfort beside metrics.jsonl, so a disk that refuses them never ends a run."""

import itertools
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

FILE_VERSION = "brain.Event:2"  # of every event file, in its first event
_numbers = itertools.count()  # of the files of this process


class Board:
    """Writes scalars to an event file in `folder`, as torch's SummaryWriter does, but in the thread that calls.

    Its thread dies on a full disk with a traceback, or the process with it. Here the first refusal is one warning, and
    what follows is left out.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Open a new file, which tells TensorBoard to forget what a killed run wrote from `purge_step` on."""
        import socket  # which --help does without

        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.file = folder / name
        self._writer: RecordWriter | None = None
        try:
            self._writer = RecordWriter(open(self.file, "xb"))  # noqa: SIM115 - closed in close()
        except OSError as error:
            self._give_up(error)
        self._write(Event(wall_time=time.time(), file_version=FILE_VERSION))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def add(self, values: dict[str, float], step: int) -> None:
        """Write each of `values`, by the name of its curve, at `step`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import scalar

        for name, value in values.items():
            self._write(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._flush()

    def close(self) -> None:
        """Close the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, event: object) -> None:
        if self._writer is not None:
            try:
                self._writer.write(event.SerializeToString())
            except OSError as error:
                self._give_up(error)

    def _flush(self) -> None:
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._writer is not None:
            with suppress(OSError):  # it would write once more
                self._writer.close()
            self._writer = None
        logger.warning(
            "no more curves for TensorBoard in '%s' (%s); metrics.jsonl has all figures. Make room",
            *(self.file, error.strerror or error),
        )
