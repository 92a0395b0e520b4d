"""A process that is killed at any point of an expiry breaks no promise, and a later one ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from archiver.model import Archive
from archiver.upkeep.gc import Outcome
from tests.upkeep.gc_bench import GRACE, Bench

STEPS = {
    "storage": ("read_pin", "put_tombstone", "withdraw", "reinstate", "read_tombstone"),
    "storage.contents": ("read_manifest", "delete_object"),
    "index": ("remove",),
    "engine": ("forget", "drop"),
}
"""The methods by which an expiry reads or changes something."""


class Killed(BaseException):
    """Ends the process."""


class Killer:
    """Ends the process at the *call*-th step: before it, or *after* its effect."""

    def __init__(self, bench: Bench, *, call: int, after: bool) -> None:
        self.left, self.after = call, after
        for path, names in STEPS.items():
            part: Any = bench
            for name in path.split("."):
                part = getattr(part, name)
            for name in names:
                setattr(part, name, self._watched(getattr(part, name)))

    def _watched(self, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def watched(*args: object, **options: object) -> object:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Killed
            result = await step(*args, **options)
            if self.left == 0:
                raise Killed
            return result

        return watched


async def assert_promises(bench: Bench, archive: Archive, *, linked: bool) -> None:
    """Whatever leads to the archive, leads to its bytes; and so do links that clients have."""
    found = await bench.storage.find(archive)
    indexed = await bench.index.copies(archive)
    for copies in filter(None, (found.copies, indexed)):
        for region in copies.regions:
            assert copies.manifest.object_key in bench.storage.objects[region]
    if linked:
        assert len(bench.objects(archive)) == 2


@pytest.mark.parametrize("after", (False, True))
@pytest.mark.parametrize("call", range(1, 13))
def test_an_expiry_that_is_killed_is_completed(call: int, *, after: bool) -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.open()
        archive = await bench.store()
        killer = Killer(bench, call=call, after=after)
        try:
            await bench.run()
        except (Killed, BaseExceptionGroup):
            assert killer.left == 0
        await assert_promises(bench, archive, linked=True)
        killer.left = 0
        results, _ = await bench.run()
        assert results in ({archive: Outcome.EXPIRED}, {})
        assert (await bench.storage.find(archive)).copies is None
        await assert_promises(bench, archive, linked=True)

        bench.age_tombstone(archive, GRACE)
        killer.left = call
        try:
            await bench.run()
        except (Killed, BaseExceptionGroup):
            assert killer.left == 0
        await assert_promises(bench, archive, linked=False)
        killer.left = 0
        await bench.run()
        bench.age_tombstone(archive, GRACE)  # which began again if the index still led there
        await bench.run()
        assert bench.objects(archive) == []
        assert await bench.index.copies(archive) is None

    asyncio.run(scenario())
