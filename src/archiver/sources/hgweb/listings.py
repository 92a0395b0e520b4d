"""Parses hgweb's listing of one folder (``json-manifest``).

JSON has a visible end. A plain-text listing that breaks off would pass for a shorter one.
"""

import json
from dataclasses import dataclass
from math import isfinite
from threading import Lock

import msgspec

from archiver.model import Node

PATH_MAX_BYTES = 4096
"""Longest path of operating systems. It stops the descent into a host that invents folders."""

LISTING_MAX_BYTES = 10 << 20
"""Enough for a folder of some 50,000 files: hgweb prints 150 to 200 bytes for each."""

NAMES_MAX = 50_000
"""Names in one listing. A hostile host could fit 700,000 into LISTING_MAX_BYTES."""

_BACKSLASHES_MAX = 4 * NAMES_MAX
"""Escaped backslashes in one listing. Each takes more than three times its size while parsed."""

_TEXT_MAX_BYTES = 8 * PATH_MAX_BYTES
"""Size of a JSON string with a path. One byte may be shown as ``\\udc80``, escaped again."""

_NAME = b'"basename"'

_parsing = Lock()
"""Held while a thread parses, so that hostile listings use one core at most."""


class ListingTooLong(ValueError):
    """A folder's listing has more than NAMES_MAX names or LISTING_MAX_BYTES bytes."""


class _Folder(msgspec.Struct, frozen=True, gc=False):
    basename: msgspec.Raw
    emptydirs: msgspec.Raw = msgspec.Raw(b'""')


class _File(msgspec.Struct, frozen=True, gc=False):
    basename: msgspec.Raw
    date: msgspec.Raw = msgspec.Raw(b"null")


class _Page(msgspec.Struct, frozen=True, gc=False):
    """The fields that are read. msgspec checks only the syntax of the others."""

    node: str
    abspath: msgspec.Raw
    directories: list[_Folder]
    files: list[_File]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The names in one folder, in the order of an archive. A folder's name ends in a slash.

    A folder that contains only one folder is listed together with it: ``a/b/``. ``date`` is the
    changeset's, in seconds since 1970, if the page states it.
    """

    names: tuple[bytes, ...]
    date: float | None = None


def parse_listing(body: bytes, *, node: Node, folder: bytes) -> Listing:
    """Return the listing of *folder* in *node*. Raises ValueError for any other *body*."""
    if (
        len(body) > LISTING_MAX_BYTES
        or body.count(_NAME) > NAMES_MAX
        or body.count(rb"\\") > _BACKSLASHES_MAX
    ):
        raise ListingTooLong
    try:
        with _parsing:
            return _listing(_decode_page(body), node=node, folder=folder)
    except RecursionError as exc:
        raise ValueError("the listing is nested too deeply") from exc


def _decode_page(body: bytes) -> _Page:
    r"""Return the page. Its strings have ``\\u`` for each ``\u``; ``_bytes`` undoes that.

    msgspec refuses lone surrogates, which stand for bytes outside UTF-8, even in skipped fields.
    """
    legible = body.replace(rb"\\", rb"\u005c").replace(rb"\u", rb"\\u")
    return msgspec.json.decode(legible, type=_Page)


def _listing(page: _Page, *, node: Node, folder: bytes) -> Listing:
    if page.node != node or _bytes(page.abspath).strip(b"/") != folder.strip(b"/"):
        raise ValueError("the listing belongs to another node or folder")
    names = [_name(file.basename) for file in page.files]
    names += [_folder_name(folder.basename, folder.emptydirs) for folder in page.directories]
    return Listing(names=tuple(sorted(names)), date=_date(page.files[0]) if page.files else None)


def _folder_name(basename: msgspec.Raw, emptydirs: msgspec.Raw) -> bytes:
    name, rest = _name(basename) + b"/", _bytes(emptydirs)
    return name + rest + b"/" if rest else name


def _date(file: _File) -> float | None:
    """Return the date of *file*, which is the changeset's. Its second number is the time zone."""
    date = msgspec.json.decode(file.date, type=tuple[float, float] | None)
    return date[0] if date and isfinite(date[0]) else None


def _name(text: msgspec.Raw) -> bytes:
    name = _bytes(text)
    if not name or b"/" in name:
        raise ValueError("the listing has an invalid file name")
    return name


def _bytes(text: msgspec.Raw) -> bytes:
    """Return the bytes that *text* shows: U+DC80 to U+DCFF stand for single bytes."""
    quoted = bytes(text)
    if not quoted.startswith(b'"') or len(quoted) > _TEXT_MAX_BYTES:
        raise ValueError("the listing has an invalid path")
    if quoted.isascii() and b"\\" not in quoted:
        return quoted[1:-1]
    decoded: str = json.loads(quoted.replace(rb"\\u", rb"\u").decode())
    return decoded.encode(errors="surrogateescape")
