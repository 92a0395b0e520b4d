"""Parses the XML of a bucket's answers within a small, fixed amount of memory."""

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

DEPTH_MAX = 10
"""S3 nests the answers that Archiver reads five levels deep at most."""

ELEMENTS_MAX = 50_000
"""S3 lists a thousand entries at a time, which have about a dozen elements each."""

_PIECE_BYTES = 64 << 10
"""The parser notices a refusal only between two pieces."""


def parse_xml(body: bytes) -> ET.Element:
    """Return the root of *body*.

    Raises ``ParseError`` if it is malformed, deep, has a document type, or too many elements.
    """
    parser = ET.XMLParser(target=_BoundedBuilder())  # noqa: S314 - the builder has limits
    for start in range(0, len(body), _PIECE_BYTES):
        parser.feed(body[start : start + _PIECE_BYTES])
    root: ET.Element = parser.close()
    return root


def parse_time(text: str) -> datetime:
    """Return a time as S3 writes it. Some servers omit the time zone; it is UTC then."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


class _BoundedBuilder(ET.TreeBuilder):
    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._elements = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        self._depth += 1
        self._elements += 1
        if self._depth > DEPTH_MAX or self._elements > ELEMENTS_MAX:
            raise ET.ParseError("the answer is too deep or has too many elements")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self._depth -= 1
        return super().end(tag)

    def doctype(self, _name: str, _public: str, _system: str) -> None:
        """Refuse a document type: its entities can grow without limit."""
        raise ET.ParseError("the answer has a document type")
