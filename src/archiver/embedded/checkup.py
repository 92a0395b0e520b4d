"""Whether a part that runs has to be started again, since it cannot mend itself."""

import shutil
import time

from archiver.embedded.child import Part
from archiver.telemetry import log

LOOK_EVERY_S = 5.0
LOOKS = 3
"""Once is not enough: nats-server also finds fault with a consumer that is just being removed."""

ROOM_BYTES = 64 * 1024 * 1024
"""On a fuller disk a new start mends nothing, and would take away what can still be read."""


class Checkup:
    """Of one run of a part."""

    def __init__(self, *, part: Part, look_every_s: float) -> None:
        self._part = part
        self._look_every_s = look_every_s
        self._due = time.monotonic()
        self._found = 0
        self._told = False

    async def is_broken(self) -> bool:
        """Tell whether the part says so, look after look, and a new start may mend it."""
        if not self._part.broken or time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._look_every_s
        self._found = self._found + 1 if await self._part.broken.answers() else 0
        return self._found >= LOOKS and self._has_room()

    def _has_room(self) -> bool:
        folder = self._part.folder
        try:
            if folder is None or shutil.disk_usage(folder).free >= ROOM_BYTES:
                return True
        except OSError:  # it has just vanished, which is another reason to start again
            return False
        if not self._told:
            log.error("child.disk_full", child=self._part.name, folder=str(folder))
            self._told = True
        return False
