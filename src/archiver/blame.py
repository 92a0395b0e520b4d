"""Whether a host has failed, or only one of its repos: as far as one process can see."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

SOUND_FOR = timedelta(minutes=1)
"""How long an answer about one repo shows that the host is not to blame for another one."""


@dataclass(slots=True, kw_only=True)
class _Seen:
    """Of one host: a repo with an answer, until when that counts, and one that failed since."""

    sound: str = ""
    until: float = 0.0
    failed: str = ""


class Blame:
    """Remembers how uses of hosts ended. *now* returns seconds of a clock that only goes on."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._hosts: dict[str, _Seen] = {}

    def note_answer(self, source: str, repo: str) -> None:
        seen = self._hosts.setdefault(source, _Seen())
        if repo and repo != seen.failed:
            seen.sound, seen.until = repo, self._now() + SOUND_FOR.total_seconds()

    def is_on_host(self, source: str, repo: str) -> bool:
        """Return whether the host is to blame for a failure of *repo*, which this call notes.

        It is not while it has lately answered about another repo, and only this one has failed
        since. Otherwise, a client with one broken repo could have a host paused for all.
        """
        seen = self._hosts.setdefault(source, _Seen())
        only_this_one = seen.failed in {"", repo} and seen.sound != repo
        if repo and only_this_one and self._now() < seen.until:
            seen.failed = repo
            return False
        self._hosts[source] = _Seen(failed=repo)
        return True
