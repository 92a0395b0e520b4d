"""Named points of a build at which faults begin."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BEGIN_S = 3.0
"""How long the fleet is held at a point for its faults to begin."""

RANDOM = "random"
"""Begins after a random delay, wherever the builds are then."""


@dataclass(slots=True)
class Moment:
    """A point that a fault waits for. ``peer`` is the port of the process that is there, if any.

    ``reached`` is false if no build came to the point in time, so the fault begins elsewhere.
    """

    name: str
    peer: int = 0
    reached: bool = False
    _arrived: threading.Event = field(default_factory=threading.Event)
    _begun: threading.Event = field(default_factory=threading.Event)


class Moments:
    """Brings builds and faults together. The parts of the fleet report the points they reach."""

    def __init__(self) -> None:
        self._awaited: defaultdict[str, list[Moment]] = defaultdict(list)
        self._lock = threading.Lock()

    def reach(self, name: str, peer: int = 0) -> None:
        """Report a point, and return once all faults that waited for it have begun."""
        with self._lock:
            here = self._awaited.pop(name, [])
        for moment in here:
            moment.peer, moment.reached = peer, True
            moment._arrived.set()  # noqa: SLF001 - both classes are one mechanism
        for moment in here:
            moment._begun.wait(BEGIN_S)  # noqa: SLF001

    @contextmanager
    def at(self, name: str, *, within_s: float) -> Iterator[Moment]:
        """Wait for the point *name*, at most so long. The block is the beginning of a fault."""
        moment = Moment(name)
        with self._lock:
            if name != RANDOM:
                self._awaited[name].append(moment)
        moment._arrived.wait(within_s)  # noqa: SLF001
        with self._lock:
            if moment in self._awaited.get(name, []):
                self._awaited[name].remove(moment)
        try:
            yield moment
        finally:
            moment._begun.set()  # noqa: SLF001
