"""The cache of LFS files: shared by processes, bounded, and never shared by repositories."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from archiver.errors import NoRoom, SourceUnavailable
from archiver.git_objects.lfs_pointer import Pointer
from archiver.sources.git.lfs.cache import RECENT_S, LfsCache
from archiver.sources.git.lfs.cache_folder import LfsOwner

OWNER = LfsOwner(source="forge", repo="group/project")
OTHER = LfsOwner(source="forge", repo="group/private")
ROOM = 1 << 30


def pointer_of(content: bytes) -> Pointer:
    return Pointer(hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def cache(tmp_path: Path) -> LfsCache:
    return LfsCache(folder=tmp_path / "lfs", max_bytes=ROOM)


@dataclass
class Origin:
    """Sends *content* in two pieces, and counts how often."""

    content: bytes
    sent: int = 0

    async def fetch(self) -> AsyncGenerator[bytes, None]:
        self.sent += 1
        yield self.content[:3]
        await asyncio.sleep(0)
        yield self.content[3:]


@dataclass
class HangingOrigin:
    """Sends one byte, and nothing more."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(self) -> AsyncGenerator[bytes, None]:
        yield b"c"
        self.begun.set()
        await asyncio.Event().wait()


async def load(cache: LfsCache, content: bytes, owner: LfsOwner = OWNER) -> int:
    """Return how often a file was fetched, which is then in the cache."""
    origin = Origin(content)
    with await cache.find_or_fetch(owner, pointer_of(content), origin.fetch) as file:
        assert file.read() == content
    return origin.sent


async def has(cache: LfsCache, content: bytes, owner: LfsOwner = OWNER) -> bool:
    return not await cache.missing(owner, [pointer_of(content)])


def age(cache: LfsCache, content: bytes, seconds: float, owner: LfsOwner = OWNER) -> None:
    """Let a file look as if it was last used *seconds* ago."""
    (path,) = cache.folder.path.glob(f"files/{owner.slot}/{pointer_of(content).sha256}")
    os.utime(path, (time.time() - seconds,) * 2)


def litter(cache: LfsCache) -> list[Path]:
    return list((cache.folder.path / "new").iterdir())


def test_a_file_is_fetched_once(cache: LfsCache) -> None:
    async def play() -> list[int]:
        return [await load(cache, b"content"), await load(cache, b"content")]

    assert asyncio.run(play()) == [1, 0]
    assert litter(cache) == []


def test_concurrent_users_share_one_fetch(cache: LfsCache) -> None:
    again = LfsCache(folder=cache.folder.path, max_bytes=ROOM)  # as in another process

    async def play() -> int:
        caches = [cache, again] * 10
        return sum(await asyncio.gather(*(load(each, b"content") for each in caches)))

    assert asyncio.run(play()) == 1
    assert litter(cache) == []


def test_a_repository_never_gets_a_file_of_another(cache: LfsCache) -> None:
    async def play() -> None:
        await load(cache, b"content", OTHER)

        assert await has(cache, b"content", OTHER)
        assert not await has(cache, b"content")
        assert await load(cache, b"content") == 1

    asyncio.run(play())


def test_names_of_sources_and_repositories_do_not_run_together() -> None:
    assert LfsOwner(source="a", repo="b/c").slot != LfsOwner(source="a/b", repo="c").slot


def test_a_pointer_with_another_size_does_not_find_the_file(cache: LfsCache) -> None:
    async def play() -> None:
        await load(cache, b"content")
        wrong = Pointer(pointer_of(b"content").sha256, 6)

        assert cache.find(OWNER, wrong) is None
        assert await has(cache, b"content")

    asyncio.run(play())


def test_a_failed_fetch_leaves_nothing(cache: LfsCache) -> None:
    async def break_off() -> AsyncGenerator[bytes, None]:
        yield b"con"
        raise SourceUnavailable("gone")

    async def play() -> None:
        with pytest.raises(SourceUnavailable):
            await cache.find_or_fetch(OWNER, pointer_of(b"content"), break_off)
        assert litter(cache) == []
        assert await load(cache, b"content") == 1

    asyncio.run(play())


def test_a_cancelled_fetch_lets_the_next_one_begin(cache: LfsCache) -> None:
    origin = HangingOrigin()

    async def play() -> None:
        running = asyncio.create_task(
            cache.find_or_fetch(OWNER, pointer_of(b"content"), origin.fetch)
        )
        await origin.begun.wait()
        waiting = asyncio.create_task(load(cache, b"content"))
        await asyncio.sleep(0.05)
        running.cancel()
        assert await waiting == 1

    asyncio.run(play())
    assert litter(cache) == []


WORKER = """if True:
    import asyncio, sys
    from pathlib import Path
    from archiver.sources.git.lfs.cache import LfsCache
    from tests.sources.test_lfs_cache import OWNER, ROOM, pointer_of

    async def hang():
        yield b"con"
        print("ready", flush=True)
        await asyncio.Event().wait()

    cache = LfsCache(folder=Path(sys.argv[1]), max_bytes=ROOM)
    asyncio.run(cache.find_or_fetch(OWNER, pointer_of(b"content"), hang))
"""


