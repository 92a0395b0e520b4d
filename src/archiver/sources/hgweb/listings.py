"""Which files a changeset has, as hgweb lists them: one folder at a time.

hgweb packs files in the order of their paths, compared as bytes, so a folder counts with its slash.
``json-manifest`` is asked because its answer has an end: a listing that breaks off in the middle
must not pass for a shorter one, and the plain-text listing would.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import isfinite
from threading import Lock

import msgspec

from archiver.model import Node

PATH_MAX_BYTES = 4096
"""Of a path that a system can have. It ends the descent into a host that invents folders."""

LEVELS_MAX = 256
"""Listings on the way to one file. Each is a question to the host; trees have some 20 levels."""

LISTING_MAX_BYTES = 10 << 20
"""A folder of some 50,000 files: hgweb prints 150 to 200 bytes for each."""

NAMES_MAX = 50_000
"""In one listing. Without it, a hostile host could fit 700,000 into LISTING_MAX_BYTES."""

_BACKSLASHES_MAX = 4 * NAMES_MAX
"""That names in one listing have: each takes more than three times its space when it is parsed."""

_TEXT_MAX_BYTES = 8 * PATH_MAX_BYTES
"""Of a JSON string that holds a path: it shows one byte as ``\\udc80``, which is escaped again."""

_NAME = b'"basename"'

_parsing = Lock()
"""Held by the thread that parses, so that hostile listings take their time one by one."""


class ListingTooLong(ValueError):
    """A folder's listing has more than NAMES_MAX names or LISTING_MAX_BYTES bytes."""


class ListingTooDeep(ValueError):
    """There are more than LEVELS_MAX listings on the way to a file."""


class _Folder(msgspec.Struct, frozen=True, gc=False):
    basename: msgspec.Raw
    emptydirs: msgspec.Raw = msgspec.Raw(b'""')


class _File(msgspec.Struct, frozen=True, gc=False):
    basename: msgspec.Raw
    date: msgspec.Raw = msgspec.Raw(b"null")


class _Page(msgspec.Struct, frozen=True, gc=False):
    """What is read of a listing. msgspec checks the syntax of the rest, and makes nothing of it."""

    node: str
    abspath: msgspec.Raw
    directories: list[_Folder]
    files: list[_File]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The names in one folder, in the order of an archive. A folder's name ends in a slash.

    A folder that holds nothing but another one is listed together with it: ``a/b/``. ``date`` is
    the changeset's, in seconds since 1970; None if the page does not state it.
    """

    names: tuple[bytes, ...]
    date: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file of the changeset, by its whole path; and the date of the changeset."""

    path: bytes
    date: float | None


ListFolder = Callable[[bytes], Awaitable[Listing | None]]
"""Returns the listing of a folder, whose path is empty or ends in a slash; None if it is absent."""


def parse_listing(body: bytes, *, node: Node, folder: bytes) -> Listing:
    """Return the listing that *body* is.

    Raises:
        ListingTooLong: It exceeds the limits.
        ValueError: It is not a whole listing of *folder* in *node*.
    """
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
        raise ValueError("hgweb does not nest JSON like that") from exc


def _decode_page(body: bytes) -> _Page:
    r"""Return the page, whose strings have ``\\u`` for each ``\u``; ``_bytes`` undoes that.

    msgspec refuses lone surrogates, which stand for bytes outside of UTF-8, even where it skips.
    """
    legible = body.replace(rb"\\", rb"\u005c").replace(rb"\u", rb"\\u")
    return msgspec.json.decode(legible, type=_Page)


def _listing(page: _Page, *, node: Node, folder: bytes) -> Listing:
    if page.node != node or _bytes(page.abspath).strip(b"/") != folder.strip(b"/"):
        raise ValueError("the listing is of something else")
    names = [_name(file.basename) for file in page.files]
    names += [_folder_name(folder.basename, folder.emptydirs) for folder in page.directories]
    return Listing(names=tuple(sorted(names)), date=_date(page.files[0]) if page.files else None)


def _folder_name(basename: msgspec.Raw, emptydirs: msgspec.Raw) -> bytes:
    name, rest = _name(basename) + b"/", _bytes(emptydirs)
    return name + rest + b"/" if rest else name


def _date(file: _File) -> float | None:
    """Return the date beside *file*, which is the changeset's. The second number is its zone."""
    date = msgspec.json.decode(file.date, type=tuple[float, float] | None)
    return date[0] if date and isfinite(date[0]) else None


def _name(text: msgspec.Raw) -> bytes:
    name = _bytes(text)
    if not name or b"/" in name:
        raise ValueError("a file cannot have such a name")
    return name


def _bytes(text: msgspec.Raw) -> bytes:
    """Return the bytes that Mercurial shows as *text*: U+DC80 to U+DCFF stand for single bytes."""
    quoted = bytes(text)
    if not quoted.startswith(b'"') or len(quoted) > _TEXT_MAX_BYTES:
        raise ValueError("hgweb does not write paths like that")
    if quoted.isascii() and b"\\" not in quoted:
        return quoted[1:-1]
    shown: str = json.loads(quoted.replace(rb"\\u", rb"\u").decode())
    return shown.encode(errors="surrogateescape")


async def last_file(list_folder: ListFolder, subdir: bytes) -> bytes | None:
    """Return the path of the last file in *subdir*, or *subdir* itself if that is a file.

    Empty if the whole tree is; None if there is no such part of it.

    Raises:
        ListingTooDeep: There are too many levels.
        ValueError: The host lists folders without files.
        whatever *list_folder* raises.
    """
    folder = _as_folder(subdir)
    listing = await list_folder(folder)
    if listing is None:
        return subdir if subdir and await _is_file(list_folder, subdir) else None
    if not listing.names and not folder:
        return b""
    found = await _descend(list_folder, folder, listing, last=True)
    return found.path


async def file_after(list_folder: ListFolder, subdir: bytes, path: bytes) -> Found | None:
    """Return the file in *subdir* that comes after *path*, the first one if *path* is empty.

    None if there is no more.

    Raises, as for ``last_file``.
    """
    top = _as_folder(subdir)
    folder = path[: path.rfind(b"/") + 1] if path else top
    for _ in range(LEVELS_MAX):
        listing = await list_folder(folder) or Listing(names=())
        rest = path[len(folder) :]
        if following := [name for name in listing.names if name > rest]:
            shown = Listing(names=tuple(following), date=listing.date)
            return await _descend(list_folder, folder, shown, last=False)
        if len(folder) <= len(top):
            return None
        folder = folder[: folder.rstrip(b"/").rfind(b"/") + 1]
    raise ListingTooDeep


async def _descend(
    list_folder: ListFolder, folder: bytes, listing: Listing | None, *, last: bool
) -> Found:
    for _ in range(LEVELS_MAX):
        if not listing or not listing.names or len(folder) > PATH_MAX_BYTES:
            raise ValueError("a folder that was listed has no files")
        path = folder + listing.names[-1 if last else 0]
        if not path.endswith(b"/"):
            return Found(path=path, date=listing.date)
        folder = path
        listing = await list_folder(folder)
    raise ListingTooDeep


async def _is_file(list_folder: ListFolder, path: bytes) -> bool:
    parent, _, name = path.rpartition(b"/")
    listing = await list_folder(_as_folder(parent))
    return listing is not None and name in listing.names


def _as_folder(path: bytes) -> bytes:
    return path + b"/" if path else b""
