"""``archiver serve`` as a process: its start, its restarts and its end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from archiver.cli.serve import is_healthy, print_summary
from archiver.settings import Settings
from tests.parts.process import descendants, free_port, running, wait_until
from tests.parts.scripted_server import Response, ScriptedServer

STATE_FILES = ("credentials.json", "ports.json")
SERVE = (sys.executable, "-m", "archiver", "serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    process: subprocess.Popen[bytes]
    port: int

    def answers(self, path: str = "/__lbheartbeat__") -> bool:
        return answers(self.port, path)


def answers(port: int, path: str) -> bool:
    with (
        suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as response,
    ):
        return bool(response.status == 200)
    return False


def environment(folder: Path, port: int) -> dict[str, str]:
    return {
        "ARCHIVER_DATA_DIR": str(folder / "data"),
        "ARCHIVER_SERVER__LISTEN": f"127.0.0.1:{port}",
        "ARCHIVER_WORKER__GRACE_S": "1",
    }


@contextmanager
def serving(folder: Path, port: int) -> Iterator[Serving]:
    log = folder / "log"
    log.write_bytes(b"")
    with running(
        SERVE,
        log=log,
        ready=lambda: f"http://127.0.0.1:{port}/archiver" in log.read_text(),
        env=environment(folder, port),
        cwd=folder,
        stop_timeout_s=20,
    ) as process:
        yield Serving(process=process, port=port)


@contextmanager
def failing_run(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Start a run that is expected to fail, and stop it at the end of the block."""
    with subprocess.Popen(
        SERVE,
        env={**os.environ, **environment(folder, port)},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def beside(folder: Path, *command: str) -> str:
    """Run a command that uses the embedded servers, and return its standard error."""
    return subprocess.run(
        (sys.executable, "-m", "archiver", *command),
        env={**os.environ, "ARCHIVER_DATA_DIR": str(folder / "data")},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    ).stderr


def child_with(pid: int, words: str) -> int:
    """Return the child with *words* in its command line. Raises StopIteration without one."""
    return next(child for child, command in descendants(pid).items() if words in command)


@pytest.mark.thorough
def test_serve_rejects_a_second_run_restarts_children_and_exits_with_0(tmp_path: Path) -> None:
    with (
        serving(tmp_path, free_port()) as it,
        failing_run(tmp_path, free_port()) as rival,
    ):
        wait_until(lambda: it.answers("/__heartbeat__"), what="its health", timeout_s=20)
        for words in ("archiver web", "nats-server"):
            killed = child_with(it.process.pid, words)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{killed}").exists(), what="an end")  # noqa: B023
        wait_until(lambda: it.answers("/__heartbeat__"), what="its health", timeout_s=20)
        assert "is in use by another `archiver serve`" in rival.communicate(timeout=20)[1]
        assert rival.returncode == 1
        children = descendants(it.process.pid)
        assert len(children) >= 5
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(20) == 0
        # what multiprocessing starts beside the web processes ends when it sees that they have
        wait_until(
            lambda: not any(Path(f"/proc/{child}").exists() for child in children),
            what="the end of every process",
            timeout_s=2,
        )


@pytest.mark.thorough
def test_an_address_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        with failing_run(tmp_path, port) as process:
            said = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert f"127.0.0.1:{port} is in use by another program" in said


@pytest.mark.thorough
def test_a_run_after_a_kill_has_the_same_addresses_and_secrets(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, port) as it:
        kept = {name: (tmp_path / "data" / name).read_text() for name in STATE_FILES}
        it.process.kill()
    with serving(tmp_path, port) as it:
        wait_until(lambda: it.answers("/__heartbeat__"), what="its health", timeout_s=20)
        assert {name: (tmp_path / "data" / name).read_text() for name in STATE_FILES} == kept
        assert "0 archives: 0 written" in beside(tmp_path, "index", "rebuild")


@pytest.mark.thorough
def test_the_second_signal_kills_everything(tmp_path: Path) -> None:
    with serving(tmp_path, free_port()) as it:
        worker = child_with(it.process.pid, "archiver worker")
        os.kill(worker, signal.SIGSTOP)  # so it cannot end but by being killed
        it.process.send_signal(signal.SIGINT)
        wait_until(lambda: not it.answers(), what="the end of the web process")
        it.process.send_signal(signal.SIGINT)
        assert it.process.wait(5) == 0
        assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize(
    ("elsewhere", "asked"),
    (
        ({}, 0),
        ({"engine": {"url": "nats://127.0.0.1:1"}}, 2),
        ({"regions": {"us-east-1": {"bucket": "archives"}}}, 2),
    ),
    ids=("nothing", "engine", "regions"),
)
def test_serve_is_healthy_once_its_configured_servers_respond(
    server: ScriptedServer, elsewhere: Mapping[str, object], asked: int
) -> None:
    server.respond("/__heartbeat__", Response(status=500), Response())
    listen = server.url.removeprefix("http://")
    settings = Settings.model_validate({"server": {"listen": listen}, **elsewhere})
    assert asyncio.run(is_healthy(settings))
    assert len(server.requests) == asked


@pytest.mark.parametrize("healthy", (True, False))
def test_a_request_is_suggested_only_if_everything_is_healthy(
    capsys: pytest.CaptureFixture[str], *, healthy: bool
) -> None:
    print_summary(Settings(), healthy=healthy)
    said = capsys.readouterr().err
    assert ("curl -i" in said) is healthy
    assert ("/__heartbeat__ and the log" in said) is not healthy
