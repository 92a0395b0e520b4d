"""Mirrors survive killed workers, full folders and people who delete them."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from archiver.errors import BadPack, MirrorFailed, NoRoom
from archiver.model import Node
from archiver.sources.git.locks import try_lock
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.store import Store
from archiver.telemetry import METRICS
from tests import git_repositories
from tests.git_repositories import SIMPLE, GitRepository, commit_rounds
from tests.parts.process import descendants, wait_until
from tests.sources.git_packs import MAX_BYTES, add, archive, new_mirrors, pack_of, pieces


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return git_repositories.create(tmp_path / "origin.git")


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return new_mirrors(tmp_path / "mirrors")


def stores(mirrors: Mirrors) -> list[Store]:
    return [status.store for status in mirrors.folder.statuses()]


def leftovers(mirrors: Mirrors) -> list[Path]:
    """Return what is left of mirrors that were removed or never completed."""
    return [path for name in ("new", "trash") for path in (mirrors.folder.path / name).iterdir()]


async def fill(mirrors: Mirrors, repo: str, pack: bytes, *nodes: str) -> Store:
    async with mirrors.use("src", repo, 40) as mirror:
        await add(mirror, pack, *nodes)
        return mirror.store


def test_a_mirror_whose_files_cannot_be_read_is_no_bug(mirrors: Mirrors) -> None:
    """Found by the fault campaign: files-short. A folder stands for a file that is not opened."""

    async def scenario() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            folder = mirror.store.folder
        (folder / "first-size").unlink(missing_ok=True)
        (folder / "first-size").mkdir()
        with pytest.raises(NoRoom):
            async with mirrors.use("src", "a/b", 40):
                raise AssertionError

    asyncio.run(scenario())


WORKER = """if True:
    import asyncio, sys
    from pathlib import Path
    from tests.sources.git_packs import MAX_BYTES, new_mirrors

    async def forever():
        yield b"PACK" + (2).to_bytes(4) + (9).to_bytes(4)
        print("ready", flush=True)
        await asyncio.Event().wait()

    async def work():
        async with new_mirrors(Path(sys.argv[1])).use("src", "a/b", 40) as mirror:
            async with mirror.fetch_lock():
                await mirror.receive(forever(), max_bytes=MAX_BYTES)

    asyncio.run(work())
