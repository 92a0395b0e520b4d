"""How long an answer is kept to be given again, made anew meanwhile, and how many are."""

import asyncio
from datetime import timedelta

from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable
from archiver.runtime.notifications import Notifications
from archiver.runtime.tasks import in_background
from archiver.web.answers import Again, Answer, Answers, Target

TARGET = Target("GET", b"/a", b"")
TTL = timedelta(seconds=60)


class Clock:
    """Shows the seconds that a test wants to have passed."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_hit(name: str = "1", good_until: float = float("inf")) -> Answer:
    headers = ((b"n", name.encode()),)
    return Answer(
        headers=headers, source="hg", route="archive", topics=("a",), good_until=good_until
    )


class Making:
    """Makes hits anew, as long as there are some."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.made = 0

    async def __call__(self) -> Answer | None:
        self.made += 1
        return a_hit(self.names.pop(0)) if self.names else None


def kept(hits: Answers, again: Again, hit: Answer | None = None, target: Target = TARGET) -> None:
    hits.offer(target, hit or a_hit(), again, moment=hits.moment)
    assert hits.get(target)


async def _kept_fresh(hits: Answers) -> None:
    """Have everything renewed that is due."""
    async with in_background(hits.keep_fresh(Notifications())):
        for _ in range(20):
            await asyncio.sleep(0)


def test_what_grows_old_is_made_anew_once_while_it_is_still_given() -> None:
    clock, making = Clock(), Making("2")
    hits = Answers(ttl=TTL, clock=clock)
    kept(hits, making)
    clock.now += 59
    assert hits.get(TARGET) == a_hit("1")
    asyncio.run(_kept_fresh(hits))
    assert making.made == 0
    clock.now += 2
    assert [hits.get(TARGET) for _ in range(3)] == [a_hit("1")] * 3
    asyncio.run(_kept_fresh(hits))
    assert making.made == 1
    assert hits.get(TARGET) == a_hit("2")
    clock.now += 59
    assert hits.get(TARGET) == a_hit("2")


def test_what_is_no_hit_any_longer_is_not_given() -> None:
    clock, making = Clock(), Making()
    hits = Answers(ttl=TTL, clock=clock)
    kept(hits, making)
    clock.now += 61
    assert hits.get(TARGET)
    asyncio.run(_kept_fresh(hits))
    assert hits.get(TARGET) is None
    assert making.made == 1


def test_what_cannot_be_made_anew_now_is_given_until_it_is_too_old() -> None:
    async def again() -> Answer | None:
        raise EngineUnavailable("the engine is away")

    clock = Clock()
    hits = Answers(ttl=TTL, clock=clock)
    kept(hits, again)
    clock.now += 61
    assert hits.get(TARGET)
    asyncio.run(_kept_fresh(hits))
    assert hits.get(TARGET)
    clock.now += 60
    assert hits.get(TARGET) is None


def test_nothing_is_given_once_its_rev_may_have_moved() -> None:
    clock = Clock()
    hits = Answers(ttl=TTL, clock=clock)
    kept(hits, Making(), a_hit(good_until=clock.now + 10))
    clock.now += 10
    assert hits.get(TARGET) is None


def test_news_that_comes_between_the_look_and_the_offer_is_not_overlooked() -> None:
    hits = Answers(ttl=TTL)
    moment = hits.moment
    hits.drop("a")
    hits.offer(TARGET, a_hit(), Making(), moment=moment)
    assert hits.get(TARGET) is None

    hits.drop("b")
    kept(hits, Making())


def test_what_is_too_long_ago_to_know_is_doubted() -> None:
    hits = Answers(ttl=TTL, size=2)
    moment = hits.moment
    for topic in ("b", "c", "d", "e"):
        hits.drop(topic)
    hits.offer(TARGET, a_hit(), Making(), moment=moment)
    assert hits.get(TARGET) is None


def test_a_renewal_that_news_overtakes_is_not_kept() -> None:
    clock = Clock()
    hits = Answers(ttl=TTL, clock=clock)

    async def again() -> Answer | None:
        hits.drop("a")
        return a_hit("old")

    kept(hits, again)
    clock.now += 61
    assert hits.get(TARGET)
    asyncio.run(_kept_fresh(hits))
    assert hits.get(TARGET) is None


def test_a_defect_in_one_renewal_does_not_end_the_others() -> None:
    async def again() -> Answer | None:
        raise ZeroDivisionError

    clock, making = Clock(), Making("2")
    hits = Answers(ttl=TTL, clock=clock)
    others = [Target("GET", str(number).encode(), b"") for number in range(9)]
    for other in others:
        kept(hits, again, target=other)
    kept(hits, making)
    clock.now += 61
    for target in (*others, TARGET):
        assert hits.get(target)
    with capture_logs() as lines:
        asyncio.run(_kept_fresh(hits))
    assert making.made == 1
    assert [line["event"] for line in lines] == ["hit.not_renewed"] * 9


def test_memory_is_bounded() -> None:
    hits = Answers(ttl=TTL, size=10)
    targets = [Target("GET", str(number).encode(), b"") for number in range(100)]
    for target in targets:
        hits.offer(target, a_hit(), Making(), moment=hits.moment)

    assert [target for target in targets if hits.get(target)] == targets[-10:]


def test_answers_are_bounded_in_bytes_and_old_ones_make_room() -> None:
    clock = Clock()
    hits = Answers(ttl=TTL, clock=clock, max_bytes=100_000)

    def kept_of(numbers: range) -> int:
        targets = [Target("GET", b"/%d" % number, b"") for number in numbers]
        for target in targets:
            hits.offer(target, a_hit("x" * 10_000), Making(), moment=hits.moment)
        return sum(hits.get(target) is not None for target in targets)

    assert 5 < kept_of(range(100)) < 10
    clock.now += 2 * TTL.total_seconds()
    assert kept_of(range(100, 101)) == 1
    assert len(hits) == 1
