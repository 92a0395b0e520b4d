"""The git program runs with limits, without configuration, and never outlives its caller."""

import asyncio
import os
import resource
import signal
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from archiver.sources.git.program import (
    GitFailed,
    GitProgram,
    UnsupportedGit,
    find_git,
    require_supported_version,
)
from tests import git_repositories
from tests.git_repositories import GitRepository
from tests.parts.process import descendants, wait_until

WAITS = ("cat-file", "--batch")
"""Waits for its input."""


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return git_repositories.create(tmp_path / "origin.git")


@pytest.fixture
def git(repository: GitRepository) -> GitProgram:
    return find_git().bound_to(repository.path)


def children() -> list[int]:
    """Return the running processes that this process has started and that are git's."""
    return [pid for pid, command in descendants(os.getpid()).items() if "git" in command]


def outcome(work: Callable[[], Awaitable[object]]) -> GitFailed:
    """Return the failure of *work*."""

    async def play() -> None:
        await work()

    with pytest.raises(GitFailed) as raised:
        asyncio.run(play())
    assert children() == []
    return raised.value


def test_the_output_of_a_run_is_returned(git: GitProgram, repository: GitRepository) -> None:
    node = repository.commit(git_repositories.SIMPLE)
    answer = asyncio.run(git.run("cat-file", "--batch-check", stdin=f"{node}\n".encode()))

    assert answer.startswith(f"{node} commit ".encode())


def test_more_output_than_allowed_is_a_failure(git: GitProgram, repository: GitRepository) -> None:
    node = repository.commit({"large": b"x" * 10_000_000})

    failure = outcome(lambda: git.run("archive", node, max_output_bytes=1000))
    assert "more than 1000 bytes" in str(failure)


def test_a_stream_has_all_bytes(git: GitProgram, repository: GitRepository) -> None:
    node = repository.commit({"noise": os.urandom(5_000_000)})

    async def play() -> list[bytes]:
        async with git.stream("archive", "--format=tar", node) as chunks:
            return [chunk async for chunk in chunks]

    chunks = asyncio.run(play())
    assert b"".join(chunks) == repository.git_bytes("-c", "tar.umask=002", "archive", node)
    assert max(map(len, chunks)) <= 1 << 20


def test_a_stream_that_breaks_off_raises_at_its_end(
    git: GitProgram, repository: GitRepository
) -> None:
    """Git packs the first files, and then finds that an object is missing."""
    node = repository.commit({"a": os.urandom(2_000_000), "b": b"lost"})
    lost = repository.git("rev-parse", f"{node}:b")
    (repository.path / "objects" / lost[:2] / lost[2:]).unlink()
    received: list[bytes] = []

    async def play() -> None:
        async with git.stream("archive", "--format=tar", node) as chunks:
            async for chunk in chunks:
                received.append(chunk)  # noqa: PERF401 - what came before the error

    failure = outcome(play)
    assert failure.status
    assert sum(map(len, received)) > 1_000_000


