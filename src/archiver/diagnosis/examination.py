"""Runs checks side by side, each with a deadline, and reports their findings in a fixed order."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from archiver.diagnosis.finding import Finding, failure
from archiver.errors import ArchiverError
from archiver.runtime.tasks import cancel_and_wait
from archiver.telemetry import log

DEADLINE = timedelta(seconds=12)
"""A check that is cancelled completes its write, and removes what it has written: 3 s each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing to examine, under a name such as ``region.us-east-1``.

    ``if_silent`` is the action if the check does not end within the deadline.
    """

    name: str
    run: Callable[[], AsyncGenerator[Finding, None]]
    if_silent: str


async def examine(
    checks: Sequence[Check],
    report: Callable[[Finding], None],
    *,
    deadline: timedelta = DEADLINE,
) -> None:
    """Run all *checks* at once, and *report* the findings in the order of the checks."""
    # Not a group of tasks, which would wrap what *report* raises.
    running = [asyncio.create_task(_findings(check, deadline)) for check in checks]
    try:
        for task in running:
            for finding in await task:
                report(finding)
    finally:
        await cancel_and_wait(*running)


async def _findings(check: Check, deadline: timedelta) -> Sequence[Finding]:
    """Return what *check* finds. Its own failure is a finding as well."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(deadline.total_seconds()), aclosing(check.run()) as findings:
            async for finding in findings:
                found.append(finding)  # noqa: PERF401 - those before a timeout count
    except TimeoutError:
        seconds = deadline.total_seconds()
        found.append(failure(check.name, f"no answer within {seconds:g} s", check.if_silent))
    except ArchiverError as exc:
        found.append(failure(check.name, exc.reason, check.if_silent))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the other checks go on
        log.exception("doctor.broken", check=check.name, exc_info=exc)
        found.append(
            failure(check.name, "the check itself has failed", "report the error in the log")
        )
    return found
