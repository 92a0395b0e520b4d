"""Who is told of news, and that nobody is remembered who no longer waits."""

import asyncio
from datetime import timedelta

from archiver.runtime.notifications import Notifications

SOON = timedelta(seconds=5)
NEVER = timedelta(milliseconds=20)


def test_a_bell_is_rung_by_news_of_its_topic_alone() -> None:
    async def play() -> None:
        news = Notifications()
        with news.listen("one") as one, news.listen("two") as two:
            news.publish("one")
            assert await one.wait(SOON)
            assert not await two.wait(NEVER)

    asyncio.run(play())


def test_news_that_came_while_nobody_waited_is_not_lost() -> None:
    async def play() -> None:
        news = Notifications()
        with news.listen("one") as bell:
            news.publish("one")
            assert await bell.wait(NEVER)
            assert not await bell.wait(NEVER)

    asyncio.run(play())


def test_all_who_wait_for_a_topic_are_woken() -> None:
    async def play() -> None:
        news = Notifications()

        async def wait() -> bool:
            with news.listen("one") as bell:
                return await bell.wait(SOON)

        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(wait()) for _ in range(100)]
            await asyncio.sleep(0)
            news.publish("one")
        assert all(task.result() for task in waiting)

    asyncio.run(play())


def test_a_gap_rings_every_bell_and_is_told_to_every_reader() -> None:
    async def play() -> None:
        news = Notifications()
        seen: list[str | None] = []
        news.subscribe(seen.append)
        with news.listen("one") as one, news.listen("two") as two:
            news.publish_all()
            assert await one.wait(NEVER)
            assert await two.wait(NEVER)
        news.publish("three")
        assert seen == [None, "three"]

    asyncio.run(play())


def test_a_bell_that_was_taken_down_leaves_nothing_behind() -> None:
    async def play() -> None:
        news = Notifications()
        with news.listen("one"):
            pass
        news.publish("one")
        assert not vars(news)["_listeners"]

    asyncio.run(play())
