"""Follows the file with the settings, so that tokens can be added and removed at any time."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from archiver.access.access import Access
from archiver.access.policy import Policy
from archiver.runtime.threads import run_in_thread
from archiver.telemetry import METRICS, log

CHECK_INTERVAL = timedelta(seconds=2)


class UnreadablePolicy(Exception):
    """The file has no valid policy. The text says why, and has no secret."""


class PolicyFile:
    """Reads the policy again when the file changes. *read* raises UnreadablePolicy.

    A new file applies once it has not changed for one interval, because a program may be writing
    it. Rules that open more to clients without a token apply at the next start: a part of a file
    can be a valid file, which says less.
    """

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
        self._applied = self._seen = self._current_version()

    async def follow(self, access: Access) -> None:
        """Apply each new policy to *access*, until cancelled. An unreadable file changes nothing.

        Tokens expire by themselves, without a change of the file.
        """
        first = access.policy
        while True:
            await asyncio.sleep(self._check_interval_s)
            wanted = await run_in_thread(self._read_if_changed)
            if wanted is None:
                continue
            policy = first.narrowed_to(wanted)
            if policy != access.policy:
                _log_change(access.policy, policy)
                access.replace(policy)
            if policy != wanted:
                log.warning("access.needs_restart", settings=_differing(policy, wanted))

    def _read_if_changed(self) -> Policy | None:
        version = self._current_version()
        is_stable, self._seen = version == self._seen, version
        if not is_stable or version == self._applied:
            return None
        self._applied = version
        try:
            policy = self._read()
        except UnreadablePolicy as exc:
            METRICS.access_unreadable.set(1)
            log.warning("access.unreadable", reason=str(exc))
            return None
        METRICS.access_unreadable.set(0)
        return policy

    def _current_version(self) -> tuple[int, ...]:
        """Return a value that changes with the file, also if a link to it changes."""
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _log_change(before: Policy, after: Policy) -> None:
    log.info(
        "access.changed",
        tokens=len(after.grants),
        added=sorted(after.grants.keys() - before.grants.keys()),
        removed=sorted(before.grants.keys() - after.grants.keys()),
    )


def _differing(applied: Policy, wanted: Policy) -> list[str]:
    """Return the settings, or their tables, of *wanted* that do not apply yet."""
    names = applied.sources.keys() | wanted.sources.keys()
    return [
        *(
            f"sources.{name}"
            for name in sorted(names)
            if applied.sources.get(name) != wanted.sources.get(name)
        ),
        *(
            f"tokens.{name}"
            for name in sorted(wanted.grants)
            if applied.grants[name] != wanted.grants[name]
        ),
        *(
            ["access.proxy_*"]
            if (applied.proxy_header, applied.proxy_grant)
            != (wanted.proxy_header, wanted.proxy_grant)
            else []
        ),
    ]