@contextmanager
def worker(cache: LfsCache) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has begun to fetch a file."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, cache.folder.path],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def test_the_next_process_takes_over_from_a_killed_one(cache: LfsCache) -> None:
    async def play() -> int:
        waiting = asyncio.create_task(load(cache, b"content"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        process.send_signal(signal.SIGKILL)
        return await waiting

    with worker(cache) as process:
        assert asyncio.run(play()) == 1
    assert litter(cache) == []


def test_the_clean_up_removes_only_what_killed_processes_left(cache: LfsCache) -> None:
    with worker(cache) as process:
        asyncio.run(cache.clean_up())
        assert len(litter(cache)) == 1
        process.kill()
        process.wait()
        asyncio.run(cache.clean_up())
    assert litter(cache) == []


def test_the_clean_up_removes_folders_without_files(cache: LfsCache) -> None:
    async def play() -> None:
        await load(cache, b"content")
        await load(cache, b"content", OTHER)
        cache.discard(OWNER, pointer_of(b"content"))
        await cache.clean_up()

        assert [status.owner for status in cache.folder.statuses()] == [OTHER]
        assert len(list((cache.folder.path / "files").iterdir())) == 1
        assert await load(cache, b"content") == 1

    asyncio.run(play())


def test_the_files_that_were_not_used_for_the_longest_time_make_room(tmp_path: Path) -> None:
    cache = LfsCache(folder=tmp_path / "lfs", max_bytes=100)

    async def play() -> list[bool]:
        contents = [bytes([number]) * 30 for number in range(4)]
        for place, content in enumerate(contents[:3]):
            await load(cache, content)
            age(cache, content, 3000 - place)
        assert await has(cache, contents[0])  # which is a use
        await load(cache, contents[3])
        return [await has(cache, content) for content in contents]

    # Room for more than the new file is made of files that are not recent.
    assert asyncio.run(play()) == [True, False, True, True]


def test_recent_files_stay_if_the_new_one_fits(tmp_path: Path) -> None:
    cache = LfsCache(folder=tmp_path / "lfs", max_bytes=100)

    async def play() -> list[bool]:
        contents = [bytes([number]) * 33 for number in range(4)]
        for place, content in enumerate(contents):
            await load(cache, content)
            age(cache, content, RECENT_S / 2 - place)
        return [await has(cache, content) for content in contents]

    assert asyncio.run(play()) == [False, True, True, True]


def test_an_open_file_stays_readable_after_its_removal(tmp_path: Path) -> None:
    cache = LfsCache(folder=tmp_path / "lfs", max_bytes=10)

    async def play() -> None:
        await load(cache, b"content")
        file = cache.find(OWNER, pointer_of(b"content"))
        assert file
        with file:
            await load(cache, b"another")
            assert not await has(cache, b"content")
            assert file.read() == b"content"

    asyncio.run(play())


def test_a_file_that_is_being_fetched_counts_whole(tmp_path: Path) -> None:
    cache = LfsCache(folder=tmp_path / "lfs", max_bytes=10)
    again = LfsCache(folder=cache.folder.path, max_bytes=10)  # as in another process

    origin = HangingOrigin()

    async def play() -> None:
        running = asyncio.create_task(
            cache.find_or_fetch(OWNER, pointer_of(b"content"), origin.fetch)
        )
        await origin.begun.wait()
        with pytest.raises(NoRoom):
            await load(again, b"another")
        running.cancel()

    asyncio.run(play())


def test_a_disk_without_room_is_an_outage(tmp_path: Path) -> None:
    cache = LfsCache(folder=tmp_path / "lfs", max_bytes=1 << 62)
    huge = Pointer("0" * 64, 1 << 50)

    async def play() -> None:
        await load(cache, b"content")
        await cache.find_or_fetch(OWNER, huge, Origin(b"").fetch)

    with pytest.raises(NoRoom, match="mirror_dir"):
        asyncio.run(play())
    assert litter(cache) == []


def test_a_folder_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "lfs").write_text("a file")
    cache = LfsCache(folder=tmp_path / "lfs", max_bytes=ROOM)

    with pytest.raises(NoRoom, match="mirror_dir"):
        asyncio.run(load(cache, b"content"))


def test_a_folder_that_was_deleted_is_created_again(cache: LfsCache) -> None:
    async def play() -> int:
        await load(cache, b"content")
        shutil.rmtree(cache.folder.path)
        return await load(cache, b"content")

    assert asyncio.run(play()) == 1


def test_statuses_and_drop_are_by_repository(cache: LfsCache) -> None:
    async def play() -> None:
        await load(cache, b"content", OTHER)
        await load(cache, b"content")
        await load(cache, b"another one")

    asyncio.run(play())
    age(cache, b"content", 1000, OTHER)

    found = [(each.owner, each.files, each.size_bytes) for each in cache.folder.statuses()]
    assert found == [(OTHER, 1, 7), (OWNER, 2, 18)]
    assert cache.folder.drop("forge", "group/project") == 2
    assert cache.folder.drop("forge", "group/project") == 0
    assert [each.owner for each in cache.folder.statuses()] == [OTHER]


def test_a_removal_for_damage_is_logged(cache: LfsCache) -> None:
    asyncio.run(load(cache, b"content"))

    with capture_logs() as logs:
        cache.discard(OWNER, pointer_of(b"content"))

    assert [(each["event"], each["repo"]) for each in logs] == [("lfs.damaged", "group/project")]
