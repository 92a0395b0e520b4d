"""The laws, while requests, builds, failures, purges and outages happen in any order, with fakes.

A build is held before its commit, so that a lease can be lost, a worker can be killed and a purge
can begin while it is under way. A new capability adds rules; the laws are the invariants.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from archiver.errors import ArchiverError, EngineUnavailable, LeaseLost, SourceUnavailable
from archiver.model import Absent, Copies, Pending, Ready, Region
from archiver.purge import Forgetter, PurgeOrder
from archiver.retention import Retention
from archiver.tasks import Phase, Task, TaskState
from archiver.testing import FakeAttempt
from archiver.tree_proof import everything
from archiver.upkeep.expiry import Expirer
from archiver.upkeep.gc import Gc
from archiver.upkeep.repair import Repairer
from tests.memory_world import World

EAST, WEST = Region("us-east-1"), Region("us-west-2")
REGIONS = (EAST, WEST)
SUBDIRS = ("", "testing")

TAGS = ("1.0", "2.0")
"""The host packs a whole tree into other bytes after a new tag."""

CLIENTS = ("anna", "bert")
FAILURES_MAX = 3
TURNS_MAX = 100
TROUBLED_STEPS = 4

EXPIRES_AT_ONCE = Retention(days=1)
LONG_AGO = timedelta(days=1000)

T = TypeVar("T")


@dataclass(slots=True)
class Build:
    """An attempt under way. ``gate`` holds it before its commit."""

    attempt: "HeldAttempt"
    task: asyncio.Task[Copies]


class HeldAttempt:
    """An attempt whose proof of the lease waits for ``gate``.

    A ``stale`` one has looked into the queue before: its worker freezes between proof and commit.
    """

    def __init__(
        self, fake: FakeAttempt, holds: Callable[["HeldAttempt"], bool], *, stale: bool
    ) -> None:
        self.stale = stale
        self.id = fake.id
        self.archive = fake.archive
        self.gate = asyncio.Event()
        self._fake = fake
        self._holds = holds

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        if self._holds(self):
            self._fake.report(phase, bytes_done)

    async def prove_lease(self) -> None:
        if self.stale:
            self._require_held()
        await self.gate.wait()
        if not self.stale:
            self._require_held()

    def _require_held(self) -> None:
        if not self._holds(self):
            raise LeaseLost("another worker has claimed this task")


class Holds:
    """Says which attempt of a task is the latest, as the queue does by revisions.

    A task that was dropped has none.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.latest: dict[str, str] = {}
        self._tasks = tasks

    def __call__(self, attempt: HeldAttempt) -> bool:
        key = attempt.archive.key
        return key in self._tasks and self.latest.get(key) == attempt.id


@dataclass(slots=True)
class History:
    """The keys of the tasks that were accepted, and the bytes of each key since its first commit.

    A purge or an expiry ends the promise of the bytes.
    """

    accepted: set[str] = field(default_factory=set)
    sha256s: dict[str, str] = field(default_factory=dict)


