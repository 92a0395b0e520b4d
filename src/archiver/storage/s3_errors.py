"""Why a region did not do what it was asked to: one short code, read from obstore's exceptions.

obstore gives a type and a long text. The text holds S3's answer, addresses and more, so it never
leaves this module.
"""

import re

READ_CHARS = 8192
"""The code stands at the beginning of what may be a long page."""

NO_SUCH_BUCKET = "NoSuchBucket"
TIMEOUT = "timeout"

NOWHERE = "127.0.0.1:0"
"""Nothing can listen there. Requests that a region redirects to another host are sent to it."""

_ANSWERED = re.compile(r"Server returned non-2xx status code: (\d{3})(.*)", re.DOTALL)
_CODE = re.compile(r"<Code>\s*([A-Za-z][A-Za-z0-9.]{0,63})\s*</Code>")

_UNANSWERED = (
    ("169.254.169.254", "no_credentials"),  # the machine's role, which is asked for last
    ("InvalidCertificate", "untrusted_certificate"),
    ("AlertReceived", "tls_refused"),
    ("InvalidMessage", "not_tls"),
    ("dns error", "unknown_host"),
    (f"{NOWHERE},", "redirected"),
    ("ConnectionRefused", "connection_refused"),
    ("BareRedirect", "wrong_region"),
    ("kind: Timeout", TIMEOUT),
    ("kind: Connect,", "not_connected"),
    ("kind: Interrupted", "connection_lost"),
)
"""What obstore's text has if no answer came, the most telling words first."""


def s3_code(exc: BaseException) -> str | None:
    """Return the code of S3's answer, ``http_403`` and the like if it has none, or our own word.

    Our own words are for regions that gave no answer: ``connection_refused``, ``timeout``. None
    says that *exc* tells nothing.
    """
    text = str(exc)[:READ_CHARS]
    if answer := _ANSWERED.search(text):
        return answered(int(answer[1]), answer[2])
    return next((code for words, code in _UNANSWERED if words in text), None)


def answered(status: int, body: str) -> str:
    """Return the code of an answer that is an error."""
    code = _CODE.search(body[:READ_CHARS])
    return code[1] if code else f"http_{status}"
