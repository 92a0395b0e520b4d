"""What a guard admits and counts: of hosts, of submodules and of regions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from archiver.breaker import CLEAN, BreakerFailure, BreakerName, BreakerPolicy, BreakerState
from archiver.errors import (
    CorruptArchive,
    ForbiddenAddress,
    PartOrigin,
    SourceBusy,
    SourcePaused,
    SourceRefused,
    SourceTimeout,
    SourceTooSlow,
    SourceUnavailable,
    StorageUnavailable,
    UnknownRev,
)
from archiver.guard import AFTER_PROBE, Guard
from archiver.guarded_source import GuardedSeats, GuardedSource
from archiver.model import Archive, Region
from archiver.ports.source import OnReceived, Stream
from archiver.region_answers import RegionAnswers
from archiver.runtime.local_seats import LocalSeats
from archiver.runtime.tasks import in_background
from archiver.telemetry import METRICS
from archiver.testing import FakeSource, MemoryBreakers

HGMO, EAST = BreakerName("source", "hgmo"), BreakerName("region", "east")
POLICIES = {HGMO: BreakerPolicy(failures=2), EAST: BreakerPolicy(failures=2)}
HUNG_AFTER_S = 60
ORIGIN = PartOrigin(path="lib", url="https://lib.example/lib", source="lib", repo="lib")


@dataclass(kw_only=True)
class Stand:
    """A guard whose clock the test sets."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    breakers: MemoryBreakers = field(default_factory=MemoryBreakers)
    guard: Guard = field(init=False)

    def __post_init__(self) -> None:
        self.guard = self.process()

    def process(self) -> Guard:
        return Guard(breakers=self.breakers, policies=POLICIES, now=lambda: self.now)

    @property
    def failures(self) -> int:
        return self.breakers.known(HGMO).failures

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def use(self, error: BaseException | None = None, *, repo: str = "") -> None:
        """Use the host, which ends with *error*."""
        try:
            async with self.guard.use("hgmo", repo):
                if error:
                    raise error  # noqa: TRY301 - as the host's adapter does
        except BaseException as exc:
            if exc is not error:
                raise

    async def pause(self) -> None:
        for _ in range(2):
            await self.use(SourceTimeout("the host took too long"))


async def use_by(guard: Guard) -> None:
    async with guard.use("hgmo"):
        raise AssertionError


def play(scenario: Callable[[Stand], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(HUNG_AFTER_S):
            await scenario(Stand())

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "failures"),
    (
        (SourceUnavailable("away"), 2),
        (SourceTimeout("late"), 2),
        (SourceTooSlow("slow"), 2),
        (SourceBusy("busy", retry_after=None), 2),
        (None, 0),
        (UnknownRev("no such rev"), 0),
        (SourceRefused("refused"), 0),
        (ForbiddenAddress("not allowed"), 1),
        (SourcePaused("paused", retry_after=None), 1),
        (StorageUnavailable("our own outage"), 1),
        (CorruptArchive("other bytes"), 1),
        (SourceTimeout("late").in_part(ORIGIN), 1),
        (UnknownRev("no such rev").in_part(ORIGIN), 1),
        (RuntimeError("a bug"), 1),
        (asyncio.CancelledError(), 1),
    ),
)
def test_the_end_of_a_use_counts_as_far_as_it_says_something_about_the_host(
    error: BaseException | None, failures: int
) -> None:
    async def scenario(stand: Stand) -> None:
        await stand.use(SourceTimeout("late"))
        await stand.use(error)
        assert stand.failures == failures

    play(scenario)


def test_a_paused_host_is_not_asked_and_the_refusal_says_when_to_try_again() -> None:
    async def scenario(stand: Stand) -> None:
        await stand.pause()
        with pytest.raises(SourcePaused) as raised:
            await stand.use()
        assert raised.value.retry_after == timedelta(seconds=5)
        assert stand.guard.is_paused("hgmo")
        assert stand.failures == 2

    play(scenario)


def test_a_host_that_names_a_time_is_asked_then_and_no_earlier() -> None:
    async def scenario(stand: Stand) -> None:
        await stand.use(SourceBusy("busy", retry_after=timedelta(seconds=42)))
        stand.wait(41)
        with pytest.raises(SourcePaused):
            await stand.use()
        stand.wait(1)
        await stand.use()
        assert stand.breakers.known(HGMO) == CLEAN

    play(scenario)


def test_after_a_pause_one_use_of_the_fleet_is_admitted() -> None:
    async def scenario(stand: Stand) -> None:
        await stand.pause()
        stand.wait(5)
        assert stand.guard.source_state("hgmo") is BreakerState.HALF_OPEN
        async with stand.guard.use("hgmo"):
            assert stand.guard.source_state("hgmo") is BreakerState.OPEN
            other = asyncio.create_task(use_by(stand.process()), context=Context())
            with pytest.raises(SourcePaused) as raised:
                await other
            assert raised.value.retry_after == AFTER_PROBE
        assert stand.guard.source_state("hgmo") is BreakerState.CLOSED

    play(scenario)


