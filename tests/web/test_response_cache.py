"""How long responses are remembered and renewed, what ends them, and how many there are."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from starlette.responses import Response
from structlog.testing import capture_logs

from archiver.access.access import Principal
from archiver.errors import EngineUnavailable
from archiver.runtime.notifications import Notifications
from archiver.runtime.tasks import in_background
from archiver.web.reply import HIT, Renew, Repeatable
from archiver.web.response_cache import CacheKey, ResponseCache

KEY = CacheKey("GET", b"/a", b"")
TTL = timedelta(seconds=60)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def hit(body: str = "1", good_until: float = float("inf")) -> Repeatable:
    return Repeatable(
        response=Response(body, 302), outcome=HIT, topics=("a",), good_until=good_until
    )


class Renewals:
    """Renews hits, as long as there are bodies for them."""

    def __init__(self, *bodies: str) -> None:
        self.bodies = list(bodies)
        self.count = 0

    async def __call__(self) -> Repeatable | None:
        self.count += 1
        return replace(hit(self.bodies.pop(0)), renew=self) if self.bodies else None


def remember(
    cache: ResponseCache,
    renew: Renew,
    repeatable: Repeatable | None = None,
    *,
    key: CacheKey = KEY,
    version: int | None = None,
) -> None:
    cache.remember(
        key,
        replace(repeatable or hit(), renew=renew),
        route="archive",
        source="hg",
        version=cache.version if version is None else version,
    )


def body_of(cache: ResponseCache, key: CacheKey = KEY) -> str | None:
    cached = cache.get(key)
    return cached.body.decode() if cached else None


async def _renew_all(cache: ResponseCache) -> None:
    """Run all renewals that are due."""
    async with in_background(cache.keep_fresh(Notifications())):
        for _ in range(20):
            await asyncio.sleep(0)


def test_an_old_response_is_repeated_while_it_is_renewed_once() -> None:
    clock, renewals = Clock(), Renewals("2")
    cache = ResponseCache(ttl=TTL, clock=clock)
    remember(cache, renewals)
    clock.now += 59
    assert body_of(cache) == "1"
    asyncio.run(_renew_all(cache))
    assert renewals.count == 0
    clock.now += 2
    assert [body_of(cache) for _ in range(3)] == ["1"] * 3
    asyncio.run(_renew_all(cache))
    assert renewals.count == 1
    assert body_of(cache) == "2"
    clock.now += 59
    assert body_of(cache) == "2"


def test_a_response_that_is_no_longer_true_is_forgotten_at_its_renewal() -> None:
    clock, renewals = Clock(), Renewals()
    cache = ResponseCache(ttl=TTL, clock=clock)
    remember(cache, renewals)
    clock.now += 61
    assert body_of(cache)
    asyncio.run(_renew_all(cache))
    assert body_of(cache) is None
    assert renewals.count == 1


def test_a_response_that_cannot_be_renewed_now_is_repeated_until_it_expires() -> None:
    async def renew() -> Repeatable | None:
        raise EngineUnavailable("the engine is away")

    clock = Clock()
    cache = ResponseCache(ttl=TTL, clock=clock)
    remember(cache, renew)
    clock.now += 61
    assert body_of(cache)
    asyncio.run(_renew_all(cache))
    assert body_of(cache)
    clock.now += 60
    assert body_of(cache) is None


def test_no_response_is_repeated_once_its_rev_may_have_moved() -> None:
    clock = Clock()
    cache = ResponseCache(ttl=TTL, clock=clock)
    remember(cache, Renewals(), hit(good_until=clock.now + 10))
    assert body_of(cache)
    clock.now += 10
    assert body_of(cache) is None


def test_a_notification_after_the_look_up_keeps_a_response_from_memory() -> None:
    cache = ResponseCache(ttl=TTL)
    version = cache.version
    cache.invalidate("a")
    remember(cache, Renewals(), version=version)
    assert body_of(cache) is None

    cache.invalidate("b")
    remember(cache, Renewals())
    assert body_of(cache)


def test_a_change_too_long_ago_to_be_known_counts_as_one() -> None:
    cache = ResponseCache(ttl=TTL, size=2)
    version = cache.version
    for topic in ("b", "c", "d", "e"):
        cache.invalidate(topic)
    remember(cache, Renewals(), version=version)
    assert body_of(cache) is None


def test_a_renewal_that_a_notification_overtakes_is_not_remembered() -> None:
    clock = Clock()
    cache = ResponseCache(ttl=TTL, clock=clock)

    async def renew() -> Repeatable | None:
        cache.invalidate("a")
        return hit("old")

    remember(cache, renew)
    clock.now += 61
    assert body_of(cache)
    asyncio.run(_renew_all(cache))
    assert body_of(cache) is None


def test_a_defect_in_one_renewal_does_not_end_the_others() -> None:
    async def renew() -> Repeatable | None:
        raise ZeroDivisionError

    clock, renewals = Clock(), Renewals("2")
    cache = ResponseCache(ttl=TTL, clock=clock)
    others = [CacheKey("GET", str(number).encode(), b"") for number in range(9)]
    for other in others:
        remember(cache, renew, key=other)
    remember(cache, renewals)
    clock.now += 61
    for key in (*others, KEY):
        assert body_of(cache, key)
    with capture_logs() as lines:
        asyncio.run(_renew_all(cache))
    assert renewals.count == 1
    assert [line["event"] for line in lines] == ["hit.not_renewed"] * 9


def test_the_number_of_responses_is_bounded() -> None:
    cache = ResponseCache(ttl=TTL, size=10)
    keys = [CacheKey("GET", str(number).encode(), b"") for number in range(100)]
    for key in keys:
        remember(cache, Renewals(), key=key)

    assert [key for key in keys if cache.get(key)] == keys[-10:]


def test_responses_are_bounded_in_bytes_and_expired_ones_make_room() -> None:
    clock = Clock()
    cache = ResponseCache(ttl=TTL, clock=clock, max_bytes=100_000)

    def remembered_of(numbers: range) -> int:
        keys = [CacheKey("GET", b"/%d" % number, b"") for number in numbers]
        for key in keys:
            remember(cache, Renewals(), hit("x" * 10_000), key=key)
        return sum(cache.get(key) is not None for key in keys)

    assert 5 < remembered_of(range(100)) < 10
    clock.now += 2 * TTL.total_seconds()
    assert remembered_of(range(100, 101)) == 1
    assert len(cache) == 1


def test_a_response_for_one_principal_is_not_repeated_to_another() -> None:
    cache = ResponseCache(ttl=TTL)
    remember(cache, Renewals(), key=KEY._replace(principal=Principal("one")))
    assert body_of(cache, KEY._replace(principal=Principal("one")))
    assert body_of(cache, KEY._replace(principal=Principal("two"))) is None
    assert body_of(cache, KEY) is None
