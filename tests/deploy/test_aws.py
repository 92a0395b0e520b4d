"""The policies of IAM allow what the running program does, and nothing else."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from archiver.settings import Settings
from archiver.storage.object_keys import FOLDERS
from tests.deploy.files import read_json
from tests.deploy.s3_actions import ARN, Access, access_of, covers, grants
from tests.parts.hgweb import Hgweb, Repository
from tests.parts.process import wait_until
from tests.parts.s3_fault_proxy import S3FaultProxy, sink
from tests.parts.slow_host import SlowHost, slow_host
from tests.system.ageing import age_archives, leave
from tests.system.client import Answer, fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

POLICIES = {
    "web": ("web",),
    "admin": ("web", "purge-and-pin"),
    "worker": ("worker",),
    "operator": ("worker", "purge-and-pin"),
}
"""The policies of each role: web processes, web processes that purge and pin,
workers, and commands."""

RARE = {
    "worker": {
        ("s3:DeleteObject", "pins"): "a pin is removed while a sweep copies it to other regions",
        ("s3:DeleteObject", "tombstones"): "an archive is pinned while it expires",
    },
}
"""The rights that the tests do not use, by action and folder, with the events that need them."""

BUCKET = "bucket"
TOKEN = "archiver_" + "t" * 43
SETTINGS = {
    "ARCHIVER_TOKENS__OPS__HASH": f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
    "ARCHIVER_TOKENS__OPS__SCOPES": '["admin"]',
    "ARCHIVER_SERVER__HIT_TTL_S": "0",
    "ARCHIVER_SERVER__RECHECK_S": "0.1",
    "ARCHIVER_HOUSEKEEPING__SWEEP_S": "1",
    "ARCHIVER_RETENTION__DAYS": "30",
    "ARCHIVER_SERVER__PRESIGNED_TTL_S": "60",
}
RATE_BYTES_S = 6_000_000


def policy(role: str) -> frozenset[Access]:
    """Return what *role* may do with the bucket of the tests, in place of the examples."""
    found = frozenset[Access]().union(
        *(grants(read_json(f"aws/{name}.json")) for name in POLICIES[role])
    )
    (ours,) = {
        frozenset(
            Access(each.action, each.resource.replace(f"example-archiver-{region}", BUCKET))
            for each in found
            if region in each.resource
        )
        for region in REGIONS
    }
    return ours


class Recorder:
    """Records what each role does, through proxies of its own."""

    def __init__(self) -> None:
        self.proxies: dict[str, dict[str, S3FaultProxy]] = {}

    def requests(self, role: str) -> list[tuple[str, str]]:
        return [each for proxy in self.proxies[role].values() for each in proxy.requests]

    def accesses(self, role: str) -> set[Access]:
        return {access_of(*request) for request in self.requests(role)}

    def settings(self, role: str, stack: Stack) -> dict[str, str]:
        """Return the settings of *stack*, with the regions at the proxies of *role*."""
        regions = json.loads(stack.env["ARCHIVER_REGIONS"])
        for name, proxy in self.proxies[role].items():
            regions[name] |= {"endpoint": proxy.endpoint, "public_endpoint": proxy.upstream}
        return {"ARCHIVER_REGIONS": json.dumps(regions)}

    @contextlib.contextmanager
    def before(self, stack: Stack) -> Iterator[None]:
        with contextlib.ExitStack() as proxies:
            for role in POLICIES:
                self.proxies[role] = {
                    name: proxies.enter_context(sink(f"http://127.0.0.1:{server.port}"))
                    for name, server in stack.regions.items()
                }
            yield


@contextlib.contextmanager
def working(stack: Stack, recorder: Recorder, **settings: str) -> Iterator[None]:
    """Run a worker during the block."""
    before = dict(stack.env)
    stack.env |= recorder.settings("worker", stack) | settings
    try:
        with stack.worker():
            yield
    finally:
        stack.env.clear()
        stack.env.update(before)


def command(stack: Stack, recorder: Recorder, *words: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "archiver", *words],
        env={**os.environ, **stack.env, **recorder.settings("operator", stack)},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, (words, result.stdout, result.stderr)


def ask(url: str, method: str = "GET") -> Answer:
    """Return the answer to an administrator."""
    return fetch(url, method=method, headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory, hgweb: Hgweb) -> Iterator[Recorder]:
    """What each role did: built, broke off, pinned, purged, expired, swept and checked archives."""
    recorder, folder = Recorder(), tmp_path_factory.mktemp("aws")
    big, small = hgweb.create("aws/big"), hgweb.create("aws/small")
    with (
        slow_host(hgweb.port) as host,
        servers(folder, template=hgweb.template_for(host.port), settings=SETTINGS) as stack,
        recorder.before(stack),
    ):
        for region in REGIONS:
            leave(stack, region, days=2)
        with stack.web(recorder.settings("web", stack)), working(stack, recorder):
            node = small.commit({"README": b"read me"})
            purged, pinned = (_build(stack, small, node, suffix) for suffix in ("tar.gz", "zip"))
            _break_off(stack, recorder, host, big)
        with stack.web(recorder.settings("admin", stack)):
            _administrate(stack, small, purged)
        _operate(stack, recorder, pinned)
        stack.delete(REGIONS[1], "pins")
        age_archives(stack, days=40)
        with working(stack, recorder, ARCHIVER_RETENTION__GC_S="1"):
            wait_until(lambda: _counts(stack, "tombstones") == [1, 1], what="the expiry")
            wait_until(lambda: _counts(stack, "manifests") == [1, 1], what="the end of the expiry")
            wait_until(lambda: _counts(stack, "pins") == [1, 1], what="the copy of a pin")
        yield recorder


def _counts(stack: Stack, folder: str) -> list[int]:
    """Return how many objects each region has in *folder*."""
    return [sum(folder in path.parts for path in stack.visible(region)) for region in REGIONS]


def _build(stack: Stack, repository: Repository, node: str, suffix: str) -> str:
    """Build an archive, and return the id of its task."""
    answer = fetch(stack.url(repository.name, node, f"suffix={suffix}"))
    assert poll(answer.location, stored)[-1]["state"] == "SUCCESS"
    assert fetch(stack.url(repository.name, node[:12], f"suffix={suffix}")).status == 302
    return answer.location.rpartition("/")[2]


def _break_off(stack: Stack, recorder: Recorder, host: SlowHost, repository: Repository) -> None:
    """Build an archive of several parts, whose first fetch ends after one of them."""
    node = repository.commit({"big": os.urandom(9 << 20)})
    host.rate = RATE_BYTES_S
    status = fetch(stack.url(repository.name, node)).location
    wait_until(lambda: any("partNumber" in target for _, target in recorder.requests("worker")))
    host.cut()
    host.rate = None
    assert poll(status, stored)[-1]["state"] == "SUCCESS"


def _administrate(stack: Stack, repository: Repository, task: str) -> None:
    """List, pin and purge archives over HTTP."""
    status = f"{stack.public}/archiver/status/{task}"
    assert ask(f"{stack.public}/archiver/archives").status == 200
    assert ask(f"{status}/pin?reason=test", "PUT").status == 204
    assert ask(f"{status}/pin", "DELETE").status == 204
    node = task.split(":")[4]
    assert ask(stack.url(repository.name, node, "reason=test"), "DELETE").status == 204


def _operate(stack: Stack, recorder: Recorder, task: str) -> None:
    """Run the commands of operators. A pin is left."""
    command(stack, recorder, "index", "rebuild")
    command(stack, recorder, "fsck", "--repair")
    command(stack, recorder, "pins", "add", task, "--reason", "test")


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_each_role_may_do_what_it_does_and_nothing_else(recorder: Recorder) -> None:
    for role in POLICIES:
        done, allowed = recorder.accesses(role), policy(role)
        refused = {each for each in done if not any(covers(grant, each) for grant in allowed)}
        unused = {each for each in allowed if not any(covers(each, access) for access in done)}
        rare = {
            Access(action, f"{ARN}{BUCKET}/{folder}/*") for action, folder in RARE.get(role, ())
        }
        assert (role, refused) == (role, set())
        if role != "operator":  # commands have the rights of workers, and need fewer
            assert (role, unused) == (role, rare)
    assert {each.action for each in recorder.accesses("web")} == {"s3:GetObject", "s3:ListBucket"}


@pytest.mark.parametrize("name", ("web", "worker", "purge-and-pin"))
def test_every_region_has_the_same_rights_in_folders_of_archiver(name: str) -> None:
    policy(next(role for role, policies in POLICIES.items() if name in policies))
    for grant in grants(read_json(f"aws/{name}.json")):
        folder = grant.resource.removeprefix(ARN).partition("/")[2].removesuffix("*")
        assert not folder or folder in FOLDERS


def test_uploads_are_aborted_only_after_every_build_has_ended() -> None:
    (rule,) = read_json("aws/lifecycle.json")["Rules"]
    assert rule.keys() == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
    days = rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
    assert timedelta(days=days) > Settings().leftover_age


def test_browsers_may_only_read() -> None:
    (rule,) = read_json("aws/cors.json")["CORSRules"]
    assert rule["AllowedMethods"] == ["GET", "HEAD"]
    assert {"Content-Range", "Accept-Ranges", "ETag"} <= set(rule["ExposeHeaders"])
