"""Traces: what turns them on, what they cost without, and what a dead collector does."""

import asyncio
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import trustme
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision
from opentelemetry.trace import Link, SpanContext, TraceFlags

from archiver.errors import UnknownRev
from archiver.telemetry import LogFormat, tracing
from archiver.telemetry.open_telemetry import LinkedSampler
from archiver.telemetry.tracing import Kind, SpanName, traceparent_in
from archiver.telemetry.tracing_setup import sending_traces, wanted_exporters
from archiver.telemetry.tracing_variables import CannotTrace
from tests.docs.span_table import documented_spans
from tests.parts.collector import (
    DeadCollector,
    closing_collector,
    collecting,
    reciting_collector,
    silent_collector,
)
from tests.parts.process import wait_until
from tests.test_telemetry import capture_log, logger

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}

LIST = """
import asyncio, sys
import archiver.wiring.web, archiver.wiring.worker
from archiver.telemetry import tracing
from archiver.telemetry.tracing_setup import sending_traces

async def enter():
    async with sending_traces(process="web", version="1"):
        print(tracing.is_on(), "opentelemetry" in sys.modules, "requests" in sys.modules)

asyncio.run(enter())
"""


def _run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": ":".join(sys.path), **variables}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )


def test_the_page_has_every_span_and_no_other() -> None:
    assert documented_spans().keys() == {*SpanName}
    assert {kind for kind, _ in documented_spans().values()} <= {kind.name.lower() for kind in Kind}


def test_nothing_of_opentelemetry_is_loaded_unless_the_environment_asks_for_it() -> None:
    assert _run(LIST).stdout.split() == ["False", "False", "False"]
    assert _run(LIST, **ENDPOINT).stdout.split()[-3:] == ["True", "True", "True"]


def test_a_process_without_the_extra_says_so_and_serves() -> None:
    without = f"import sys\nsys.modules['opentelemetry'] = None\n{LIST}".replace(
        '"opentelemetry" in sys.modules', "False"
    )

    ended = _run(without, **ENDPOINT)

    assert ended.stdout.split()[-3:] == ["False", "False", "False"]
    assert "traces.off" in ended.stdout
    assert "the extra 'otel' is not installed" in ended.stdout


@pytest.mark.parametrize(
    ("environment", "exporters"),
    (
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "a"}, ()),
        (ENDPOINT, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1/t"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ("otlp", "console")),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, ()),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ("otlp",)),
    ),
)
def test_the_environment_turns_traces_on(
    environment: Mapping[str, str], exporters: tuple[str, ...]
) -> None:
    assert wanted_exporters(environment) == exporters


@pytest.mark.parametrize(
    ("environment", "named"),
    (
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "'zipkin': use one of otlp, console, none"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'grpc': use http/protobuf"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "'grpc'"),
    ),
)
def test_what_cannot_be_sent_is_named_with_the_alternatives(
    environment: Mapping[str, str], named: str
) -> None:
    with pytest.raises(CannotTrace, match=named):
        wanted_exporters(environment)


def test_a_span_has_its_callers_trace_and_no_text_of_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "archives")

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                with (
                    pytest.raises(UnknownRev),
                    tracing.span(SpanName.REQUEST, kind=Kind.SERVER, parent=CALLER),
                    tracing.span(SpanName.COPY, region="us-east-1"),
                ):
                    raise UnknownRev("swordfish")

        asyncio.run(record())
        wait_until(lambda: len(collector.spans) == 2, what="two spans")

    (request,) = collector.requests()
    (copy,) = collector.named("archiver.copy")
    assert request.parent == (CALLER[3:35], CALLER[36:52])
    assert copy.parent == request.place
    assert copy.attributes == {"archiver.region": "us-east-1", "error.type": "unknown_rev"}
    assert copy.failed
    assert copy.resource["service.name"] == "archives"
    assert "swordfish" not in copy.text


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("parent", ("", "x", f"{CALLER},{CALLER}", f"00-{'0' * 32}-{'1' * 16}-01"))
def test_a_malformed_traceparent_of_a_client_begins_a_new_trace(parent: str) -> None:
    async def record() -> str:
        async with sending_traces(process="web", version="1"):
            with tracing.span(SpanName.REQUEST, parent=parent) as request:
                return request.trace_id

    assert asyncio.run(record()) not in {"", CALLER[3:35], "0" * 32}


@pytest.mark.usefixtures("_no_collector")
def test_a_log_line_within_a_span_has_its_trace() -> None:
    written = capture_log(LogFormat.JSON)

    async def write() -> None:
        async with sending_traces(process="web", version="1"):
            with tracing.span(SpanName.REQUEST, parent=CALLER):
                logger().info("a")
            logger().info("b")

    asyncio.run(write())
    lines = {line["event"]: line for line in map(json.loads, written.getvalue().splitlines())}
    assert lines["a"]["trace_id"] == CALLER[3:35]
    assert "trace_id" not in lines["b"]


@pytest.fixture
def _no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")


def _record(count: int) -> None:
    for _ in range(count):
        with tracing.span(SpanName.REQUEST):
            pass


def test_a_failing_collector_is_reported_at_once_and_at_the_end_without_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = capture_log(LogFormat.JSON)
    with closing_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                for batch in range(1, 4):
                    _record(1)
                    while collector.connections < 2 * batch:
                        await asyncio.sleep(0.01)

        asyncio.run(record())

    lines = list(map(json.loads, written.getvalue().splitlines()))
    assert [line["event"] for line in lines] == ["traces.on", "traces.not_sent", "traces.not_sent"]
    assert [line.get("spans") for line in lines] == [None, 1, 2]
    assert collector.url not in written.getvalue()


