"""Fills the slots of a worker with tasks: asks each lane in turn that may have one."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import nats.errors
from nats.aio.msg import Msg

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.feed import FEED, WAITING
from archiver.jetstream.lanes import LINGER, Hint, Lane
from archiver.jetstream.records import WaitingRecord, decode_waiting, encode
from archiver.tasks import Priority
from archiver.telemetry import describe, log

PATIENCE = timedelta(seconds=0.05)
"""How long a slot is kept for the answer to a question. Most answers take a millisecond."""

SWEEP = timedelta(seconds=2)
"""How often the lanes that hold anything are asked. A worker that is killed announces nothing, and
one that is disconnected misses announcements."""

LISTED_MAX = 1000
"""Tasks that the server lists for a sweep, in 100 kB. If there are more, all lanes are asked."""

QUESTION_MAX = 2 * LINGER
"""An older question was lost with the server that had it."""

PAUSE = timedelta(seconds=0.5)

MAKERS = 8
"""Consumers that are made at a time: a worker with 100 sources has 200."""

LOW_EVERY = 8
"""One task of so many is of low priority, so that repairs go on while a worker is busy."""

WARN_EVERY = timedelta(minutes=1)
"""How often a worker warns of consumers that cannot be made, of which there may be hundreds."""

NO_RESPONDERS = "503"


@dataclass(slots=True, kw_only=True)
class Question:
    """A request for one task of a lane. A slot is ``kept`` for the answer for a short while."""

    lane: Lane
    asked_at: float
    kept: bool = True


class Dispatcher:
    """Calls *start* with a message whenever there is one, and a slot for it.

    A lane is asked when it may have a task: one was published or given back, the last answer was a
    task, or a sweep comes by. An idle lane costs nothing and holds no slot. A message that comes
    when every slot is taken goes back to the queue, for a worker that has room.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        lanes: Sequence[Lane],
        slots: int,
        start: Callable[[Msg], None],
    ) -> None:
        self._connection = connection
        self._lanes = {(lane.priority.value, lane.source): lane for lane in lanes}
        self._turns = {p: [lane for lane in lanes if lane.priority is p] for p in Priority}
        self._free = slots
        self._start = start
        self._started = 0
        self._warn_after = 0.0
        self._closed = False
        self._changed = asyncio.Event()
        self._unmade = asyncio.Event()
        self._questions: dict[str, Question] = {}
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._published = connection.subject("tasks", "*", "*", "*")

    async def run(self) -> None:
        """Dispatch until cancelled."""
        connection = self._connection
        connection.on_gap(self._look_anew)
        connection.watch(WAITING, self._hear_of_waiting)
        await connection.listen(f"{self._inbox}.*", self._receive)
        await connection.listen(self._published, self._hear_of_task)
        self._unmade.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._make())
            group.create_task(self._fill())
            group.create_task(self._sweep())

    def close(self) -> None:
        """Start nothing more; give back whatever comes."""
        self._closed = True

    async def leave(self) -> None:
        """Stop listening, once everything that was sent to this worker is given back."""
        await self._connection.unlisten(self._published)
        await self._connection.unlisten(f"{self._inbox}.*")

    def freed(self) -> None:
        """Count a slot whose task has ended as free."""
        self._free += 1
        self._changed.set()

    async def _make(self) -> None:
        """Make the consumers that are missing, now and whenever the server says that one is."""
        while True:
            await self._unmade.wait()
            self._unmade.clear()
            lanes = iter([lane for lane in self._lanes.values() if not lane.made])
            async with asyncio.TaskGroup() as group:
                for _ in range(MAKERS):
                    group.create_task(self._make_some(lanes))

    async def _make_some(self, lanes: Iterator[Lane]) -> None:
        for lane in lanes:
            try:
                await lane.make()
            except Exception as exc:  # noqa: BLE001 - the other lanes have to be made all the same
                self._tell_broken(lane, exc)
                await asyncio.sleep(PAUSE.total_seconds())
                self._unmade.set()
            else:
                self._wake(lane, Hint.MAYBE)

    def _tell_broken(self, lane: Lane, exc: Exception) -> None:
        """Warn of a consumer that cannot be made, unless the whole engine is away anyway."""
        due = time.monotonic() >= self._warn_after and self._connection.is_up
        if due:
            self._warn_after = time.monotonic() + WARN_EVERY.total_seconds()
            log.warning("lane.broken", lane=lane.name, cause=describe(exc))
        else:
            log.debug("lane.broken", lane=lane.name, cause=describe(exc))

    async def _fill(self) -> None:
        """Ask for a task for each free slot, as long as a lane may have one."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._free and (lane := self._choose()):
                await self._ask(lane)

    def _choose(self) -> Lane | None:
        """Return the next lane that may have a task, of high priority first."""
        order = list(Priority)
        if self._started % LOW_EVERY == LOW_EVERY - 1:
            order.reverse()
        for turns in (self._turns[priority] for priority in order):
            for lane in turns:
                if lane.hint and lane.made and lane.question is None:
                    turns.remove(lane)
                    turns.append(lane)
                    return lane
        return None

    async def _ask(self, lane: Lane) -> None:
        token = secrets.token_hex(8)
        lingering, lane.hint, lane.question = lane.hint is Hint.NEWS, Hint.NONE, token
        self._free -= 1
        self._questions[token] = Question(lane=lane, asked_at=time.monotonic())
        asyncio.get_running_loop().call_later(PATIENCE.total_seconds(), self._release, token)
        try:
            await lane.ask(f"{self._inbox}.{token}", lingering=lingering)
        except Exception as exc:  # noqa: BLE001 - the other lanes have to be asked all the same
            log.debug("lane.broken", lane=lane.name, cause=describe(exc))
            self._settle(token)
            lane.wake(Hint.MAYBE)
            await asyncio.sleep(PAUSE.total_seconds())

    def _release(self, token: str) -> None:
        """Keep no slot any longer for the answer to a question; it may come all the same."""
        question = self._questions.get(token)
        if question and question.kept:
            question.kept = False
            self.freed()

    def _settle(self, token: str) -> None:
        """Forget a question that is answered or lost, and free the slot that was kept for it."""
        self._release(token)
        if question := self._questions.pop(token, None):
            question.lane.question = None

    async def _receive(self, message: Msg) -> None:
        """Take an answer. A task comes on its own subject, all else on that of the question."""
        if message.subject.startswith(self._inbox):
            status = (message.headers or {}).get("Status", "")
            self._hear_of_nothing(message.subject.rpartition(".")[2], status)
        else:
            await self._take(message)
        self._changed.set()

    def _hear_of_nothing(self, token: str, status: str) -> None:
        """Believe that a lane has no task now, or lacks its consumer."""
        question = self._questions.get(token)
        self._settle(token)
        if question and status == NO_RESPONDERS:
            question.lane.made = False
            self._unmade.set()

    async def _take(self, message: Msg) -> None:
        """Start a task, or give it back if there is no room for it."""
        lane = self._lane(message.subject)
        if lane is None:
            return
        if lane.question:
            self._settle(lane.question)
        lane.wake(Hint.MAYBE)
        if self._free and not self._closed:
            self._free -= 1
            self._started += 1
            self._start(message)
            return
        with suppress(nats.errors.Error, OSError):  # then the lease runs out, which is the same
            await message.nak()
        record = WaitingRecord(source=lane.source, priority=lane.priority)
        await self._connection.tell(WAITING, message.subject.rpartition(".")[2], encode(record))

    def _lane(self, subject: str) -> Lane | None:
        priority, source, _digest = subject.split(".")[-3:]
        return self._lanes.get((priority, source))

    async def _hear_of_task(self, message: Msg) -> None:
        """Take notice that a task was published. It may not be stored yet."""
        if lane := self._lane(message.subject):
            self._wake(lane, Hint.NEWS)

    def _hear_of_waiting(self, digest: str, payload: bytes) -> None:
        """Take notice that a task waits again, or will after a while."""
        record = decode_waiting(payload)
        if record is None:
            self._connection.note_unreadable(FEED, digest)
        elif lane := self._lanes.get((record.priority.value, record.source)):
            asyncio.get_running_loop().call_later(record.after_s, self._wake, lane, Hint.NEWS)

    def _wake(self, lane: Lane, hint: Hint) -> None:
        lane.wake(hint)
        self._changed.set()

    def _look_anew(self) -> None:
        """Make all consumers and ask all lanes once more: questions and news may have been lost.

        The server may be another one, with consumers of an older stream (``leftovers``).
        """
        for token in tuple(self._questions):
            self._settle(token)
        for lane in self._lanes.values():
            lane.made = False
        self._unmade.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP.total_seconds() * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            self._give_up_questions()
            try:
                stream = self._connection.tasks_stream
                subjects = await self._connection.subjects(stream, most=LISTED_MAX)
            except EngineUnavailable as exc:
                log.debug("lanes.not_swept", code=exc.code)
                continue
            except Exception:  # noqa: BLE001 - the next sweep may do better
                log.exception("lanes.broken")
                continue
            held = None if subjects is None else {tuple(s.split(".")[-3:-1]) for s in subjects}
            for name, lane in self._lanes.items():
                if held is None or name in held:
                    self._wake(lane, Hint.MAYBE)

    def _give_up_questions(self) -> None:
        oldest = time.monotonic() - QUESTION_MAX.total_seconds()
        for token, question in tuple(self._questions.items()):
            if question.asked_at < oldest:
                self._settle(token)
                question.lane.wake(Hint.NEWS)  # at its cap: see ``Lane.ask``
