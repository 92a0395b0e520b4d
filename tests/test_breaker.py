"""Circuit breakers: how they open, wait, let one probe through, and close."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from archiver.breaker import (
    CLEAN,
    NAMED_PAUSE_MAX,
    Breaker,
    BreakerFailure,
    BreakerPolicy,
    BreakerState,
)

NOW = datetime(2025, 1, 1, tzinfo=UTC)
POLICY = BreakerPolicy(failures=3, pause=timedelta(seconds=5), pause_max=timedelta(seconds=60))
TIMEOUT = BreakerFailure(code="source_timeout")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def named(seconds: float) -> BreakerFailure:
    return BreakerFailure(code="source_busy", retry_after=timedelta(seconds=seconds))


def failed(times: int, policy: BreakerPolicy = POLICY) -> Breaker:
    breaker = CLEAN
    for _ in range(times):
        breaker = breaker.failed(TIMEOUT, NOW, policy)
    return breaker


OPEN = failed(3)


def probed(breaker: Breaker, at: datetime) -> Breaker:
    return breaker.with_probe("probe", at, POLICY)


def test_a_breaker_opens_after_consecutive_failures() -> None:
    assert [failed(n).state(NOW) for n in (2, 3)] == [BreakerState.CLOSED, BreakerState.OPEN]
    assert OPEN.next_try(NOW) == after(5)


def test_a_success_forgets_the_failures_before_it() -> None:
    assert failed(2).answered(NOW) == CLEAN


def test_without_a_number_only_the_host_opens_it() -> None:
    never = BreakerPolicy(failures=0)
    assert failed(1000, never).is_closed
    assert CLEAN.failed(named(7), NOW, never).next_try(NOW) == after(7)


def test_without_a_number_a_failed_probe_ends_the_pause_unless_the_host_names_another() -> None:
    never = BreakerPolicy(failures=0)
    half_open = probed(CLEAN.failed(named(7), NOW, never), after(8))
    assert half_open.failed(TIMEOUT, after(8), never, probe="probe") == CLEAN
    again = half_open.failed(named(7), after(8), never, probe="probe")
    assert again.next_try(after(8)) == after(15)


def test_a_host_that_names_a_time_pauses_at_once_and_for_15_minutes_at_most() -> None:
    assert CLEAN.failed(named(7), NOW, POLICY).until == after(7)
    assert CLEAN.failed(named(3600), NOW, POLICY).until == NOW + NAMED_PAUSE_MAX
    assert CLEAN.failed(named(0), NOW, POLICY).is_closed


def test_requests_from_before_a_pause_change_it_only_if_the_host_names_a_later_time() -> None:
    assert OPEN.failed(TIMEOUT, NOW, POLICY) == OPEN
    assert OPEN.answered(NOW) == OPEN
    assert OPEN.failed(named(2), NOW, POLICY) == OPEN
    assert OPEN.failed(named(30), NOW, POLICY).until == after(30)


def test_one_probe_is_let_through_after_the_pause() -> None:
    assert probed(OPEN, after(4)) == OPEN
    first = probed(OPEN, after(5))
    assert (first.state(after(5)), first.probe) == (BreakerState.HALF_OPEN, "probe")
    assert first.with_probe("other", after(6), POLICY) == first
    assert first.next_try(after(6)) == after(5) + POLICY.probe_lease


def test_a_closed_breaker_needs_no_probe() -> None:
    assert probed(failed(2), NOW) == failed(2)


def test_the_place_of_a_probe_is_free_after_its_lease_or_when_it_is_given_back() -> None:
    first = probed(OPEN, after(5))
    late = after(5) + POLICY.probe_lease
    assert first.with_probe("other", late, POLICY).probe == "other"
    assert first.without_probe("other") == first
    assert first.without_probe("probe").with_probe("other", after(6), POLICY).probe == "other"


def test_a_probe_that_succeeds_closes_the_breaker() -> None:
    assert probed(OPEN, after(5)).answered(after(6)) == CLEAN


def test_each_failed_probe_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now, pauses = OPEN, NOW, []
    for _ in range(6):
        assert breaker.until
        pauses.append((breaker.until - now).total_seconds())
        now = breaker.until
        breaker = probed(breaker, now).failed(TIMEOUT, now, POLICY, probe="probe")
    assert pauses == [5, 10, 20, 40, 60, 60]


def test_only_the_probe_decides_that_the_pause_goes_on() -> None:
    first = probed(OPEN, after(5))
    assert first.failed(TIMEOUT, after(6), POLICY) == first
    assert first.failed(TIMEOUT, after(6), POLICY, probe="another") == first


@given(
    st.lists(
        st.tuples(st.sampled_from(["fail", "named", "answer", "probe", "free"]), st.floats(0, 400))
    )
)
def test_whatever_happens_a_pause_ends_and_a_success_closes(
    events: list[tuple[str, float]],
) -> None:
    breaker, now = CLEAN, NOW
    for event, seconds in events:
        now += timedelta(seconds=seconds)
        match event:
            case "fail":
                breaker = breaker.failed(TIMEOUT, now, POLICY, probe=breaker.probe)
            case "named":
                breaker = breaker.failed(named(seconds), now, POLICY)
            case "answer":
                breaker = breaker.answered(now)
            case "probe":
                breaker = probed(breaker, now)
            case _:
                breaker = breaker.without_probe(breaker.probe)
        end = breaker.next_try(now)
        assert end is None or now < end <= now + NAMED_PAUSE_MAX
        later = now + NAMED_PAUSE_MAX
        assert breaker.with_probe("last", later, POLICY).answered(later) == CLEAN
