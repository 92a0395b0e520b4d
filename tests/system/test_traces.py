"""The spans of a running fleet, as a collector receives them."""

import json
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from archiver import __version__
from tests.docs.span_table import documented_spans
from tests.parts.collector import Collector, Received, collecting, silent_collector
from tests.parts.hgweb import Ash, Hgweb
from tests.parts.process import wait_until
from tests.system.client import Answer, fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

CALLER = (secrets.token_hex(16), secrets.token_hex(8))

SECRETS = ("hunter2", "swordfish", "xyzzy", "AKIDTEST", "X-Amz", "Signature", "127.0.0.1", "?")
"""The first three are in a query, in a ``tracestate`` and in a cookie."""

HEADERS = {
    "traceparent": f"00-{CALLER[0]}-{CALLER[1]}-01",
    "tracestate": f"vendor={SECRETS[1]}",
    "Cookie": f"session={SECRETS[2]}",
}

HITS = 3


def _build_and_hit(stack: Stack, ash: Ash) -> Answer:
    """Have two requests cause one archive, and then hit it. Return the first response."""
    url = stack.url(ash.repo, ash.feature, f"suffix=tar.zst&preferred_region={SECRETS[0]}")
    created, joined = fetch(url, headers=HEADERS), fetch(f"{url}2")
    with stack.worker() as worker:
        poll(created.location, stored)
        hits = [fetch(url) for _ in range(HITS)]
    assert (created.status, joined.status, worker.returncode) == (202, 202, 0)
    assert [hit.status for hit in hits] == [302] * HITS
    return created


def _by_outcome(spans: Sequence[Received]) -> dict[str, Received]:
    return {span.attributes["archiver.outcome"]: span for span in spans}


def _line(stack: Stack, event: str, **fields: object) -> dict[str, Any]:
    """Return the only log line of *event* with *fields*."""
    lines = [json.loads(line) for line in stack.lines(f'"{event}"')]
    (line,) = (line for line in lines if fields.items() <= line.items())
    return dict(line)


def _has_hits(collector: Collector) -> bool:
    outcomes = Counter(span.attributes["archiver.outcome"] for span in collector.requests())
    return outcomes["hit"] == HITS


def test_requests_lead_to_the_attempt_that_they_wait_for(
    tmp_path: Path, hgweb: Hgweb, ash: Ash
) -> None:
    with collecting() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with servers(tmp_path, template=hgweb.template, settings=settings) as stack:
            with stack.web():
                created = _build_and_hit(stack, ash)
            accepted = created.headers["X-Request-ID"]
            miss_line = _line(stack, "request.finished", request_id=accepted)
            attempt_line = _line(stack, "task.succeeded")
        wait_until(lambda: _has_hits(collector), what="the spans of hits")

    requests = _by_outcome(collector.requests("/archiver/{address}"))
    tasks = _by_outcome(collector.named("archiver.task"))
    (lookup,) = collector.named("archiver.lookup")
    (attempt,) = collector.named("archiver.attempt")

    miss = requests["miss"]
    assert (miss.trace_id, miss.parent_id) == CALLER
    assert miss.attributes["http.response.status_code"] == 202
    assert miss.attributes["url.path"] == f"/archiver/hgmo/{ash.repo}/{ash.feature}"
    assert lookup.parent == tasks["created"].parent == miss.place
    assert miss_line["trace_id"] == miss.trace_id

    assert tasks["joined"].parent == requests["joined"].place
    assert tasks["joined"].links == attempt.links == [tasks["created"].place]

    assert attempt.parent_id == ""
    assert attempt.attributes["archiver.outcome"] == "succeeded"
    assert attempt.attributes["archiver.regions"] == REGIONS
    assert attempt_line["trace_id"] == attempt.trace_id
    stages = [span for span in collector.spans if span.parent == attempt.place]
    assert Counter(span.name.removeprefix("archiver.") for span in stages) == {
        "fetch": 1,
        "verify": 2,
        "convert": 1,
        "upload": len(REGIONS),
        "commit": len(REGIONS),
    }
    uploads = collector.named("archiver.upload")
    assert {span.attributes["archiver.region"] for span in uploads} == {*REGIONS}

    assert not [each for each in collector.requests() if "/__" in each.attributes["url.path"]]

    for span in collector.spans:
        kind, attributes = documented_spans()[span.name]
        assert span.kind.lower() == kind
        assert span.attributes.keys() <= attributes, span
        assert span.resource.items() >= {
            ("service.name", "archiver"),
            ("service.version", __version__),
            ("archiver.process", "worker" if span.trace_id == attempt.trace_id else "web"),
        }
        assert not span.failed, span
        assert [secret for secret in SECRETS if secret in span.text] == []


@pytest.mark.thorough
def test_a_silent_collector_delays_neither_requests_nor_builds_nor_the_end(
    tmp_path: Path, hgweb: Hgweb, ash: Ash
) -> None:
    with silent_collector() as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        with servers(tmp_path, template=hgweb.template, settings=settings) as stack:
            with stack.web() as web:
                _build_and_hit(stack, ash)
                stack.lines('"traces.not_sent"')
            lines = [json.loads(line) for line in stack.lines('"traces.not_sent"')]
            logs = stack.logs()

    assert web.returncode == 0
    # At most once a minute, and once more when the process ends.
    assert max(Counter(line["process"] for line in lines).values()) <= 2
    assert "library.spoke" not in logs
