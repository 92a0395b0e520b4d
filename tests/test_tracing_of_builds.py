"""The spans of builds and lookups, with fakes."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from archiver.errors import UnknownRev
from archiver.model import Region
from archiver.telemetry.tracing_setup import sending_traces
from archiver.testing import FakeAttempt
from tests.memory_world import World, build, request
from tests.parts.collector import Collector, collecting

WEST = Region("us-west-2")


def _spans_of(work: Coroutine[Any, Any, None], monkeypatch: pytest.MonkeyPatch) -> Collector:
    """Run *work* in a process that traces, and return the collector when the process has ended."""

    async def run() -> None:
        async with sending_traces(process="worker", version="1"):
            await work

    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        asyncio.run(run())
    return collector


def test_a_repair_has_a_span_for_each_region(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def work() -> None:
        world.storage.down.add(WEST)
        await build(world)
        world.storage.down.clear()
        await build(world)

    (copy,) = _spans_of(work(), monkeypatch).named("archiver.copy")

    assert copy.attributes["archiver.region"] == WEST
    assert copy.attributes["archiver.size_bytes"] > 0
    assert not copy.failed


def test_a_conversion_of_a_stored_archive_reads_it_from_a_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.source.served = replace(world.source.served, verbatim=False)

    async def work() -> None:
        for suffix in ("tar.gz", "tar.zst"):
            archive = world.archive(suffix=suffix)
            await world.archiver.build(archive, FakeAttempt(archive=archive))

    collector = _spans_of(work(), monkeypatch)

    (read,) = collector.named("archiver.read")
    assert read.attributes["archiver.suffix"] == "tar.gz"
    assert read.attributes["archiver.size_bytes"] > 0
    assert len(collector.named("archiver.fetch")) == 1


def test_a_stream_that_breaks_off_fails_the_stages_with_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.source.cut_at = 100

    async def work() -> None:
        await request(world.archiver, world.wanted())
        await world.work(max_failures=1)

    collector = _spans_of(work(), monkeypatch)

    (attempt,) = collector.named("archiver.attempt")
    (verify,) = collector.named("archiver.verify")
    assert attempt.attributes["archiver.outcome"] == "failed"
    assert attempt.failed
    assert (
        verify.attributes["error.type"] == attempt.attributes["error.type"] == "truncated_archive"
    )
    assert verify.parent == attempt.place


def test_an_unknown_rev_is_an_answer_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def work() -> None:
        with pytest.raises(UnknownRev):
            await request(world.archiver, world.wanted("nonsense"))

    (lookup,) = _spans_of(work(), monkeypatch).named("archiver.lookup")

    assert lookup.attributes["archiver.outcome"] == "unknown_rev"
    assert not lookup.failed
