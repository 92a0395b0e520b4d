"""Follows the file with the settings, so that tokens can be added and removed at any time."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from archiver.access.access import Access
from archiver.access.policy import Policy
from archiver.runtime.threads import run_in_thread
from archiver.telemetry import log

CHECK_INTERVAL = timedelta(seconds=2)


class UnreadablePolicy(Exception):
    """The file has no valid policy. The text says why, and has no secret."""


class PolicyFile:
    """Reads the policy again when the file changes. *read* raises UnreadablePolicy."""

    def __init__(
        self,
        path: Path,
        *,
        read: Callable[[], Policy],
        check_interval: timedelta = CHECK_INTERVAL,
    ) -> None:
        self._path = path
        self._read = read
        self._check_interval_s = check_interval.total_seconds()
        self._version = self._current_version()

    async def follow(self, access: Access) -> None:
        """Apply each new policy to *access*, until cancelled. An unreadable file changes nothing.

        Tokens expire by themselves, without a change of the file.
        """
        while True:
            await asyncio.sleep(self._check_interval_s)
            policy = await run_in_thread(self._read_if_changed)
            if policy is not None and policy != access.policy:
                access.replace(policy)
                log.info("access.changed", tokens=len(policy.grants))

    def _read_if_changed(self) -> Policy | None:
        version = self._current_version()
        if version == self._version:
            return None
        self._version = version
        try:
            return self._read()
        except UnreadablePolicy as exc:
            log.warning("access.unreadable", reason=str(exc))
            return None

    def _current_version(self) -> tuple[int, ...]:
        """Return a value that changes with the file, also if a link to it changes."""
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
