"""Output is returned completely and in pieces of the requested size."""

from hypothesis import given
from hypothesis import strategies as st

from archiver.formats.member import OutputBuffer


@given(pieces=st.lists(st.binary(max_size=20)), size=st.integers(1, 25))
def test_output_is_returned_in_order_and_in_the_requested_sizes(
    pieces: list[bytes], size: int
) -> None:
    output, taken = OutputBuffer(), []
    for piece in pieces:
        output.append(piece)
        while cut := output.take(size):
            taken.append(cut)
    rest = output.take_all()

    assert {len(cut) for cut in taken} <= {size}
    assert len(rest) < size
    assert b"".join([*taken, rest]) == b"".join(pieces)
    assert (output.total_bytes, output.held_bytes) == (sum(map(len, pieces)), 0)


@given(pieces=st.lists(st.binary(max_size=20)), size=st.integers(1, 25))
def test_many_pieces_may_be_appended_before_the_first_is_taken(
    pieces: list[bytes], size: int
) -> None:
    output = OutputBuffer()
    for piece in pieces:
        output.append(piece)
    taken = output.take(size)

    assert len(taken) == (size if output.total_bytes >= size else 0)
    assert taken + output.take_all() == b"".join(pieces)
