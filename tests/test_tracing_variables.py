"""Variables of OpenTelemetry with values that the library would silently replace."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from archiver.telemetry import LogFormat, tracing
from archiver.telemetry.tracing_setup import sending_traces, wanted_exporters
from archiver.telemetry.tracing_variables import SAMPLERS, CannotTrace
from tests.test_telemetry import capture_log

OTLP = "OTEL_EXPORTER_OTLP"
BSP = "OTEL_BSP"
SAMPLER = "OTEL_TRACES_SAMPLER"
RATIO = {SAMPLER: "parentbased_traceidratio"}
ENDPOINT = {f"{OTLP}_ENDPOINT": "http://127.0.0.1:4318"}

INVALID: tuple[tuple[Mapping[str, str], str], ...] = (
    ({SAMPLER: "parent_based_traceidratio", f"{SAMPLER}_ARG": "0.01"}, f"{SAMPLER}: unsupported"),
    ({SAMPLER: "bogus"}, "use one of always_on, always_off"),
    ({SAMPLER: " always_off"}, f"{SAMPLER}: unsupported"),
    ({f"{SAMPLER}_ARG": "0.01"}, "no effect without OTEL_TRACES_SAMPLER"),
    *(
        ({**RATIO, f"{SAMPLER}_ARG": value}, f"{SAMPLER}_ARG: '{value}' is not a number from 0 to")
        for value in ("0,01", "1%", "9", "-0.1", "nan", "inf", "x")
    ),
    *(
        ({f"{OTLP}_ENDPOINT": value}, f"{OTLP}_ENDPOINT: not an address")
        for value in (
            "collector:4318",
            "grpc://collector:4317",
            "http://",
            "http://a:x",
            "http://a b",
        )
    ),
    ({f"{OTLP}_TRACES_ENDPOINT": "collector"}, f"{OTLP}_TRACES_ENDPOINT: not an address"),
    *(
        ({f"{OTLP}_TIMEOUT": value}, f"{OTLP}_TIMEOUT: '{value}' is not a number of seconds")
        for value in ("10s", "0", "-1", "nan", "10000")
    ),
    ({f"{OTLP}_TRACES_TIMEOUT": "x"}, f"{OTLP}_TRACES_TIMEOUT"),
    ({f"{OTLP}_COMPRESSION": "zstd"}, f"{OTLP}_COMPRESSION: unsupported 'zstd'"),
    *(
        ({f"{BSP}_{name}": value}, f"{BSP}_{name}: '{value}' is not a whole number")
        for name in ("MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "SCHEDULE_DELAY", "EXPORT_TIMEOUT")
        for value in ("many", "0", "1.5")
    ),
    ({f"{BSP}_MAX_QUEUE_SIZE": "100"}, "512 is more than OTEL_BSP_MAX_QUEUE_SIZE: 100"),
    ({f"{BSP}_SCHEDULE_DELAY": "9" * 12}, "more than an hour"),
    ({f"{OTLP}_CERTIFICATE": "/no/such/file"}, f"{OTLP}_CERTIFICATE: No such file"),
    ({f"{OTLP}_CERTIFICATE": __file__}, f"{OTLP}_CERTIFICATE: not a PEM file"),
    ({f"{OTLP}_CLIENT_CERTIFICATE": "/no/such/file"}, "CLIENT_KEY: No such file"),
    ({f"{OTLP}_CLIENT_CERTIFICATE": __file__}, "CLIENT_KEY: not a PEM file"),
    ({f"{OTLP}_CLIENT_KEY": __file__}, f"no effect without {OTLP}_CLIENT_CERTIFICATE"),
)


@pytest.mark.parametrize(("variables", "reason"), INVALID, ids=str)
def test_a_value_that_the_library_would_replace_turns_traces_off(
    variables: Mapping[str, str], reason: str
) -> None:
    with pytest.raises(CannotTrace) as raised:
        wanted_exporters({**ENDPOINT, **variables})
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    "variables",
    (
        *({SAMPLER: name} for name in SAMPLERS),
        {SAMPLER: "Always_On"},
        {SAMPLER: "", f"{SAMPLER}_ARG": ""},
        *({**RATIO, f"{SAMPLER}_ARG": value} for value in ("0", "1", "0.01", "1e-3")),
        {f"{OTLP}_ENDPOINT": "https://user:swordfish@[::1]:4318/prefix/"},
        {f"{OTLP}_TIMEOUT": "0.5", f"{BSP}_MAX_QUEUE_SIZE": "4096", f"{BSP}_SCHEDULE_DELAY": ""},
        {f"{OTLP}_COMPRESSION": "gzip"},
        {f"{OTLP}_TRACES_TIMEOUT": "1", f"{OTLP}_TIMEOUT": "not read"},
    ),
)
def test_valid_values_leave_traces_on(variables: Mapping[str, str]) -> None:
    assert wanted_exporters({**ENDPOINT, **variables}) == ("otlp",)


def test_variables_of_a_collector_do_not_matter_without_one() -> None:
    console = {"OTEL_TRACES_EXPORTER": "console", f"{OTLP}_ENDPOINT": "x", f"{OTLP}_TIMEOUT": "x"}
    assert wanted_exporters(console) == ("console",)
    assert wanted_exporters({**console, "OTEL_TRACES_EXPORTER": "none", SAMPLER: "bogus"}) == ()


def test_an_address_with_a_password_is_not_quoted() -> None:
    with pytest.raises(CannotTrace) as raised:
        wanted_exporters({f"{OTLP}_ENDPOINT": "ftp://user:swordfish@collector"})
    assert "swordfish" not in str(raised.value)


def test_a_process_with_an_invalid_value_says_so_and_records_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = capture_log(LogFormat.JSON)
    for name, value in {**ENDPOINT, SAMPLER: "bogus"}.items():
        monkeypatch.setenv(name, value)

    async def is_on() -> bool:
        async with sending_traces(process="web", version="1"):
            return tracing.is_on()

    assert not asyncio.run(is_on())
    (line,) = map(json.loads, written.getvalue().splitlines())
    assert line["event"] == "traces.off"
    assert "OTEL_TRACES_SAMPLER: unsupported 'bogus'" in line["reason"]


def test_readable_certificates_are_accepted_and_an_encrypted_key_asks_for_no_password(
    tmp_path: Path,
) -> None:
    authority, pair, locked = tmp_path / "ca.pem", tmp_path / "pair.pem", tmp_path / "locked.pem"
    issued = (ca := trustme.CA()).issue_cert("client.example.org")
    ca.cert_pem.write_to_path(authority)
    issued.private_key_and_cert_chain_pem.write_to_path(pair)
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"swordfish"))
    )

    valid = {f"{OTLP}_CERTIFICATE": str(authority), f"{OTLP}_CLIENT_CERTIFICATE": str(pair)}
    assert wanted_exporters({**ENDPOINT, **valid}) == ("otlp",)
    assert wanted_exporters({**ENDPOINT, f"{OTLP}_CERTIFICATE": str(tmp_path)}) == ("otlp",)
    with pytest.raises(CannotTrace, match="CLIENT_KEY: not a PEM file"):
        wanted_exporters({**ENDPOINT, **valid, f"{OTLP}_CLIENT_KEY": str(locked)})
