"""Archives in every format from a host that serves only zip, like hg.mozilla.org."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts.hgweb import Ash, Hgweb, Repository
from tests.parts.slow_host import SlowHost, slow_host
from tests.system.client import fetch, poll, stored, succeed
from tests.system.stack import REGIONS, Stack, servers

pytestmark = pytest.mark.thorough

SUFFIXES = ("tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tar", "zip")
ONLY_ZIP = {"ARCHIVER_SOURCES__HGMO__FETCH_SUFFIX": "zip"}
NO_SUBDIRS = {**ONLY_ZIP, "ARCHIVER_SOURCES__HGMO__SUBDIRS": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    stack: Stack
    host: SlowHost

    def body(self, result: dict[str, Any]) -> bytes:
        bodies = [fetch(url).body for url in result["s3_urls"].values()]
        assert len(bodies) == len(REGIONS)
        assert len(set(bodies)) == 1
        assert hashlib.sha256(bodies[0]).hexdigest() == result["sha256"]
        return bodies[0]

    def manifests(self) -> list[dict[str, Any]]:
        paths = self.stack.visible(REGIONS[0])
        return [json.loads(path.read_text()) for path in paths if path.suffix == ".json"]


@pytest.fixture(params=(ONLY_ZIP, NO_SUBDIRS), ids=("subdirs", "no-subdirs"))
def fleet(request: pytest.FixtureRequest, tmp_path: Path, hgweb: Hgweb) -> Iterator[Fleet]:
    settings = {**request.param, "ARCHIVER_WORKER__WORK_DIR": str(tmp_path / "work")}
    with (
        slow_host(hgweb.port) as host,
        servers(tmp_path, template=hgweb.template_for(host.port), settings=settings) as stack,
        stack.web(),
        stack.worker(),
    ):
        yield Fleet(stack=stack, host=host)


def members(tar: bytes) -> list[tuple[str, int, int | float, bytes, str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return [
            (
                member.name,
                member.mode,
                member.mtime,
                member.type,
                member.linkname,
                file.read() if (file := archive.extractfile(member)) and member.isfile() else b"",
            )
            for member in archive
        ]


def test_all_formats_of_a_tree_are_made_from_one_zip_of_the_host(
    fleet: Fleet, hgweb: Hgweb, fresh: Repository
) -> None:
    script = fresh.path / "run.sh"
    fresh.write({"run.sh": b"#!/bin/sh\n", "a/caf\N{LATIN SMALL LETTER E WITH ACUTE}": b"x"})
    script.chmod(0o755)
    (fresh.path / "link").symlink_to("a/../run.sh")
    node = fresh.commit()

    url = fleet.stack.url(fresh.name, node)
    bodies = {suffix: fleet.body(succeed(f"{url}?suffix={suffix}")) for suffix in SUFFIXES}
    part = fleet.body(succeed(f"{url}?suffix=tar&subdir=a"))

    assert [target.rpartition(".")[2] for target in fleet.host.archives()] == ["zip"]
    own = gzip.decompress(hgweb.archive(fresh.name, node, "tar.gz"))
    assert members(bodies["tar"]) == members(own)
    assert gzip.decompress(bodies["tar.gz"]) == bodies["tar"]
    assert {member[0] for member in members(part)} == {
        name for name, *_ in members(own) if "/a/" in name
    }
    conversions = [manifest["conversion"] for manifest in fleet.manifests()]
    assert all(conversions[0][key] for key in ("key", "sha256", "size_bytes", "converter"))


def test_the_originals_default_request_works_with_a_host_that_serves_only_zip(
    fleet: Fleet, ash: Ash
) -> None:
    accepted = fetch(fleet.stack.url(ash.repo, "default", "&preferred_region=us-west-2"))
    results = poll(accepted.location, stored)
    redirected = fetch(fleet.stack.url(ash.repo, "default"))

    assert results[-1]["state"] == "SUCCESS"
    assert results[-1]["src_url"].endswith(".zip")
    assert redirected.status == 302
    with tarfile.open(fileobj=io.BytesIO(fetch(redirected.location).body), mode="r|gz") as tar:
        assert {member.name.partition("/")[0] for member in tar} == {
            f"ash-{results[-1]['node'][:12]}"
        }


def test_other_formats_are_converted_while_the_host_is_unavailable(fleet: Fleet, ash: Ash) -> None:
    succeed(fleet.stack.url(ash.repo, ash.node, "suffix=zip"))
    fleet.host.close()

    result = succeed(fleet.stack.url(ash.repo, ash.node, "suffix=tar.gz&subdir=testing"))

    assert len(fleet.body(result)) == result["size"]


def test_an_unknown_subdir_fails_with_its_error_code(fleet: Fleet, ash: Ash) -> None:
    accepted = fetch(fleet.stack.url(ash.repo, ash.node, "subdir=nowhere"))

    result = poll(accepted.location, stored)[-1]

    assert (result["state"], result["error"]["code"]) == ("FAILURE", "unknown_subdir")
    assert fleet.manifests() == []


def test_the_working_directory_is_empty_after_a_killed_worker_is_replaced(
    tmp_path: Path, hgweb: Hgweb, large: Repository
) -> None:
    work = tmp_path / "work"
    settings = {**ONLY_ZIP, "ARCHIVER_WORKER__WORK_DIR": str(work)}
    with (
        slow_host(hgweb.port) as host,
        servers(tmp_path, template=hgweb.template_for(host.port), settings=settings) as stack,
        stack.web(),
    ):
        host.rate = 300_000
        with stack.worker("worker-1") as victim:
            status = fetch(stack.url(large.name, large.tip)).location
            poll(status, lambda result: result["phase"] == "fetching" and result["bytes_done"] > 0)
            victim.kill()
            victim.wait()
        host.rate = None
        with stack.worker("worker-2"):
            result = poll(status, stored)[-1]
        leftovers = list(work.iterdir())

    assert (result["state"], result["attempt"]) == ("SUCCESS", 2)
    assert leftovers == []
