"""Delays between attempts."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import SourceBusy, SourceUnavailable
from archiver.worker.back_off import (
    OUTAGE_DELAY_MAX,
    OUTAGE_MAX,
    RETRY_MAX,
    SPOILED_MAX,
    Outage,
    delay,
    outage_delay,
)

BASE = timedelta(seconds=1)
ERROR = SourceUnavailable("away")


@given(failures=st.integers(1, 1000))
def test_a_delay_has_a_lower_and_an_upper_bound(failures: int) -> None:
    assert BASE / 2 <= delay(failures, ERROR, base=BASE) <= RETRY_MAX


@given(failures=st.integers(1, 6))
def test_delays_double(failures: int) -> None:
    longest = max(delay(failures, ERROR, base=BASE) for _ in range(20))

    assert delay(failures + 2, ERROR, base=BASE) >= min(longest, RETRY_MAX / 2)


def test_tasks_that_failed_together_do_not_return_together() -> None:
    assert len({delay(3, ERROR, base=BASE) for _ in range(20)}) > 10


def test_a_host_that_names_a_time_gets_it() -> None:
    busy = SourceBusy("busy", retry_after=timedelta(seconds=42))

    assert delay(1, busy, base=BASE) == timedelta(seconds=42)


def test_a_host_that_asks_for_an_hour_gets_the_longest_delay() -> None:
    busy = SourceBusy("busy", retry_after=timedelta(hours=1))

    assert delay(1, busy, base=BASE) == RETRY_MAX


@given(lasted_s=st.integers(0, 86_400))
def test_the_end_of_an_outage_is_noticed_soon(lasted_s: int) -> None:
    outage = Outage(lasted=timedelta(seconds=lasted_s), spoiled=0, spoils=False)

    assert BASE / 2 <= outage_delay(outage, base=BASE) <= OUTAGE_DELAY_MAX


@given(spoiled=st.integers(1, SPOILED_MAX))
def test_a_host_that_paid_for_an_outage_is_spared_for_longer(spoiled: int) -> None:
    outage = Outage(lasted=timedelta(0), spoiled=spoiled, spoils=True)

    assert BASE * 4 <= outage_delay(outage, base=BASE) <= RETRY_MAX


@pytest.mark.parametrize(
    ("lasted", "spoiled", "outlasts"),
    (
        (OUTAGE_MAX - timedelta(seconds=1), SPOILED_MAX - 1, False),
        (OUTAGE_MAX, 0, True),
        (timedelta(0), SPOILED_MAX, True),
    ),
)
def test_a_task_waits_for_an_outage_with_a_bound(
    lasted: timedelta,
    spoiled: int,
    outlasts: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert Outage(lasted=lasted, spoiled=spoiled, spoils=False).outlasts_patience is outlasts
