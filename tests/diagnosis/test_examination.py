"""Checks run side by side, and their findings are reported in order."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from archiver.diagnosis.examination import Check, examine
from archiver.diagnosis.finding import Finding, Level, well
from archiver.errors import EngineUnavailable

SOON = timedelta(seconds=0.05)


def examined(*checks: Check, deadline: timedelta = timedelta(minutes=1)) -> list[Finding]:
    found: list[Finding] = []
    asyncio.run(examine(checks, found.append, deadline=deadline))
    return found


def test_a_check_that_hangs_has_failed_and_keeps_what_it_has_found() -> None:
    closed = []

    async def hang() -> AsyncGenerator[Finding, None]:
        try:
            yield well("slow.first", "here")
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def end() -> AsyncGenerator[Finding, None]:
        yield well("fast", "here")

    slow = Check(name="slow", run=hang, if_silent="check the network")
    fast = Check(name="fast", run=end, if_silent="")
    found = examined(slow, fast, deadline=SOON)
    assert [finding.check for finding in found] == ["slow.first", "slow", "fast"]
    assert found[1].level is Level.FAILED
    assert (found[1].found, found[1].action) == ("no answer within 0.05 s", "check the network")
    assert closed == [True]


def test_a_report_that_cannot_be_written_ends_the_checks() -> None:
    async def hang() -> AsyncGenerator[Finding, None]:
        await asyncio.Event().wait()
        yield well("never", "here")

    async def end() -> AsyncGenerator[Finding, None]:
        yield well("fast", "here")

    def break_off(_: Finding) -> None:
        raise BrokenPipeError

    checks = [Check(name="", run=run, if_silent="") for run in (end, hang)]
    with pytest.raises(BrokenPipeError):
        asyncio.run(examine(checks, break_off))


def test_checks_run_at_the_same_time() -> None:
    met = asyncio.Barrier(2)

    async def meet() -> AsyncGenerator[Finding, None]:
        await met.wait()
        yield well("here", "here")

    check = Check(name="here", run=meet, if_silent="")
    assert examined(check, check) == [well("here", "here")] * 2


def test_an_error_of_a_check_is_a_finding_without_the_text_of_a_library() -> None:
    async def fail() -> AsyncGenerator[Finding, None]:
        yield well("a", "here")
        raise EngineUnavailable("the engine is not connected") from OSError("secret")

    async def break_down() -> AsyncGenerator[Finding, None]:
        yield well("b", "here")
        raise KeyError("secret")

    checks = [
        Check(name=name, run=run, if_silent="check it")
        for name, run in (("a", fail), ("b", break_down))
    ]
    found = examined(*checks)
    assert [finding.level for finding in found] == [Level.OK, Level.FAILED] * 2
    assert found[1].found == "the engine is not connected"
    assert "secret" not in str(found)
