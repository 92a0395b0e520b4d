"""A fleet with a slow host, and repositories without archives."""

import json
import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.parts.hgweb import Hgweb
from tests.parts.slow_host import SlowHost, slow_host
from tests.programs.project import Project
from tests.system.stack import REGIONS, Stack, servers

HOLD_S = 1
RATE = 400_000
"""Rate of the host in bytes per second."""

WITHOUT_PORT = "http://s3.test"
"""Public endpoint of the second region. It has the default port, for clients that omit the port."""

PROJECT = {
    "ash.py": b'GREETING = "hello"\n',
    "build.py": Path(__file__).with_name("backend.py").read_bytes(),
    "pyproject.toml": b"""\
[build-system]
build-backend = "build"
backend-path = ["."]
requires = []
""",
}
FILES = {
    **PROJECT,
    **{f"python/ash/{name}": content for name, content in PROJECT.items()},
    "python/ash/ash.py": b'GREETING = "a part says hello"\n',
    "BUILD.bazel": b'exports_files(["ash.py"])\n',
}

Seconds = float
Projects = Callable[[Seconds], Project]


@pytest.fixture(scope="session")
def host(hgweb: Hgweb) -> Iterator[SlowHost]:
    with slow_host(hgweb.port) as host:
        host.rate = RATE
        yield host


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, hgweb: Hgweb, host: SlowHost
) -> Iterator[Stack]:
    settings = {"ARCHIVER_SERVER__HOLD_S": str(HOLD_S), "ARCHIVER_SERVER__PROCESSES": "1"}
    folder, template = tmp_path_factory.mktemp("stack"), hgweb.template_for(host.port)
    with servers(folder, template=template, settings=settings) as stack:
        regions = json.loads(stack.env["ARCHIVER_REGIONS"])
        regions[REGIONS[1]]["public_endpoint"] = WITHOUT_PORT
        stack.env["ARCHIVER_REGIONS"] = json.dumps(regions)
        with stack.web(), stack.worker():
            yield stack


@pytest.fixture
def projects(stack: Stack, hgweb: Hgweb) -> Projects:
    """Return a function that creates a project whose fetch takes the given number of seconds."""

    def create(seconds: float) -> Project:
        repository = hgweb.create(f"fresh/{secrets.token_hex(4)}")
        noise = random.Random(repository.name).randbytes(round(RATE * seconds))  # noqa: S311
        node = repository.commit({**FILES, "noise.dat": noise})
        return Project(server=stack.public, hgweb=hgweb, repo=repository.name, node=node)

    return create


def got_503(stack: Stack, project: Project) -> bool:
    """Return whether a waiting request for *project* ended with a 503."""
    lines = stack.logs().splitlines()
    return any(project.node in line and "not_ready_yet" in line for line in lines)
