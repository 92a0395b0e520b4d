"""Pkt-lines: written as git reads them, and read however the stream is cut into pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.sources.git.pkt_line import (
    LINE_MAX_BYTES,
    MalformedPktLineError,
    Marker,
    Packet,
    PktDecoder,
    encode,
)

packets = st.lists(st.one_of(st.binary(max_size=50), st.sampled_from(Marker)), max_size=20)


def decode(*pieces: bytes) -> list[Packet]:
    decoder = PktDecoder()
    found = [packet for piece in pieces for packet in decoder.feed(piece)]
    decoder.finish()
    return found


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(at)]


@given(packets=packets, cuts=st.lists(st.integers(min_value=0), max_size=30))
def test_packets_are_read_as_written_from_any_pieces(
    packets: list[Packet], cuts: list[int]
) -> None:
    assert decode(*pieces_of(encode(packets), cuts)) == packets


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(min_value=0), max_size=30))
def test_pieces_do_not_change_how_malformed_bytes_are_read(data: bytes, cuts: list[int]) -> None:
    def outcome(*pieces: bytes) -> list[Packet] | None:
        try:
            return decode(*pieces)
        except MalformedPktLineError:
            return None

    assert outcome(*pieces_of(data, cuts)) == outcome(data)


@given(packets=packets.filter(bool), data=st.data())
def test_a_stream_that_ends_inside_of_a_line_is_malformed(
    packets: list[Packet], data: st.DataObject
) -> None:
    stream = encode(packets)
    size = data.draw(st.integers(min_value=1, max_value=len(encode(packets[-1:])) - 1))

    with pytest.raises(MalformedPktLineError):
        decode(stream[:-size])


def test_a_text_is_a_line_as_git_writes_it() -> None:
    assert encode(["command=ls-refs", Marker.DELIMITER, "peel", Marker.FLUSH]) == (
        b"0014command=ls-refs\n00010009peel\n0000"
    )


@pytest.mark.parametrize(
    "stream",
    (b"fff1", b"fff1" + b"a" * 65_521, b"ffff", b"0003", b"zzzz", b"+004", b" 004", b"<ht"),
)
def test_an_impossible_length_is_malformed_at_once(stream: bytes) -> None:
    with pytest.raises(MalformedPktLineError):
        list(PktDecoder().feed(stream))


def test_the_longest_line_is_read_and_written() -> None:
    content = b"a" * (LINE_MAX_BYTES - 4)

    assert decode(encode([content])) == [content]
    with pytest.raises(ValueError, match="too long"):
        encode([content + b"a"])


def test_a_line_of_zeros_after_an_empty_line_is_a_flush() -> None:
    assert decode(b"00040000") == [b"", Marker.FLUSH]
