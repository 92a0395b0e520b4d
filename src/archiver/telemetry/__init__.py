"""Logs, metrics and traces."""

from archiver.telemetry.log_setup import LogFormat, describe, log, set_up_logging
from archiver.telemetry.metrics import (
    METRICS,
    METRICS_TYPE,
    exposition,
    forget_dead_processes,
    observe_many,
    request_bucket,
)

__all__ = [
    "METRICS",
    "METRICS_TYPE",
    "LogFormat",
    "describe",
    "exposition",
    "forget_dead_processes",
    "log",
    "observe_many",
    "request_bucket",
    "set_up_logging",
]
