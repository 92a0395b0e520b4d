"""A server that says what a test tells it to, and a way to run commands against it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from archiver.cli import main


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer. A body that is shorter than its Content-Length is a connection cut.

    The body is sent as many ``times``, or until the client has had enough.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1


Saying = Callable[[Mapping[str, str]], Said]
"""Makes an answer to a request with these headers."""


def ranged(content: bytes, *, broken_at: int | None = None, status: int = 206) -> Saying:
    """Return an object of S3, which is sent as a whole or from some byte on.

    If ``broken_at`` is given, each answer breaks off after so many bytes. ``status`` is that of a
    part: 200 for rclone.
    """

    def say(headers: Mapping[str, str]) -> Said:
        start = int(headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        body = content[start:]
        size = {"Content-Length": str(len(body))}
        if not start:
            return Said(headers=size, body=body[:broken_at])
        part = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return Said(status=status, headers=size | part, body=body[:broken_at])

    return say


@dataclass(slots=True, kw_only=True)
class Script:
    """Answers per path, in their order; the last one is repeated. ``asked`` is what came."""

    url: str = ""
    answers: dict[str, list[Said | Saying]] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def say(self, path: str, *answers: Said | Saying) -> None:
        """Answer requests for *path*, or for *path* with this very query."""
        self.answers[path] = list(answers)

    def next(self, target: str, headers: Mapping[str, str]) -> Said:
        answers = self.answers.get(target) or self.answers.get(target.partition("?")[0])
        if not answers:
            return Said(status=404)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer if isinstance(answer, Said) else answer(headers)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore what a command that runs in this process changes: the environment.

    Let SIGINT have its usual effect here and in children. A shell that runs the tests in its
    background has it ignored.
    """
    environment = dict(os.environ)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append((self.path, dict(self.headers)))
            said = script.next(self.path, dict(self.headers))
            size = {"Content-Length": str(len(said.body))} if said.times == 1 else {}
            self.send_response(said.status)
            for name, value in {**size, **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):
                for _ in range(said.times):
                    self.wfile.write(said.body)
            self.close_connection = True

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        script.url = f"http://127.0.0.1:{server.server_port}"
        yield script
        server.shutdown()
        thread.join()


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in an empty folder, as a process would with no settings of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHIVER_CONFIG", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nowhere"))

    def run_command(*words: str, **env: str) -> Result:
        return CliRunner().invoke(main, words, env=env)

    return run_command
