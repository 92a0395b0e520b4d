"""What a campaign counts, and what it finds to be against a law."""

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a law forbids. ``faults`` are the numbers of the faults in its round."""

    law: int
    text: str
    faults: tuple[int, ...]


@dataclass(slots=True)
class Counts:
    """The numbers of a campaign.

    ``fetches`` is how many archives were fetched so often, ``causes`` the parts whose faults
    explain the repetitions. ``kinds`` and ``missed`` are by the kind of the fault.
    """

    faults: int = 0
    rounds: int = 0
    accepted: int = 0
    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    unanswered: int = 0
    links: int = 0
    dead_links: int = 0
    visible: int = 0
    not_whole: int = 0
    orphans: int = 0
    unfinished: int = 0
    listed_by_hits: int = 0
    left_files: int = 0
    most_at_once: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    fetches: Counter[int] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    settle_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, law: int, text: str, faults: tuple[int, ...]) -> None:
        with self._lock:
            self.findings.append(Finding(law=law, text=text, faults=faults))
