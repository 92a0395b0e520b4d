"""The log tells what happened and no secret; the metrics stand in one table."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import structlog
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics import MetricWrapperBase

from archiver.telemetry import (
    METRICS,
    LogFormat,
    describe,
    forget_dead_processes,
    observe_many,
    set_up_logging,
)

SIGNED = "https://b.s3.example/k?X-Amz-Expires=900&X-Amz-Signature=c0ffee"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the log of the other tests as it was."""
    root, ours = logging.getLogger(), logging.getLogger("archiver")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    structlog.reset_defaults()


def lines(log_format: LogFormat, level: str = "info") -> io.StringIO:
    """Set the log up, and return where it goes."""
    set_up_logging(log_format, level=level, process="web")
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    written = io.StringIO()
    handler.setStream(written)
    return written


def logger() -> structlog.stdlib.BoundLogger:
    """Return the logger as a process has it that sets up its log when it starts."""
    return structlog.stdlib.get_logger("archiver")


def test_text_from_elsewhere_does_nothing_to_a_terminal() -> None:
    written = lines(LogFormat.CONSOLE)
    logger().info("request.finished", path="/a\x1b[31m\x9b\u202e", client="a b\x07")
    assert written.getvalue().strip().isprintable()
    assert r"/a\x1b[31m\x9b\u202e" in written.getvalue()


def test_a_line_is_one_json_object() -> None:
    written = lines(LogFormat.JSON)
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
    written = lines(LogFormat.MOZLOG)
    logger().warning("upload.failed", region="us-west-2")
    line = json.loads(written.getvalue())
    assert line["Type"] == "upload.failed"
    assert line["EnvVersion"] == "2.0"
    assert line["Severity"] == 4
    assert line["Timestamp"] > 10**18
    assert line["Fields"] == {"region": "us-west-2", "process": "web"}
    assert line.keys() >= {"Hostname", "Pid", "Logger"}


@pytest.mark.parametrize("log_format", LogFormat)
def test_no_signature_gets_into_any_log(log_format: LogFormat) -> None:
    written = lines(log_format)
    logger().info("x", url=SIGNED, other=f"see {SIGNED}")
    logging.getLogger("obstore").error("GET %s failed", SIGNED)
    assert "obstore" in written.getvalue()
    assert "failed" not in written.getvalue()
    assert "c0ffee" not in written.getvalue()


def crash(text: str) -> NoReturn:
    raise RuntimeError(text) from OSError(text)


@pytest.mark.parametrize("log_format", LogFormat)
def test_the_text_of_an_exception_stays_out_of_the_log(log_format: LogFormat) -> None:
    written = lines(log_format)
    text = "swordfish"
    try:
        crash(text)
    except RuntimeError:
        logger().exception("it.crashed")
        logging.getLogger("a.library").exception("it crashed")
    assert "RuntimeError < OSError" in written.getvalue()
    assert "test_telemetry.py" in written.getvalue()
    assert text not in written.getvalue()


def test_a_library_is_named_and_its_text_and_failed_connections_are_left_out() -> None:
    written = lines(LogFormat.JSON)
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
def test_only_failed_connections_are_left_out_of_what_asyncio_reports(
    failure: OSError, *, reported: bool
) -> None:
    written = lines(LogFormat.JSON)
    logging.getLogger("asyncio").error("socket.accept() failed", exc_info=failure)
    assert ("library.spoke" in written.getvalue()) == reported


def test_what_is_less_than_the_level_is_not_written() -> None:
    written = lines(LogFormat.JSON, level="warning")
    logger().info("quiet")
    logging.getLogger("a.library").info("quiet")
    assert written.getvalue() == ""


def test_an_exception_is_described_by_its_kinds() -> None:
    cause = ValueError("secret")
    effect = KeyError("secret")
    effect.__cause__ = cause
    assert describe(effect) == "KeyError < ValueError"
    assert describe(None) == ""


def test_every_metric_has_a_prefix_and_says_its_unit() -> None:
    for metric in vars(METRICS).values():
        assert isinstance(metric, MetricWrapperBase)
        (family,) = metric.describe()
        name = family.name
        assert re.fullmatch(r"archiver_[a-z_]+", name)
        if type(metric).__name__ == "Histogram":
            assert name.endswith("_seconds")


def test_no_metric_has_a_label_that_grows_with_use() -> None:
    labels = {
        label
        for metric in vars(METRICS).values()
        for label in metric._labelnames  # noqa: SLF001 - it is shown nowhere else
    }
    assert labels == {
        "code", "level", "method", "outcome", "place", "region", "route", "source", "version",
    }  # fmt: skip


def test_observing_many_times_at_once_is_observing_many_times() -> None:
    registry = CollectorRegistry()
    once, often = (
        Histogram(name, name, ("a",), buckets=(0.1, 1), registry=registry).labels(a="b")
        for name in ("once", "often")
    )
    for bucket, values in enumerate(((0.05, 0.1), (0.5, 0.5, 1), (7,))):
        observe_many(once, bucket=bucket, times=len(values), total=sum(values))
        for value in values:
            often.observe(value)

    told = {
        name: [(s.name.removeprefix(name), s.labels, round(s.value, 9)) for s in metric.samples]
        for metric in registry.collect()
        if (name := metric.name)
    }
    assert [s for s in told["once"] if s[0] != "_created"] == [
        s for s in told["often"] if s[0] != "_created"
    ]
    assert len(told["once"]) >= 5


COUNT = """
from prometheus_client import Counter, Gauge
Gauge("running", "", multiprocess_mode="livesum").inc()
Counter("done", "").inc()
print(end="counted", flush=True)
input()
"""


def test_what_a_dead_process_did_stays_and_what_it_was_doing_goes(tmp_path: Path) -> None:
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
