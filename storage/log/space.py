"""Gives the space of trimmed records back, in short steps between the embedded log's commits."""

from enum import Enum
from time import monotonic

import structlog

from core.errors import SheafError
from storage.log.record_file import RecordFile

SHRINK_AFTER_S = 1.0
"""Pause in the appends after which free space goes back to the file system; before, appends reuse it."""
RETRY_S = 1.0

log = structlog.get_logger()


class _Stage(Enum):
    DELETE = 1
    SHRINK = 2
    DONE = 3


class Space:
    """For the log's writing thread."""

    def __init__(self, file: RecordFile) -> None:
        self._file = file
        self._stage = _Stage.DELETE
        self._not_before = 0.0
        self._failing = False

    def trimmed(self) -> None:
        """There may be something to delete."""
        self._stage = _Stage.DELETE
        self._not_before = 0.0

    def due_s(self) -> float | None:
        """Seconds until the next step; None = nothing to do."""
        return None if self._stage is _Stage.DONE else max(0.0, self._not_before - monotonic())

    def step(self, busy: bool) -> None:
        """One step, if it is time. busy: there was something to commit just now."""
        if self._stage is _Stage.SHRINK and busy:
            self._not_before = monotonic() + SHRINK_AFTER_S
        if self._stage is _Stage.DONE or monotonic() < self._not_before:
            return
        try:
            # Deleting goes on under load too, or the file would grow.
            if self._stage is _Stage.SHRINK:
                self._stage = _Stage.SHRINK if self._file.shrink() else _Stage.DONE
            elif not self._file.delete_trimmed():
                self._stage = _Stage.SHRINK
                self._not_before = monotonic() + SHRINK_AFTER_S
        except SheafError as e:
            if not self._failing:
                log.warning("space of trimmed records not given back yet", file=str(self._file.path), error=str(e))
            self._failing = True
            self._not_before = monotonic() + RETRY_S
        else:
            self._failing = False
