"""The batch API of Git LFS: where a host has files, and which it does not have.

Format: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md.
"""

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from archiver.git_objects.lfs_pointer import SIZE_MAX_BYTES, Pointer

OBJECTS_MAX = 100
"""Files of one request, as git-lfs sends them."""

RESPONSE_MAX_BYTES = 2 << 20
"""Some 20 kB for each file. Hosts send 1 kB."""

MEDIA_TYPE = "application/vnd.git-lfs+json"

HREF_MAX_CHARS = 8192
HEADERS_MAX = 32
HEADER_VALUE_MAX_CHARS = 8192

_HREF = re.compile(rf"https?://[!-~]{{1,{HREF_MAX_CHARS}}}", re.IGNORECASE)
_HEADER_NAME = re.compile(
    r"authorization|accept|x-(?!forwarded|http-method|method|original|real|rewrite)[a-z0-9-]{1,100}"
)
"""Headers that hosts demand: their own token, and those that a signature of S3 or Azure covers.
Others, such as Host and Cookie, could change what the request means to a proxy on its way."""

_HEADER_VALUE = re.compile(rf"[ -~]{{0,{HEADER_VALUE_MAX_CHARS}}}")


class MalformedBatchError(ValueError):
    """The response is not one to the request."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where a file can be downloaded, and the headers to send. Both are secrets.

    ``expires_at`` is a time of ``time.monotonic``, if the host states one.
    """

    href: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    expires_at: float | None = None

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and time.monotonic() >= self.expires_at


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that the host does not offer. ``status`` is the code that it gives, as in HTTP."""

    status: int


@dataclass(frozen=True, slots=True)
class OtherSize:
    """The host has another size for the file's hash."""

    size_bytes: int


Offer: TypeAlias = Link | Refusal | OtherSize


class _Action(msgspec.Struct):
    href: str
    header: dict[str, str] | None = None
    expires_in: float | None = None
    expires_at: str | None = None


class _Actions(msgspec.Struct):
    download: _Action | None = None


class _Error(msgspec.Struct):
    code: int


class _Object(msgspec.Struct):
    oid: str
    size: int | None = None
    actions: _Actions | None = None
    error: _Error | None = None


class _Response(msgspec.Struct):
    objects: list[_Object]
    transfer: str | None = None
    hash_algo: str | None = None


def encode_request(pointers: Sequence[Pointer]) -> bytes:
    """Return the body of the request for the links of *pointers*."""
    return msgspec.json.encode(
        {
            "operation": "download",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "objects": [{"oid": each.sha256, "size": each.size_bytes} for each in pointers],
        }
    )


def parse_response(body: bytes, pointers: Sequence[Pointer]) -> dict[Pointer, Offer]:
    """Return the host's offer for each of *pointers*, whose hashes differ.

    Raises MalformedBatchError.
    """
    if len(body) > RESPONSE_MAX_BYTES:
        raise MalformedBatchError("it is too long")
    try:
        response = msgspec.json.decode(body, type=_Response)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise MalformedBatchError("it is not the JSON of a batch") from exc
    if (response.transfer or "basic", response.hash_algo or "sha256") != ("basic", "sha256"):
        raise MalformedBatchError("it has another kind of transfer, or of hashes")
    if sorted(each.oid for each in response.objects) != sorted(each.sha256 for each in pointers):
        raise MalformedBatchError("it has other files than the request")
    found = {each.oid: each for each in response.objects}
    return {pointer: _offer(found[pointer.sha256], pointer) for pointer in pointers}


def _offer(found: _Object, pointer: Pointer) -> Offer:
    if found.error:
        code = found.error.code
        return Refusal(code if 0 < code < 1000 else 0)  # noqa: PLR2004 - three digits, as in HTTP
    action = found.actions.download if found.actions else None
    if not action:  # git-lfs takes that for a missing file
        return Refusal(404)
    if found.size != pointer.size_bytes:
        return OtherSize(min(max(found.size or 0, 0), SIZE_MAX_BYTES))
    if not _HREF.fullmatch(action.href):
        raise MalformedBatchError("it has a malformed address")
    return Link(action.href, _parse_headers(action.header or {}), _parse_expiry(action))


def _parse_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a download may need, and none that only a proxy would read."""
    if len(headers) > HEADERS_MAX:
        raise MalformedBatchError("it has too many headers")
    parsed = {}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name.lower()):
            continue
        if not _HEADER_VALUE.fullmatch(value):
            raise MalformedBatchError("it has a malformed header")
        parsed[name.title()] = value
    return parsed


def _parse_expiry(action: _Action) -> float | None:
    """Return when the link expires. Years before 2000 stand for no time in some hosts."""
    now = time.monotonic()
    if action.expires_in:
        return now + action.expires_in
    if action.expires_at:
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(action.expires_at)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            if moment.year >= 2000:  # noqa: PLR2004
                return now + (moment - datetime.now(UTC)).total_seconds()
    return None