"""


@contextmanager
def worker(mirrors: Mirrors) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has begun to receive a pack into the mirror of ``a/b``."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, mirrors.folder.path],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def indexer(pid: int) -> int:
    """Return the running index-pack that *pid* has started."""
    (found,) = (child for child, name in descendants(pid).items() if "index-pack" in name)
    return found


def test_a_repository_has_one_mirror_for_each_length_of_ids(mirrors: Mirrors) -> None:
    async def play() -> list[Store]:
        found = []
        for repo, digits in (("a", 40), ("a", 40), ("a", 64), ("b", 40)):
            async with mirrors.use("src", repo, digits) as mirror:
                found.append(mirror.store)
        return found

    first, again, sha256, other = asyncio.run(play())
    assert first == again
    assert len({first.folder, sha256.folder, other.folder}) == 3


def test_concurrent_first_users_share_one_mirror(mirrors: Mirrors) -> None:
    async def use() -> Store:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await asyncio.sleep(0)
            return mirror.store

    async def play() -> list[Store]:
        return await asyncio.gather(*(use() for _ in range(20)))

    assert len({store.folder for store in asyncio.run(play())}) == 1
    assert leftovers(mirrors) == []


def _truncate(store: Store, ending: str) -> None:
    for path in (store.objects / "pack").glob(f"*.{ending}"):
        os.truncate(path, 100)


Damage = Callable[[Mirrors, Store], object]

DAMAGES: Mapping[str, Damage] = {
    "no folder": lambda mirrors, _: shutil.rmtree(mirrors.folder.path),
    "no mirror": lambda _, store: shutil.rmtree(store.folder),
    "no lock": lambda _, store: store.use_lock.unlink(),
    "no fetch lock": lambda _, store: store.fetch_lock.unlink(),
    "no objects": lambda _, store: shutil.rmtree(store.objects),
    "no nodes": lambda _, store: shutil.rmtree(store.folder / "nodes"),
    "bad HEAD": lambda _, store: (store.folder / "HEAD").write_text("?"),
    "bad config": lambda _, store: (store.folder / "config").write_text("?"),
    "bad pack": lambda _, store: _truncate(store, "pack"),
    "bad index": lambda _, store: _truncate(store, "idx"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("during", (True, False))
def test_a_damaged_mirror_fails_at_most_one_use(
    mirrors: Mirrors, repository: GitRepository, damage: Damage, *, during: bool
) -> None:
    node = repository.commit(SIMPLE)
    pack = pack_of(repository, node)

    async def build() -> bytes:
        async with mirrors.use("src", "a/b", 40) as mirror:
            if not await mirror.has(Node(node)):
                await mirror.haves()
                await add(mirror, pack, node)
            if during and not damaged:
                damaged.append(mirror.store)
                damage(mirrors, mirror.store)
            archived = await archive(mirror, node)
            mirror.remember(Node(node))
            return archived

    async def play() -> bytes:
        store = await fill(mirrors, "a/b", pack, node)
        if not during:
            damage(mirrors, store)
        with suppress(MirrorFailed):
            await build()
        return await build()

    damaged: list[Store] = []
    assert asyncio.run(play()) == repository.git_bytes("-c", "tar.umask=002", "archive", node)


def test_other_users_keep_a_mirror_that_is_replaced(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE)

    async def play() -> None:
        await fill(mirrors, "a/b", pack_of(repository, node), node)
        async with mirrors.use("src", "a/b", 40) as mirror:
            with pytest.raises(MirrorFailed):
                async with mirrors.use("src", "a/b", 40) as failing:
                    await failing.git.run("cat-file", "commit", "absent")
            async with mirrors.use("src", "a/b", 40) as fresh:
                assert fresh.store != mirror.store
                assert await fresh.haves() == ()
            assert await archive(mirror, node)
            assert len(stores(mirrors)) == 2
        assert stores(mirrors) == [fresh.store]

    asyncio.run(play())
    assert leftovers(mirrors) == []


def test_the_mirror_that_was_not_used_for_the_longest_time_is_evicted(
    tmp_path: Path, repository: GitRepository
) -> None:
    pack = pack_of(repository, repository.commit({"noise": os.urandom(1_000_000)}))
    room_bytes = (64 << 20) + 2_500_000  # two mirrors and a step of the third
    mirrors = new_mirrors(tmp_path / "mirrors", max_bytes=room_bytes)

    async def play() -> None:
        first = await fill(mirrors, "first", pack)
        second = await fill(mirrors, "second", pack)
        async with mirrors.use("src", "first", 40):
            pass
        third = await fill(mirrors, "third", pack)
        assert {store.folder for store in stores(mirrors)} >= {first.folder, third.folder}
        await mirrors.make_room(64 << 20)
        assert second.folder not in {store.folder for store in stores(mirrors)}
        assert first.folder in {store.folder for store in stores(mirrors)}

    asyncio.run(play())


def test_a_mirror_in_use_is_not_evicted(tmp_path: Path, repository: GitRepository) -> None:
    node = repository.commit(SIMPLE)
    mirrors = new_mirrors(tmp_path / "mirrors", max_bytes=1 << 62)

    async def play() -> None:
        await fill(mirrors, "idle", pack_of(repository, node))
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, pack_of(repository, node))
            with pytest.raises(NoRoom, match=r"disk of worker\.mirror_dir"):
                await mirrors.make_room(1 << 60)
            assert stores(mirrors) == [mirror.store]
            assert await archive(mirror, node)

    asyncio.run(play())


def test_an_unusable_folder_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mirrors = new_mirrors(tmp_path / "file")

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40):
            pass

    with pytest.raises(NoRoom, match=r"worker\.mirror_dir"):
        asyncio.run(play())
    with pytest.raises(NoRoom):
        asyncio.run(mirrors.clean_up())


@pytest.mark.thorough
def test_many_packs_are_merged_and_keep_every_node(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    nodes = commit_rounds(repository, 26)
    packs = [pack_of(repository, nodes[0])]
    packs += [pack_of(repository, node, [old]) for old, node in pairwise(nodes)]

    async def play() -> None:
        for pack, node in zip(packs, nodes, strict=True):
            await fill(mirrors, "a/b", pack, node)
        async with mirrors.use("src", "a/b", 40) as mirror:
            assert mirror.store.size().packs < 25
            for node in nodes:
                assert await mirror.has(Node(node))
                assert await archive(mirror, node)

    asyncio.run(play())


def test_a_mirror_has_outgrown_its_first_size(mirrors: Mirrors, repository: GitRepository) -> None:
    first = pack_of(repository, repository.commit({"noise": os.urandom(10_000)}))
    more = pack_of(repository, repository.commit({"noise": os.urandom(50_000)}))

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            await add(mirror, first)
            assert not mirror.outgrew(factor=3, at_least_bytes=1)
            await add(mirror, more)
            assert mirror.outgrew(factor=3, at_least_bytes=1)
            assert not mirror.outgrew(factor=3, at_least_bytes=1 << 20)
            assert not mirror.outgrew(factor=30, at_least_bytes=1)

    asyncio.run(play())


def test_the_litter_of_a_killed_worker_is_removed_by_the_next_fetch(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE)
    with worker(mirrors):
        (store,) = stores(mirrors)
        wait_until(lambda: any((store.objects / "pack").glob("tmp_pack_*")))

    async def play() -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            assert mirror.store == store
            await add(mirror, pack_of(repository, node))
            assert await archive(mirror, node)
            assert not [*(store.objects / "pack").glob("tmp_*")]

    asyncio.run(play())


def test_a_child_of_a_killed_worker_keeps_the_locks_until_it_ends(mirrors: Mirrors) -> None:
    with worker(mirrors) as process:
        (store,) = stores(mirrors)
        child = indexer(process.pid)
        os.kill(child, signal.SIGSTOP)
        process.kill()
        process.wait()
        try:
            assert try_lock(store.fetch_lock, exclusive=True) is None
            assert not mirrors.folder.try_remove(store)
        finally:
            os.kill(child, signal.SIGKILL)
    wait_until(lambda: mirrors.folder.try_remove(store))
    assert stores(mirrors) == []


def test_a_fetch_waits_for_that_of_another_process(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE)

    async def play(process: subprocess.Popen[bytes]) -> None:
        async with mirrors.use("src", "a/b", 40) as mirror:
            adding = asyncio.create_task(add(mirror, pack_of(repository, node)))
            await asyncio.sleep(0)
            assert try_lock(mirror.store.fetch_lock, exclusive=True) is None
            assert not adding.done()
            process.kill()
            await adding
            assert await mirror.has(Node(node))

    with worker(mirrors) as process:
        asyncio.run(play(process))


def test_a_start_removes_what_killed_processes_left(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    async def play() -> None:
        kept = await fill(mirrors, "kept", pack_of(repository, repository.commit(SIMPLE)))
        async with mirrors.use("src", "a/b", 40) as mirror:
            mirrors.replace(mirror, reason="damaged")
            shutil.copytree(mirror.store.folder, mirror.store.folder.with_name("7"))
            shutil.copytree(mirror.store.folder, mirror.store.folder.with_name("8"))
            (mirror.store.folder.with_name("8") / "use.lock").unlink()
            in_use = mirror.store
            for name, age_s in (("old", 10_000), ("young", 0)):
                new = mirrors.folder.path / "new" / name
                new.mkdir()
                os.utime(new, times=(new.stat().st_mtime - age_s,) * 2)
            (mirrors.folder.path / "trash" / "half").mkdir()
            await mirrors.clean_up()
            assert {path.name for path in leftovers(mirrors)} == {"young"}
            damaged = in_use.folder.with_name("8")
            left = {store.folder for store in stores(mirrors)}
            assert left == {kept.folder, in_use.folder, damaged}
            async with mirrors.use("src", "a/b", 40) as fresh:
                assert fresh.store.folder.name == "9"
        await mirrors.clean_up()
        assert {store.folder for store in stores(mirrors)} == {kept.folder, fresh.store.folder}

    asyncio.run(play())


CHURN = """if True:
    import asyncio, sys
    from contextlib import suppress
    from pathlib import Path
    from archiver.errors import MirrorFailed
    from archiver.model import Node
    from tests.sources.git_packs import add, archive, new_mirrors

    mirrors, node = new_mirrors(Path(sys.argv[1])), Node(sys.argv[2])
    pack = Path(sys.argv[3]).read_bytes()

    async def build():
        async with mirrors.use("src", "a/b", 40) as mirror:
            if not await mirror.has(node):
                await add(mirror, pack, node)
            assert await archive(mirror, node)

    async def work():
        for number in range(25):
            await build()
            if number % 5 == 4:
                mirrors.folder.drop("src", "a/b")

    asyncio.run(work())
