"""Backoff, as arithmetic."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from archiver.engine.retry import RETRY_MAX, delay
from archiver.errors import SourceBusy, SourceUnavailable

BASE = timedelta(seconds=1)
ERROR = SourceUnavailable("away")


@given(failures=st.integers(1, 1000))
def test_a_delay_is_never_nothing_and_never_longer_than_a_seat_may_be_held(failures: int) -> None:
    assert BASE / 2 <= delay(failures, ERROR, base=BASE) <= RETRY_MAX


@given(failures=st.integers(1, 6))
def test_two_failures_later_the_least_delay_is_as_long_as_the_longest_was(failures: int) -> None:
    longest = max(delay(failures, ERROR, base=BASE) for _ in range(20))

    assert delay(failures + 2, ERROR, base=BASE) >= min(longest, RETRY_MAX / 2)


def test_tasks_that_failed_together_do_not_come_back_together() -> None:
    assert len({delay(3, ERROR, base=BASE) for _ in range(20)}) > 10


def test_a_host_that_names_a_time_is_given_it() -> None:
    busy = SourceBusy("busy", retry_after=timedelta(seconds=42))

    assert delay(1, busy, base=BASE) == timedelta(seconds=42)


def test_a_host_that_asks_for_an_hour_gets_the_longest_there_is() -> None:
    busy = SourceBusy("busy", retry_after=timedelta(hours=1))

    assert delay(1, busy, base=BASE) == RETRY_MAX
