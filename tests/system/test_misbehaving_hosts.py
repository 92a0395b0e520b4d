"""The running program against a host with all known faults, all requested at the same time.

All cases run once. The tests examine the results.
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
from tests.system.stack import REGIONS, UNLIMITED, Stack, servers

CASES = {case.name: case for case in (*http_faults(), *archive_faults())}
SOUND = [case for case in CASES.values() if case.code is None]
AT_ONCE = 50
"""More of them at a time would make each other seem slow."""
BETWEEN_ATTEMPTS_S = 0.2

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(500)]
"""All cases run in the setup of the first test, which takes half a minute on an idle machine."""

SETTINGS = {
    **UNLIMITED,
    "ARCHIVER_ENGINE__LEASE_S": "20",
    "ARCHIVER_WORKER__CONCURRENCY": str(AT_ONCE),
    "ARCHIVER_WORKER__MAX_FAILURES": str(MAX_FAILURES),
    "ARCHIVER_WORKER__RETRY_BASE_S": str(BETWEEN_ATTEMPTS_S),
    "ARCHIVER_SOURCES__HGMO__CONCURRENCY": str(AT_ONCE),
    "ARCHIVER_SOURCES__HGMO__BREAKER_FAILURES": "0",  # the cases are no failures of one host
    "ARCHIVER_SOURCES__HGMO__LOOKUP_CONCURRENCY": str(AT_ONCE),
    "ARCHIVER_SOURCES__HGMO__READ_TIMEOUT_S": str(READ_TIMEOUT_S),
    "ARCHIVER_SOURCES__HGMO__DEADLINE_S": str(DEADLINE_S),
    "ARCHIVER_SOURCES__HGMO__MIN_RATE_BYTES_S": str(MIN_RATE_BYTES_S),
    "ARCHIVER_SOURCES__HGMO__MIN_RATE_WINDOW_S": str(MIN_RATE_WINDOW_S),
    "ARCHIVER_SOURCES__HGMO__MAX_BYTES": str(MAX_BYTES),
    "ARCHIVER_SOURCES__HGMO__MAX_UNPACKED_BYTES": str(MAX_UNPACKED_BYTES),
    "ARCHIVER_SOURCES__HGMO__MAX_MEMBERS": str(MAX_MEMBERS),
}


FOREIGN_WORDS = (
    *("X-Amz", "Patience", "Please come back", "<html", "s3cret", "169.254", "Early Hints"),
    *("Errno", "Not enough data", "Connection reset", "Server disconnected", "Expected HTTP"),
)
"""Words from hosts, libraries and links that must not appear in any log or response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of all cases, by the case's name.

    - ``ends`` are the final statuses of the tasks.
    - ``moments`` are the times of the requests for the archive.
    - ``expected`` is the SHA-256 of the archive that must be stored.
    - ``served`` is the SHA-256 of the archive that a later request returned, or its status.
    """

    folder: str
    ends: dict[str, dict[str, Any]]
    moments: dict[str, list[float]]
    expected: dict[str, str]
    served: dict[str, str]
    elsewhere: list[str]
    worker_lived: bool

    def manifests(self, region: str) -> list[dict[str, Any]]:
        bucket = Path(self.folder, region, "bucket")
        return [json.loads(path.read_text()) for path in bucket.rglob("manifests/**/*.json")]

    def objects(self, region: str) -> dict[str, Path]:
        """Return all objects of a bucket except manifests and probes, by key."""
        bucket = Path(self.folder, region, "bucket")
        files = {str(path.relative_to(bucket)): path for path in bucket.rglob("*")}
        return {
            key: path
            for key, path in files.items()
            if path.is_file() and not key.startswith(("manifests/", "probes/"))
        }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, worker_id: str, testrun_uid: str) -> Results:
    """Run all cases, once for all test processes that share the tests of this module."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / f"misbehaving-{testrun_uid}"
    folder.mkdir(exist_ok=True)
    file = folder / "results.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_text(json.dumps(asdict(_play(tmp_path_factory.mktemp("stack")))))
        return Results(**json.loads(file.read_text()))


