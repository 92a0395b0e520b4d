"""What becomes of an archive that is waited for: read once per change, for all who wait for it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto

from starlette.responses import Response
from starlette.types import Receive

from archiver.errors import ArchiverError, EngineUnavailable, InternalError
from archiver.model import Archive, ArchiveRequest, Ready, Region
from archiver.service import Archiver
from archiver.status import Status
from archiver.tasks import TaskState
from archiver.telemetry import describe, log

LOOK_AGAIN = timedelta(seconds=5)
"""News is told once, and nobody makes sure that it arrives."""

JITTER = 0.2
"""Those who were woken together do not look again together."""


class Woken(Enum):
    """Why a pause ended."""

    NEWS = auto()
    TIME = auto()
    LEFT = auto()


Bench = set[asyncio.Future[Woken]]
"""Those who pause. One future each, whoever they wait for, because thousands may."""


Leaving = asyncio.Task[None]
"""Ends when the client has left."""


@contextmanager
def leaving(receive: Receive) -> Iterator[Leaving]:
    """Yield what ends when the client leaves; nothing else may be received meanwhile or later.

    One for all pauses of a request: a ``receive`` of granian's that was cut short is followed by a
    ``http.disconnect``, true or not.
    """
    task = asyncio.ensure_future(_left(receive))
    try:
        yield task
    finally:
        task.cancel()


async def pause(bench: Bench, patience_s: float, leaving: Leaving) -> Woken:
    """Return when the *bench* is woken, when the time is over, or when the client has left."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[Woken] = loop.create_future()
    timer = loop.call_later(patience_s, _wake, woken, Woken.TIME)

    def leave(_: Leaving) -> None:
        _wake(woken, Woken.LEFT)

    leaving.add_done_callback(leave)
    bench.add(woken)
    try:
        return await woken
    finally:
        bench.discard(woken)
        timer.cancel()
        leaving.remove_done_callback(leave)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _wake(woken: asyncio.Future[Woken], why: Woken) -> None:
    if not woken.done():
        woken.set_result(why)


