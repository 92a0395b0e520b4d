"""Trees that hgweb cannot pack in some formats."""

from archiver.errors import NotPackable
from archiver.model import Archive
from archiver.names import display_path
from archiver.sources.hgweb.walk import ListedFile

_DATES = {"tar.gz": range(1 << 32), "zip": range(-(1 << 63), 1 << 31)}
"""Dates, in seconds since 1970, that hgweb can write. Other formats hold every date.
hgweb writes dates before 1980 to a zip as 1980."""


def may_be_unpackable(archive: Archive) -> bool:
    return archive.suffix in _DATES


def find_unpackable(archive: Archive, file: ListedFile, *, is_first: bool) -> NotPackable | None:
    """Return why hgweb always stops before *file*, or None.

    hgweb writes the changeset's date first, so the date matters only if the file *is_first*.
    """
    dates = _DATES[archive.suffix]
    if is_first and file.date is not None and int(file.date) not in dates:
        date = int(file.date)
        return NotPackable(f"hgweb cannot write the changeset's date, {date}, to {archive.suffix}")
    if archive.suffix == "zip":
        try:
            file.path.decode()
        except UnicodeDecodeError:
            name = display_path(file.path)
            return NotPackable(f"hgweb cannot write the file name {name} to zip: it is not UTF-8")
    return None
