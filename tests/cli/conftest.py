"""A server that says what a test tells it to, and a way to run commands against it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from archiver.cli import main


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer. A body that is shorter than its Content-Length is a connection cut."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True, kw_only=True)
class Script:
    """Answers per path, in their order; the last one is repeated. ``asked`` is what came."""

    url: str = ""
    answers: dict[str, list[Said]] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def say(self, path: str, *answers: Said) -> None:
        self.answers[path] = list(answers)

    def next(self, target: str) -> Said:
        answers = self.answers.get(target.partition("?")[0], [Said(status=404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append((self.path, dict(self.headers)))
            said = script.next(self.path)
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
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

    def run_command(*words: str, **env: str) -> Result:
        return CliRunner().invoke(main, words, env=env)

    return run_command
