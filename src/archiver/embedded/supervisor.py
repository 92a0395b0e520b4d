"""Keeps parts running: each stage starts when the one before it serves, and ends before it."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from archiver.embedded.checkup import LOOK_EVERY_S as CHECK_EVERY_S
from archiver.embedded.checkup import Checkup
from archiver.embedded.child import Child, Part, start
from archiver.embedded.errors import CannotServe
from archiver.telemetry import describe, log

FIRST_DELAY_S = 0.2
LAST_DELAY_S = 5.0
SETTLED_S = 10.0
"""A child that lived so long is restarted as quickly as the first time."""

READY_WITHIN_S = 20.0
FIRST_STARTS = 3
"""A part that never served is given up after so many starts; one that did, never."""

LOOK_EVERY_S = 0.5
LOOK_EVERY_WHILE_STARTING_S = 0.05


class Keeper:
    """Keeps one part running until it is told to stop."""

    def __init__(self, *, part: Part, on_end: Callable[[], None], check_every_s: float) -> None:
        self.part = part
        self._check_every_s = check_every_s
        self.served = asyncio.Event()
        self.ended = asyncio.Event()
        self._stopping = asyncio.Event()
        self._on_end = on_end
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def run(self) -> None:
        """Start the part, and again whenever it ends.

        Raises:
            CannotServe: It never served.
        """
        delay_s, starts = FIRST_DELAY_S, 0
        try:
            while not self._stopping.is_set():
                starts += 1
                lived_s = await self._try_to_live(restart=starts > 1)
                if starts >= FIRST_STARTS and not self.served.is_set():
                    raise CannotServe(_why_given_up(self.part))
                delay_s = FIRST_DELAY_S if lived_s >= SETTLED_S else delay_s
                await _wait(self._stopping, delay_s)
                delay_s = min(2 * delay_s, LAST_DELAY_S)
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Tell the part to end, and that this is meant. ``ended`` says when it has."""
        self._stopping.set()

    def kill(self) -> None:
        """End the part at once."""
        self._stopping.set()
        if self._child:
            self._child.kill()

    async def _try_to_live(self, *, restart: bool) -> float:
        """Run one child; if it cannot be started again, as when the disk is full, let it pass."""
        try:
            return await self._live(restart=restart)
        except CannotServe as exc:
            if not self.served.is_set():
                raise
            log.error("child.not_started", child=self.part.name, cause=describe(exc))
            return 0.0

    async def _live(self, *, restart: bool) -> float:
        """Run one child from start to end; return the seconds it lived."""
        child = self._child = await start(self.part)
        began = time.monotonic()
        event = "child.restarted" if restart else "child.started"
        log.info(event, child=self.part.name, pid=child.pid)
        reason = "stopped"
        try:
            reason = await self._watch(child, began)
        finally:
            await child.stop()
            self._child = None
            self._on_end()
            self._tell_end(child, reason)
        return time.monotonic() - began

    def _tell_end(self, child: Child, reason: str) -> None:
        ended = {"child": self.part.name, "pid": child.pid, "code": child.exit_code, "why": reason}
        if reason == "stopped":
            log.info("child.ended", **ended)
        else:
            words = {"last_words": str(self.part.log)} if self.part.log else {}
            log.warning("child.ended", **ended, **words)

    async def _watch(self, child: Child, began: float) -> str:
        """Return why the child ended, or has to."""
        folder, serves = _identity(self.part.folder), False
        checkup = Checkup(part=self.part, look_every_s=self._check_every_s)
        async with asyncio.TaskGroup() as group:
            exited = group.create_task(child.wait())
            stopping = group.create_task(self._stopping.wait())
            try:
                while True:
                    serves = serves or await self._serves()
                    look_s = LOOK_EVERY_S if serves else LOOK_EVERY_WHILE_STARTING_S
                    done, _ = await asyncio.wait(
                        {exited, stopping}, timeout=look_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if stopping in done:
                        return "stopped"
                    if exited in done:
                        return _how_it_ended(child.exit_code or 0)
                    if folder != _identity(self.part.folder):
                        return "its folder vanished"
                    if serves and await checkup.is_broken():
                        return "could not do its work"
                    if not serves and time.monotonic() - began > READY_WITHIN_S:
                        return "did not answer"
            finally:
                exited.cancel()
                stopping.cancel()

    async def _serves(self) -> bool:
        if self.part.ready and not await self.part.ready.answers():
            return False
        self.served.set()
        return True


class Supervisor:
    """The keepers of all stages."""

    def __init__(
        self,
        *,
        stages: Sequence[Sequence[Part]],
        on_end: Callable[[], None] = lambda: None,
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        self._stages = [
            [Keeper(part=part, on_end=on_end, check_every_s=check_every_s) for part in stage]
            for stage in stages
        ]
        self._started: list[list[Keeper]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Enter when every part serves; end them, the last stage first, when the block ends.

        Raises:
            CannotServe: A part never served; all that had been started has ended.
            whatever the block raises.
        """
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await self._start(group)
                    yield
                finally:
                    await self._stop()
        except BaseExceptionGroup as faults:
            raise _first(faults) from None

    @property
    def pids(self) -> Mapping[str, int]:
        """The process of each part that runs now, by the part's name."""
        keepers = [keeper for stage in self._started for keeper in stage]
        return {keeper.part.name: keeper.pid for keeper in keepers if keeper.pid}

    def kill(self) -> None:
        """End every part at once, whatever it is doing."""
        for stage in self._started:
            for keeper in stage:
                keeper.kill()

    async def _start(self, group: asyncio.TaskGroup) -> None:
        for stage in self._stages:
            self._started.append(stage)
            for keeper in stage:
                group.create_task(keeper.run())
            for keeper in stage:
                await keeper.served.wait()

    async def _stop(self) -> None:
        for stage in reversed(self._started):
            for keeper in stage:
                keeper.stop()
            for keeper in stage:
                await keeper.ended.wait()


def _identity(folder: Path | None) -> tuple[int, int] | None:
    """Return what tells a folder from another one of the same name; None if there is none."""
    if folder:
        with suppress(OSError):
            found = folder.stat()
            return found.st_dev, found.st_ino
    return None


def _how_it_ended(exit_code: int) -> str:
    """Return what an exit code says: one below 0 is a signal."""
    if exit_code >= 0:
        return "exited"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-exit_code}"


def _why_given_up(part: Part) -> str:
    where = f"; its last words are in {part.log}" if part.log else ""
    return f"{part.name} was started {FIRST_STARTS} times and never served{where}"


def _first(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what made the others be cancelled, without the groups around it."""
    exc: BaseException = faults
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
