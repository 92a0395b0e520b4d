"""Progress without a terminal: a line at intervals, for logs of CI."""

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from archiver.cli.progress import BarOfLines, ProgressLines, byte_progress


def test_a_line_is_written_at_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    bar = BarOfLines(ProgressLines(interval_s=0, unit=" bytes"))
    bar.update("queued", 0)
    bar.update("download", 0, 2000)
    bar.advance(1500)
    assert capsys.readouterr().err.splitlines() == [
        "queued",
        "download",
        "download: 1,500 of 2,000 bytes",
    ]


def test_quiet_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with byte_progress(quiet=True) as bar:
        bar.update("download", 1, 2)
        bar.advance(3)
    assert capsys.readouterr().err == ""


DRAWN = """
from archiver.cli.progress import echo_result, open_reporter
with open_reporter(quiet=False) as show:
    show("reading", 1, 10)
    echo_result("a result")
    show("reading", 2, 10)
"""


def run_on_terminal(*, piped: bool) -> tuple[str, str]:
    """Return what a program with a bar writes to the terminal, and to a pipe."""
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", DRAWN],
        stdout=subprocess.PIPE if piped else other_end,
        stderr=other_end,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(other_end)
    shown = b""
    with process:
        with suppress(OSError):  # the end of a terminal
            while read := os.read(terminal, 65_536):
                shown += read
        result = process.stdout.read() if process.stdout else b""
    os.close(terminal)
    assert process.returncode == 0
    return shown.decode(), result.decode()


def test_a_result_is_a_line_above_the_bar() -> None:
    shown, _ = run_on_terminal(piped=False)
    assert "\x1b[2Ka result\r\n" in shown


def test_a_result_goes_to_a_pipe_although_a_bar_is_drawn() -> None:
    shown, result = run_on_terminal(piped=True)
    assert result == "a result\n"
    assert "a result" not in shown
    assert "reading" in shown