class Laws(RuleBasedStateMachine):
    """One repository, two archives, two regions, and any number of workers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.holds = Holds(self.world.engine.tasks)
        self.builds: list[Build] = []
        self.history = History()
        self.attempts = 0
        self.troubled_steps = 0
        self.killed: list[Build] = []
        self.archives = [self.world.archive(subdir) for subdir in SUBDIRS]
        self.run(self.world.uses.record([], (datetime.now(UTC) - LONG_AGO).date()))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        """Mend everything. Then each accepted task ends, and all laws hold (law 4)."""
        try:
            self.mend()
            self._finish_everything()
            self.check_all()
            self._check_ends()
        finally:
            self.run(self._end_builds())
            self.run(self.loop.shutdown_asyncgens())
            self.loop.close()

    async def _end_builds(self) -> None:
        tasks = [build.task for build in (*self.builds, *self.killed)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What clients do.

    @initialize(subdir=st.sampled_from(SUBDIRS), stale=st.booleans())
    def begin(self, subdir: str, stale: bool) -> None:  # noqa: FBT001 - hypothesis
        self.request(subdir, CLIENTS[0], create=True)
        self._claim(stale=stale)

    @rule(subdir=st.sampled_from(SUBDIRS), client=st.sampled_from(CLIENTS), create=st.booleans())
    def request(self, subdir: str, client: str, create: bool) -> None:  # noqa: FBT001 - hypothesis
        before = set(self.world.engine.tasks)
        with suppress(ArchiverError):
            match self.run(self._request(subdir, client, create=create)):
                case Ready() as ready:
                    self._follow(ready)
                case Pending() as pending:
                    assert create
                    task = self.world.engine.tasks[pending.archive.key]
                    assert not task.state.terminal, "joined to a task that has ended"
                    self.history.accepted.add(pending.archive.key)
                case Absent():
                    assert not create
        if not create:
            assert set(self.world.engine.tasks) == before

    async def _request(self, subdir: str, client: str, *, create: bool) -> Ready | Pending | Absent:
        return await self.world.archiver.request(
            self.world.wanted(subdir=subdir),
            may_read=everything,
            create=create,
            share=create,
            client=client,
        )

    def _follow(self, ready: Ready) -> None:
        """A link leads to the bytes that its manifest names, unless its region is away (law 1)."""
        if ready.region in self.world.storage.down:
            return
        body = self.world.storage.download(ready.url)
        assert hashlib.sha256(body).hexdigest() == ready.manifest.sha256

    # What workers do.

    @precondition(lambda self: self._has_waiting())
    @rule(stale=st.booleans())
    def claim(self, stale: bool) -> None:  # noqa: FBT001 - hypothesis
        """A worker begins the next task, and goes on until it would commit."""
        self._claim(stale=stale)

    def _has_waiting(self) -> bool:
        waiting = {TaskState.PENDING, TaskState.RETRY}
        tasks = self.world.engine.tasks.values()
        return not self.world.engine.down and any(task.state in waiting for task in tasks)

    def _claim(self, *, stale: bool) -> bool:
        """Return whether there was a task."""
        fake = self.world.engine.claim()
        if fake is None:
            return False
        self.attempts += 1
        attempt = HeldAttempt(fake, self.holds, stale=stale)
        self.holds.latest[fake.archive.key] = attempt.id
        task = self.loop.create_task(self.world.archiver.build(fake.archive, attempt))
        self.builds.append(Build(attempt, task))
        self._let_run()
        return True

    @precondition(lambda self: self.builds)
    @rule(which=st.integers(0, 9))
    def commit(self, which: int) -> None:
        """A build that waits for its commit goes on to its end."""
        build = self.builds.pop(which % len(self.builds))
        self._end(build)

    @precondition(lambda self: self.builds and not self.world.engine.down)
    @rule(which=st.integers(0, 9), tag=st.sampled_from(TAGS), stale=st.booleans())
    def lose_lease(self, which: int, tag: str, stale: bool) -> None:  # noqa: FBT001 - hypothesis
        """A worker freezes until its lease is over, and another one begins the task."""
        build = self.builds[which % len(self.builds)]
        if self.holds(build.attempt):
            self._offer(build)
            self.world.source.latest_tag = tag
            self._claim(stale=stale)

    @precondition(lambda self: self.builds)
    @rule(which=st.integers(0, 9))
    def kill_worker(self, which: int) -> None:
        """A worker is killed: nothing of its build runs again, and its lease runs out."""
        build = self.builds.pop(which % len(self.builds))
        if self.holds(build.attempt):
            self._offer(build)
        self.killed.append(build)

    @precondition(lambda self: self.builds)
    @rule(which=st.integers(0, 9))
    def hand_back(self, which: int) -> None:
        """A worker stops: it aborts its build, and another one gets the task at once."""
        build = self.builds.pop(which % len(self.builds))
        build.task.cancel()
        self._let_run()
        if self.holds(build.attempt):
            self.world.engine.give_back(build.attempt.archive, None, failures=0)
            self._offer(build)

    def _end(self, build: Build) -> None:
        build.attempt.gate.set()
        result: Copies | ArchiverError
        try:
            result = self.run(_result(build.task))
        except ArchiverError as exc:
            result = exc
        if not self.holds(build.attempt):
            return
        self.world.engine.withdraw(build.attempt.archive)
        if self.world.engine.down:  # the end cannot be recorded: the lease runs out
            self._offer(build)
        elif isinstance(result, Copies):
            self.world.engine.succeed(_fake(build))
        else:
            self._retry_or_fail(build, result)

    def _retry_or_fail(self, build: Build, error: ArchiverError) -> None:
        engine, archive = self.world.engine, build.attempt.archive
        failures = engine.tasks[archive.key].failures
        if error.ours:
            engine.give_back(archive, error, failures=failures)
            self._offer(build)
        elif not error.retryable or failures + 1 >= FAILURES_MAX:
            engine.fail(_fake(build), error)
        else:
            engine.retry(_fake(build), error)

    def _offer(self, build: Build) -> None:
        """Have the queue offer the task again, once."""
        self.world.engine.withdraw(build.attempt.archive)
        self.world.engine.requeue(build.attempt.archive)

    def _let_run(self) -> None:
        """Let all builds go on as far as they can. Fakes need few turns of the loop."""
        self.run(_turns())

    # What breaks.

    @precondition(lambda self: not self.troubled_steps)
    @rule(region=st.sampled_from(REGIONS), how=st.sampled_from(("down", "full", "blind")))
    def break_region(self, region: Region, how: str) -> None:
        self.troubled_steps = TROUBLED_STEPS
        getattr(self.world.storage, how).add(region)

    @precondition(lambda self: not self.troubled_steps)
    @rule(how=st.sampled_from(("down", "full", "cut", "outage")))
    def break_other(self, how: str) -> None:
        self.troubled_steps = TROUBLED_STEPS
        match how:
            case "down":
                self.world.engine.down = True
            case "full":
                self.world.engine.full = True
            case "cut":
                self.world.source.cut_at = 100
            case _:
                self.world.source.outage = SourceUnavailable("the host does not answer")

    @invariant()
    def mend_soon(self) -> None:
        """Nothing is broken for so long that nothing else happens."""
        self.troubled_steps = max(0, self.troubled_steps - 1)
        if not self.troubled_steps:
            self.mend()

    def mend(self) -> None:
        storage, engine, source = self.world.storage, self.world.engine, self.world.source
        for broken in (storage.down, storage.full, storage.blind):
            broken.clear()
        engine.down = engine.full = False
        source.cut_at, source.outage = None, None

    @rule()
    def restart_web(self) -> None:
        """A process that remembers nothing takes over."""
        self.world.archiver = self.world.new_process()

    # What operators and upkeep do.

    @precondition(lambda self: any(self.world.storage.objects.values()))
    @rule(archive=st.integers(0, len(SUBDIRS) - 1))
    def purge(self, archive: int) -> None:
        wanted = self.archives[archive]
        order = PurgeOrder(principal="test", reason="test")
        self.history.sha256s.pop(wanted.key, None)
        with suppress(ArchiverError):
            self.run(self.world.archiver.purge(wanted, order))

    @precondition(lambda self: any(self.world.storage.manifests.values()))
    @rule()
    def expire(self) -> None:
        """Everything that is stored is older than the settings keep it."""
        world = self.world
        forgetter = Forgetter(index=world.index, queue=world.engine, repairs=world.engine)
        expirer = Expirer(
            storage=world.storage,
            contents=world.storage.contents,
            forgetter=forgetter,
            grace=timedelta(hours=1),
        )
        gc = Gc(
            storage=world.storage,
            contents=world.storage.contents,
            uses=world.uses,
            expirer=expirer,
            retention=EXPIRES_AT_ONCE,
            today=(datetime.now(UTC) + timedelta(days=40)).date,
        )
        self.history.sha256s.clear()
        with suppress(ArchiverError):
            self.run(_exhaust(gc))

    @precondition(lambda self: not self.world.engine.down)
    @rule()
    def repair(self) -> None:
        with suppress(EngineUnavailable):  # it is full
            self.run(self._sweep())

    async def _sweep(self) -> None:
        world = self.world
        repairer = Repairer(
            repairs=world.engine,
            queue=world.engine,
            storage=world.storage,
            interval=timedelta(0),
        )
        await repairer.sweep()

    # The laws.

    @invariant()
    def check_all(self) -> None:
        self._check_whole()
        self._check_same_bytes()
        self._check_one_task()
        self._check_separate()

    def _check_whole(self) -> None:
        """Law 1: a manifest is only visible together with the bytes that it names."""
        for region, manifests in self.world.storage.manifests.items():
            for key, manifest in manifests.items():
                body = self.world.storage.objects[region].get(manifest.object_key)
                assert body is not None, f"{key} is visible without its object"
                assert hashlib.sha256(body).hexdigest() == manifest.sha256

    def _check_same_bytes(self) -> None:
        """Law 2: the bytes of an archive never change, in any region."""
        for manifests in self.world.storage.manifests.values():
            for key, manifest in manifests.items():
                known = self.history.sha256s.setdefault(key, manifest.sha256)
                assert manifest.sha256 == known, f"{key} has other bytes"

    def _check_one_task(self) -> None:
        """Law 3: the queue knows one attempt for each archive, and each fetch belongs to one."""
        keys = [b.attempt.archive.key for b in self.builds if self.holds(b.attempt)]
        assert len(keys) == len(set(keys))
        assert self.world.source.asked["open"] <= self.attempts

    def _check_separate(self) -> None:
        """Law 5: no two archives share an object."""
        owners: dict[str, str] = {}
        for manifests in self.world.storage.manifests.values():
            for key, manifest in manifests.items():
                assert manifest.key == key
                assert owners.setdefault(manifest.object_key, key) == key

    def _check_ends(self) -> None:
        for key in self.history.accepted & set(self.world.engine.tasks):
            task = self.world.engine.tasks[key]
            assert task.state.terminal, f"the task of {key} has not ended: {task.state}"
            assert task.state is TaskState.SUCCESS or task.error
            assert "X-Amz" not in (task.error.message if task.error else "")

    def _finish_everything(self) -> None:
        for _ in range(TURNS_MAX):
            while self.builds:
                self._end(self.builds.pop(0))
            if not self._claim(stale=False):
                return
        raise AssertionError("the queue does not become empty")


def _fake(build: Build) -> FakeAttempt:
    return FakeAttempt(archive=build.attempt.archive)


async def _result(task: asyncio.Task[Copies]) -> Copies:
    return await task


async def _turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def _exhaust(gc: Gc) -> None:
    async for _ in gc.run(apply=True):
        pass


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.thorough
class TestLawsLonger(TestLaws):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=600, stateful_step_count=60, deadline=None)
