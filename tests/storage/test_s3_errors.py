"""Codes of failed requests: from S3's response, or Archiver's own without a response."""

from dataclasses import replace

import pytest
from obstore.exceptions import GenericError

from archiver.errors import StorageUnavailable
from archiver.model import Region
from archiver.storage.s3_errors import SCAN_CHARS, s3_code
from tests.parts.process import free_port
from tests.parts.s3 import Home
from tests.parts.s3_fault_proxy import Fault
from tests.storage.conftest import EAST, TwoRegions, an_archive, stream
from tests.storage.test_bucket import run

WITH_RESPONSE = "Error performing PUT http://s3/b/k in 1ms - Server returned non-2xx status code: "
WITHOUT_RESPONSE = """HTTP error: error sending request

Debug source:
Generic { source: RetryError( RetryErrorImpl { inner: Http( HttpError { %s } ) } ) }"""


@pytest.mark.parametrize(
    ("text", "code"),
    (
        (
            "403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code></Error>",
            "SignatureDoesNotMatch",
        ),
        ("507 Insufficient Storage: <Error><Code>\n QuotaExceeded </Code>", "QuotaExceeded"),
        ("403 Forbidden: ", "http_403"),
        ("400 Bad Request: <html>InvalidCertificate</html>", "http_400"),
        ("400 Bad Request: <Code>" + "A" * 65 + "</Code>", "http_400"),
        ("400 Bad Request: <Code>a b\r\nc</Code>", "http_400"),
        ("500 Oops: " + "." * SCAN_CHARS + "<Code>InternalError</Code>", "http_500"),
    ),
)
def test_an_error_response_has_the_code_of_s3_or_its_status(text: str, code: str) -> None:
    assert s3_code(GenericError(WITH_RESPONSE + text)) == code


@pytest.mark.parametrize(
    ("inner", "code"),
    (
        ("kind: Connect, InvalidCertificate(UnknownIssuer)", "untrusted_certificate"),
        ("kind: Connect, AlertReceived(CertificateRequired)", "tls_refused"),
        ("kind: Connect, InvalidMessage(InvalidContentType)", "not_tls"),
        ('kind: Connect, ConnectError("dns error")', "unknown_host"),
        ("kind: Connect, Os { kind: ConnectionRefused }", "connection_refused"),
        ("kind: Connect, Os { kind: NetworkUnreachable }", "not_connected"),
        ("kind: Timeout, source: TimedOut", "timeout"),
        ("kind: Interrupted, Os { kind: ConnectionReset }", "connection_lost"),
        ("uri: http://169.254.169.254/latest, kind: Timeout", "no_credentials"),
        ("something new", None),
    ),
)
def test_a_failure_without_response_has_a_code_of_archivers_own(
    inner: str, code: str | None
) -> None:
    assert s3_code(GenericError(WITHOUT_RESPONSE % inner)) == code


def test_real_servers_errors_have_their_codes(home: Home) -> None:
    server = home.server
    closed = f"http://127.0.0.1:{free_port()}"
    homes = {
        "SignatureDoesNotMatch": replace(home, server=replace(server, secret_key="wrong")),  # noqa: S106
        "InvalidAccessKeyId": replace(home, server=replace(server, access_key="nobody")),
        "NoSuchBucket": replace(home, names={EAST: "nowhere"}),
        "connection_refused": replace(home, server=replace(server, endpoint=closed)),
    }
    for code, sick in homes.items():
        bucket = sick.bucket(EAST)
        for ask in (
            lambda bucket=bucket: bucket.put_object("archives/x.zip", stream(b"data")),
            lambda bucket=bucket: bucket.read_manifest(an_archive()),
        ):
            with pytest.raises(StorageUnavailable) as raised:
                run(ask)
            assert raised.value.log_fields == {"code": "storage_unavailable", "s3_code": code}
            assert raised.value.reason == f"{raised.value.message} ({code})"


def test_a_missing_bucket_is_an_outage_and_not_an_absent_archive(home: Home) -> None:
    missing = replace(home, names={Region("us-east-1"): "nowhere"}).bucket(EAST)
    with pytest.raises(StorageUnavailable):
        run(lambda: missing.find_copy(an_archive()))


def test_an_error_has_the_code_of_its_cause(two_regions: TwoRegions) -> None:
    for sink in two_regions.sinks.values():
        sink.misbehave = lambda _method, _target: Fault.FORBID
    with pytest.raises(StorageUnavailable, match="no region took") as raised:
        two_regions.use(lambda storage: storage.upload(an_archive(), stream(b"data"), attempt="a1"))
    assert raised.value.log_fields["s3_code"] == "AccessDenied"
    assert raised.value.reason == "no region took the archive (AccessDenied)"
