"""A complete installation on loopback: NATS, one S3 server per region, web and worker processes."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts import nats as nats_part
from tests.parts.process import accepts, free_port, running, wait_until
from tests.parts.sigv4 import sign
from tests.system.client import fetch

REGIONS = ("us-east-1", "us-west-2")
LEASE_S = 2.0

UNLIMITED = {
    f"ARCHIVER_LIMITS__{limit}": "0"
    for limit in ("OPEN_TASKS", "TASKS_PER_MINUTE", "LOOKUPS_PER_MINUTE")
}
"""Settings for one client that wants more than any other gets."""

Process = subprocess.Popen[bytes]


def binary(name: str) -> str:
    beside = Path(sys.executable).parent / name
    return str(beside if beside.exists() else shutil.which(name) or name)


@dataclass(slots=True)
class Server:
    """A child process that can be stopped and restarted at the same port."""

    start: list[str]
    port: int
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def up(self) -> None:
        self.process = self._stack.enter_context(
            running(self.start, log=self.log, ready=lambda: accepts(self.port), env=self.env)
        )

    def down(self) -> None:
        self._stack.close()
        self.process = None


class Stack:
    """The servers and settings of one fleet. ``public`` is the URL of its only web process."""

    def __init__(self, folder: Path, *, template: str, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.nats = self._nats()
        self.regions = {name: self._region(name) for name in REGIONS}
        self.port = free_port()
        self.public = f"http://127.0.0.1:{self.port}"
        self.env = {
            "ARCHIVER_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "ARCHIVER_SERVER__PROCESSES": "1",
            "ARCHIVER_ENGINE__URL": f"nats://127.0.0.1:{self.nats.port}",
            "ARCHIVER_ENGINE__LEASE_S": str(LEASE_S),
            "ARCHIVER_REGIONS": json.dumps(
                {name: self._bucket(server) for name, server in self.regions.items()}
            ),
            "ARCHIVER_SOURCES__HGMO__URL_TEMPLATE": template,
            "ARCHIVER_WORKER__REPAIR_INTERVAL_S": "0.5",
            "ARCHIVER_WORKER__RETRY_BASE_S": "0.2",
            "ARCHIVER_LOG__FORMAT": "json",
            "PATH": os.environ["PATH"],
            **settings,
        }

    def _nats(self) -> Server:
        folder = self.folder / "nats"
        folder.mkdir()
        port = free_port()
        return Server(nats_part.command(folder, port), port, self.folder / "nats.log")

    def _region(self, name: str) -> Server:
        (self.folder / name / "bucket").mkdir(parents=True)
        port = free_port()
        command = [binary("rclone"), "serve", "s3", "--config", os.devnull]
        command += ["--no-checksum", "--etag-hash", ""]
        command += ["--addr", f"127.0.0.1:{port}", "--dir-cache-time", "9999h"]
        env = {"RCLONE_AUTH_KEY": f'"{self._key},{self._secret}"'}  # a list, as CSV
        return Server(
            [*command, str(self.folder / name)], port, self.folder / f"{name}.log", env=env
        )

    _key = "AKIDTEST"
    _secret = secrets.token_hex(16)

    def _bucket(self, server: Server) -> dict[str, str]:
        return {
            "bucket": "bucket",
            "endpoint": f"http://127.0.0.1:{server.port}",
            "access_key_id": self._key,
            "secret_access_key": self._secret,
        }

    @contextlib.contextmanager
    def web(self, settings: Mapping[str, str] | None = None) -> Iterator[Process]:
        start = [sys.executable, "-m", "archiver", "web"]
        log, env = self.folder / "web.log", {**self.env, **(settings or {})}
        with running(start, log=log, ready=self._web_is_up, env=env) as process:
            yield process

    def _web_is_up(self) -> bool:
        return accepts(self.port) and fetch(f"{self.public}/__lbheartbeat__").status == 200

    @contextlib.contextmanager
    def worker(self, name: str = "worker") -> Iterator[Process]:
        start = [sys.executable, "-m", "archiver", "worker"]
        log = self.folder / f"{name}.log"

        def ready() -> bool:
            return log.exists() and b"worker.started" in log.read_bytes()

        with running(start, log=log, ready=ready, env=self.env, stop_timeout_s=20) as process:
            yield process

    def url(self, repo: str, rev: str, query: str = "") -> str:
        return f"{self.public}/archiver/hgmo/{repo}/{rev}{'?' if query else ''}{query}"

    def visible(self, region: str) -> list[Path]:
        """Return the files of a region's bucket. rclone stores each object as a file."""
        bucket = self.folder / region / "bucket"
        return [path for path in bucket.rglob("*") if path.is_file()]

    def delete(self, region: str, folder: str) -> None:
        """Delete all objects in a folder of a region's bucket by requests to its server."""
        root = self.folder / region
        for path in self.visible(region):
            if path.relative_to(root / "bucket").parts[0] == folder:
                self._request("DELETE", region, f"/{path.relative_to(root)}")

    def _request(self, method: str, region: str, path: str) -> None:
        host = f"127.0.0.1:{self.regions[region].port}"
        target, headers = sign(
            method,
            host=host,
            path=path,
            query={},
            body=b"",
            access_key=self._key,
            secret_key=self._secret,
        )
        answer = fetch(f"http://{host}{target}", method=method, headers=headers)
        assert answer.status == 204, answer

    def line(self, words: str) -> str:
        """Wait for the only line that contains *words* in the logs of our processes."""
        (line,) = self.lines(words)
        return line

    def lines(self, words: str) -> list[str]:
        """Wait until log lines contain *words*, and return them.

        A line may be written later than the event: after the response to the request, or after
        the change of the task's state.
        """
        wait_until(lambda: words in self.logs(), what=f"a line with {words}")
        return [line for line in self.logs().splitlines() if words in line]

    def logs(self) -> str:
        """Return the logs of the web and worker processes."""
        return "".join(
            path.read_text(errors="replace")
            for path in self.folder.glob("*.log")
            if path.stem.startswith(("web", "worker"))
        )


@contextlib.contextmanager
def servers(
    folder: Path, *, template: str, settings: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Yield a stack with running NATS and S3 servers. The caller starts web and workers."""
    stack = Stack(folder, template=template, settings=settings or {})
    with contextlib.ExitStack() as running_servers:
        for server in (stack.nats, *stack.regions.values()):
            server.up()
            running_servers.callback(server.down)
        yield stack
