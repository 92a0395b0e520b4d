"""Reasons why a process cannot use NATS: a stable word for each, and what an operator should check.

nats-py reports a fault several times a second while it lasts, in its own words or in those of a
library below it. The log gets one line, and another one if the fault lasts.
"""

import socket
import ssl
import time
from collections.abc import Callable
from datetime import timedelta

import nats.errors
import nats.js.errors

from archiver.telemetry import describe, log

REPEAT_AFTER = timedelta(minutes=1)
VAGUE_FOR = timedelta(seconds=3)

WRONG_HOST_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""

TOO_FEW_SERVERS = frozenset({10005, 10023, 10052, 10074})
"""No suitable peers, insufficient resources, and two ways to say that this is no cluster."""

NO_QUORUM = 10008
"""JetStream system temporarily unavailable: also for seconds, while servers elect a leader."""

_JETSTREAM = {
    NO_QUORUM: "no_quorum",
    **dict.fromkeys((10039, 10076), "no_jetstream"),
    **dict.fromkeys(TOO_FEW_SERVERS, "too_few_servers"),
    **dict.fromkeys((10028, 10047), "no_room"),
}
"""Reasons by the error code of JetStream."""

CHECKS = {
    "unknown_host": "the host name in engine.url, and this machine's DNS",
    "refused": "host and port in engine.url, and whether the server is running",
    "timed_out": "host and port in engine.url, the route to it, and DNS",
    "unreachable": "host and port in engine.url, and the route to it",
    "broken_off": "whether engine.url is the address of NATS, "
    "and whether it requires a client certificate",
    "untrusted_certificate": "engine.ca_file: it must contain the authority of the server's "
    "certificate, which must be valid today",
    "wrong_host_name": "the host name in engine.url: the server's certificate names another host",
    "demands_certificate": "engine.tls_cert and engine.tls_key: the server requires a client "
    "certificate of an authority that it trusts",
    "tls_failed": "whether server and client have a TLS version and a cipher in common",
    "tls_not_offered": "engine.url and the other TLS settings: they require TLS, "
    "and the server does not offer it; nothing was sent",
    "not_authorized": "engine.user and engine.password, or engine.credentials_file",
    "not_permitted": "the permissions of the account's user in NATS",
    "unreadable_file": "whether this user may read engine.credentials_file, engine.ca_file, "
    "engine.tls_cert and engine.tls_key, and whether they contain what they should: "
    "a JWT and a seed, authorities, a certificate, and its key without a password",
    "no_jetstream": "whether JetStream is enabled, on the server and for the account",
    "too_few_servers": "engine.replicas: a new stream needs as many servers in the cluster",
    "no_room": "the limits of JetStream, on the server and for the account",
    "no_quorum": "whether most servers of the cluster are running, and start the others",
    "silent": "whether the server at this address hangs or the cluster has no quorum, "
    "and the user's permissions for $JS.API.>",
    "other": "the server's own log",
}

VAGUE = frozenset({"broken_off", "no_quorum", "silent", "timed_out", "other"})
"""Reasons that are not logged if a more precise one is reported before the fault ends, or if it
ends soon."""


class TlsNotOffered(nats.errors.Error):
    """The settings require TLS and the server does not offer it."""


class UnreadableFile(nats.errors.Error):
    """A file that the settings name cannot be read, or has other content."""


_PLAIN: tuple[tuple[type[BaseException], str], ...] = (  # the first match counts
    (TlsNotOffered, "tls_not_offered"),
    (UnreadableFile, "unreadable_file"),
    (socket.gaierror, "unknown_host"),
    (nats.errors.NoRespondersError, "no_jetstream"),
    (nats.errors.AuthorizationError, "not_authorized"),
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "broken_off"),
    (nats.errors.UnexpectedEOF, "broken_off"),
    (nats.errors.StaleConnectionError, "broken_off"),
    (nats.errors.TimeoutError, "silent"),
    (TimeoutError, "timed_out"),
    (OSError, "unreachable"),
)


def reason_of(exc: BaseException) -> str:
    """Return the reason for *exc*: a key of CHECKS."""
    match exc:
        case ssl.SSLError():
            return _tls_reason(exc)
        case nats.js.errors.APIError():
            return _jetstream_reason(exc)
        case _:
            plain = (reason for kind, reason in _PLAIN if isinstance(exc, kind))
            return next(plain, None) or _server_reason(str(exc).lower())


def _tls_reason(exc: ssl.SSLError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        wrong_name = exc.verify_code in WRONG_HOST_NAME
        return "wrong_host_name" if wrong_name else "untrusted_certificate"
    alert = exc.reason or ""
    if "ALERT" in alert and ("CERTIFICATE" in alert or "UNKNOWN_CA" in alert):
        return "demands_certificate"
    return "tls_failed"


def _jetstream_reason(exc: nats.js.errors.APIError) -> str:
    if exc.err_code is None and isinstance(exc, nats.js.errors.ServiceUnavailableError):
        return "no_jetstream"  # no server answers
    return _JETSTREAM.get(exc.err_code or 0, "other")


def _server_reason(message: str) -> str:
    """Return the reason in an ``-ERR`` (https://docs.nats.io/reference/nats-protocol)."""
    if "permissions violation" in message:
        return "not_permitted"
    if "authorization" in message or "authentication" in message:
        return "not_authorized"
    return "other"


class Faults:
    """Logs each reason at most once a minute, as the event that the caller names.

    A vague reason is logged only if it lasts and no precise one was reported.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_at: dict[str, float] = {}

    def report(self, event: str, exc: BaseException) -> None:
        reason, now = reason_of(exc), self._clock()
        patience = VAGUE_FOR if reason in VAGUE else timedelta(0)
        due_at = self._due_at.setdefault(reason, now + patience.total_seconds())
        known_better = reason in VAGUE and not VAGUE.issuperset(self._due_at)
        if now >= due_at and not known_better:
            self._due_at[reason] = now + REPEAT_AFTER.total_seconds()
            log.warning(event, reason=reason, check=CHECKS[reason], cause=describe(exc))

    @property
    def reason(self) -> str | None:
        """The reason of the fault that lasts: a precise one, if there is one."""
        precise = (reason for reason in self._due_at if reason not in VAGUE)
        return next(precise, None) or next(iter(self._due_at), None)

    def forget_all(self) -> None:
        """Forget what was reported: the fault is over, or another one begins."""
        self._due_at.clear()
