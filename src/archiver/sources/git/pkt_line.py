"""Git's pkt-lines: the frames of its protocol (https://git-scm.com/docs/protocol-common)."""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TypeAlias

LINE_MAX_BYTES = 65_520
"""Size of a line, with the four digits of its length."""

_LENGTH_BYTES = 4
_ERROR = b"ERR "
_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")


class Marker(Enum):
    """A line without content, whose length has a meaning of its own."""

    FLUSH = 0
    DELIMITER = 1
    RESPONSE_END = 2


Packet: TypeAlias = bytes | Marker


class MalformedPktLineError(ValueError):
    """The bytes are not pkt-lines, or end inside of one."""


class InBandError(Exception):
    """The host sent an error in place of a response, under the status 200.

    ``text`` is the host's own: untrusted, and up to 64 KB long.
    """

    def __init__(self, text: bytes) -> None:
        super().__init__("the host reports an error")
        self.text = text


def raise_in_band(packet: Packet) -> None:
    """Raise InBandError if *packet* is an error, which may stand at the place of any line."""
    if isinstance(packet, bytes) and packet.startswith(_ERROR):
        raise InBandError(packet.removeprefix(_ERROR))


def encode(packets: Iterable[str | Packet]) -> bytes:
    """Return *packets* as pkt-lines. A text gets the newline that git puts after every command."""
    return b"".join(map(_encode, packets))


def _encode(packet: str | Packet) -> bytes:
    if isinstance(packet, Marker):
        return b"%04x" % packet.value
    content = f"{packet}\n".encode() if isinstance(packet, str) else packet
    length = _LENGTH_BYTES + len(content)
    if length > LINE_MAX_BYTES:
        raise ValueError("too long for a pkt-line")
    return b"%04x" % length + content


class PktDecoder:
    """Decodes pkt-lines from pieces of a stream. It holds less than one line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Packet]:
        """Yield the packets that *piece* completes. Raises MalformedPktLineError.

        Exhaust the iterator before the next call.
        """
        data, at = self._rest + piece, 0
        try:
            while (end := at + _length_at(data, at)) <= len(data):
                yield _packet(data[at:end])
                at = end
        finally:
            self._rest = data[at:]

    def finish(self) -> None:
        """Return if the stream may end here. Raises MalformedPktLineError inside of a line."""
        if self._rest:
            raise MalformedPktLineError("the stream ends inside of a line")


def _length_at(data: bytes, at: int) -> int:
    """Return the size of the line at *at*, or of its length while that is incomplete."""
    digits = data[at : at + _LENGTH_BYTES]
    if not _HEX_DIGITS.issuperset(digits):
        raise MalformedPktLineError("a line does not begin with its length")
    if len(digits) < _LENGTH_BYTES:
        return _LENGTH_BYTES
    length = int(digits, 16)
    if length < _LENGTH_BYTES:
        return _LENGTH_BYTES
    if length > LINE_MAX_BYTES:
        raise MalformedPktLineError("a line is too long")
    return length


def _packet(line: bytes) -> Packet:
    if (length := int(line[:_LENGTH_BYTES], 16)) >= _LENGTH_BYTES:
        return line[_LENGTH_BYTES:]
    try:
        return Marker(length)
    except ValueError as exc:
        raise MalformedPktLineError("a line has an impossible length") from exc
