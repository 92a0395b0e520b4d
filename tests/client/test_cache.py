"""Processes that share a folder or a cache download an archive once."""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from archiver.client import ArchiveRequest, Client, TimedOut
from archiver.client.cache import Cache
from tests.client.responses import CONTENT, GET, NODE, OBJECT, REV_URL, SHA256
from tests.client.test_extraction import contents, member, tar
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer, ranged

CLIENTS = 12
SMALL = ("--cache-max-bytes", "1")


@pytest.fixture(autouse=True)
def served(server: ScriptedServer, hit: Response) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))


def downloads(server: ScriptedServer) -> int:
    return sum(path.startswith(OBJECT) for path, _ in server.requests)


def run_together(folder: Path, commands: Sequence[Sequence[str]]) -> list[str]:
    """Run these commands at the same time, and return what they wrote about failures."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "archiver", *words],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in commands
    ]
    said = [process.communicate(timeout=100)[1] for process in processes]
    return [text for text, each in zip(said, processes, strict=True) if each.returncode]


@pytest.mark.thorough
@pytest.mark.parametrize("more", ((), ("--cache", "cache"), ("--cache", "cache", *SMALL)))
def test_twelve_processes_fill_one_file(
    server: ScriptedServer, tmp_path: Path, more: tuple[str, ...]
) -> None:
    words = (*GET, "--server", server.url, "-o", "here", *more)
    assert run_together(tmp_path, [words] * CLIENTS) == []
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} <= {"here", "cache"}


@pytest.mark.thorough
def test_twelve_processes_share_a_cache(server: ScriptedServer, tmp_path: Path) -> None:
    commands = [
        (*GET, "--server", server.url, "--cache", "cache", "-o", str(number))
        for number in range(CLIENTS)
    ]
    assert run_together(tmp_path, commands) == []
    for number in range(CLIENTS):
        assert (tmp_path / str(number)).read_bytes() == CONTENT
    assert downloads(server) == 1
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == [SHA256]


def test_a_damaged_archive_in_the_cache_is_replaced(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    words = (*GET, "--server", server.url, "-o", "here")
    for number in range(2):
        assert run(*words, ARCHIVER_CACHE=str(tmp_path / "cache")).exit_code == 0
        assert downloads(server) == 1 + number
        (stored,) = (tmp_path / "cache").glob("*/*")
        stored.write_bytes(b"x" * len(CONTENT))
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_what_was_used_longest_ago_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=250)
    paths = [cache.path(f"{number}" * 64) for number in range(4)]
    for age, path in enumerate(paths):
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    part = paths[3].with_name("x.part")
    part.touch()
    cache.keep(paths[2])
    assert [path.exists() for path in paths] == [True, False, True, False]
    assert part.exists()
    os.utime(part, (1000, 1000))
    cache.keep(paths[2])
    assert not part.exists()


def test_an_archive_larger_than_the_cache_is_kept_until_the_next(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    words = (*GET, "--server", server.url, "--cache", "cache", *SMALL)
    assert run(*words, "-o", "here").exit_code == 0
    assert (tmp_path / "here").read_bytes() == CONTENT


def serve_many(server: ScriptedServer) -> list[tuple[str, bytes]]:
    """Serve other archives than each other, and return their repos and contents."""
    found = []
    for number in range(CLIENTS):
        content = tar(member("x/file", bytes([number]) * 200_000), mode="w:gz")
        headers = {
            "Location": f"{server.url}/bucket/{number}.tar.gz",
            "Archiver-SHA256": hashlib.sha256(content).hexdigest(),
            "Archiver-Size": str(len(content)),
            "Archiver-Node": NODE,
            "Archiver-Region": "us-west-2",
        }
        server.respond(f"/archiver/hgmo/repo{number}/tip", Response(status=302, headers=headers))
        server.respond(f"/bucket/{number}.tar.gz", ranged(content))
        found.append((f"repo{number}", content))
    return found


@pytest.mark.thorough
def test_twelve_processes_share_a_cache_that_is_too_small(
    server: ScriptedServer, tmp_path: Path
) -> None:
    small = ("--cache", "cache", *SMALL, "--server", server.url)
    many = serve_many(server)
    commands = [("get", "hgmo", repo, "tip", *small, "-o", repo) for repo, _ in many]
    commands += [("get", "hgmo", repo, "tip", *small, "--extract", f"{repo}.d") for repo, _ in many]
    assert run_together(tmp_path, commands) == []
    for repo, content in many:
        assert (tmp_path / repo).read_bytes() == content
        assert (tmp_path / f"{repo}.d" / "x" / "file").exists()


@pytest.mark.parametrize("words", (("-o", "here"), ("--extract", "folder")))
def test_an_archive_that_is_removed_before_it_is_used_is_downloaded_again(
    run: Run,
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    (repo, content), *_ = serve_many(server)
    get = ("get", "hgmo", repo, "tip", "--server", server.url, "--cache", "cache", *words)
    hold, removed = Cache.hold, list[Path]()

    def remove_and_hold(
        cache: Cache, path: Path, wait: Callable[[], None]
    ) -> AbstractContextManager[bool]:
        if path.exists() and not removed:
            path.unlink()
            removed.append(path)
        return hold(cache, path, wait)

    monkeypatch.setattr(Cache, "hold", remove_and_hold)
    result = run(*get)
    assert result.exit_code == 0, result.output
    assert removed
    if "-o" in words:
        assert (tmp_path / "here").read_bytes() == content
    else:
        assert contents(tmp_path / "folder") == {"x/file": bytes(200_000)}


def unexpected() -> None:
    raise AssertionError


def test_a_file_that_another_process_keeps_locked_does_not_outlast_the_deadline(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    get = (*GET, "--server", server.url, "--cache", "cache", "-o", "here")
    assert run(*get).exit_code == 0
    (stored,) = (tmp_path / "cache").glob("*/*")
    cache = Cache(tmp_path / "cache", max_bytes=1)
    request = ArchiveRequest("hgmo", "projects/ash", "default")
    with stored.open("rb") as file, Client(server.url, timeout_s=0.5, cache=cache) as client:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TimedOut):
            client.get(request, str(tmp_path / "other"))


def test_an_archive_in_use_is_not_removed(tmp_path: Path) -> None:
    cache, other = Cache(tmp_path, max_bytes=1), Cache(tmp_path, max_bytes=1)
    paths = [cache.path(f"{number}" * 64) for number in range(2)]
    for path in paths:
        path.write_bytes(bytes(100))
    with cache.hold(paths[0], unexpected) as there:
        assert there
        other.keep(paths[1])
        assert paths[0].exists()
    other.keep(paths[1])
    assert not paths[0].exists()
    with cache.hold(paths[0], unexpected) as there:
        assert not there


def test_a_cache_that_cannot_be_written_is_named(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("")
    result = run(*GET, "--server", server.url, "--cache", "cache/below", "-o", "here")
    assert result.exit_code == 1
    assert "cache/below" in result.stderr