def read(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def test_another_process_may_read_a_pipe_with_all_bytes(
    git: GitProgram, repository: GitRepository
) -> None:
    node = repository.commit({"noise": os.urandom(5_000_000)})

    async def play() -> tuple[bytes, bool]:
        async with git.pipe("archive", "--format=tar", node) as output:
            reading = asyncio.to_thread(read, output.descriptor)
            return await reading, await output.finish()

    received, complete = asyncio.run(play())
    assert received == repository.git_bytes("-c", "tar.umask=002", "archive", node)
    assert complete


def test_git_did_not_fail_if_the_reader_of_its_pipe_ended(
    git: GitProgram, repository: GitRepository
) -> None:
    node = repository.commit({"noise": os.urandom(5_000_000)})

    async def play() -> bool:
        async with git.pipe("archive", "--format=tar", node) as output:
            output.close()
            return await output.finish()

    assert not asyncio.run(play())
    assert children() == []


def test_a_failure_is_raised_at_the_end_of_a_pipe(git: GitProgram) -> None:
    async def play() -> None:
        async with git.pipe("archive", "--format=tar", "0" * 40) as output:
            assert await asyncio.to_thread(read, output.descriptor) == b""
            await output.finish()

    assert outcome(play).status == 128


def test_pipes_leave_no_descriptor_open(git: GitProgram, repository: GitRepository) -> None:
    node = repository.commit(git_repositories.SIMPLE)

    async def play() -> tuple[list[str], list[str]]:
        before = os.listdir("/proc/self/fd")  # noqa: PTH208 - their numbers
        for _ in range(3):
            async with git.pipe("archive", "--format=tar", node):
                pass
        return before, os.listdir("/proc/self/fd")  # noqa: PTH208

    before, after = asyncio.run(play())
    assert len(after) <= len(before) + 1  # asyncio may watch for the ends of processes


@pytest.mark.thorough
def test_a_stream_that_is_left_early_ends_its_process(
    git: GitProgram, repository: GitRepository
) -> None:
    node = repository.commit({"noise": os.urandom(20_000_000)})

    async def play() -> None:
        async with git.stream("archive", "--format=tar", node) as chunks:
            assert await anext(chunks)
            wait_until(lambda: bool(children()), what="a process of git")

    asyncio.run(play())
    assert children() == []


def test_a_cancelled_caller_ends_its_process(git: GitProgram) -> None:
    async def play() -> None:
        async with git.feed(*WAITS):
            started.set()
            await asyncio.Event().wait()

    async def cancel() -> None:
        playing = asyncio.create_task(play())
        await started.wait()
        wait_until(lambda: bool(children()), what="a process of git")
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    started = asyncio.Event()
    asyncio.run(cancel())
    assert children() == []


def test_a_process_ends_at_its_deadline(git: GitProgram) -> None:
    hasty = replace(git, deadline=timedelta(seconds=0.1))

    async def play() -> None:
        async with hasty.stream("-c", "alias.wait=!exec /bin/sleep 1000", "wait") as chunks:
            async for _ in chunks:
                pass

    failure = outcome(play)
    assert "deadline" in str(failure)


@pytest.mark.thorough
def test_processes_that_git_starts_end_with_it(git: GitProgram) -> None:
    async def play() -> list[int]:
        waits = "alias.wait=!/bin/sleep 1000 & echo started; exec /bin/sleep 1000"
        async with git.stream("-c", waits, "wait") as chunks:
            reading = asyncio.ensure_future(anext(chunks))
            await asyncio.to_thread(wait_until, lambda: len(sleeping()) > 1)
            found = sleeping()
            reading.cancel()
            await asyncio.wait({reading})
        return found

    def sleeping() -> list[int]:
        return [pid for pid, name in descendants(os.getpid()).items() if "sleep 1000" in name]

    started = asyncio.run(play())
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


def test_a_killed_process_is_a_failure_with_its_signal(git: GitProgram) -> None:
    async def play() -> None:
        async with git.feed(*WAITS) as child:
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            await child.finish()

    failure = outcome(play)
    assert (failure.status, str(failure)) == (-9, "git cat-file was ended by signal 9")


def test_writing_to_a_process_that_has_ended_raises_its_failure(git: GitProgram) -> None:
    async def play() -> None:
        async with git.feed("index-pack", "--stdin") as child:
            while True:
                await child.write(b"no pack" * 10_000)

    failure = outcome(play)
    assert failure.status == 128
    assert "pack signature mismatch" in failure.stderr


def test_a_failure_is_logged_once_on_one_line_without_control_characters(git: GitProgram) -> None:
    with capture_logs() as lines:
        failure = outcome(lambda: git.run("cat-file", "commit", "a\x1b[31mb\nc"))

    (line,) = (line for line in lines if line["event"] == "git.failed")
    assert line["command"] == "cat-file"
    assert line["status"] == failure.status == 128
    assert str(line["stderr"]).isprintable()
    assert "Not a valid object name" in str(line["stderr"])


def test_git_that_does_not_exist_is_a_failure(git: GitProgram) -> None:
    absent = replace(git, path="/nonexistent/git")

    assert outcome(lambda: absent.run("version")).status == 127


def test_a_git_that_cannot_be_started_is_logged_without_the_text_of_the_system(
    git: GitProgram,
) -> None:
    """Found by the fault campaign: files-short."""

    async def scenario() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(GitFailed):
                await git.run("version")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with capture_logs() as lines:
        asyncio.run(scenario())
    (line,) = lines
    assert line["reason"] == "was not started: EMFILE"
    assert "open files" not in str(line)


def test_memory_is_limited(git: GitProgram) -> None:
    small = replace(git, memory_bytes=64 << 20)

    failure = outcome(lambda: small.run("hash-object", "--stdin", stdin=bytes(128 << 20)))
    assert failure.reached_limit
    assert not outcome(lambda: git.run("cat-file", "commit", "absent")).reached_limit


def test_a_limit_that_the_system_refuses_is_left_out(git: GitProgram) -> None:
    assert asyncio.run(replace(git, memory_bytes=-(1 << 30)).run("version"))


def test_the_configuration_of_the_machine_has_no_effect(
    git: GitProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text("[core]\n\tautocrlf = true\n[user]\n\tname = Someone\n")
    for name, value in {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "Someone",
        "GIT_TRACE": "2",
    }.items():
        monkeypatch.setenv(name, value)

    settings = asyncio.run(git.run("config", "--list")).decode().splitlines()

    assert [line for line in settings if line.startswith("user.")] == []
    assert "core.autocrlf=false" in settings
    assert "core.autocrlf=true" not in settings


SIGNED = """tree {tree}
author A <a@example.org> 1 +0000
committer A <a@example.org> 1 +0000
gpgsig -----BEGIN PGP SIGNATURE-----
 x
 -----END PGP SIGNATURE-----

m
"""


def test_a_signed_commit_cannot_start_gpg(
    git: GitProgram, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {".gitattributes": b"f export-subst\n", "f": b"$Format:%G?$"}
    tree = repository.git("rev-parse", f"{repository.commit(files)}^{{tree}}")
    commit = SIGNED.format(tree=tree).encode()
    node = repository.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=commit)
    ran = tmp_path / "ran"
    gpg = tmp_path / "bin" / "gpg"
    gpg.parent.mkdir()
    gpg.write_text(f"#!/bin/sh\n: > {ran}\n")
    gpg.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gpg.parent}{os.pathsep}{os.environ['PATH']}")

    archived = asyncio.run(git.run("archive", node))
    assert not ran.exists()
    repository.git_bytes("archive", node)
    assert ran.exists(), "git no longer runs gpg, so this test proves nothing"
    assert b"N" in archived


def test_the_installed_git_is_supported() -> None:
    git = find_git()
    require_supported_version(git)

    assert git.version() >= (2, 39, 1)


def test_an_old_git_is_refused_with_the_version_that_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, f"echo git version 2.39.0; echo {tmp_path}")

    with pytest.raises(UnsupportedGit, match=r"git 2\.39\.0: version 2\.39\.1 or later is"):
        require_supported_version(find_git())


def test_versions_of_vendors_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, "echo 'git version 2.50.1 (Apple Git-155)'")

    assert find_git().version() == (2, 50, 1)


@pytest.mark.parametrize("script", ("exit 1", "echo another program"))
def test_another_program_is_not_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    _install(tmp_path, monkeypatch, script)

    with pytest.raises(UnsupportedGit):
        require_supported_version(find_git())


def test_gpg_beside_the_programs_of_git_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, f"echo {tmp_path}")
    (tmp_path / "gpg").write_text("#!/bin/sh\n")
    (tmp_path / "gpg").chmod(0o755)

    with pytest.raises(UnsupportedGit, match="gpg"):
        find_git()


def test_absent_git_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UnsupportedGit, match="not installed"):
        find_git()


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program named git first on PATH."""
    program = folder / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    subprocess.run([program, "version"], check=False, capture_output=True)
