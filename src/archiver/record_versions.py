"""The version of each record that one process stores or sends and another reads.

docs/reference/records.md describes the records and how a version changes. A record without a member
``version`` is of version 1.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated

import msgspec

VERSIONS: Mapping[str, int] = {
    "manifest": 1,
    "tombstone": 1,
    "pin": 1,
    "purge_mark": 1,
    "order": 1,
    "task": 1,
    "due": 1,
    "seats": 1,
    "stock": 1,
    "breaker": 1,
    "breaker_event": 1,
    "copies": 1,
    "sha256": 1,
    "rev": 1,
    "use": 1,
    "repair": 1,
    "failure": 1,
    "finished": 1,
    "waiting": 1,
    "worker_report": 1,
    "mirror": 1,
    "lfs_owner": 1,
    "lock_file": 1,
}
"""The version that this release writes, and the latest that it reads. The tests hold the shape of
each record of a version to a file in ``tests/records``."""


class _Header(msgspec.Struct):
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1


_decode_header = msgspec.json.Decoder(_Header).decode


def is_newer(record: str, value: bytes) -> bool:
    """Return whether *value*, a JSON object, says that a later release has written it."""
    try:
        return _decode_header(value).version > VERSIONS[record]
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False


def key_hash_of(key: str) -> str:
    """Return the same as ``Archive.key_hash``, also for keys that this release does not know."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def is_word(value: object) -> bool:
    """Return whether *value* may be the value of an enumeration of a later release."""
    return isinstance(value, str) and len(value) <= WORD_MAX_CHARS and value.isidentifier()


WORD_MAX_CHARS = 40
