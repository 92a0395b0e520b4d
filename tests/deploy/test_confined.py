"""Web processes and workers do their work under the filters of their units (`make clients`)."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import git_repositories
from tests.parts.git_host import REPO, serving_git
from tests.parts.hgweb import Hgweb, Repository
from tests.parts.process import accepts, running
from tests.system.client import fetch, succeed
from tests.system.stack import Stack, servers

pytestmark = pytest.mark.programs


def confined(unit: str, *command: str) -> list[str]:
    python = [sys.executable, "-m"]
    return [*python, "tests.deploy.confined", unit, *python, "archiver", *command]


@contextlib.contextmanager
def fleet(stack: Stack) -> Iterator[None]:
    """Run a web process and a worker, both confined."""
    log = stack.folder / "worker.log"

    def started() -> bool:
        return log.exists() and b"worker.started" in log.read_bytes()

    web = confined("archiver-web.service", "web")
    worker = confined("archiver-worker@.service", "worker")
    with (
        running(
            web, log=stack.folder / "web.log", ready=lambda: accepts(stack.port), env=stack.env
        ),
        running(worker, log=log, ready=started, env=stack.env, stop_timeout_s=20),
    ):
        yield


def test_archives_are_fetched_converted_and_made_by_git(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me"})
    with serving_git(tmp_path / "git") as host:
        commit = host.create().commit(git_repositories.SIMPLE)
        settings = {
            "ARCHIVER_SOURCES__LAB__KIND": "git",
            "ARCHIVER_SOURCES__LAB__URL_TEMPLATE": host.template,
            "ARCHIVER_SOURCES__HGMO__FETCH_SUFFIX": "zip",
            "ARCHIVER_WORKER__MIRROR_DIR": str(tmp_path / "mirrors"),
            "ARCHIVER_WORKER__WORK_DIR": str(tmp_path / "work"),
            "ARCHIVER_SERVER__PROCESSES": "2",
        }
        with servers(tmp_path, template=hgweb.template, settings=settings) as stack, fleet(stack):
            for suffix in ("zip", "tar.xz", "tar.zst"):
                succeed(stack.url(fresh.name, node, f"suffix={suffix}"))
            made = succeed(f"{stack.public}/archiver/lab/{REPO}/{commit}")
            assert fetch(next(iter(made["s3_urls"].values()))).status == 200
            assert fetch(f"{stack.public}/metrics").status == 200
            assert fetch(f"{stack.public}/__heartbeat__").status == 200
            assert "PermissionError" not in stack.logs()


@pytest.mark.parametrize(
    ("attempt", "error"),
    (
        ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "PermissionError"),
        ("import os; os.chroot('/')", "PermissionError"),
        ("import mmap; mmap.mmap(-1, 4096, prot=7)", "PermissionError"),
    ),
)
def test_what_the_unit_forbids_is_forbidden(attempt: str, error: str) -> None:
    command = [sys.executable, "-m", "tests.deploy.confined", "archiver-worker@.service"]
    result = subprocess.run(
        [*command, sys.executable, "-c", attempt], check=False, capture_output=True, text=True
    )
    assert error in result.stderr
