"""Whether the environment turns tracing on: the variables that OpenTelemetry defines.

Traces are never a reason not to serve. If the environment asks for what this process cannot do, it
says so in its log, and runs without traces.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec

from archiver.telemetry import tracing
from archiver.telemetry.log_setup import describe, log
from archiver.telemetry.tracing_variables import CannotTrace, require_valid

EXPORTERS = ("otlp", "console")

PROTOCOL = "http/protobuf"

_MODULE = "archiver.telemetry.open_telemetry"


def wanted_exporters(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return where traces are to go; nothing if tracing is off.

    Raises CannotTrace.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    named = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    exporters = tuple(filter(None, (each.strip() for each in named.split(","))))
    if not exporters and _either(environment, "ENDPOINT"):
        exporters = ("otlp",)
    if exporters in {(), ("none",)}:
        return ()
    if unknown := set(exporters).difference(EXPORTERS):
        raise CannotTrace(
            f"OTEL_TRACES_EXPORTER: unsupported {min(unknown)!r}: use one of otlp, console, none"
        )
    protocol = _either(environment, "PROTOCOL") or PROTOCOL
    if "otlp" in exporters and protocol != PROTOCOL:
        raise CannotTrace(f"OTEL_EXPORTER_OTLP_PROTOCOL: unsupported {protocol!r}: use {PROTOCOL}")
    require_valid(environment, exporters)
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise CannotTrace("OTEL_* is set, but the extra 'otel' is not installed")
    return exporters


def _either(environment: Mapping[str, str], name: str) -> str:
    """Return the variable for traces, or else the one for all signals."""
    own = environment.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return own or environment.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def tracing_problem() -> str | None:
    """Return why the traces that the environment asks for would not be sent, if so."""
    try:
        wanted_exporters()
    except CannotTrace as exc:
        return str(exc)
    return None


@asynccontextmanager
async def sending_traces(*, process: str, version: str) -> AsyncIterator[None]:
    """Record spans while the block runs, if the environment says so, and send them.

    Enter it in the process that serves: it starts a thread.
    """
    try:
        exporters = wanted_exporters()
        opened = _open(exporters, process, version) if exporters else None
    except CannotTrace as exc:
        log.warning("traces.off", reason=str(exc))
        exporters, opened = (), None
    if opened is None:
        yield
        return
    recorder, close = opened
    tracing.record_with(recorder)
    log.info("traces.on", exporters=exporters)
    try:
        yield
    finally:
        tracing.record_with(None)
        await asyncio.to_thread(close)


def _open(
    exporters: Sequence[str], process: str, version: str
) -> tuple[tracing.Recorder, Callable[[], None]]:
    """Return what records spans, and a function that ends it. Raises CannotTrace."""
    try:
        opened: tuple[tracing.Recorder, Callable[[], None]] = import_module(_MODULE).open_recorder(
            exporters, process=process, version=version
        )
    except Exception as exc:
        raise CannotTrace(f"OpenTelemetry did not start: {describe(exc)}") from exc
    return opened
