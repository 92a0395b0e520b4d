"""Notifications reach their listeners, and closed listeners are released."""

import asyncio
from datetime import timedelta

from archiver.runtime.notifications import Notifications

SOON = timedelta(seconds=5)
NEVER = timedelta(milliseconds=20)


def test_a_listener_is_notified_of_its_topic_only() -> None:
    async def play() -> None:
        notifications = Notifications()
        with notifications.listen("one") as one, notifications.listen("two") as two:
            notifications.publish("one")
            assert await one.wait(SOON)
            assert not await two.wait(NEVER)

    asyncio.run(play())


def test_a_notification_before_the_wait_is_not_lost() -> None:
    async def play() -> None:
        notifications = Notifications()
        with notifications.listen("one") as listener:
            notifications.publish("one")
            assert await listener.wait(NEVER)
            assert not await listener.wait(NEVER)

    asyncio.run(play())


def test_all_listeners_of_a_topic_are_notified() -> None:
    async def play() -> None:
        notifications = Notifications()

        async def wait() -> bool:
            with notifications.listen("one") as listener:
                return await listener.wait(SOON)

        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(wait()) for _ in range(100)]
            await asyncio.sleep(0)
            notifications.publish("one")
        assert all(task.result() for task in waiting)

    asyncio.run(play())


def test_publish_all_notifies_every_listener_and_subscriber() -> None:
    async def play() -> None:
        notifications = Notifications()
        seen: list[str | None] = []
        notifications.changes.add(seen.append)
        with notifications.listen("one") as one, notifications.listen("two") as two:
            notifications.publish_all()
            assert await one.wait(NEVER)
            assert await two.wait(NEVER)
        notifications.publish("three")
        assert seen == [None, "three"]

    asyncio.run(play())


def test_a_closed_listener_is_not_held() -> None:
    async def play() -> None:
        notifications = Notifications()
        with notifications.listen("one"):
            pass
        notifications.publish("one")
        assert not vars(notifications)["_listeners"]

    asyncio.run(play())
