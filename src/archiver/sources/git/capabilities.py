"""A host's answer to the first question about a repository: the protocol that it speaks.

Format: https://git-scm.com/docs/protocol-v2, "Capability Advertisement".
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from archiver.git_objects import SHA1_DIGITS, SHA256_DIGITS
from archiver.sources.git.pkt_line import (
    MalformedPktLineError,
    Marker,
    Packet,
    PktDecoder,
    raise_in_band,
)

ADVERTISEMENT_TYPE = "application/x-git-upload-pack-advertisement"

ADVERTISEMENT_MAX_BYTES = 64 * 1024
"""Bytes that are read. Version 2 needs some 200; versions 0 and 1 list all refs."""

DIGITS = {"sha1": SHA1_DIGITS, "sha256": SHA256_DIGITS}
"""Length of an id in each object format."""

_SERVICE = b"# service=git-upload-pack"
_OLD = re.compile(rb"[0-9a-f]{40,64} |version 1|$")
"""The first line of versions 0 and 1. Old hosts send an end marker for an empty repository."""

_DUMB_REF = re.compile(rb"[0-9a-f]{40,64}\trefs/")


class Unsupported(StrEnum):
    """Why Archiver cannot use a host."""

    DUMB = "serves git's dumb HTTP protocol only, which cannot send parts of a history"
    OLD = "speaks an old version of git's protocol only: version 2 is required"
    PAGE = "sent a page instead of git's protocol: check url_template"
    OTHER = "does not speak git's smart HTTP protocol: check url_template"
    LIMITED = "speaks version 2 of git's protocol without ls-refs, or without shallow fetches"
    UNKNOWN_FORMAT = "has an object format that is neither SHA-1 nor SHA-256"


class UnsupportedError(Exception):
    """An answer with which Archiver cannot go on, for this ``reason``."""

    def __init__(self, reason: Unsupported) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The part of an advertisement that matters.

    ``digits`` is the length of the repository's ids. Hosts that do not mention an
    ``object_format`` reject requests with one; they have SHA-1 only.
    """

    object_format: str | None

    @property
    def digits(self) -> int:
        return DIGITS[self.object_format or "sha1"]


def parse_advertisement(media_type: str, body: bytes) -> Capabilities:
    """Return the capabilities in *body*, of which only the beginning is needed.

    Raises UnsupportedError; InBandError if the host sent an error instead; or MalformedPktLineError
    if it breaks off, or breaks the rules of its own protocol.
    """
    if media_type != ADVERTISEMENT_TYPE:
        raise UnsupportedError(_explain(media_type, body))
    packets = list(PktDecoder().feed(body))
    if packets and _line(packets[0]) == _SERVICE:
        del packets[: 2 if Marker.FLUSH in packets[1:2] else 1]
    if not packets:
        raise MalformedPktLineError("the advertisement is empty")
    raise_in_band(packets[0])
    if (first := _line(packets[0])) != b"version 2":
        raise UnsupportedError(Unsupported.OLD if _OLD.match(first) else Unsupported.OTHER)
    if Marker.FLUSH not in packets:
        raise MalformedPktLineError("the advertisement has no end")
    return _capabilities([_line(packet) for packet in packets[1 : packets.index(Marker.FLUSH)]])


def _line(packet: Packet) -> bytes:
    return packet.removesuffix(b"\n") if isinstance(packet, bytes) else b""


def _capabilities(lines: list[bytes]) -> Capabilities:
    offered = {name: value for name, _, value in (line.partition(b"=") for line in lines)}
    if b"ls-refs" not in offered or b"shallow" not in offered.get(b"fetch", b"").split():
        raise UnsupportedError(Unsupported.LIMITED)
    if b"object-format" not in offered:
        return Capabilities(object_format=None)
    object_format = offered[b"object-format"].decode("ascii", errors="replace")
    if object_format not in DIGITS:
        raise UnsupportedError(Unsupported.UNKNOWN_FORMAT)
    return Capabilities(object_format=object_format)


def _explain(media_type: str, body: bytes) -> Unsupported:
    """Return the reason for an answer of another type. The dumb protocol sends a list of refs."""
    if "html" in media_type:
        return Unsupported.PAGE
    if _DUMB_REF.match(body) or (media_type == "text/plain" and not body):
        return Unsupported.DUMB
    return Unsupported.OTHER
