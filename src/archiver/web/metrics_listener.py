"""An address of its own for the metrics of the web processes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from archiver.web.address_claim import CannotListen

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Have each process that starts in the block report the sum of all processes' metrics."""
    if METRICS_FOLDER in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="archiver-metrics-") as folder:
        os.environ[METRICS_FOLDER] = folder
        yield


@contextmanager
def serving_metrics(address: str | None) -> Iterator[None]:
    """Serve the metrics of all processes on *address* (``host:port``), if there is one.

    The block must be inside of ``shared_metrics``. Raises CannotListen.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as exc:
        raise CannotListen(exc.strerror or "no such host") from exc
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
