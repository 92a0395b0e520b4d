"""The archives that a region lists behind a certain one, whatever the order of its listing."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

from archiver.model import Archive, Region, parse_key
from archiver.ports.bucket_contents import BucketContents
from archiver.upkeep.inventory import by_bytes, by_folder

BY_BYTES, BY_FOLDER = "b", "f"


class Order(Enum):
    """The order of a listing, and where it begins. They are tried in this order."""

    BYTES_BEHIND = auto()
    """By bytes, behind a given key: what S3 promises."""

    BYTES = auto()
    """By bytes, from the first key: the server does not begin elsewhere."""

    FOLDERS = auto()
    """By folders, as in a file system, from the first key."""


class UnsortedListing(Exception):
    """A server does not list in the expected order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The last archive of a page, and the order in which the server lists."""

    archive: Archive
    in_folders: bool = False

    @classmethod
    def parse(cls, text: str) -> Self | None:
        archive = parse_key(text[1:])
        if archive is None or text[:1] not in {BY_BYTES, BY_FOLDER}:
            return None
        return cls(archive=archive, in_folders=text[0] == BY_FOLDER)

    def __str__(self) -> str:
        return f"{BY_FOLDER if self.in_folders else BY_BYTES}{self.archive.key}"


async def iter_behind(
    contents: BucketContents,
    region: Region,
    source: str | None,
    after: Archive | None,
    *,
    order: Order,
) -> AsyncGenerator[Archive, None]:
    """Yield the archives behind *after*, which was reached in the same order.

    Raises:
        UnsortedListing: The region lists in another order.
        StorageUnavailable: The region fails.
    """
    rank = by_folder if order is Order.FOLDERS else by_bytes
    passed = rank(_name(after)) if after else [""]
    last, begin = ([""], None) if order is not Order.BYTES_BEHIND else (passed, after)
    listing = contents.iter_manifests(region, source, after=begin)
    async with aclosing(listing) as manifests:
        async for stored in manifests:
            if stored.archive is None:
                continue
            current = rank(_name(stored.archive))
            if current < last:
                raise UnsortedListing
            last = current
            if current > passed:
                yield stored.archive


def _name(archive: Archive) -> str:
    """Return the part of the key of a manifest that decides on its place in a listing."""
    return f"{archive.key}.json"
