"""The variables of OpenTelemetry that have a form.

The library replaces a value that it cannot read by its default, and says nothing that Archiver
would log: a misspelt sampler would trace everything.
"""

import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

RATIO_SAMPLERS = ("traceidratio", "parentbased_traceidratio")

SAMPLERS = (
    *("always_on", "always_off", "parentbased_always_on", "parentbased_always_off"),
    *RATIO_SAMPLERS,
)

COMPRESSIONS = ("none", "gzip", "deflate")

TIMEOUT_MAX_S = 600.0

DELAY_MAX_MS = 3_600_000

QUEUE_SIZE = 2048

_OTLP = "OTEL_EXPORTER_OTLP"

_TRACES = "OTEL_EXPORTER_OTLP_TRACES"


class CannotTrace(Exception):
    """The environment asks for traces that this process cannot send."""


def require_valid(environment: Mapping[str, str], exporters: Sequence[str]) -> None:
    """Raise CannotTrace if a variable has no valid value for *exporters*.

    No text quotes a value that may hold a password.
    """
    _require_sampler(environment)
    _require_queue(environment)
    if "otlp" in exporters:
        _require_endpoint(environment)
        _require_timeout(environment)
        _require_compression(environment)
        _require_certificates(environment)


def queue_size(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many spans may wait in the queue of an exporter. Raises CannotTrace."""
    return _count(environment, "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SIZE)


def _require_sampler(environment: Mapping[str, str]) -> None:
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").lower()
    argument = environment.get("OTEL_TRACES_SAMPLER_ARG", "")
    if sampler and sampler not in SAMPLERS:
        raise CannotTrace(
            f"OTEL_TRACES_SAMPLER: unsupported {sampler!r}: use one of {', '.join(SAMPLERS)}"
        )
    if argument and not sampler:
        raise CannotTrace(
            "OTEL_TRACES_SAMPLER_ARG has no effect without OTEL_TRACES_SAMPLER: use one of "
            + ", ".join(RATIO_SAMPLERS)
        )
    if sampler in RATIO_SAMPLERS and argument and not 0 <= _number(argument) <= 1:
        raise CannotTrace(f"OTEL_TRACES_SAMPLER_ARG: {argument!r} is not a number from 0 to 1")


def _number(text: str) -> float:
    """Return the number in *text*, or -1, which no variable may have."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def _require_queue(environment: Mapping[str, str]) -> None:
    size = queue_size(environment)
    batch = _count(environment, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
    if batch > size:
        raise CannotTrace(
            f"OTEL_BSP_MAX_EXPORT_BATCH_SIZE: {batch} is more than OTEL_BSP_MAX_QUEUE_SIZE: {size}"
        )
    for name in ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT"):
        if _count(environment, name, 1) > DELAY_MAX_MS:
            raise CannotTrace(f"{name}: more than an hour ({DELAY_MAX_MS} milliseconds)")


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count <= 0:
        raise CannotTrace(f"{name}: {text!r} is not a whole number above 0")
    return count


def _named(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return the variable that the library reads, and its value: the one for traces goes first."""
    own = f"{_TRACES}_{name}"
    if value := environment.get(own):
        return own, value
    return f"{_OTLP}_{name}", environment.get(f"{_OTLP}_{name}", "")


def _require_endpoint(environment: Mapping[str, str]) -> None:
    variable, value = _named(environment, "ENDPOINT")
    if value and not _is_address(value):
        raise CannotTrace(f"{variable}: not an address that begins with http:// or https://")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        has_host = parts.scheme in {"http", "https"} and bool(parts.hostname)
        return has_host and parts.port != 0 and text.isprintable() and " " not in text
    except ValueError:
        return False


def _require_timeout(environment: Mapping[str, str]) -> None:
    variable, value = _named(environment, "TIMEOUT")
    if value and not 0 < _number(value) <= TIMEOUT_MAX_S:
        raise CannotTrace(
            f"{variable}: {value!r} is not a number of seconds above 0, at most {TIMEOUT_MAX_S:.0f}"
        )


def _require_compression(environment: Mapping[str, str]) -> None:
    variable, value = _named(environment, "COMPRESSION")
    if value and value.lower().strip() not in COMPRESSIONS:
        raise CannotTrace(
            f"{variable}: unsupported {value!r}: use one of {', '.join(COMPRESSIONS)}"
        )


def _require_certificates(environment: Mapping[str, str]) -> None:
    authority, trusted = _named(environment, "CERTIFICATE")
    client, certificate = _named(environment, "CLIENT_CERTIFICATE")
    secret, key = _named(environment, "CLIENT_KEY")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusted:
        try:
            if Path(trusted).is_dir():
                context.load_verify_locations(capath=trusted)
            else:
                context.load_verify_locations(cafile=trusted)
        except (OSError, ValueError) as exc:
            raise CannotTrace(f"{authority}: {_reason(exc)}") from exc
    if key and not certificate:
        raise CannotTrace(f"{secret} has no effect without {_OTLP}_CLIENT_CERTIFICATE")
    if certificate:
        try:
            # Without this password, OpenSSL would ask for one at the terminal, and wait.
            context.load_cert_chain(certificate, key or None, password=lambda: "")
        except (OSError, ValueError) as exc:
            raise CannotTrace(f"{client}, or {secret}: {_reason(exc)}") from exc


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, ssl.SSLError) or not isinstance(exc, OSError) or not exc.strerror:
        return "not a PEM file that OpenSSL can use"
    return exc.strerror
