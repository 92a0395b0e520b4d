"""The pointer files that stand for files of Git LFS in a commit.

Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md#the-pointer. Files that git-lfs
reads as pointers, although it would not write them so, are pointers here, too.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from archiver.errors import LfsRefused

POINTER_MIN_BYTES = 80
POINTER_MAX_BYTES = 1023
"""Sizes of a pointer. Larger files are none to git-lfs; the hash alone has 64 digits."""

VERSIONS = (
    b"https://git-lfs.github.com/spec/v1",
    b"https://hawser.github.com/spec/v1",
    b"http://git-media.io/v/2",
)
"""The names of version 1: today's, and those of releases before the first."""

SIZE_MAX_BYTES = (1 << 63) - 1

_KEYS = (b"version", b"oid", b"size")
_EXTENSION = re.compile(rb"ext-([0-9])-[0-9A-Za-z_]")
_SHA256 = re.compile(rb"sha256:([0-9a-f]{64})")
_NUMBER = re.compile(rb"[+-]?[0-9]{1,100}")
_EMPTY = hashlib.sha256().hexdigest()


class _NotAPointerError(Exception):
    """The text has no meaning to git-lfs."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The SHA-256 and the size of a file of Git LFS."""

    sha256: str
    size_bytes: int

    @property
    def text(self) -> bytes:
        """The pointer file as git-lfs writes it."""
        lines = (b"version " + VERSIONS[0], f"oid sha256:{self.sha256}".encode())
        return b"\n".join((*lines, f"size {self.size_bytes}".encode(), b""))

    @property
    def is_empty(self) -> bool:
        """Whether it stands for no bytes, which need not be fetched."""
        return self.size_bytes == 0 and self.sha256 == _EMPTY


def parse_pointer(text: bytes) -> Pointer | None:
    """Return the pointer in the file *text*; None if git-lfs would not read it as one.

    Raises LfsRefused for a pointer with extensions. They are programs of the repository's users,
    without which the file cannot be made.
    """
    if not POINTER_MIN_BYTES <= len(text) <= POINTER_MAX_BYTES:
        return None
    try:
        values, extensions = _split(text)
        if values[b"version"] not in VERSIONS:
            return None
        pointer = Pointer(_parse_sha256(values[b"oid"]), _parse_size(values[b"size"]))
        _check_extensions(extensions)
    except (_NotAPointerError, KeyError):
        return None
    if extensions:
        raise LfsRefused("its pointer has extensions, which only programs of its authors can read")
    return pointer


def _split(text: bytes) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Return the values of the keys, and of the extensions, which may stand before any key."""
    values: dict[bytes, bytes] = {}
    extensions: dict[bytes, bytes] = {}
    for line in _lines(text):
        key, blank, value = line.partition(b" ")
        if not blank or len(values) == len(_KEYS):
            raise _NotAPointerError
        if key == _KEYS[len(values)]:
            values[key] = value
        elif _EXTENSION.match(key):
            extensions[key] = value
        else:
            raise _NotAPointerError
    return values, extensions


def _lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines that are not empty, without their ends, of which some are Windows' own."""
    for line in text.strip().split(b"\n"):
        if line := line.removesuffix(b"\r"):
            yield line


def _parse_sha256(value: bytes) -> str:
    if not (match := _SHA256.fullmatch(value)):
        raise _NotAPointerError
    return match[1].decode()


def _parse_size(value: bytes) -> int:
    if not _NUMBER.fullmatch(value) or not 0 <= (size_bytes := int(value)) <= SIZE_MAX_BYTES:
        raise _NotAPointerError
    return size_bytes


def _check_extensions(extensions: dict[bytes, bytes]) -> None:
    priorities = {key[len(b"ext-")] for key in extensions}
    if len(priorities) < len(extensions):
        raise _NotAPointerError
    for value in extensions.values():
        _parse_sha256(value)
