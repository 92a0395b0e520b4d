"""``archiver index rebuild`` after the loss of everything except the buckets."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.parts.hgweb import Hgweb, Repository
from tests.parts.json_output import documents
from tests.system.client import fetch, succeed
from tests.system.stack import REGIONS, Stack, servers

pytestmark = pytest.mark.thorough


def rebuild(stack: Stack, *words: str) -> tuple[int, dict[str, Any], str]:
    """Run ``archiver index rebuild --json``; return its exit code, report and standard error."""
    ended = subprocess.run(
        [sys.executable, "-m", "archiver", "index", "rebuild", "--json", *words],
        env={**os.environ, **stack.env},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, next(iter(documents(ended.stdout)), {}), ended.stderr


def responds_soon(url: str, status: int) -> bool:
    """Return whether *url* responds with *status* within a second."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if fetch(url).status == status:
            return True
        time.sleep(0.02)
    return False


def wipe(stack: Stack) -> None:
    """Delete all data of the engine."""
    stack.nats.down()
    shutil.rmtree(stack.folder / "nats" / "store")
    stack.nats.up()


def test_a_rebuild_restores_lookups_by_sha256_after_the_loss_of_the_engine(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me"})
    with servers(tmp_path, template=hgweb.template) as stack:
        with stack.web(), stack.worker():
            url = f"{stack.public}/get/hgmo/{fresh.name}/{node}.tar.gz"
            sha256 = succeed(stack.url(fresh.name, node))["sha256"]
            by_sha256 = f"{stack.public}/sha256/{sha256}"

            checksum = fetch(f"{url}.sha256")
            assert checksum.body == f"{sha256}  {node}.tar.gz\n".encode()
            found = fetch(f"{by_sha256}?preferred_region=us-west-2")
            assert (found.status, found.headers["Archiver-Region"]) == (302, "us-west-2")
            assert hashlib.sha256(fetch(found.location).body).hexdigest() == sha256
            headed = fetch(by_sha256, method="HEAD")
            assert fetch(headed.location, method="HEAD").status == 200

        wipe(stack)
        with stack.web():
            assert fetch(by_sha256).status == 404
            assert fetch(url).status == 302  # indexes the SHA-256 again, so wipe again
        wipe(stack)
        with stack.web():
            assert fetch(by_sha256).status == 404
            code, report, errors = rebuild(stack)
            assert (code, report["written"], report["dropped"]) == (0, 1, 0), errors
            assert "1 archive: 1 written, 0 kept, 0 dropped" in errors
            assert responds_soon(by_sha256, 302)  # a notification ends the 10 s of a cached 404
            assert rebuild(stack)[1]["kept"] == 1

            for region in REGIONS:
                shutil.rmtree(tmp_path / region / "bucket" / "manifests")
            stack.regions[REGIONS[1]].down()
            code, report, errors = rebuild(stack)
            assert (code, report["dropped"], report["silent"]) == (75, 0, [REGIONS[1]]), errors
            assert fetch(by_sha256).status == 302
