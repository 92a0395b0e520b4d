"""The circuit breakers of the fleet, which all processes see and change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from archiver.breaker import Breaker, BreakerName
from archiver.runtime.notifications import Subscribers

Step: TypeAlias = Callable[[Breaker], Breaker]
"""Returns the breaker after an event. May be called several times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a breaker that this process has made. Without an effect, both are equal."""

    before: Breaker
    after: Breaker


class Breakers(Protocol):
    """One breaker for each source and region. All are closed at first.

    ``changes`` is called with the name after a breaker has changed, here or in another process.
    """

    changes: Subscribers[[BreakerName]]

    def known(self, name: BreakerName) -> Breaker:
        """Return the breaker as this process knows it: within a second as all others do. Free."""

    async def change(self, name: BreakerName, step: Step) -> Change:
        """Apply *step* to the breaker of the fleet, as if no other process did at that moment.

        If the engine does not answer soon, only what this process knows changes, until the engine
        answers again. A step that has no effect on what is known costs nothing.
        """