def test_the_end_of_a_process_does_not_wait_for_the_answer_of_a_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with silent_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                _record(10_000)

        asyncio.run(record())
        (sender,) = (t for t in threading.enumerate() if t.name.startswith("OtelBatchSpan"))
        still_waits = sender.is_alive()
    sender.join()

    assert still_waits
    assert collector.connections


def _drip(head: bytes) -> Iterator[bytes]:
    """Yield *head*, and then a byte now and then, so that no single read times out."""
    yield head
    while True:
        time.sleep(0.02)
        yield b"a"


OK = b"HTTP/1.1 200 OK\r\n"

ENDLESS: Mapping[str, Callable[[], Iterator[bytes]]] = {
    "a body": lambda: repeat(OK + b"Content-Length: 9999999999\r\n\r\n" + bytes(1 << 16)),
    "a body in chunks": lambda: repeat(
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    ),
    "a slow body": lambda: _drip(OK + b"Content-Length: 999999\r\n\r\n"),
    "a slow body until the end": lambda: _drip(b"HTTP/1.0 200 OK\r\n\r\n"),
    "a slow chunk": lambda: _drip(OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "a slow header": lambda: _drip(OK + b"A: "),
    "a slow status": lambda: _drip(b"H"),
    "continue": lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("endless", ENDLESS)
def test_an_answer_without_an_end_costs_little_memory_and_the_timeout_at_most(
    endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _sending_to(reciting_collector(ENDLESS[endless]), monkeypatch) as collector:

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                for batch in range(1, 4):
                    _record(1)
                    while collector.connections < batch:
                        await asyncio.sleep(0.01)

        asyncio.run(record())
        wait_until(lambda: not _senders(), what="the end of the thread that sends")

    if "body" in endless:
        # The buffers of connections hold this much. Far more would fit into the timeout.
        assert collector.sent_bytes < 64 << 20


@contextmanager
def _sending_to(
    opening: AbstractContextManager[DeadCollector], monkeypatch: pytest.MonkeyPatch
) -> Iterator[DeadCollector]:
    with opening as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        yield collector


def _senders() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("OtelBatchSpan")]


def _not_sent(written: str) -> list[dict[str, Any]]:
    lines = map(json.loads, written.splitlines())
    return [line for line in lines if line["event"] == "traces.not_sent"]


@pytest.mark.parametrize("status", (304, 307, 401, 500))
def test_every_status_but_success_is_reported_and_no_redirect_is_followed(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = capture_log(LogFormat.JSON)
    with collecting() as other, collecting(status=status, location=other.url) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                _record(3)

        asyncio.run(record())

    (line,) = _not_sent(written.getvalue())
    assert (line["spans"], line["status"]) == (3, status)
    assert len(collector.paths) == 1
    assert other.paths == []


@pytest.mark.parametrize("status", (200, 202, 204))
def test_every_status_of_success_is_success(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written = capture_log(LogFormat.JSON)
    with collecting(status=status) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                _record(3)

        asyncio.run(record())

    assert _not_sent(written.getvalue()) == []
    assert len(collector.spans) == 3


def test_the_certificate_for_the_collector_goes_before_the_one_for_all_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "own.pem")
    stranger.cert_pem.write_to_path(tmp_path / "all.pem")
    authority.issue_cert("127.0.0.1").configure_cert(tls := ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "all.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "own.pem"))
    with collecting(tls=tls) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                _record(1)

        asyncio.run(record())

    assert len(collector.spans) == 1


@pytest.mark.parametrize("status", (None, 503))
def test_each_span_that_a_collector_did_not_get_is_counted(
    status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = capture_log(LogFormat.JSON)
    refusing = silent_collector() if status is None else collecting(status=status)
    with refusing as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

        async def record() -> None:
            async with sending_traces(process="web", version="1"):
                _record(6000)

        asyncio.run(record())

    lines = _not_sent(written.getvalue())
    assert sum(line["spans"] for line in lines) == 6000
    assert 0 < sum(line["dropped"] for line in lines) <= 6000 - 2048
    wait_until(lambda: not _senders(), what="the end of the thread that sends")


def _link(*, sampled: bool) -> Link:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return Link(SpanContext(trace_id=1, span_id=1, is_remote=True, trace_flags=flags))


def test_an_attempt_is_traced_if_the_request_that_caused_it_is() -> None:
    sampler = LinkedSampler(ALWAYS_OFF)

    def decision(*links: Link) -> Decision:
        return sampler.should_sample(None, 1, "archiver.attempt", links=links).decision

    assert decision(_link(sampled=True)) is Decision.RECORD_AND_SAMPLE
    assert decision(_link(sampled=False)) is Decision.DROP
    assert decision() is Decision.DROP


@pytest.mark.parametrize("value", ("", "x", CALLER.upper(), f"{CALLER}\r\nA: b", f"{CALLER}-1"))
def test_a_malformed_traceparent_of_a_message_is_ignored(value: str) -> None:
    assert traceparent_in({"traceparent": CALLER}) == CALLER
    assert traceparent_in({"traceparent": value}) == ""
    assert traceparent_in(None) == ""
