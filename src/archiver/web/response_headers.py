"""The headers that every response has."""

from collections.abc import Iterable, Sequence

Headers = Sequence[tuple[bytes, bytes]]

EVERY_RESPONSE: Headers = (
    (b"x-robots-tag", b"noindex, nofollow"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def with_standard_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return *headers* with those of every response; without ``Cache-Control``, no-store."""
    complete = [*headers, *EVERY_RESPONSE]
    for name, _ in complete:
        if name == b"cache-control":
            return complete
    return [*complete, (b"cache-control", b"no-store")]
