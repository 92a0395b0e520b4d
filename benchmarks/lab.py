"""The equipment of the topics: inputs, a host, and Archiver with real servers."""

import http
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

from benchmarks.inputs import BASENAME, NODE, Input, Inputs
from tests.parts.process import accepts, free_port, running
from tests.system.client import fetch, succeed
from tests.system.stack import REGIONS, UNLIMITED, Process, Stack, servers

TIMEOUT_S = 1800.0

_runs = count(1)


def next_run() -> str:
    """Return a name that is new to Archiver."""
    return f"run-{next(_runs)}"


def new_repo(archive: Input) -> str:
    """Return the name of a repository that is new to Archiver, with *archive* on the host."""
    return f"{next_run()}/{archive.name}/{BASENAME}"


class Templated(Protocol):
    """A host of any kind."""

    @property
    def template(self) -> str:
        """The ``url_template`` of a source for this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A running host: see ``benchmarks.host``."""

    address: str

    @property
    def template(self) -> str:
        return f"{self.address}/{{repo}}/archive/{{rev}}.{{suffix}}/{{subdir}}"

    def url(self, archive: Input) -> str:
        return f"{self.address}/{new_repo(archive)}/archive/{NODE[:12]}.tar.gz"

    def fetched(self, repo: str) -> int:
        """Return how often the archive of *repo* was fetched."""
        return int(fetch(f"{self.address}/{repo}?fetched").body)

    def ended_at(self, repo: str) -> float:
        """Wait until the host has sent the archive of *repo*; return the time of its last byte."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if ended := fetch(f"{self.address}/{repo}?ended").body:
                return float(ended)
        raise TimeoutError(f"the host did not send all of {repo}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A region: an S3 endpoint and the folder behind it."""

    region: str
    endpoint: str
    bucket: str
    access_key_id: str
    secret_access_key: str
    folder: Path

    def path(self, key: str) -> Path:
        return self.folder / key


def buckets(stack: Stack) -> list[Bucket]:
    """Return the configured regions of *stack*."""
    regions = json.loads(stack.env["ARCHIVER_REGIONS"])
    return [
        Bucket(region=name, folder=stack.folder / name / region["bucket"], **region)
        for name, region in regions.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A running Archiver: one web process, one worker, NATS, and S3 servers for two regions."""

    stack: Stack
    worker: Process

    @property
    def buckets(self) -> list[Bucket]:
        return buckets(self.stack)

    @property
    def servers(self) -> list[Process]:
        """The S3 servers."""
        return [server.process for server in self.stack.regions.values() if server.process]

    def url(self, repo: str) -> str:
        return self.stack.url(repo, NODE)

    def store(self, archive: Input) -> float:
        """Build *archive* from a new repository, and return the seconds from GET to SUCCESS."""
        started = time.monotonic()
        succeed(self.url(new_repo(archive)), timeout_s=TIMEOUT_S)
        return time.monotonic() - started

    def redirect(self, repo: str, node: str, query: str) -> float:
        """Return the seconds from the request for an archive to the redirect to a region.

        The *query* has a ``wait``.
        """
        url = self.stack.url(repo, node, query)
        started = time.monotonic()
        while url.startswith(self.stack.public):
            answer = fetch(url)
            if answer.status != http.HTTPStatus.FOUND:
                raise RuntimeError(f"{node} was not built: {answer}")
            url = answer.location
        return time.monotonic() - started

    def empty(self) -> None:
        """Delete all objects. The folders stay, because the servers cache them."""
        for bucket in self.buckets:
            for path in bucket.folder.rglob("*"):
                if path.is_file():
                    path.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Each contestant runs ``rounds`` times. ``folder`` is deleted after the run."""

    inputs: Inputs
    folder: Path
    rounds: int

    @contextmanager
    def host(self, *archives: Input, rate: float = 0) -> Iterator[Host]:
        """Yield a host that sends at most *rate* bytes per second; 0 is unlimited."""
        port = free_port()
        named = [f"{a.name}={':'.join(map(str, a.pieces))}" for a in archives]
        command = [sys.executable, "-m", "benchmarks.host", str(port), str(rate), *named]
        with running(command, log=self.folder / "host.log", ready=lambda: accepts(port)):
            yield Host(address=f"http://127.0.0.1:{port}")

    @contextmanager
    def faraway(self) -> Iterator[Mapping[str, str]]:
        """Yield settings for regions that use almost no CPU of this machine."""
        regions = {}
        with ExitStack() as stack:
            for name in REGIONS:
                port = free_port()
                command = [sys.executable, "-m", "benchmarks.faraway", str(port)]
                log = self.folder / f"faraway-{name}.log"
                stack.enter_context(running(command, log=log, ready=partial(accepts, port)))
                regions[name] = {
                    "bucket": "bucket",
                    "endpoint": f"http://127.0.0.1:{port}",
                    "access_key_id": "anyone",
                    "secret_access_key": "anything",
                }
            yield {"ARCHIVER_REGIONS": json.dumps(regions)}

    @contextmanager
    def installation(
        self, host: Templated, settings: Mapping[str, str] | None = None
    ) -> Iterator[Installation]:
        """Yield a new Archiver for archives of *host*."""
        with self.servers(host, settings) as parts, parts.web(), parts.worker() as worker:
            yield Installation(stack=parts, worker=worker)

    @contextmanager
    def servers(
        self, host: Templated, settings: Mapping[str, str] | None = None
    ) -> Iterator[Stack]:
        """Yield new servers, NATS and the regions, without processes of Archiver."""
        settings = {"ARCHIVER_ENGINE__LEASE_S": "20", **UNLIMITED, **(settings or {})}
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder)
            yield stack.enter_context(servers(folder, template=host.template, settings=settings))


@contextmanager
def open_lab(inputs: Inputs, *, rounds: int) -> Iterator[Lab]:
    """Yield a lab. Its folder needs about 20 GB, and is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder:
        os.environ["NO_PROXY"] = "127.0.0.1"
        yield Lab(inputs=inputs, folder=Path(folder), rounds=rounds)
