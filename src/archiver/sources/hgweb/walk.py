"""Finds single files of a tree in the order in which hgweb packs them.

That is the order of their paths as bytes, where a folder's name includes its slash.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from archiver.sources.hgweb.listings import PATH_MAX_BYTES, Listing

LEVELS_MAX = 256
"""Listings on the way to one file. Each is a request to the host; trees have some 20 levels."""


class ListingTooDeep(ValueError):
    """A file is more than LEVELS_MAX listings away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file by its whole path, and the date of its changeset."""

    path: bytes
    date: float | None


ListFolder = Callable[[bytes], Awaitable[Listing | None]]
"""Returns the listing of a folder, or None if it is absent. A path is empty or ends in a slash."""


async def last_file(list_folder: ListFolder, subdir: bytes) -> bytes | None:
    """Return the path of the last file in *subdir*, or *subdir* itself if it is a file.

    Empty if the whole tree is empty; None if *subdir* does not exist.

    Raises:
        ListingTooDeep: There are too many levels.
        ValueError: The host lists folders without files.
        Exception: Any error of *list_folder*.
    """
    folder = _as_folder(subdir)
    listing = await list_folder(folder)
    if listing is None:
        return subdir if subdir and await _is_file(list_folder, subdir) else None
    if not listing.names and not folder:
        return b""
    found = await _descend(list_folder, folder, listing, last=True)
    return found.path


async def file_after(list_folder: ListFolder, subdir: bytes, path: bytes) -> ListedFile | None:
    """Return the file in *subdir* that follows *path*; the first file if *path* is empty.

    None if there is no such file. Raises the same errors as ``last_file``.
    """
    top = _as_folder(subdir)
    folder = path[: path.rfind(b"/") + 1] if path else top
    for _ in range(LEVELS_MAX):
        listing = await list_folder(folder) or Listing(names=())
        rest = path[len(folder) :]
        if following := [name for name in listing.names if name > rest]:
            remaining = Listing(names=tuple(following), date=listing.date)
            return await _descend(list_folder, folder, remaining, last=False)
        if len(folder) <= len(top):
            return None
        folder = folder[: folder.rstrip(b"/").rfind(b"/") + 1]
    raise ListingTooDeep


async def _descend(
    list_folder: ListFolder, folder: bytes, listing: Listing | None, *, last: bool
) -> ListedFile:
    for _ in range(LEVELS_MAX):
        if not listing or not listing.names or len(folder) > PATH_MAX_BYTES:
            raise ValueError("a listed folder has no files")
        path = folder + listing.names[-1 if last else 0]
        if not path.endswith(b"/"):
            return ListedFile(path=path, date=listing.date)
        folder = path
        listing = await list_folder(folder)
    raise ListingTooDeep


async def _is_file(list_folder: ListFolder, path: bytes) -> bool:
    parent, _, name = path.rpartition(b"/")
    listing = await list_folder(_as_folder(parent))
    return listing is not None and name in listing.names


def _as_folder(path: bytes) -> bytes:
    return path + b"/" if path else b""