"""


@pytest.mark.thorough
def test_processes_that_drop_mirrors_do_not_disturb_each_other(
    mirrors: Mirrors, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(SIMPLE)
    (tmp_path / "pack").write_bytes(pack_of(repository, node))
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))
    command: list[str | Path] = [sys.executable, "-c", CHURN]
    command += [mirrors.folder.path, node, tmp_path / "pack"]
    running = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [process.communicate()[1].decode() for process in running]

    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert len(stores(mirrors)) <= 1
    assert leftovers(mirrors) == []


def test_a_killed_worker_leaves_a_usable_folder_at_every_step(
    mirrors: Mirrors, repository: GitRepository, tmp_path: Path
) -> None:
    node = repository.commit(SIMPLE)
    (tmp_path / "pack").write_bytes(pack_of(repository, node))
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))
    command: list[str | Path] = [sys.executable, "-c", CHURN]
    command += [mirrors.folder.path, node, tmp_path / "pack"]

    async def build() -> bytes:
        async with mirrors.use("src", "a/b", 40) as mirror:
            if not await mirror.has(Node(node)):
                await add(mirror, (tmp_path / "pack").read_bytes(), node)
            return await archive(mirror, node)

    expected = repository.git_bytes("-c", "tar.umask=002", "archive", node)
    for _ in range(5):
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
            wait_until(lambda: bool(stores(mirrors)) or process.poll() is not None)
            assert asyncio.run(build()) == expected
            process.kill()
        assert asyncio.run(build()) == expected
        asyncio.run(mirrors.clean_up())
        assert leftovers(mirrors) == []


def test_a_pack_that_is_received_twice_does_no_harm(
    mirrors: Mirrors, repository: GitRepository
) -> None:
    node = repository.commit(SIMPLE)
    pack = pack_of(repository, node)

    async def play() -> None:
        store = await fill(mirrors, "a/b", pack, node)
        async with mirrors.use("src", "a/b", 40) as mirror, mirror.fetch_lock():
            await mirror.receive(pieces(pack), max_bytes=MAX_BYTES)
            assert await archive(mirror, node)
        assert store.size().packs == 1

    asyncio.run(play())


def test_uses_are_counted_by_their_outcome(mirrors: Mirrors, repository: GitRepository) -> None:
    first, second = map(Node, commit_rounds(repository, 2))

    async def use(node: Node, pack: bytes = b"") -> None:
        async with mirrors.use("counted", "a/b", 40) as mirror:
            if not await mirror.has(node) and pack:
                await add(mirror, pack, node)

    async def play() -> None:
        await use(first)
        await use(first, pack_of(repository, first))
        await use(first)
        await use(second, pack_of(repository, second, [first]))
        with pytest.raises(BadPack):
            await use(Node("0" * 40), b"no pack")

    asyncio.run(play())
    counted = {
        sample.labels["outcome"]: sample.value
        for metric in METRICS.mirror_uses.collect()
        for sample in metric.samples
        if sample.labels["source"] == "counted" and sample.name.endswith("_total")
    }
    assert counted == {"missed": 1, "cold": 1, "hit": 1, "fetched": 1, "failed": 1}
