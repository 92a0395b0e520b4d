"""The minimum rate of a host."""

from datetime import timedelta

from archiver.sources.response import Pace

WINDOW = timedelta(seconds=10)


def test_a_host_may_pause_within_a_window() -> None:
    pace = Pace(min_rate_bytes_s=100, window=WINDOW)

    assert pace.is_kept(1, waited_s=9)
    assert pace.is_kept(1000, waited_s=0.5)
    assert pace.is_kept(1, waited_s=0.5)


def test_a_trickling_host_is_detected_at_the_end_of_a_window() -> None:
    pace = Pace(min_rate_bytes_s=100, window=WINDOW)

    assert [pace.is_kept(99, waited_s=1) for _ in range(10)] == [True] * 9 + [False]


def test_bytes_of_one_window_do_not_count_in_the_next() -> None:
    pace = Pace(min_rate_bytes_s=100, window=WINDOW)

    assert pace.is_kept(1_000_000, waited_s=10)
    assert not pace.is_kept(999, waited_s=10)


def test_only_waiting_time_counts() -> None:
    pace = Pace(min_rate_bytes_s=100, window=WINDOW)

    assert all(pace.is_kept(1, waited_s=0.001) for _ in range(1000))


def test_without_a_minimum_rate_any_rate_is_kept() -> None:
    pace = Pace(min_rate_bytes_s=0, window=WINDOW)

    assert pace.is_kept(1, waited_s=3600)
