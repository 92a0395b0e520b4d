"""Complete archives of the running program: two git hosts, one of them private, and a kill."""

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

from tests.git_repositories import GitRepository
from tests.parts.git_host import GitHost, serving_git
from tests.parts.process import wait_until
from tests.superprojects import with_submodules
from tests.system.client import Answer, ended, fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

HOST_TOKEN = "t0ken-of-the-vault"  # noqa: S105 - only of this test
CLIENT_TOKEN = "archiver_" + "A" * 43
BEARER = {"Authorization": f"Bearer {CLIENT_TOKEN}"}
BIG = os.urandom(3 << 20)
ATTRIBUTES = b"*.bin filter=lfs\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A fleet with the sources ``open`` and ``vault``.

    ``project`` has ``lib``, which is on the open host and has an LFS file.
    """

    stack: Stack
    open: GitHost
    vault: GitHost
    project: GitRepository
    lib: str
    secret: str

    def commit(self, urls: dict[str, tuple[str, str]], name: str = "README") -> str:
        return self.project.commit(with_submodules({name: b"project\n"}, urls))

    def with_lib(self, name: str = "README") -> str:
        return self.commit({"lib": ("../lib.git", self.lib)}, name)

    def url(self, node: str, query: str = "submodules=1&lfs=1") -> str:
        return f"{self.stack.public}/archiver/open/team/project/{node}?{query}"

    def build(self, node: str, query: str = "submodules=1&lfs=1") -> dict[str, Any]:
        accepted = fetch(self.url(node, query), headers=BEARER)
        assert accepted.status == 202, accepted
        return self.poll(accepted)

    def poll(self, accepted: Answer) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            found: dict[str, Any] = fetch(accepted.location, headers=BEARER).json["result"]
            return found

        wait_until(lambda: ended(read()), what="the end of the task", timeout_s=60)
        return read()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        serving_git(tmp_path_factory.mktemp("open")) as host,
        serving_git(tmp_path_factory.mktemp("vault")) as vault,
    ):
        pointer = host.lfs.add("team/lib", BIG)
        lib = host.create("team/lib").commit(
            {".gitattributes": ATTRIBUTES, "big.bin": pointer.text, "lib.txt": b"lib\n"}
        )
        vault.credentials = f"x-access-token:{HOST_TOKEN}"
        secret = vault.create("corp/secret").commit({"secret.txt": b"secret\n"})
        folder = tmp_path_factory.mktemp("stack")
        settings = {
            "ARCHIVER_SOURCES__OPEN__KIND": "git",
            "ARCHIVER_SOURCES__OPEN__URL_TEMPLATE": host.template,
            "ARCHIVER_SOURCES__VAULT__KIND": "git",
            "ARCHIVER_SOURCES__VAULT__URL_TEMPLATE": vault.template,
            "ARCHIVER_SOURCES__VAULT__TOKEN": HOST_TOKEN,
            "ARCHIVER_SOURCES__VAULT__PRIVATE": "true",
            "ARCHIVER_TOKENS__CI__HASH": f"sha256:{sha256(CLIENT_TOKEN.encode()).hexdigest()}",
            "ARCHIVER_DATA_DIR": str(folder / "data"),
        }
        template = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"
        with (
            servers(folder, template=template, settings=settings) as stack,
            stack.web(),
        ):
            yield Lab(
                stack=stack,
                open=host,
                vault=vault,
                project=host.create("team/project"),
                lib=lib,
                secret=secret,
            )


def files_of(body: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {
            member.name.partition("/")[2]: file.read()
            for member in tar
            if (file := tar.extractfile(member))
        }


def test_an_archive_with_submodules_and_lfs_files_is_in_both_regions(lab: Lab) -> None:
    node = lab.with_lib()
    with lab.stack.worker("first"):
        result = lab.build(node)
        assert result["state"] == "SUCCESS", result
        result = poll(fetch(lab.url(node)).headers["Link"].partition(">")[0][1:], stored)[-1]
        bodies = [fetch(result["s3_urls"][region]).body for region in REGIONS]
        plain = lab.build(node, "suffix=tar.gz")

    assert {sha256(body).hexdigest() for body in bodies} == {result["sha256"]}
    files = files_of(bodies[0])
    assert files["lib/lib.txt"] == b"lib\n"
    assert files["lib/big.bin"] == BIG
    assert plain["sha256"] != result["sha256"]
    hit = fetch(lab.url(node))
    assert (hit.status, hit.headers["Archiver-Proof"]) == (302, "exact")
    assert HOST_TOKEN not in lab.stack.logs()


def test_a_private_submodule_is_hidden_from_clients_without_its_token(lab: Lab) -> None:
    node = lab.commit({"corp": (f"{lab.vault.url}/corp/secret.git", lab.secret)})
    refused = lab.commit({"corp": ("https://elsewhere.example/corp/secret.git", lab.secret)})
    with lab.stack.worker("second"):
        assert lab.build(node)["state"] == "SUCCESS"
        failure = lab.build(refused)["error"]
    with_token = fetch(lab.url(node), headers=BEARER)
    assert with_token.status == 302
    without = fetch(lab.url(node))
    assert (without.status, without.json["code"]) == (502, "submodule_refused")
    expected = failure["message"].replace("https://elsewhere.example", lab.vault.url)
    assert without.json["detail"] == expected
    by_sha256 = f"{lab.stack.public}/sha256/{with_token.headers['Archiver-SHA256']}"
    assert fetch(by_sha256, headers=BEARER).status == 302
    assert fetch(by_sha256).status == 404


def test_a_worker_that_is_killed_in_mid_build_costs_nothing(lab: Lab) -> None:
    node = lab.with_lib("killed")
    with lab.stack.worker("killed") as worker:
        accepted = fetch(lab.url(node, "submodules=1&lfs=1&suffix=zip"), headers=BEARER)
        wait_until(
            lambda: fetch(accepted.location, headers=BEARER).json["result"]["state"] != "PENDING",
            what="the start of the task",
        )
        os.kill(worker.pid, signal.SIGKILL)
    with lab.stack.worker("heir"):
        result = lab.poll(accepted)
    assert result["state"] == "SUCCESS", result
