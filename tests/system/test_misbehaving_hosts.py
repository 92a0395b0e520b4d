"""A host that does wrong in every way we know of, against the real program, all at once.

Everything is played once; what the tests look at is what was left behind.
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.parts.archive_faults import (
    MAX_BYTES,
    MAX_MEMBERS,
    MAX_UNPACKED_BYTES,
    archive_faults,
)
from tests.parts.fault_cases import MAX_FAILURES, Case, FaultCaseHost, fault_case_host
from tests.parts.http_faults import (
    DEADLINE_S,
    MIN_RATE_BYTES_S,
    MIN_RATE_WINDOW_S,
    READ_TIMEOUT_S,
    http_faults,
)
from tests.parts.packing import read_through
from tests.system.client import fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

CASES = {case.name: case for case in (*http_faults(), *archive_faults())}
SOUND = [case for case in CASES.values() if case.code is None]
AT_ONCE = 100
BETWEEN_ATTEMPTS_S = 0.2

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(500)]
"""Every case is played while the first test is set up: half a minute on a quiet machine."""

SETTINGS = {
    "ARCHIVER_ENGINE__LEASE_S": "20",
    "ARCHIVER_WORKER__CONCURRENCY": str(AT_ONCE),
    "ARCHIVER_WORKER__MAX_FAILURES": str(MAX_FAILURES),
    "ARCHIVER_WORKER__RETRY_BASE_S": str(BETWEEN_ATTEMPTS_S),
    "ARCHIVER_SOURCES__HGMO__CONCURRENCY": str(AT_ONCE),
    "ARCHIVER_SOURCES__HGMO__LOOKUP_CONCURRENCY": str(AT_ONCE),
    "ARCHIVER_SOURCES__HGMO__READ_TIMEOUT_S": str(READ_TIMEOUT_S),
    "ARCHIVER_SOURCES__HGMO__DEADLINE_S": str(DEADLINE_S),
    "ARCHIVER_SOURCES__HGMO__MIN_RATE_BYTES_S": str(MIN_RATE_BYTES_S),
    "ARCHIVER_SOURCES__HGMO__MIN_RATE_WINDOW_S": str(MIN_RATE_WINDOW_S),
    "ARCHIVER_SOURCES__HGMO__MAX_BYTES": str(MAX_BYTES),
    "ARCHIVER_SOURCES__HGMO__MAX_UNPACKED_BYTES": str(MAX_UNPACKED_BYTES),
    "ARCHIVER_SOURCES__HGMO__MAX_MEMBERS": str(MAX_MEMBERS),
}


NOT_OURS = (
    *("X-Amz", "Patience", "Please come back", "<html", "s3cret", "169.254", "Early Hints"),
    *("Errno", "Not enough data", "Connection reset", "Server disconnected", "Expected HTTP"),
)
"""What was said by hosts, by libraries, or in links, and is to be read nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left of a run: by the case's name, how its task ended, and what its client got.

    ``moments`` are those at which a case's archive was asked for. ``stored`` is what ought to be
    stored, as a digest; ``served`` what was, asked for anew when all was over, or the status.
    """

    folder: str
    ends: dict[str, dict[str, Any]]
    moments: dict[str, list[float]]
    stored: dict[str, str]
    served: dict[str, str]
    elsewhere: list[str]
    worker_lived: bool

    def manifests(self, region: str) -> list[dict[str, Any]]:
        bucket = Path(self.folder, region, "bucket")
        return [json.loads(path.read_text()) for path in bucket.rglob("manifests/**/*.json")]

    def objects(self, region: str) -> dict[str, Path]:
        """Return all that a bucket has besides manifests and probes, by its key."""
        bucket = Path(self.folder, region, "bucket")
        files = {str(path.relative_to(bucket)): path for path in bucket.rglob("*")}
        return {
            key: path
            for key, path in files.items()
            if path.is_file() and not key.startswith(("manifests/", "probes/"))
        }


@pytest.fixture(scope="module")
def remains(tmp_path_factory: pytest.TempPathFactory, worker_id: str, testrun_uid: str) -> Remains:
    """Play every case, once for all processes that the tests of this module may be spread over."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / f"misbehaving-{testrun_uid}"
    folder.mkdir(exist_ok=True)
    left = folder / "remains.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not left.exists():
            left.write_text(json.dumps(asdict(_play(tmp_path_factory.mktemp("stack")))))
        return Remains(**json.loads(left.read_text()))


