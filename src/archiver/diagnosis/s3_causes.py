"""Causes of failed requests to S3, by its code or Archiver's own, and the action for each."""

from dataclasses import dataclass

UNKNOWN = "the server gives no reason that Archiver knows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a request failed, as a clause, and what to do. ``{region}`` is the path of the settings.

    It may be the ``clock``. ``{endpoint}`` is the setting with the address that was asked,
    ``{bucket}`` the name of the bucket, ``{aws_region}`` that of the region in signatures.
    """

    found: str
    action: str
    clock: bool = False


_ADDRESS = "check host and port in {endpoint}, and whether the server runs"
_ROUTE = "check host and port in {endpoint}, and the firewalls and the route to it"
_REGION = Cause(
    found="the bucket {bucket} is in another region than {aws_region}",
    action="set {region}.aws_region to the bucket's region, and {endpoint} to an address of it",
)
_CREDENTIALS = Cause(
    found="the credentials have expired",
    action="renew what {region}.access_key_id, the environment or the machine's role provides",
)
_CLOCK = Cause(
    found="the clocks of this machine and the server differ too much for signatures",
    action="synchronize the clock of this machine, or of the server, with NTP",
    clock=True,
)
_BUSY = Cause(
    found="the server is overloaded or broken",
    action="look into the server's own log and status page",
)
_FULL = Cause(
    found="the server or the bucket is full",
    action="make room on the server, or raise the quota of {bucket}",
)

CAUSES = {
    "InvalidAccessKeyId": Cause(
        found="the server does not know the access key",
        action="correct {region}.access_key_id, or create the key on the server",
    ),
    "SignatureDoesNotMatch": Cause(
        found="the secret key is wrong",
        action="set {region}.secret_access_key to the secret of {region}.access_key_id",
    ),
    "no_credentials": Cause(
        found="there are no credentials",
        action="set {region}.access_key_id and secret_access_key, or give the machine a role",
    ),
    **dict.fromkeys(("ExpiredToken", "InvalidToken", "TokenRefreshRequired"), _CREDENTIALS),
    "NoSuchBucket": Cause(
        found="there is no bucket {bucket}",
        action="correct {region}.bucket, or create the bucket",
    ),
    **dict.fromkeys(
        (
            *("AuthorizationHeaderMalformed", "AuthorizationQueryParametersError"),
            *("PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"),
            *("InvalidRegion", "wrong_region", "redirected", "http_301", "http_307"),
        ),
        _REGION,
    ),
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestExpired"), _CLOCK),
    **dict.fromkeys(("QuotaExceeded", "XMinioStorageFull", "http_507"), _FULL),
    **dict.fromkeys(
        ("InternalError", "ServiceUnavailable", "SlowDown", "http_500", "http_502", "http_503"),
        _BUSY,
    ),
    "unknown_host": Cause(
        found="the host name is unknown",
        action="check the host name in {endpoint}, and this machine's DNS",
    ),
    "connection_refused": Cause(found="the connection is refused", action=_ADDRESS),
    "connection_lost": Cause(found="the connection breaks off", action=_ADDRESS),
    "not_connected": Cause(found="there is no connection", action=_ROUTE),
    "timeout": Cause(found="there is no answer in time", action=_ROUTE),
    "untrusted_certificate": Cause(
        found="the server's certificate is not trusted, or is of another host",
        action="set {region}.ca_file to its authority, or correct the host name in {endpoint}",
    ),
    "tls_refused": Cause(
        found="the server refuses TLS", action="check scheme and port in {endpoint}"
    ),
    "not_tls": Cause(
        found="the server does not speak TLS there", action="check scheme and port in {endpoint}"
    ),
}

_BEFORE_ALLOWING = {
    "s3:ListBucket": "check the bucket's name in {region}.bucket, or ",
    "s3:PutObject": "run it with --role web if these are the keys of a web process, else ",
}
"""What else may be the reason that access is denied without a permission, and what to do."""

_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "http_401", "http_403"})


def cause_of(code: str | None, *, needs: str) -> Cause:
    """Return the cause that *code* names. Without the permission *needs*, access is denied."""
    if code in _DENIED:
        allow = f"allow {needs} on {{bucket}}, as docs/how-to/set-up-buckets.md describes"
        return Cause(
            found="the keys may not do this", action=f"{_BEFORE_ALLOWING.get(needs, '')}{allow}"
        )
    if code in CAUSES:
        return CAUSES[code]
    return Cause(
        found=UNKNOWN if code is None else "the server refuses the request",
        action="look into the server's own log, and check {endpoint} and {region}.bucket",
    )
