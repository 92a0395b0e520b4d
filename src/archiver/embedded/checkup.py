"""Decides whether a running program has to be restarted because it cannot recover by itself."""

import shutil
import time

from archiver.embedded.child import Program
from archiver.telemetry import log

CHECK_INTERVAL_S = 5.0
FAILURES = 3
"""One failure is not enough: nats-server also reports a consumer that is just being removed."""

ROOM_BYTES = 64 * 1024 * 1024
"""On a fuller disk a restart repairs nothing, and takes away what can still be read."""


class Checkup:
    """Checks one run of a program."""

    def __init__(self, *, program: Program, interval_s: float) -> None:
        self._program = program
        self._interval_s = interval_s
        self._due = time.monotonic()
        self._failures = 0
        self._logged = False

    async def needs_restart(self) -> bool:
        """Return whether several checks in a row found the program broken, and a restart may help.

        Checks at most once per interval.
        """
        if not self._program.broken or time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._interval_s
        self._failures = self._failures + 1 if await self._program.broken.succeeds() else 0
        return self._failures >= FAILURES and self._has_room()

    def _has_room(self) -> bool:
        folder = self._program.folder
        try:
            if folder is None or shutil.disk_usage(folder).free >= ROOM_BYTES:
                return True
        except OSError:  # the folder vanished, which is another reason for a restart
            return False
        if not self._logged:
            log.error("child.disk_full", child=self._program.name, folder=str(folder))
            self._logged = True
        return False
