"""What ``archiver get`` writes to: files, what is no file, and what is there already."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Said, Script
from tests.cli.test_get import ASKED, CONTENT, OBJECT, PART, WORDS, hit

__all__ = ["hit"]

OWN_NAME = "ash-42bf42bf42bf.tar.gz"


@pytest.fixture(autouse=True)
def served(script: Script, hit: Said) -> None:
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT))


def test_a_link_stays_and_leads_to_the_new_file(run: Run, script: Script, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("older")
    (tmp_path / "here").symlink_to("target")
    assert run(*WORDS, "--server", script.url, "-o", "here").exit_code == 0
    assert (tmp_path / "here").is_symlink()
    assert (tmp_path / "target").read_bytes() == CONTENT


def test_a_device_is_written_to_and_stays(run: Run, script: Script, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("/dev/null")
    result = run(*WORDS, "--server", script.url, "-o", "here")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_fifo_is_written_to_and_stays(run: Run, script: Script, tmp_path: Path) -> None:
    path, came = tmp_path / "here", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: came.append(path.read_bytes()))
    reader.start()
    result = run(*WORDS, "--server", script.url, "-o", "here")
    reader.join()
    assert result.exit_code == 0, result.output
    assert came == [CONTENT]
    assert path.is_fifo()


def test_a_reader_that_has_stopped_does_not_keep_it_beyond_its_time(
    script: Script, hit: Said, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "unread")
    os.mkfifo(tmp_path / "unopened")
    pipe = os.open(tmp_path / "unread", os.O_RDWR)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT))
    words = (*WORDS, "--server", script.url, "--timeout", "0.5", "--quiet")
    with (
        began(*words, "-o", "-", cwd=tmp_path, stdout=pipe) as to_stdout,
        began(*words, "-o", "unread", cwd=tmp_path) as to_fifo,
        began(*words, "-o", "unopened", cwd=tmp_path) as to_nowhere,
    ):
        for process in (to_stdout, to_fifo, to_nowhere):
            said = process.communicate(timeout=30)[1]
            assert (process.returncode, said) == (4, b"Error: not finished after 0.5 s\n")
    os.close(pipe)


@contextmanager
def began(*words: str, cwd: Path, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as a process, which is killed if it still runs at the end of the block."""
    command = (sys.executable, "-m", "archiver", *words)
    with subprocess.Popen(command, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_descriptor_that_is_open_is_written_to(run: Run, script: Script, tmp_path: Path) -> None:
    with (tmp_path / "here").open("w+b") as file:
        result = run(*WORDS, "--server", script.url, "-o", f"/dev/fd/{file.fileno()}")
        assert result.exit_code == 0, result.output
        assert file.read() == CONTENT


@pytest.mark.parametrize("output", (".", "nowhere/", ""))
def test_a_folder_is_refused(run: Run, script: Script, output: str) -> None:
    result = run(*WORDS, "--server", script.url, "-o", output)
    assert result.exit_code in {1, 2}
    assert "-o " in result.stderr


def test_a_file_that_another_process_writes_is_left_to_it(
    run: Run, script: Script, tmp_path: Path
) -> None:
    with (tmp_path / PART).open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        result = run(*WORDS, "--server", script.url, "-o", "here")
    assert result.exit_code == 75
    assert "another process is writing" in result.stderr
    assert (tmp_path / PART).read_bytes() == b""


def test_a_link_in_the_place_of_the_part_is_not_followed(
    run: Run, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / PART).symlink_to("victim")
    result = run(*WORDS, "--server", script.url, "-o", "here")
    assert result.exit_code == 1
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_file_is_not_replaced_under_a_name_that_the_server_chose(
    run: Run, script: Script, tmp_path: Path
) -> None:
    (tmp_path / OWN_NAME).write_text("precious")
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 1
    assert f"{OWN_NAME} exists with other bytes" in result.stderr
    assert (tmp_path / OWN_NAME).read_text() == "precious"
    assert run(*WORDS, "--server", script.url, "--force").exit_code == 0
    assert (tmp_path / OWN_NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("words", ((), ("-o", OWN_NAME)))
def test_a_file_of_the_user_that_has_the_name_of_a_part_is_left_alone(
    run: Run, script: Script, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / f"{OWN_NAME}.part").write_text("precious")
    assert run(*WORDS, "--server", script.url, *words).exit_code == 0
    assert (tmp_path / f"{OWN_NAME}.part").read_text() == "precious"
    assert (tmp_path / OWN_NAME).read_bytes() == CONTENT


def test_what_was_got_before_is_not_downloaded_again(
    run: Run, script: Script, tmp_path: Path
) -> None:
    (tmp_path / OWN_NAME).write_bytes(CONTENT)
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 0, result.output
    assert [target for target, _ in script.asked] == [ASKED + "?suffix=tar.gz"]
    assert "bytes already downloaded, sha256" in result.stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    (((), 1, "--max-bytes allows"), (("--max-bytes", "9" * 18), 75, "bytes free")),
)
def test_more_than_there_may_be_or_is_room_for_is_refused_beforehand(
    run: Run,
    script: Script,
    hit: Said,
    tmp_path: Path,
    words: tuple[str, ...],
    exit_code: int,
    said: str,
) -> None:
    script.say(ASKED, Said(status=302, headers={**hit.headers, "Archiver-Size": "8" * 18}))
    result = run(*WORDS, "--server", script.url, *words)
    assert result.exit_code == exit_code, result.output
    assert said in result.stderr
    assert len(script.asked) == 1
    assert not list(tmp_path.iterdir())
