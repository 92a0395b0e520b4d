"""``archiver mirrors``: what it lists, and what it drops."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from archiver.git_objects.lfs_pointer import Pointer
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.lfs.cache_folder import LfsFolder, LfsOwner
from archiver.sources.git.mirrors import Mirrors
from tests import git_repositories
from tests.parts.commands import Run
from tests.sources.git_packs import add, new_mirrors, pack_of, pieces

CONFIG = """
[sources.forge]
kind = "git"
url_template = "https://git.example.org/{repo}.git"

[worker]
mirror_dir = "mirrors"
"""


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    """Mirrors of two repositories, of which ``group/second`` was used last."""
    (tmp_path / "archiver.toml").write_text(CONFIG)
    repository = git_repositories.create(tmp_path / "origin.git")
    pack = pack_of(repository, repository.commit(git_repositories.SIMPLE))
    mirrors = new_mirrors(tmp_path / "mirrors")

    async def fill() -> None:
        for repo in ("group/first", "group/second"):
            async with mirrors.use("forge", repo, 40) as mirror:
                await add(mirror, pack)

    asyncio.run(fill())
    return mirrors


@pytest.fixture
def lfs(mirrors: Mirrors) -> LfsFolder:
    """LFS files of ``group/first`` and of a repository without a mirror."""
    cache = LfsCache(folder=mirrors.folder.path / "lfs", max_bytes=1 << 30)

    async def fill() -> None:
        for repo, content in (
            ("group/third", b"one"),
            ("group/first", b"two"),
            ("group/first", b"three"),
        ):
            owner = LfsOwner(source="forge", repo=repo)
            pointer = Pointer(hashlib.sha256(content).hexdigest(), len(content))
            (await cache.find_or_fetch(owner, pointer, lambda: pieces(content))).close()  # noqa: B023 - called at once

    asyncio.run(fill())
    return cache.folder


def test_lfs_files_are_listed_with_their_total(run: Run, lfs: LfsFolder) -> None:
    result = run("mirrors")
    rows = [line.split() for line in result.stdout.splitlines()[3:]]
    assert rows[0] == ["source", "repo", "LFS", "bytes", "files", "last", "use"]
    assert [row[:4] for row in rows[1:]] == [
        ["forge", "group/first", "8", "2"],
        ["forge", "group/third", "3", "1"],
    ]
    assert result.stderr.splitlines()[1] == "3 LFS files, 11 of 21,474,836,480 bytes"

    listed = json.loads(run("mirrors", "--json").stdout)
    assert (listed["lfs_size_bytes"], listed["lfs_max_bytes"]) == (11, 20 << 30)
    assert listed["lfs"] == [
        {
            "source": "forge",
            "repo": status.owner.repo if status.owner else "",
            "size_bytes": status.size_bytes,
            "files": status.files,
            "last_used": status.last_used.isoformat(timespec="seconds"),
        }
        for status in lfs.statuses()[::-1]
    ]


def test_lfs_files_are_dropped_with_the_mirror_and_without_one(run: Run, lfs: LfsFolder) -> None:
    first = json.loads(run("mirrors", "drop", "forge/group/first", "--json").stdout)
    assert first == {"source": "forge", "repo": "group/first", "in_use": False, "lfs_files": 2}
    third = run("mirrors", "drop", "forge/group/third")
    assert third.stderr == "dropped the LFS files of forge/group/third\n"
    assert lfs.statuses() == []
    assert run("mirrors", "drop", "forge/group/third").exit_code == 1


def repos(mirrors: Mirrors) -> list[str]:
    identities = [status.identity for status in mirrors.folder.statuses()]
    return [identity.repo for identity in identities if identity]


def test_all_mirrors_are_listed_with_a_total(run: Run, mirrors: Mirrors) -> None:
    result = run("mirrors")
    assert result.exit_code == 0, result.output
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header == ["source", "repo", "bytes", "packs", "last", "use"]
    assert [row[:2] for row in rows] == [["forge", "group/second"], ["forge", "group/first"]]
    assert [row[3] for row in rows] == ["1", "1"]
    total = sum(status.size.size_bytes for status in mirrors.folder.statuses())
    assert result.stderr.startswith(f"2 mirrors, {total:,} of 34,359,738,368 bytes, in /")


def test_the_list_is_also_json(run: Run, mirrors: Mirrors, tmp_path: Path) -> None:
    result = run("mirrors", "--json")
    listed = json.loads(result.stdout)
    statuses = mirrors.folder.statuses()[::-1]
    assert listed["folder"] == str(tmp_path / "mirrors")
    assert listed["size_bytes"] == sum(each["size_bytes"] for each in listed["mirrors"]) > 0
    assert listed["max_bytes"] == 32 << 30
    assert listed["mirrors"] == [
        {
            "source": "forge",
            "repo": status.identity.repo if status.identity else "",
            "digits": 40,
            "size_bytes": status.size.size_bytes,
            "packs": 1,
            "last_used": status.last_used.isoformat(timespec="seconds"),
            "current": True,
        }
        for status in statuses
    ]


def test_a_folder_that_does_not_exist_is_reported_and_an_empty_one_is_not(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "archiver.toml").write_text(CONFIG)
    folder = tmp_path / "mirrors"
    absent = run("mirrors")
    assert (absent.exit_code, absent.stdout) == (0, "")
    assert absent.stderr == f"0 mirrors: the folder {folder} does not exist\n"
    folder.mkdir()
    empty = run("mirrors")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert empty.stderr == f"0 mirrors, 0 of 34,359,738,368 bytes, in {folder}\n"


def test_without_a_folder_the_list_in_json_is_empty(run: Run) -> None:
    assert json.loads(run("mirrors", "--json").stdout)["mirrors"] == []


def test_a_damaged_mirror_is_listed(run: Run, mirrors: Mirrors) -> None:
    for status in mirrors.folder.statuses():
        (status.store.folder / "mirror.json").write_text("\x1b[31m")
    rows = run("mirrors").stdout.splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [["?", "damaged"]] * 2


def test_one_mirror_is_dropped(run: Run, mirrors: Mirrors) -> None:
    result = run("mirrors", "drop", "forge/group/first")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "dropped the mirror of forge/group/first\n"
    assert repos(mirrors) == ["group/second"]


def test_a_mirror_in_use_is_dropped_after_its_use(run: Run, mirrors: Mirrors) -> None:
    async def play() -> None:
        async with mirrors.use("forge", "group/first", 40) as mirror:
            result = await asyncio.to_thread(run, "mirrors", "drop", "forge/group/first")
            assert result.exit_code == 0
            assert "it is in use" in result.stderr
            assert mirror.store.is_whole()
            listed = (await asyncio.to_thread(run, "mirrors")).stdout
            assert "replaced" in listed
        assert not mirror.store.folder.exists()
        async with mirrors.use("forge", "group/first", 40) as fresh:
            assert not fresh.had_objects

    asyncio.run(play())


@pytest.mark.parametrize("name", ("forge/group/third", "forge/group", "other/group/first"))
def test_a_mirror_that_does_not_exist_is_reported(run: Run, mirrors: Mirrors, name: str) -> None:
    result = run("mirrors", "drop", name)
    assert result.exit_code == 1
    assert f"there is no mirror of {name}" in result.stderr
    assert len(repos(mirrors)) == 2


@pytest.mark.parametrize("name", ("forge", "forge/", "/group"))
def test_an_incomplete_name_is_rejected(run: Run, name: str) -> None:
    assert run("mirrors", "drop", name).exit_code == 2