def _play(folder: Path) -> Remains:
    cases = list(CASES.values())
    with (
        fault_case_host(cases) as (host, elsewhere),
        servers(folder, template=host.template, settings=SETTINGS) as stack,
        stack.web(),
        stack.worker() as worker,
        ThreadPoolExecutor(16) as clients,
    ):
        urls = [_url(stack, host, case) for case in cases]
        accepted = list(clients.map(fetch, urls))
        ends = [poll(answer.location, stored, timeout_s=400)[-1] for answer in accepted]
        served = list(clients.map(_download, urls))
        return Remains(
            folder=str(folder),
            ends=dict(zip(CASES, ends, strict=True)),
            moments=dict(host.moments),
            stored={case.name: _digest(case.stored(host.subject(case))) for case in SOUND},
            served=dict(zip(CASES, served, strict=True)),
            elsewhere=elsewhere.targets,
            worker_lived=worker.poll() is None,
        )


def _url(stack: Stack, host: FaultCaseHost, case: Case) -> str:
    subject = host.subject(case)
    return stack.url(subject.repo, subject.node, f"suffix={case.suffix}")


def _download(url: str) -> str:
    """Return the digest of what a client gets that comes later, or its status; begin no task."""
    if (status := fetch(url, method="HEAD").status) != 302:
        return str(status)
    return _digest(fetch(fetch(url).location).body)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_the_case_ends_as_it_has_to(remains: Remains, name: str) -> None:
    case, end = CASES[name], remains.ends[name]
    moments = remains.moments.get(name, [])

    assert end["state"] == ("FAILURE" if case.code else "SUCCESS"), end
    assert (end["error"] or {}).get("code") == case.code
    assert end["failures"] == case.failures
    assert len(moments) == case.requests
    assert set(end["s3_urls"]) == (set() if case.code else set(REGIONS))
    if case.code is None:
        assert end["sha256"] == remains.stored[name]
    assert remains.served[name] == (str(404) if case.code else remains.stored[name])


@pytest.mark.parametrize("name", ("429-patience", "503-patience"))
def test_a_host_that_asks_for_patience_gets_it(remains: Remains, name: str) -> None:
    first, second = remains.moments[name]

    assert second - first >= 1


def test_nobody_else_was_contacted(remains: Remains) -> None:
    assert remains.elsewhere == []


@pytest.mark.parametrize("region", REGIONS)
def test_nothing_is_visible_that_is_not_whole(remains: Remains, region: str) -> None:
    manifests = {manifest["object_key"]: manifest for manifest in remains.manifests(region)}
    objects = remains.objects(region)

    assert set(objects) == set(manifests)
    assert len(manifests) == len(SOUND)
    for key, path in objects.items():
        data = path.read_bytes()
        assert _digest(data) == manifests[key]["sha256"]
        assert len(data) == manifests[key]["size_bytes"]
        assert _roots(key, data) == {manifests[key]["root"]}


def _roots(key: str, data: bytes) -> set[str]:
    suffix = next(suffix for suffix in ("tar.gz", "tar.bz2", "zip") if key.endswith(f".{suffix}"))
    return {name.partition("/")[0] for name in read_through(suffix, data)}


def test_the_worker_lived_through_all_of_it(remains: Remains) -> None:
    events = [line["event"] for line in _lines(remains)]

    assert remains.worker_lived
    assert events.count("worker.started") == events.count("worker.stopped") == 1
    assert not {"attempt.broken", "request.crashed", "task.lost", "task.let_go"} & set(events)


def test_no_log_tells_what_a_host_or_a_library_said(remains: Remains) -> None:
    lines = _lines(remains)

    assert sum(line["event"] == "task.succeeded" for line in lines) == len(SOUND)
    for line in lines:
        assert re.fullmatch(r"\w+( < \w+)*", line.get("cause", "none"))
        assert not set(line) & {"exception", "traceback"}
        assert not any(word in json.dumps(line) for word in NOT_OURS)


def test_no_client_is_told_what_a_host_or_a_library_said(remains: Remains) -> None:
    errors = json.dumps([end["error"] for end in remains.ends.values()])

    assert not any(word in errors for word in NOT_OURS)


def _lines(remains: Remains) -> Sequence[dict[str, Any]]:
    """Return what our own processes logged: each line is JSON, so that nothing else was said."""
    return [
        json.loads(line)
        for name in ("web.log", "worker.log")
        for line in Path(remains.folder, name).read_text().splitlines()
    ]