def _wake_all(bench: Bench, why: Woken = Woken.NEWS) -> None:
    for woken in bench:
        _wake(woken, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What makes an answer another one: what is wanted, at which address, near which region."""

    wanted: ArchiveRequest
    address: str
    near: Region | None


class Watch:
    """One archive and its task, as this process saw them last; ``status`` is None until it did.

    ``version`` counts the changes; ``failure`` is why the last look saw nothing.
    """

    def __init__(self, *, archiver: Archiver, archive: Archive, look_again: timedelta) -> None:
        self._archiver = archiver
        self._archive = archive
        self._look_again = look_again
        self._answers: dict[Sought, Response] = {}
        self._made: dict[str, bytes] = {}
        self.version = 0
        self.status: Status | None = None
        self.failure: ArchiverError | None = None
        self.for_change: Bench = set()
        self.for_end: Bench = set()
        self.users = 0
        self.closing = False
        self.keeping: asyncio.Task[None]

    @property
    def ended(self) -> bool:
        return self.status is not None and self.status.task.state.terminal

    async def keep(self) -> None:
        """Look whenever there is news, until the task has ended."""
        with self._archiver.notifications.listen(self._archive.key_hash) as bell:
            rung = True
            while True:
                await self._look(rung=rung)
                if self.ended:
                    return
                jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads a crowd
                rung = await bell.wait(self._look_again * jitter)

    async def _look(self, *, rung: bool) -> None:
        try:
            status = await self._status(rung=rung)
        except ArchiverError as exc:
            log.debug("watch.blind", code=exc.code, cause=describe(exc))
            self._fail(exc)
        except Exception:  # noqa: BLE001 - whoever waits goes on waiting, and so do all the others
            log.exception("watch.broken", key=self._archive.key)
            self._fail(InternalError("Archiver failed; its log says how"))
        else:
            self.failure = None
            self._see(status)

    async def _status(self, *, rung: bool) -> Status:
        """Return how far the archive is. Without news, the task alone may be enough to see.

        A failure is made sure of: somebody may have asked for the archive again while the buckets
        were looked at, and must not be told how the task before theirs ended.
        """
        if not rung and self.status and (glanced := await self._glance(self.status)):
            return glanced
        status = await self._archiver.status(self._archive)
        if status.task.state is TaskState.FAILURE:
            return await self._glance(status) or status
        return status

    async def _glance(self, known: Status) -> Status | None:
        """Return *known* with the task as it is, if that is all there is to see, else None.

        Whoever commits then ends the task: before, neither index nor buckets need to be asked.
        """
        try:
            task = await self._archiver.task(self._archive)
        except EngineUnavailable:
            return None
        if task is None or task.state.terminal:
            return None
        return replace(known, task=task)

    def close(self) -> None:
        """Have everyone go on without it: this process is about to end."""
        self.closing = True
        self.keeping.cancel()
        for bench in (self.for_change, self.for_end):
            _wake_all(bench, Woken.TIME)

    def _fail(self, failure: ArchiverError) -> None:
        self.failure = failure.without_frames()
        if self.status is None:
            _wake_all(self.for_change)

    def _see(self, status: Status) -> None:
        if self.status and _told(self.status) == _told(status):
            return
        self.status = status
        self.version += 1
        self._made.clear()
        if self.ended:
            _wake_all(self.for_end)
        _wake_all(self.for_change)

    def once(self, what: str, make: Callable[[Status], bytes]) -> bytes:
        """Return what *make* makes of the status, which has been seen: once for each version."""
        assert self.status  # noqa: S101 - for mypy
        if what not in self._made:
            self._made[what] = make(self.status)
        return self._made[what]

    async def first(self, patience_s: float, leaving: Leaving) -> Woken:
        """Return when there is a status, or when the client has left.

        Raises:
            ArchiverError: There is none, since nobody can tell it.
        """
        woken = Woken.NEWS
        if self.status is None and self.failure is None:
            woken = await pause(self.for_change, patience_s, leaving)
        if self.status is None and woken is not Woken.LEFT:
            if self.failure:
                raise self.failure.without_frames()
            raise EngineUnavailable("the engine takes long to answer")
        return woken

    async def change(self, since: int, patience_s: float, leaving: Leaving) -> Woken:
        """Return when ``version`` is more than *since*."""
        if self.version > since:
            return Woken.NEWS
        return await pause(self.for_change, patience_s, leaving)

    async def answer(self, sought: Sought, render: Callable[[Ready], Response]) -> Response | None:
        """Return what *render* makes of where the archive is, if it is there.

        Made once for all who want it in the same words, from near the same region: a crowd is
        answered at one moment.
        """
        if sought not in self._answers:
            found = await self._archiver.request(
                replace(sought.wanted, rev=self._archive.node),
                create=False,
                share=False,
                client="",  # the host is not asked about a node
                client_region=sought.near,
            )
            if not isinstance(found, Ready):
                return None
            self._answers[sought] = render(found)
        return self._answers[sought]


def _told(status: Status) -> tuple[object, ...]:
    """Return what makes a status another one: not its links, which are signed at each reading."""
    return status.task, status.copies, status.missing


class Watches:
    """The watches of a process: one per archive, for as long as somebody needs it."""

    def __init__(
        self, *, archiver: Archiver, group: asyncio.TaskGroup, look_again: timedelta
    ) -> None:
        self._archiver = archiver
        self._group = group
        self._look_again = look_again
        self._watches: dict[str, Watch] = {}
        self._closing = False

    @contextmanager
    def watch(self, archive: Archive) -> Iterator[Watch]:
        """Yield the archive's watch, which does not end before the block does."""
        watch = self._watches.get(archive.key_hash)
        if watch is None or watch.ended:
            watch = self._begin(archive)
        watch.users += 1
        try:
            yield watch
        finally:
            watch.users -= 1
            if not watch.users:
                self._end(archive, watch)

    def close(self) -> None:
        """End all of them, and let everyone who waits go; whoever comes now waits for little."""
        self._closing = True
        for watch in self._watches.values():
            watch.close()

    def _begin(self, archive: Archive) -> Watch:
        watch = Watch(archiver=self._archiver, archive=archive, look_again=self._look_again)
        watch.keeping = self._group.create_task(watch.keep())
        watch.closing = self._closing
        self._watches[archive.key_hash] = watch
        return watch

    def _end(self, archive: Archive, watch: Watch) -> None:
        watch.keeping.cancel()
        if self._watches.get(archive.key_hash) is watch:
            del self._watches[archive.key_hash]


@asynccontextmanager
async def open_watches(
    archiver: Archiver, *, look_again: timedelta = LOOK_AGAIN
) -> AsyncIterator[Watches]:
    """Yield watches that end with the block; without news, they look every *look_again*."""
    async with asyncio.TaskGroup() as group:
        watches = Watches(archiver=archiver, group=group, look_again=look_again)
        try:
            yield watches
        finally:
            watches.close()
