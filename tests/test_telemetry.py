"""The log and its secrets, and the table of metrics."""

import errno
import io
import json
import logging
import os
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import structlog
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics import MetricWrapperBase

from archiver.telemetry import (
    LogFormat,
    all_metrics,
    describe,
    forget_dead_processes,
    observe_many,
    set_up_logging,
)

SIGNED = "https://b.s3.example/k?X-Amz-Expires=900&X-Amz-Signature=c0ffee"


def capture_log(log_format: LogFormat, level: str = "info") -> io.StringIO:
    """Set up the log, and return its output."""
    set_up_logging(log_format, level=level, process="web")
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    handler.setStream(written)
    return written


def logger() -> structlog.stdlib.BoundLogger:
    """Return a logger that is created after the log is set up, as in a process."""
    return structlog.stdlib.get_logger("archiver")


def test_text_from_clients_cannot_control_the_terminal() -> None:
    written = capture_log(LogFormat.CONSOLE)
    logger().info("request.finished", path="/a\x1b[31m\x9b\u202e", client="a b\x07")
    assert written.getvalue().strip().isprintable()
    assert r"/a\x1b[31m\x9b\u202e" in written.getvalue()


def test_a_line_is_one_json_object() -> None:
    written = capture_log(LogFormat.JSON)
    logger().info("task.succeeded", key="v1/a", size_bytes=3)
    line = json.loads(written.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "task.succeeded",
        "level": "info",
        "logger": "archiver",
        "process": "web",
        "host": socket.gethostname(),
        "key": "v1/a",
        "size_bytes": 3,
    }


def test_mozlog_has_the_keys_of_mozlog() -> None:
    written = capture_log(LogFormat.MOZLOG)
    logger().warning("upload.failed", region="us-west-2")
    line = json.loads(written.getvalue())
    assert line["Type"] == "upload.failed"
    assert line["EnvVersion"] == "2.0"
    assert line["Severity"] == 4
    assert line["Timestamp"] > 10**18
    assert line["Fields"] == {"region": "us-west-2", "process": "web"}
    assert line.keys() >= {"Hostname", "Pid", "Logger"}


@pytest.mark.parametrize("log_format", LogFormat)
def test_no_log_contains_a_signature(log_format: LogFormat) -> None:
    written = capture_log(log_format)
    logger().info("x", url=SIGNED, other=f"see {SIGNED}")
    logging.getLogger("obstore").error("GET %s failed", SIGNED)
    assert "obstore" in written.getvalue()
    assert "failed" not in written.getvalue()
    assert "c0ffee" not in written.getvalue()


def crash(text: str) -> NoReturn:
    raise RuntimeError(text) from OSError(text)


@pytest.mark.parametrize("log_format", LogFormat)
def test_no_log_contains_the_text_of_an_exception(log_format: LogFormat) -> None:
    written = capture_log(log_format)
    text = "swordfish"
    try:
        crash(text)
    except RuntimeError:
        logger().exception("it.crashed")
        logging.getLogger("a.library").exception("it crashed")
    assert "RuntimeError < OSError" in written.getvalue()
    assert "test_telemetry.py" in written.getvalue()
    assert text not in written.getvalue()


def test_a_library_is_logged_without_its_text_and_failed_connections() -> None:
    written = capture_log(LogFormat.JSON)
    library = logging.getLogger("asyncio")
    library.warning("returning true from eof_received() has no effect when using ssl")
    library.error("Future exception was never retrieved", exc_info=ConnectionError("swordfish"))
    library.error("Task exception was never retrieved: %s", "swordfish", exc_info=KeyError())
    (line,) = map(json.loads, written.getvalue().splitlines())
    assert (line["event"], line["library"], line["exception"]) == (
        "library.spoke",
        "asyncio",
        "KeyError",
    )
    assert line["place"].startswith("test_telemetry:")
    assert "swordfish" not in written.getvalue()


@pytest.mark.parametrize(
    ("failure", "reported"),
    (
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), False),
        (OSError(errno.EHOSTUNREACH, "no route"), False),
        (OSError(errno.ENETUNREACH, "no network"), False),
        (OSError("Multiple exceptions: ..."), False),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
        (ssl.SSLError(1, "wrong version"), False),
        (OSError(errno.EMFILE, "too many open files"), True),
        (OSError(errno.ENOSPC, "no space left"), True),
        (PermissionError(errno.EACCES, "not allowed"), True),
    ),
)
def test_only_failed_connections_are_dropped_from_asyncios_reports(
    failure: OSError, *, reported: bool
) -> None:
    written = capture_log(LogFormat.JSON)
    logging.getLogger("asyncio").error("socket.accept() failed", exc_info=failure)
    assert ("library.spoke" in written.getvalue()) == reported


def test_events_below_the_level_are_not_logged() -> None:
    written = capture_log(LogFormat.JSON, level="warning")
    logger().info("quiet")
    logging.getLogger("a.library").info("quiet")
    assert written.getvalue() == ""


def test_an_exception_is_described_by_its_types() -> None:
    cause = ValueError("secret")
    effect = KeyError("secret")
    effect.__cause__ = cause
    assert describe(effect) == "KeyError < ValueError"
    assert describe(None) == ""


def test_every_metric_has_a_prefix_and_a_unit() -> None:
    for metric in all_metrics().values():
        assert isinstance(metric, MetricWrapperBase)
        (family,) = metric.describe()
        name = family.name
        assert re.fullmatch(r"archiver_[a-z_]+", name)
        if type(metric).__name__ == "Histogram":
            assert name.endswith("_seconds")


def test_no_metric_has_a_label_that_grows_with_use() -> None:
    labels = {
        label
        for metric in all_metrics().values()
        for label in metric._labelnames  # noqa: SLF001 - it is shown nowhere else
    }
    assert labels == {
        "code", "hook", "kind", "lane", "level", "method", "name", "origin", "outcome", "phase",
        "place", "process", "reason", "region", "route", "source", "state", "suffix", "version",
    }  # fmt: skip


def test_observing_many_values_at_once_equals_observing_each() -> None:
    registry = CollectorRegistry()
    once, often = (
        Histogram(name, name, ("a",), buckets=(0.1, 1), registry=registry).labels(a="b")
        for name in ("once", "often")
    )
    for bucket, values in enumerate(((0.05, 0.1), (0.5, 0.5, 1), (7,))):
        observe_many(once, bucket=bucket, times=len(values), total=sum(values))
        for value in values:
            often.observe(value)

    samples = {
        name: [(s.name.removeprefix(name), s.labels, round(s.value, 9)) for s in metric.samples]
        for metric in registry.collect()
        if (name := metric.name)
    }
    assert [s for s in samples["once"] if s[0] != "_created"] == [
        s for s in samples["often"] if s[0] != "_created"
    ]
    assert len(samples["once"]) >= 5


COUNT = """
from prometheus_client import Counter, Gauge
Gauge("running", "", multiprocess_mode="livesum").inc()
Counter("done", "").inc()
print(end="counted", flush=True)
input()
"""


def test_a_dead_process_keeps_its_counters_and_loses_its_live_gauges(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    with subprocess.Popen(
        (sys.executable, "-c", COUNT),
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.read(7) == b"counted"
        forget_dead_processes(folder)
        assert (folder / f"gauge_livesum_{process.pid}.db").exists()
        process.communicate(b"\n")
    forget_dead_processes(folder)
    assert not (folder / f"gauge_livesum_{process.pid}.db").exists()
    assert (folder / f"counter_{process.pid}.db").exists()
