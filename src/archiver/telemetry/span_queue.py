"""The queue before a collector, which counts every span that the collector does not get.

A collector that does not respond costs the process the memory of that queue.
"""

import threading
import time
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from archiver.telemetry.log_setup import log

REPORT_INTERVAL_S = 60.0


class ReportingExporter(SpanExporter):
    """Passes spans on, and logs how many were lost: at most once a minute, and at the end.

    At most *limit* spans wait. *status* returns the HTTP status of the last answer, if there was
    one: the library takes a redirect for success.
    """

    def __init__(
        self, exporter: SpanExporter, *, limit: int, status: Callable[[], int | None]
    ) -> None:
        self._exporter = exporter
        self._limit = limit
        self._status = status
        self._lock = threading.Lock()
        self._waiting = 0
        self._passing = 0
        self._lost = 0
        self._dropped = 0
        self._lost_status: int | None = None
        self._report_at = 0.0
        self._has_ended = False

    @property
    def limit(self) -> int:
        return self._limit

    def admits(self) -> bool:
        """Count a span that has ended, and return whether it may wait in the queue."""
        with self._lock:
            has_room = self._waiting < self._limit
            self._waiting += has_room
            self._dropped += not has_room
        return has_room

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self._waiting -= len(spans)
            if self._has_ended:
                return SpanExportResult.FAILURE
            self._passing = len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - the library's text may quote the address
            result = SpanExportResult.FAILURE
        status = self._status()
        if status is not None and not 200 <= status < 300:  # noqa: PLR2004
            result = SpanExportResult.FAILURE
        with self._lock:
            self._passing = 0
            if self._has_ended:
                return result
            if result is not SpanExportResult.SUCCESS:
                self._lost += len(spans)
                self._lost_status = status
        if time.monotonic() >= self._report_at:
            self._report()
        return result

    def _report(self) -> None:
        with self._lock:
            lost, dropped, status = self._lost, self._dropped, self._lost_status
            self._lost, self._dropped, self._lost_status = 0, 0, None
        if lost or dropped:
            self._report_at = time.monotonic() + REPORT_INTERVAL_S
            answer = {} if status is None else {"status": status}
            log.warning("traces.not_sent", spans=lost + dropped, dropped=dropped, **answer)

    def shutdown(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
            self._lost += self._waiting + self._passing
        self._exporter.shutdown()
        self._report()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class SpanQueue(BatchSpanProcessor):
    """The library's queue. It would drop spans without a word, so none reach it when it is full."""

    def __init__(self, exporter: ReportingExporter) -> None:
        super().__init__(exporter, max_queue_size=exporter.limit)
        self._reporting = exporter

    def on_end(self, span: ReadableSpan) -> None:
        if span.context and span.context.trace_flags.sampled and self._reporting.admits():
            super().on_end(span)
