"""Breakers in the memory of one process."""

from archiver.breaker import CLEAN, Breaker, BreakerName
from archiver.ports.breakers import Change, Step
from archiver.runtime.notifications import Subscribers


class MemoryBreakers:
    """Implements ``Breakers``. ``values`` are the breakers that are not clean."""

    def __init__(self) -> None:
        self.changes: Subscribers[[BreakerName]] = Subscribers()
        self.values: dict[BreakerName, Breaker] = {}

    def known(self, name: BreakerName) -> Breaker:
        return self.values.get(name, CLEAN)

    async def change(self, name: BreakerName, step: Step) -> Change:
        before = self.known(name)
        after = self.values[name] = step(before)
        if after != before:
            self.changes.notify(name)
        return Change(before=before, after=after)