def _play(folder: Path) -> Results:
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
        return Results(
            folder=str(folder),
            ends=dict(zip(CASES, ends, strict=True)),
            moments=dict(host.moments),
            expected={case.name: _sha256(case.stored(host.subject(case))) for case in SOUND},
            served=dict(zip(CASES, served, strict=True)),
            elsewhere=elsewhere.targets,
            worker_lived=worker.poll() is None,
        )


def _url(stack: Stack, host: FaultCaseHost, case: Case) -> str:
    subject = host.subject(case)
    return stack.url(subject.repo, subject.node, f"suffix={case.suffix}")


def _download(url: str) -> str:
    """Return the SHA-256 of the archive, or the status of the error. Create no task."""
    if (status := fetch(url, method="HEAD").status) != 302:
        return str(status)
    return _sha256(fetch(fetch(url).location).body)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_the_task_ends_as_the_case_requires(results: Results, name: str) -> None:
    case, end = CASES[name], results.ends[name]
    moments = results.moments.get(name, [])

    assert end["state"] == ("FAILURE" if case.code else "SUCCESS"), end
    assert (end["error"] or {}).get("code") == case.code
    assert end["failures"] == case.failures
    assert len(moments) == case.requests
    assert set(end["s3_urls"]) == (set() if case.code else set(REGIONS))
    if case.code is None:
        assert end["sha256"] == results.expected[name]
    assert results.served[name] == (str(404) if case.code else results.expected[name])


@pytest.mark.parametrize("name", ("429-patience", "503-patience"))
def test_the_retry_waits_as_long_as_the_host_asks(results: Results, name: str) -> None:
    first, second = results.moments[name]

    assert second - first >= 1


def test_no_other_host_was_contacted(results: Results) -> None:
    assert results.elsewhere == []


@pytest.mark.parametrize("region", REGIONS)
def test_only_complete_archives_are_visible(results: Results, region: str) -> None:
    manifests = {manifest["object_key"]: manifest for manifest in results.manifests(region)}
    objects = results.objects(region)

    assert set(objects) == set(manifests)
    assert len(manifests) == len(SOUND)
    for key, path in objects.items():
        data = path.read_bytes()
        assert _sha256(data) == manifests[key]["sha256"]
        assert len(data) == manifests[key]["size_bytes"]
        assert _roots(key, data) == {manifests[key]["root"]}


def _roots(key: str, data: bytes) -> set[str]:
    suffix = next(suffix for suffix in ("tar.gz", "tar.bz2", "zip") if key.endswith(f".{suffix}"))
    return {name.partition("/")[0] for name in read_through(suffix, data)}


def test_the_worker_survived_all_cases(results: Results) -> None:
    events = [line["event"] for line in _lines(results)]

    assert results.worker_lived
    assert events.count("worker.started") == events.count("worker.stopped") == 1
    assert not {"attempt.broken", "request.crashed", "task.lost", "task.let_go"} & set(events)


def test_no_log_contains_text_of_a_host_or_a_library(results: Results) -> None:
    lines = _lines(results)

    assert sum(line["event"] == "task.succeeded" for line in lines) == len(SOUND)
    for line in lines:
        assert re.fullmatch(r"\w+( < \w+)*", line.get("cause", "none"))
        assert not set(line) & {"exception", "traceback"}
        assert not any(word in json.dumps(line) for word in FOREIGN_WORDS)


def test_no_response_contains_text_of_a_host_or_a_library(results: Results) -> None:
    errors = json.dumps([end["error"] for end in results.ends.values()])

    assert not any(word in errors for word in FOREIGN_WORDS)


def _lines(results: Results) -> Sequence[dict[str, Any]]:
    """Return the log lines of our processes. All of them must be JSON."""
    return [
        json.loads(line)
        for name in ("web.log", "worker.log")
        for line in Path(results.folder, name).read_text().splitlines()
    ]
