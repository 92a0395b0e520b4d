"""``archiver demo``, from start to end."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from archiver.demo.demo import DEFAULT_PORT, choose_address
from tests.parts.process import free_port, running


def test_the_demo_explains_why_it_does_not_use_the_default_port() -> None:
    with ExitStack() as taken:
        with suppress(OSError):  # another program has it already
            taken.enter_context(socket.create_server(("127.0.0.1", DEFAULT_PORT)))
        listen, why = choose_address(None)
        assert not listen.endswith(f":{DEFAULT_PORT}")
        assert f"port {DEFAULT_PORT}" in why
    assert choose_address("127.0.0.1:1") == ("127.0.0.1:1", "")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("shown", "exit_code"), (("Archiver, from scratch", 130), ("Ctrl-C stops the demo", 0))
)
def test_a_signal_stops_the_demo_and_leaves_no_files(
    tmp_path: Path, shown: str, exit_code: int
) -> None:
    log, folder = tmp_path / "log", tmp_path / "demo"
    folder.mkdir()
    log.touch()
    with running(
        (sys.executable, "-m", "archiver", "demo", "--listen", f"127.0.0.1:{free_port()}"),
        log=log,
        ready=lambda: shown in log.read_text(),
        env={"TMPDIR": str(folder)},
        cwd=folder,
    ) as demo:
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == exit_code
    assert not list(folder.iterdir())


@pytest.mark.thorough
def test_the_demo_passes_its_checks_prints_plain_lines_and_leaves_no_files(tmp_path: Path) -> None:
    ended = subprocess.run(
        (
            sys.executable,
            "-m",
            "archiver",
            "demo",
            "--once",
            "--listen",
            f"127.0.0.1:{free_port()}",
        ),
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert "202 Accepted" in ended.stdout
    assert ended.stdout.count("302 Found") == 2
    assert "✗" not in ended.stdout
    assert not re.search(r"[^\n -~✓…·]", ended.stdout)
    assert "X-Amz" not in ended.stdout
    assert not list(tmp_path.iterdir())
