"""Logs, metrics and traces."""

from archiver.telemetry.exposition import METRICS_TYPE, exposition, forget_dead_processes
from archiver.telemetry.first_values import begin_web_at_zero, begin_worker_at_zero
from archiver.telemetry.log_setup import LogFormat, describe, log, set_up_logging
from archiver.telemetry.metrics import METRICS, all_metrics, observe_many, request_bucket

__all__ = [
    "METRICS",
    "METRICS_TYPE",
    "LogFormat",
    "all_metrics",
    "begin_web_at_zero",
    "begin_worker_at_zero",
    "describe",
    "exposition",
    "forget_dead_processes",
    "log",
    "observe_many",
    "request_bucket",
    "set_up_logging",
]
