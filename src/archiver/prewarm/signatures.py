"""Verifies that the sender of a webhook knows its secret, in constant time over the raw body.

GitHub: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
Gitea and Forgejo: https://docs.gitea.com/usage/repository/webhooks
GitLab: https://docs.gitlab.com/user/project/integrations/webhooks/
Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum

WINDOW = timedelta(minutes=5)
"""How much the time in a signature may differ from ours: the recommendation of Standard Webhooks.
The other signatures have no time; a delivery that is sent again has no further effect."""

STANDARD_SECRET = "whsec_"  # noqa: S105 - what a secret in the form of the standard begins with

SIGNATURES_MAX = 8
"""While a secret is replaced, a sender signs with both."""

_TIME_DIGITS = 11

Headers = Mapping[str, str]
"""By names in lower case. A name that was sent twice has both values, joined by a comma."""


KEY_MIN_BYTES = 16
"""Of the key in a secret in the form of the standard, as many as other secrets have characters."""


class Refusal(StrEnum):
    """Why a delivery is not accepted. For the log alone: the sender does not learn it."""

    UNSIGNED = "there is no signature"
    WRONG = "the signature is not that of the secret"
    STALE = "the time of the signature is not the present"


def verify_github(headers: Headers, body: bytes, secrets: Sequence[str]) -> Refusal | None:
    """Return None if ``X-Hub-Signature-256`` is the HMAC of the body under one of *secrets*."""
    return _verify_hex(
        headers.get("x-hub-signature-256", "").removeprefix("sha256="), body, secrets
    )


def verify_gitea(headers: Headers, body: bytes, secrets: Sequence[str]) -> Refusal | None:
    """Return None if Forgejo's or Gitea's header has the HMAC of the body.

    Forgejo sends both headers. If they differ, its own decides.
    """
    sent = headers.get("x-forgejo-signature") or headers.get("x-gitea-signature", "")
    return _verify_hex(sent, body, secrets)


def verify_gitlab(
    headers: Headers, body: bytes, secrets: Sequence[str], *, now: float
) -> Refusal | None:
    """Return None if the delivery is signed, or has the secret itself in ``X-Gitlab-Token``.

    Hooks with a signing token sign as Standard Webhooks do. If there is a signature, it decides.
    """
    if "webhook-signature" in headers:
        return verify_standard(headers, body, secrets, now=now)
    token = headers.get("x-gitlab-token", "")
    if not token:
        return Refusal.UNSIGNED
    return _any_equal(token.encode("latin-1"), [secret.encode() for secret in secrets])


def verify_standard(
    headers: Headers, body: bytes, secrets: Sequence[str], *, now: float
) -> Refusal | None:
    """Return None if ``Webhook-Signature`` has the HMAC of the id, the time and the body.

    The time, ``Webhook-Timestamp``, must be that of *now*, in seconds since 1970.
    """
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    message_id, sent_at, signatures = (headers.get(name, "") for name in names)
    if not (message_id and sent_at and signatures):
        return Refusal.UNSIGNED
    signed = b".".join([message_id.encode("latin-1"), sent_at.encode("latin-1"), body])
    ours = [b"v1," + b64encode(_digest(_key(secret), signed)) for secret in secrets]
    for each in signatures.encode("latin-1").split(b" ", SIGNATURES_MAX)[:SIGNATURES_MAX]:
        if _any_equal(each, ours) is None:
            return None if _is_present(sent_at, now) else Refusal.STALE
    return Refusal.WRONG


def has_key(secret: str) -> bool:
    """Return whether *secret*, if it is in the form of the standard, has a key in Base64."""
    if not secret.startswith(STANDARD_SECRET):
        return True
    try:
        key = b64decode(secret.removeprefix(STANDARD_SECRET), validate=True)
    except binascii.Error:
        return False
    return len(key) >= KEY_MIN_BYTES


def _verify_hex(sent: str, body: bytes, secrets: Sequence[str]) -> Refusal | None:
    if not sent:
        return Refusal.UNSIGNED
    ours = [_digest(secret.encode(), body).hex().encode() for secret in secrets]
    return _any_equal(sent.encode("latin-1"), ours)


def _any_equal(sent: bytes, ours: Sequence[bytes]) -> Refusal | None:
    """Return None if *sent* is one of *ours*. Compares with each, in constant time."""
    equal = [hmac.compare_digest(sent, each) for each in ours]
    return None if any(equal) else Refusal.WRONG


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def _key(secret: str) -> bytes:
    """Return the key: the bytes that a secret in the form of the standard encodes, or its own."""
    if secret.startswith(STANDARD_SECRET):
        try:
            return b64decode(secret.removeprefix(STANDARD_SECRET), validate=True)
        except (binascii.Error, ValueError):
            pass
    return secret.encode()


def _is_present(sent_at: str, now: float) -> bool:
    is_number = sent_at.isascii() and sent_at.isdigit() and len(sent_at) <= _TIME_DIGITS
    return is_number and abs(int(sent_at) - now) <= WINDOW.total_seconds()