def test_a_probe_that_fails_pauses_for_longer() -> None:
    async def scenario(stand: Stand) -> None:
        await stand.pause()
        stand.wait(5)
        await stand.use(SourceTimeout("late"))
        with pytest.raises(SourcePaused) as raised:
            await stand.use()
        assert raised.value.retry_after == timedelta(seconds=10)

    play(scenario)


@pytest.mark.parametrize(
    "error", (StorageUnavailable("our own outage"), asyncio.CancelledError(), RuntimeError())
)
def test_a_probe_that_proves_nothing_makes_room_for_the_next(error: BaseException) -> None:
    async def scenario(stand: Stand) -> None:
        await stand.pause()
        stand.wait(5)
        await stand.use(error)
        assert stand.guard.source_state("hgmo") is BreakerState.HALF_OPEN
        await stand.use()
        assert stand.guard.source_state("hgmo") is BreakerState.CLOSED

    play(scenario)


def test_openings_and_closings_are_logged_and_counted_once() -> None:
    openings = METRICS.breaker_openings.labels(kind="source", name="hgmo")

    async def scenario(stand: Stand) -> None:
        others = [stand.process() for _ in range(3)]
        assert others
        await stand.pause()
        await stand.guard.fail(HGMO, BreakerFailure(code="source_timeout"))
        stand.wait(5)
        await stand.use()

    before = openings._value.get()  # noqa: SLF001 - the client has no public reader
    with capture_logs() as lines:
        play(scenario)
    assert [line["event"] for line in lines] == ["breaker.opened", "breaker.closed"]
    assert (lines[0]["code"], lines[0]["failures"], lines[0]["kind"]) == (
        "source_timeout",
        2,
        "source",
    )
    assert openings._value.get() == before + 1  # noqa: SLF001


def test_a_pause_that_the_host_asked_for_is_logged_as_such() -> None:
    with capture_logs() as lines:
        play(lambda stand: stand.use(SourceBusy("busy", retry_after=timedelta(seconds=9))))
    assert [(line["event"], line["source"]) for line in lines] == [("source.paused", "hgmo")]


def test_processes_hear_of_openings_and_closings_alone() -> None:
    async def scenario(stand: Stand) -> None:
        heard: list[BreakerName] = []
        stand.process().changes.add(heard.append)
        await stand.use(SourceTimeout("late"))
        assert heard == []
        await stand.use(SourceTimeout("late"))
        stand.wait(5)
        await stand.use()
        assert heard == [HGMO, HGMO]

    play(scenario)


async def settled(stand: Stand, *codes: str) -> None:
    """Have the region answer with these codes of S3, and wait until all have counted."""
    answers = RegionAnswers(stand.guard)
    for code in codes:
        error = StorageUnavailable("east failed", s3_code=code) if code else None
        answers.note(Region("east"), error)
    async with in_background(answers.keep_counting()):
        await answers.all_counted()


@pytest.mark.parametrize(
    ("codes", "avoided"),
    (
        (("timeout", "connection_refused"), True),
        (("http_503", "InternalError"), True),
        (("ExpiredToken", "ExpiredToken"), True),
        (("timeout", "", "timeout"), False),
        (("AccessDenied", "QuotaExceeded", "NoSuchKey", "http_404"), False),
    ),
)
def test_a_region_that_is_away_is_avoided(codes: tuple[str, ...], *, avoided: bool) -> None:
    async def scenario(stand: Stand) -> None:
        await settled(stand, *codes)
        assert stand.guard.avoids(Region("east")) == avoided

    play(scenario)


def test_a_region_that_answers_after_its_pause_is_not_avoided_any_longer() -> None:
    async def scenario(stand: Stand) -> None:
        await settled(stand, "timeout", "timeout", "")
        assert stand.guard.avoids(Region("east"))
        stand.wait(5)
        await settled(stand, "timeout")
        assert stand.guard.avoids(Region("east"))
        await settled(stand, "")
        assert not stand.guard.avoids(Region("east"))

    play(scenario)


REPO = "projects/ash"


def a_source() -> tuple[FakeSource, Archive]:
    source = FakeSource()
    node = source.commit(REPO, {"README": b"read me"})
    return source, Archive(source="hgmo", repo=REPO, node=node, subdir="", suffix="tar.gz")


def test_lookups_and_builds_of_a_source_count_for_its_breaker() -> None:
    async def scenario(stand: Stand) -> None:
        source, archive = a_source()
        guarded = GuardedSource(source, stand.guard)
        source.outage = SourceUnavailable("away")
        for request in (guarded.resolve(REPO, "tip"), guarded.has_node(REPO, archive.node)):
            with pytest.raises(SourceUnavailable):
                await request
        asked = source.asked.total()
        source.outage = None
        with pytest.raises(SourcePaused):
            async with guarded.open(archive):
                raise AssertionError
        assert source.asked.total() == asked

    play(scenario)


