"""The outputs of ``archiver get``: new files, existing files, devices, FIFOs and pipes."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client.responses import CONTENT, GET, OBJECT, PART, REV_URL
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer

OWN_NAME = "ash-42bf42bf42bf.tar.gz"


@pytest.fixture(autouse=True)
def served(server: ScriptedServer, hit: Response) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT))


def test_a_symbolic_link_stays_and_leads_to_the_new_file(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "target").write_text("older")
    (tmp_path / "here").symlink_to("target")
    assert run(*GET, "--server", server.url, "-o", "here").exit_code == 0
    assert (tmp_path / "here").is_symlink()
    assert (tmp_path / "target").read_bytes() == CONTENT


def test_a_device_is_written_to_and_stays(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("/dev/null")
    result = run(*GET, "--server", server.url, "-o", "here")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_fifo_is_written_to_and_stays(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    path, came = tmp_path / "here", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: came.append(path.read_bytes()))
    reader.start()
    result = run(*GET, "--server", server.url, "-o", "here")
    reader.join()
    assert result.exit_code == 0, result.output
    assert came == [CONTENT]
    assert path.is_fifo()


@pytest.mark.thorough
def test_a_stopped_reader_cannot_delay_the_timeout(
    server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "unread")
    os.mkfifo(tmp_path / "unopened")
    pipe = os.open(tmp_path / "unread", os.O_RDWR)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT))
    words = (*GET, "--server", server.url, "--timeout", "0.5", "--quiet")
    with (
        began(*words, "-o", "-", cwd=tmp_path, stdout=pipe) as to_stdout,
        began(*words, "-o", "unread", cwd=tmp_path) as to_fifo,
        began(*words, "-o", "unopened", cwd=tmp_path) as to_nowhere,
    ):
        for process in (to_stdout, to_fifo, to_nowhere):
            said = process.communicate(timeout=30)[1]
            assert process.returncode == 4
            assert said.startswith(b"Error: not finished after 0.5 s\nHint: ")
    os.close(pipe)


@contextmanager
def began(*words: str, cwd: Path, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process, and kill it at the end of the block."""
    command = (sys.executable, "-m", "archiver", *words)
    with subprocess.Popen(command, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_open_descriptor_is_written_to(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    with (tmp_path / "here").open("w+b") as file:
        result = run(*GET, "--server", server.url, "-o", f"/dev/fd/{file.fileno()}")
        assert result.exit_code == 0, result.output
        assert file.read() == CONTENT


@pytest.mark.parametrize("output", (".", "nowhere/", ""))
def test_a_directory_is_rejected(run: Run, server: ScriptedServer, output: str) -> None:
    result = run(*GET, "--server", server.url, "-o", output)
    assert result.exit_code in {1, 2}
    assert "-o " in result.stderr


def test_a_file_that_another_process_writes_is_left_alone(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    with (tmp_path / PART).open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        result = run(*GET, "--server", server.url, "-o", "here", "--timeout", "0.5")
    assert result.exit_code == 4
    assert "another process is writing" in result.stderr
    assert (tmp_path / PART).read_bytes() == b""


def test_a_symbolic_link_in_place_of_the_part_is_not_followed(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / PART).symlink_to("victim")
    result = run(*GET, "--server", server.url, "-o", "here")
    assert result.exit_code == 1
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_file_is_not_replaced_under_a_name_chosen_by_the_server(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / OWN_NAME).write_text("precious")
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 1
    assert f"{OWN_NAME} exists with other bytes" in result.stderr
    assert (tmp_path / OWN_NAME).read_text() == "precious"
    assert run(*GET, "--server", server.url, "--force").exit_code == 0
    assert (tmp_path / OWN_NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("words", ((), ("-o", OWN_NAME)))
def test_a_users_file_with_a_name_like_a_part_is_left_alone(
    run: Run, server: ScriptedServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / f"{OWN_NAME}.part").write_text("precious")
    assert run(*GET, "--server", server.url, *words).exit_code == 0
    assert (tmp_path / f"{OWN_NAME}.part").read_text() == "precious"
    assert (tmp_path / OWN_NAME).read_bytes() == CONTENT


def test_a_complete_file_is_not_downloaded_again(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / OWN_NAME).write_bytes(CONTENT)
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0, result.output
    assert [target for target, _ in server.requests] == [REV_URL + "?suffix=tar.gz"]
    assert "bytes already downloaded, sha256" in result.stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    (((), 1, "--max-bytes allows"), (("--max-bytes", "9" * 18), 75, "bytes free")),
)
def test_an_archive_over_the_limit_or_the_free_space_is_rejected_beforehand(
    run: Run,
    server: ScriptedServer,
    hit: Response,
    tmp_path: Path,
    words: tuple[str, ...],
    exit_code: int,
    said: str,
) -> None:
    server.respond(
        REV_URL, Response(status=302, headers={**hit.headers, "Archiver-Size": "8" * 18})
    )
    result = run(*GET, "--server", server.url, *words)
    assert result.exit_code == exit_code, result.output
    assert said in result.stderr
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())
