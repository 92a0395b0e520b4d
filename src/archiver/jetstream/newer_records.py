"""Values in NATS that this release cannot read because a later one has written them."""

import msgspec

from archiver.jetstream.streams import DIGESTS, INDEX, REPAIRS, REVS, STATES, TASKS, USES
from archiver.model import parse_key
from archiver.record_versions import is_newer, key_hash_of

RECORDS = {
    TASKS: ("order",),
    STATES: ("task", "due", "seats", "breaker"),
    INDEX: ("copies",),
    REVS: ("rev",),
    REPAIRS: ("repair",),
    DIGESTS: ("sha256",),
    USES: ("use",),
}
"""The names in ``record_versions.VERSIONS`` of the records in each bucket, and in the queue."""

PEEKED_MAX_BYTES = 4 << 20


class _Named(msgspec.Struct):
    key: str = ""


class _NamesArchive(msgspec.Struct):
    """What all records that name an archive have in common."""

    key: str = ""
    manifest: _Named = msgspec.field(default_factory=_Named)


_decode = msgspec.json.Decoder(_NamesArchive).decode


def is_of_later_release(place: str, key: str, value: bytes) -> bool:
    """Return whether an unreadable *value* at *key* is of a later release, and not damaged.

    It has a later version, or names an archive whose key this release cannot parse, as with a new
    flag. Such a key still has the hash under which the value is stored.
    """
    if len(value) > PEEKED_MAX_BYTES:
        return False
    if any(is_newer(record, value) for record in RECORDS[place]):
        return True
    named = _key_in(place, value)
    is_hashed = key_hash_of(named) == key.rpartition(".")[2]
    return bool(named) and is_hashed and parse_key(named) is None


def _key_in(place: str, value: bytes) -> str:
    if place == DIGESTS:
        return value.decode(errors="replace")
    try:
        names = _decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""
    return names.key or names.manifest.key