def test_a_host_that_begins_to_answer_closes_its_breaker_before_the_build_ends() -> None:
    async def scenario(stand: Stand) -> None:
        source, archive = a_source()
        await stand.pause()
        stand.wait(5)
        async with GuardedSource(source, stand.guard).open(archive):
            assert stand.guard.source_state("hgmo") is BreakerState.CLOSED

    play(scenario)


class MirroredSource(FakeSource):
    """A source whose streams are made from a mirror, for which its host sent ``sent_bytes``."""

    sent_bytes = 0

    @asynccontextmanager
    async def open(
        self, archive: Archive, *, on_received: OnReceived | None = None
    ) -> AsyncIterator[Stream]:
        async with super().open(archive) as stream:
            if on_received and self.sent_bytes:
                on_received(self.sent_bytes)
            yield replace(stream, tree_check=cast("Any", object()))


@pytest.mark.parametrize(
    ("sent_bytes", "state"), ((0, BreakerState.HALF_OPEN), (1, BreakerState.CLOSED))
)
def test_a_build_from_a_mirror_proves_something_only_if_the_host_sent_something(
    sent_bytes: int, state: BreakerState
) -> None:
    async def scenario(stand: Stand) -> None:
        source = MirroredSource()
        source.sent_bytes = sent_bytes
        node = source.commit(REPO, {"README": b"read me"})
        archive = Archive(source="hgmo", repo=REPO, node=node, subdir="", suffix="tar.gz")
        await stand.pause()
        stand.wait(5)
        async with GuardedSource(source, stand.guard).open(archive):
            pass
        assert stand.guard.source_state("hgmo") is state

    play(scenario)


def test_streams_that_break_off_with_an_error_of_the_host_count_as_failures() -> None:
    async def scenario(stand: Stand) -> None:
        source, archive = a_source()
        guarded = GuardedSource(source, stand.guard)
        for _ in range(2):
            with pytest.raises(SourceTooSlow):
                async with guarded.open(archive):
                    raise SourceTooSlow("the host sends too slowly")
        assert stand.guard.is_paused("hgmo")

    play(scenario)


def test_a_probe_may_use_its_host_for_a_submodule_as_well() -> None:
    async def scenario(stand: Stand) -> None:
        seats = GuardedSeats(LocalSeats({"hgmo": 1}), stand.guard)

        async def fetch_submodule() -> None:
            async with seats.take("hgmo"):
                pass

        await stand.pause()
        stand.wait(5)
        async with stand.guard.use("hgmo"):
            await asyncio.create_task(fetch_submodule())
            assert stand.guard.source_state("hgmo") is BreakerState.CLOSED
        await stand.pause()
        stand.wait(5)
        async with stand.guard.use("hgmo"):
            assert stand.guard.is_paused("hgmo")
        await stand.pause()
        with pytest.raises(SourcePaused):
            await fetch_submodule()

    play(scenario)


def test_a_fetch_beside_a_task_counts_for_the_source_of_its_seat() -> None:
    async def scenario(stand: Stand) -> None:
        seats = GuardedSeats(LocalSeats({"hgmo": 1}), stand.guard)
        for _ in range(2):
            with pytest.raises(SourceTimeout):
                async with seats.take("hgmo"):
                    raise SourceTimeout("late")
        with pytest.raises(SourcePaused):
            async with seats.take("hgmo"):
                raise AssertionError

    play(scenario)


def test_the_metric_shows_a_pause_at_once() -> None:
    async def scenario(stand: Stand) -> None:
        gauge = METRICS.breaker_state.labels(kind="source", name="hgmo")
        await stand.pause()
        assert gauge._value.get() == BreakerState.OPEN  # noqa: SLF001 - there is no other way
        stand.wait(10)
        await stand.use()
        assert gauge._value.get() == BreakerState.CLOSED  # noqa: SLF001

    play(scenario)


def test_a_client_with_a_broken_repo_does_not_have_the_source_paused_for_others() -> None:
    async def scenario(stand: Stand) -> None:
        await stand.use(repo="sound")
        for _ in range(20):
            await stand.use(SourceUnavailable("500"), repo="broken")
        assert stand.failures == 0
        await stand.use(SourceBusy("busy", retry_after=timedelta(seconds=9)), repo="broken")
        assert stand.guard.is_paused("hgmo"), "the host names a time for all its repos"

    play(scenario)


def test_a_broken_repo_does_not_decide_that_a_pause_goes_on() -> None:
    async def scenario(stand: Stand) -> None:
        await stand.pause()
        stand.guard.blame.note_answer("hgmo", "sound")
        stand.wait(10)
        await stand.use(SourceUnavailable("500"), repo="broken")
        await stand.use(repo="sound")
        assert not stand.guard.is_paused("hgmo")

    play(scenario)
